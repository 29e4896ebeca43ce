//! A project that was built and recorded, and has changed since.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use instantiate::{Candidate, GraphRecords, Lookup, RecordIndex};
use overlay::derive::{Dependency, Deriver, Observed, Observing};
use overlay::graph::{Element, Graph};
use overlay::layout::{self, Stored};
use overlay::{ArtifactOverlay, Contents, ElementId, Forest, Mode, Origin, Record, RecordedElement};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Directory, Node};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::shape::Shape;
use crate::state::{Blob, ElementState, FUNCTION, Maker, Version, installed, output_path, own_root};
use crate::store::{Bits, BlobId, Blobs, Key, key};
use crate::{Bounds, SimulationError};

/// A recorded project with its next state: what simulations run on, any number of them.
pub struct Project {
    pub(crate) shape: Shape,
    pub(crate) rows: Vec<Row>,
    pub(crate) jobs: Arc<Jobs>,
    /// Everything that is ever stored.
    pub(crate) blobs: Arc<Blobs>,
    /// What is stored before the build: the recorded state, the records, and the new sources.
    pub(crate) present: Bits,
    pub(crate) decoded: Decoded,
}

/// An element.
pub(crate) struct Row {
    pub(crate) rebuilt: bool,
    pub(crate) sources: Digest,
    pub(crate) artifact: Digest,
    recorded_artifact: Digest,
    /// If it has actions.
    record: Option<Digest>,
    /// The first of its actions in [`Jobs`].
    pub(crate) jobs: u32,
    /// What its build stores before it executes anything.
    pub(crate) inputs: Vec<BlobId>,
    /// The directories of its artifact, and of its sources.
    pub(crate) directories: Vec<BlobId>,
}

/// The actions of the new state, by element and turn: what the build asks for, and whatever a service is asked to do.
#[derive(Default)]
pub(crate) struct Jobs {
    pub(crate) all: Vec<Job>,
    by_action: FxHashMap<Key, u32>,
    /// Those that are as they were recorded, with results.
    pub(crate) as_recorded: Bits,
}

/// An action of the new state.
pub(crate) struct Job {
    pub(crate) action: Digest,
    pub(crate) blob: BlobId,
    pub(crate) duration: Duration,
    /// The path of its output.
    pub(crate) path: Box<str>,
    pub(crate) output: Digest,
    pub(crate) output_blob: BlobId,
}

impl Jobs {
    pub(crate) fn find(&self, action: &Digest) -> Option<u32> {
        let job = *self.by_action.get(&key(action))?;
        (self.all[job as usize].action == *action).then_some(job)
    }

    fn push(&mut self, job: Job) {
        self.by_action.insert(key(&job.action), number(self.all.len()));
        self.all.push(job);
    }
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (elements, actions) = (self.rows.len(), self.jobs.all.len());
        write!(f, "Project({elements} elements, {actions} actions, {} blobs)", self.blobs.len())
    }
}

impl Project {
    /// Builds and records a project, then changes it. Everything is made with the real formats: Action, Command and
    /// Directory messages, and records as generation derives and stores them.
    ///
    /// # Errors
    /// [`SimulationError::Shape`] for a shape that does not [check](Shape::check).
    pub fn new(shape: Shape) -> Result<Self, SimulationError> {
        shape.check()?;
        let (made, records) = thread::scope(|scope| {
            let shape = &shape;
            let (builds, built) = sync_channel(BUILT_AHEAD);
            let recording = scope.spawn(move || record(shape, &built));
            let made = make(shape, builds);
            let lost = || SimulationError::Internal("recording the project has come to no end".to_owned());
            (made, recording.join().unwrap_or_else(|_| Err(lost())))
        });
        // Where recording has failed, what was made may be cut short.
        let records = records?;
        let Made { mut rows, jobs, mut blobs, mut present } = made?;
        let mut decoded = FxHashMap::default();
        for (row, (message, record)) in rows.iter_mut().zip(records).filter_map(|(row, record)| Some((row, record?))) {
            let digest = FUNCTION.digest(&message);
            present.insert(insert(&mut blobs, &digest, &message, &[])?.number());
            decoded.insert(digest, record);
            row.record = Some(digest);
        }
        Ok(Self {
            shape,
            rows,
            jobs: Arc::new(jobs),
            blobs: Arc::new(blobs),
            present,
            decoded: Decoded(Arc::new(decoded)),
        })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether the build asks for an action as it was recorded.
    pub(crate) fn is_as_recorded(&self, row: usize, turn: usize) -> bool {
        self.jobs.as_recorded.contains(self.job(row, turn))
    }

    /// Which job an action is.
    pub(crate) fn job(&self, row: usize, turn: usize) -> u32 {
        self.rows[row].jobs + number(turn)
    }

    /// The lower bounds of rebuilding it.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds::of(self)
    }

