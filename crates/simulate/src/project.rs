//! A project that was built and recorded, and has changed since.

use std::fmt;
use std::num::NonZero;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use instantiate::{Candidate, GraphRecords, Lookup, RecordIndex};
use overlay::Record;
use overlay::graph::{Element, Graph};
use reapi_proto::Digest;
use reapi_proto::raw::Directory;
use rustc_hash::FxHashMap;

use crate::recorder::{Below, Built, Recorded, Recorder};
use crate::shape::Shape;
use crate::state::{Blob, ElementState, FUNCTION, Maker, Version, installed, output_path, weak_key};
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
        self.find_if(action, |_| true)
    }

    /// The job that an action is, if it is one of some. What a job is lies far away in memory, so it is asked for last.
    pub(crate) fn find_if(&self, action: &Digest, one_of: impl FnOnce(u32) -> bool) -> Option<u32> {
        let job = *self.by_action.get(&key(action))?;
        (one_of(job) && self.all[job as usize].action == *action).then_some(job)
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
        let below: Vec<OnceLock<Option<Below>>> = shape.elements.iter().map(|_| OnceLock::new()).collect();
        let (made, records) = thread::scope(|scope| {
            let (shape, below) = (&shape, below.as_slice());
            let recorders = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_RECORDERS);
            let (builds, recording): (Vec<_>, Vec<_>) = (0..recorders)
                .map(|turn| {
                    let (builds, built) = sync_channel(BUILT_AHEAD);
                    let recorder = Recorder { shape, below, turn, recorders };
                    (builds, scope.spawn(move || recorder.record(&built)))
                })
                .unzip();
            let made = make(shape, builds);
            let lost = || SimulationError::Internal("recording the project has come to no end".to_owned());
            let recorded = recording.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost())));
            (made, recorded.collect::<Result<Vec<_>, _>>())
        });
        // Where recording has failed, what was made may be cut short.
        let records = records?;
        let Made { mut rows, jobs, mut blobs, mut present } = made?;
        let mut decoded = FxHashMap::default();
        for Recorded { row, message, record } in records.into_iter().flatten() {
            let digest = FUNCTION.digest(&message);
            present.insert(insert(&mut blobs, &digest, &message, &[])?.number());
            decoded.insert(digest, record);
            rows[row].record = Some(digest);
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

/// Recording takes longer than making, and each recorder keeps trees of its own.
const MOST_RECORDERS: usize = 4;

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

/// Makes every message of the recorded state, and hands each element on to all recorders; then those of the new state.
fn make(shape: &Shape, builds: Vec<SyncSender<Arc<Built>>>) -> Result<Made, SimulationError> {
    let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
    let installed = installed(shape);
    let (mut blobs, mut present) = (Blobs::default(), Bits::default());
    let maker = Maker::new(shape, &installed, Version::Recorded);
    let mut recorded: Vec<ElementState> = Vec::with_capacity(shape.elements.len());
    for row in 0..shape.elements.len() {
        let (mut trees, mut inputs, mut actions, mut commands) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut outcome = Ok(());
        let state = maker.element(row, &recorded, &mut |blob| {
            // Of recorded outputs, nobody reads any but those that are outputs still.
            if blob.kind == Blob::Output {
                return;
            }
            match insert(&mut blobs, &blob.digest, &blob.bytes, blob.below) {
                Ok(id) => drop(present.insert(id.number())),
                Err(error) => outcome = Err(error),
            }
            let mut plant = |trees: &mut Vec<(Digest, Directory)>, bytes| match Directory::parse(bytes) {
                Ok(directory) => trees.push((blob.digest, directory)),
                Err(error) => outcome = Err(failed(&error)),
            };
            match blob.kind {
                Blob::Directory => plant(&mut trees, blob.bytes),
                Blob::Input => plant(&mut inputs, blob.bytes),
                Blob::Action => actions.push(blob.bytes),
                Blob::Command => commands.push(blob.bytes),
                Blob::Header | Blob::Output => {}
            }
        });
        let state = state.map_err(|e| failed(&e))?;
        outcome?;
        recorded.push(state.clone());
        let built = Arc::new(Built { state, trees, inputs, actions, commands });
        if builds.iter().any(|recorder| recorder.send(Arc::clone(&built)).is_err()) {
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