    /// What the orchestrator knows before the build: of changed elements no sources, unless they were fetched.
    pub(crate) fn graph(&self, sources: Sources) -> Result<Arc<Graph>, SimulationError> {
        let elements = self.shape.elements.iter().zip(&self.rows).enumerate().map(|(number, (element, row))| Element {
            weak_key: Some(weak_key(number, element.changed)),
            cached: Some(!row.rebuilt),
            sources: (sources == Sources::Fetched || !element.changed).then_some(row.sources),
            artifact: (!row.rebuilt).then_some(row.recorded_artifact),
            build_deps: Some(
                element.dependencies.iter().map(|below| self.shape.elements[*below].name.clone()).collect(),
            ),
            speculative_actions: row.record,
            ..Element::new(element.name.clone())
        });
        let graph = Graph::new(FUNCTION, elements.collect());
        graph.map(Arc::new).map_err(|error| SimulationError::Internal(error.to_string()))
    }
}

/// The records as their messages say, for all simulations together.
#[derive(Clone)]
pub(crate) struct Decoded(Arc<FxHashMap<Digest, Arc<Record>>>);

#[async_trait]
impl RecordIndex for Decoded {
    async fn find_records(&self, elements: &[&Element], lookup: Lookup) -> cas_client::Result<Vec<Vec<Candidate>>> {
        GraphRecords.find_records(elements, lookup).await
    }

    fn decoded(&self, message: &Digest) -> Option<Arc<Record>> {
        self.0.get(message).cloned()
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded({} records)", self.0.len())
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoded")
    }
}

/// Elements that are built before they are recorded, so that both go on at once.
const BUILT_AHEAD: usize = 16;

/// An element as it was built, to be recorded.
struct Built {
    state: ElementState,
    blobs: Vec<(Blob, Digest, Bytes)>,
}

/// Both states.
struct Made {
    rows: Vec<Row>,
    jobs: Jobs,
    blobs: Blobs,
    present: Bits,
}

fn insert(blobs: &mut Blobs, digest: &Digest, bytes: &[u8], below: &[Digest]) -> Result<BlobId, SimulationError> {
    let inserted = blobs.insert(digest, bytes, below);
    inserted.ok_or_else(|| SimulationError::Internal(format!("something that {digest} refers to is not there")))
}

/// Makes every message of the recorded state, and hands each element on; then those of the new state.
fn make(shape: &Shape, builds: SyncSender<Built>) -> Result<Made, SimulationError> {
    let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
    let installed = installed(shape);
    let (mut blobs, mut present) = (Blobs::default(), Bits::default());
    let maker = Maker::new(shape, &installed, Version::Recorded);
    let mut recorded: Vec<ElementState> = Vec::with_capacity(shape.elements.len());
    for row in 0..shape.elements.len() {
        let (mut made, mut outcome) = (Vec::new(), Ok(()));
        let state = maker.element(row, &recorded, &mut |blob| {
            // Of recorded outputs, nobody reads any but those that are outputs still.
            if blob.kind != Blob::Output {
                match insert(&mut blobs, &blob.digest, &blob.bytes, blob.below) {
                    Ok(id) => drop(present.insert(id.number())),
                    Err(error) => outcome = Err(error),
                }
                made.push((blob.kind, blob.digest, blob.bytes));
            }
        });
        let state = state.map_err(|e| failed(&e))?;
        outcome?;
        recorded.push(state.clone());
        if builds.send(Built { state, blobs: made }).is_err() {
            return Err(SimulationError::Internal("nobody records the project".to_owned()));
        }
    }
    drop(builds);
    let maker = Maker::new(shape, &installed, Version::Now);
    let mut now: Vec<ElementState> = Vec::with_capacity(shape.elements.len());
    let mut rows = Vec::with_capacity(shape.elements.len());
    let mut jobs = Jobs::default();
    for (row, (element, rebuilt)) in shape.elements.iter().zip(shape.rebuilt()).enumerate() {
        let (mut inputs, mut directories, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        let mut actions = Vec::new();
        let mut outcome = Ok(());
        let state = maker.element(row, &now, &mut |blob| {
            match (insert(&mut blobs, &blob.digest, &blob.bytes, blob.below), blob.kind) {
                (Err(error), _) => outcome = Err(error),
                (Ok(id), Blob::Output) => outputs.push(id),
                (Ok(id), kind) => {
                    if kind == Blob::Action {
                        actions.push(id);
                    }
                    if matches!(kind, Blob::Directory | Blob::Header) {
                        directories.push(id);
                        // The sources are fetched before anything is built; of the rest, nothing is known.
                        if element.changed {
                            present.insert(id.number());
                        }
                    }
                    inputs.push(id);
                }
            }
        });
        let state = state.map_err(|e| failed(&e))?;
        outcome?;
        let first = number(jobs.all.len());
        for (turn, (action, (blob, output_blob))) in
            element.actions.iter().zip(actions.into_iter().zip(outputs)).enumerate()
        {
            if state.actions[turn] == recorded[row].actions[turn] {
                jobs.as_recorded.insert(first + number(turn));
                present.insert(output_blob.number());
            }
            let job = Job {
                action: state.actions[turn],
                blob,
                duration: action.duration,
                path: output_path(action, turn).into(),
                output: state.outputs[turn],
                output_blob,
            };
            jobs.push(job);
        }
        rows.push(Row {
            rebuilt,
            sources: state.sources,
            artifact: state.artifact,
            recorded_artifact: recorded[row].artifact,
            record: None,
            jobs: first,
            inputs,
            directories,
        });
        now.push(state);
    }
    Ok(Made { rows, jobs, blobs, present })
}

/// The message of a record, and what it says.
type Recorded = (Bytes, Arc<Record>);

/// Records elements as they are built: those that have actions.
fn record(shape: &Shape, built: &Receiver<Built>) -> Result<Vec<Option<Recorded>>, SimulationError> {
    let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
    let closures = shape.closures();
    let mut trees = Forest::new();
    let mut below: Vec<Below> = Vec::with_capacity(shape.elements.len());
    let mut records = Vec::with_capacity(shape.elements.len());
    for (row, Built { state, blobs }) in built.iter().enumerate() {
        let mut messages: FxHashMap<Digest, Bytes> = FxHashMap::default();
        // What is in nothing but its input trees.
        let mut inputs: FxHashSet<Digest> = FxHashSet::default();
        for (kind, digest, bytes) in blobs {
            match kind {
                Blob::Directory | Blob::Input => {
                    let new = trees.insert_new(digest, Directory::parse(bytes).map_err(|e| failed(&e))?);
                    match kind {
                        Blob::Input if new => drop(inputs.insert(digest)),
                        Blob::Input => {}
                        _ => drop(inputs.remove(&digest)),
                    }
                }
                Blob::Action | Blob::Command => drop(messages.insert(digest, bytes)),
                Blob::Header | Blob::Output => {}
            }
        }
        let mut record = None;
        if shape.elements[row].actions.is_empty() {
            records.push(None);
        } else {
            let derived =
                Recording { shape, below: &below, closure: &closures[row] }.derive(row, &state, &trees, &messages)?;
            let message = layout::encode(&derived);
            let Stored::Compact(stored) = layout::decode(&message).map_err(|e| failed(&e))? else {
                return Err(SimulationError::Internal("a record is not stored as such".to_owned()));
            };
            records.push(Some((message, Arc::from(stored))));
            record = Some(Arc::new(artifact_alone(&derived)));
        }
        below.push(Below { sources: state.sources, artifact: state.artifact, record });
        for digest in inputs {
            trees.remove(&digest);
        }
    }
    Ok(records)
}

/// What is known of an element when others are recorded that build against it.
struct Below {
    sources: Digest,
    artifact: Digest,
    record: Option<Arc<Record>>,
}

/// Whether sources were fetched before anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sources {
    Fetched,
    ToBeFetched,
}

/// Rows and turns are few enough, or the shape would not have passed its check.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn weak_key(row: usize, changed: bool) -> String {
    format!("weak-{row}-{}", u8::from(changed))
}

/// What the record of an element is derived from.
struct Recording<'a> {
    shape: &'a Shape,
    below: &'a [Below],
    closure: &'a [usize],
}

impl Recording<'_> {
    fn derive(
        &self,
        row: usize,
        state: &ElementState,
        forest: &Forest,
        messages: &FxHashMap<Digest, Bytes>,
    ) -> Result<Record, SimulationError> {
        let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
        let element = &self.shape.elements[row];
        let observing = Observing {
            name: element.name.clone(),
            weak_key: Some(weak_key(row, false)),
            configuration: None,
            sources: Some(state.sources),
            artifact: Some(state.artifact),
            own_root: own_root(row).into(),
            platforms: Vec::new(),
        };
        let dependencies = self.closure.iter().map(|below| Dependency {
            name: self.shape.elements[*below].name.clone(),
            sources: Some(self.below[*below].sources),
            artifact: Some(self.below[*below].artifact),
            record: self.below[*below].record.clone(),
        });
        let mut deriver = Deriver::new(Mode::Full, FUNCTION, observing, dependencies.collect());
        for (turn, action) in element.actions.iter().enumerate() {
            let message = |digest: &Digest| messages.get(digest).cloned().unwrap_or_default();
            let output = Node::File { digest: state.outputs[turn], executable: false };
            let observed = Observed {
                base: state.actions[turn],
                action: Action::parse(message(&state.actions[turn])).map_err(|e| failed(&e))?,
                command: Command::parse(message(&state.commands[turn])).map_err(|e| failed(&e))?,
                outputs: vec![(output_path(action, turn).into(), output)],
                duration: Some(action.duration),
                output_bytes: Some(state.outputs[turn].size_bytes()),
            };
            deriver.observe(forest, &observed).map_err(|e| failed(&e))?;
        }
        Ok(deriver.finish(forest, &Contents::default()))
    }
}

/// Of a record, what those above the element look at: which source or action is behind each file of its artifact.
fn artifact_alone(record: &Record) -> Record {
    let own = record.element(ElementId::SELF);
    let own = RecordedElement { name: own.name.clone(), sources: own.sources, artifact: own.artifact };
    let mut alone = Record::new(record.digest_function, own);
    let mut paths = Vec::with_capacity(record.artifact_overlays.len());
    for overlay in &record.artifact_overlays {
        let mut path = |path| alone.paths.intern(&record.paths.bytes(path));
        let element = ElementId::SELF;
        let origin = match record.origin(overlay.origin) {
            Origin::Source { path: at, .. } => Origin::Source { element, path: path(*at) },
            Origin::Action { base, path: at, .. } => Origin::Action { element, base: *base, path: path(*at) },
            Origin::Artifact { .. } | Origin::Derived(_) => continue,
        };
        paths.push(path(overlay.path));
        alone.origins.push(origin);
    }
    let overlays = alone.origin_ids().zip(paths).map(|((origin, _), path)| ArtifactOverlay { path, origin });
    alone.artifact_overlays = overlays.collect();
    alone
}
