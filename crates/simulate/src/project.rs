//! A project that was built and recorded, and has changed since.

use std::fmt;
use std::sync::Arc;
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
use crate::state::{Blob, ElementState, FUNCTION, Maker, Version, installed, output_bytes, output_path, own_root};
use crate::store::Blobs;
use crate::{Bounds, SimulationError};

/// A recorded project with its next state: what simulations run on, any number of them.
pub struct Project {
    pub(crate) shape: Shape,
    installed: Vec<Vec<usize>>,
    rebuilt: Vec<bool>,
    pub(crate) recorded: Vec<ElementState>,
    pub(crate) now: Vec<ElementState>,
    /// The recorded state, the records, and the new sources.
    pub(crate) store: Arc<Blobs>,
    /// The record of each element that has actions.
    records: Vec<Option<Digest>>,
    pub(crate) decoded: Decoded,
    /// What commands do.
    pub(crate) work: Arc<FxHashMap<Digest, Work>>,
}

/// What a command does.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) duration: Duration,
    pub(crate) output: Arc<str>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (elements, actions) = (self.shape.elements.len(), self.shape.action_count());
        write!(f, "Project({elements} elements, {actions} actions, {} blobs)", self.store.len())
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
        let installed = installed(&shape);
        let (built, changed) = thread::scope(|scope| {
            let changed = scope.spawn(|| change(&shape, &installed));
            let built = build(&shape, &installed);
            let lost = || SimulationError::Internal("the change of the project has come to no end".to_owned());
            (built, changed.join().unwrap_or_else(|_| Err(lost())))
        });
        let (Built { recorded, mut store, records, decoded, work }, Changed { now, sources }) = (built?, changed?);
        sources.into_iter().for_each(|(digest, bytes)| store.insert_copy(&digest, &bytes));
        // Of recorded outputs, nobody reads any but those that are outputs still.
        for (then, now) in recorded.iter().zip(&now) {
            for (turn, action) in
                then.actions.iter().enumerate().filter(|(turn, action)| now.actions[*turn] == **action)
            {
                store.insert_copy(&then.outputs[turn], &output_bytes(action));
            }
        }
        let rebuilt = shape.rebuilt();
        let (store, decoded, work) = (Arc::new(store), Decoded(Arc::new(decoded)), Arc::new(work));
        Ok(Self { shape, installed, rebuilt, recorded, now, store, records, decoded, work })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether an element is rebuilt.
    pub(crate) fn is_rebuilt(&self, row: usize) -> bool {
        self.rebuilt[row]
    }

    /// Whether the build asks for an action as it was recorded.
    pub(crate) fn is_as_recorded(&self, row: usize, turn: usize) -> bool {
        self.recorded[row].actions[turn] == self.now[row].actions[turn]
    }

    /// The lower bounds of rebuilding it.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds::of(self)
    }

    /// Every blob of an element as the build makes it.
    pub(crate) fn blobs(&self, row: usize, sink: &mut dyn FnMut(Blob, Digest, Bytes)) {
        let maker = Maker::new(&self.shape, &self.installed, Version::Now);
        // What could be made before can be made again.
        let _ = maker.element(row, &self.now, sink);
    }

    /// The directories of an element's artifact.
    pub(crate) fn artifact(&self, row: usize, sink: &mut dyn FnMut(Blob, Digest, Bytes)) {
        let maker = Maker::new(&self.shape, &self.installed, Version::Now);
        let _ = maker.installs(row, &self.now[row].outputs, sink);
    }

    /// What the orchestrator knows before the build: of changed elements no sources, unless they were fetched.
    pub(crate) fn graph(&self, sources: Sources) -> Result<Arc<Graph>, SimulationError> {
        let elements = self.shape.elements.iter().enumerate().map(|(row, element)| Element {
            weak_key: Some(weak_key(row, element.changed)),
            cached: Some(!self.rebuilt[row]),
            sources: (sources == Sources::Fetched || !element.changed).then_some(self.now[row].sources),
            artifact: (!self.rebuilt[row]).then_some(self.recorded[row].artifact),
            build_deps: Some(
                element.dependencies.iter().map(|below| self.shape.elements[*below].name.clone()).collect(),
            ),
            speculative_actions: self.records[row],
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

/// The recorded state.
struct Built {
    recorded: Vec<ElementState>,
    store: Blobs,
    records: Vec<Option<Digest>>,
    decoded: FxHashMap<Digest, Arc<Record>>,
    work: FxHashMap<Digest, Work>,
}

fn build(shape: &Shape, installed: &[Vec<usize>]) -> Result<Built, SimulationError> {
    let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
    let mut store = Blobs::default();
    let maker = Maker::new(shape, installed, Version::Recorded);
    let closures = shape.closures();
    let mut trees = Forest::new();
    let mut recorded: Vec<ElementState> = Vec::with_capacity(shape.elements.len());
    let mut records: Vec<Option<Digest>> = Vec::with_capacity(shape.elements.len());
    let mut behind: Vec<Option<Arc<Record>>> = Vec::with_capacity(shape.elements.len());
    let mut decoded = FxHashMap::default();
    let mut work = FxHashMap::default();
    for (row, element) in shape.elements.iter().enumerate() {
        let mut messages: FxHashMap<Digest, Bytes> = FxHashMap::default();
        // What is in nothing but its input trees.
        let mut inputs: FxHashSet<Digest> = FxHashSet::default();
        let state = maker.element(row, &recorded, &mut |kind, digest, bytes| {
            match kind {
                Blob::Directory | Blob::Input => {
                    let Ok(directory) = Directory::parse(bytes.clone()) else { return };
                    let new = trees.insert_new(digest, directory);
                    match kind {
                        Blob::Input if new => drop(inputs.insert(digest)),
                        Blob::Input => {}
                        _ => drop(inputs.remove(&digest)),
                    }
                }
                Blob::Action | Blob::Command => drop(messages.insert(digest, bytes.clone())),
                Blob::Header => {}
            }
            store.insert_copy(&digest, &bytes);
        });
        let state = state.map_err(|e| failed(&e))?;
        for (turn, action) in element.actions.iter().enumerate() {
            let output = output_path(action, turn).into();
            work.insert(state.commands[turn], Work { duration: action.duration, output });
        }
        if element.actions.is_empty() {
            records.push(None);
            behind.push(None);
        } else {
            let recording = Recording { shape, recorded: &recorded, behind: &behind, closure: &closures[row] };
            let record = recording.derive(row, &state, &trees, &messages)?;
            let message = layout::encode(&record);
            let digest = FUNCTION.digest(&message);
            let Stored::Compact(stored) = layout::decode(&message).map_err(|e| failed(&e))? else {
                return Err(SimulationError::Internal("a record is not stored as such".to_owned()));
            };
            store.insert_copy(&digest, &message);
            decoded.insert(digest, Arc::from(stored));
            records.push(Some(digest));
            behind.push(Some(Arc::new(artifact_alone(&record))));
        }
        for digest in inputs {
            trees.remove(&digest);
        }
        recorded.push(state);
    }
    Ok(Built { recorded, store, records, decoded, work })
}

/// The state after the change, and the sources that have changed.
struct Changed {
    now: Vec<ElementState>,
    sources: Vec<(Digest, Bytes)>,
}

fn change(shape: &Shape, installed: &[Vec<usize>]) -> Result<Changed, SimulationError> {
    let maker = Maker::new(shape, installed, Version::Now);
    let mut now: Vec<ElementState> = Vec::with_capacity(shape.elements.len());
    let mut sources = Vec::new();
    for (row, element) in shape.elements.iter().enumerate() {
        // The sources are fetched before anything is built; of the rest, nothing is known.
        let state = maker.element(row, &now, &mut |kind, digest, bytes| {
            if matches!(kind, Blob::Directory | Blob::Header) && element.changed {
                sources.push((digest, bytes));
            }
        });
        now.push(state.map_err(|error| SimulationError::Internal(error.to_string()))?);
    }
    Ok(Changed { now, sources })
}

/// Whether sources were fetched before anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sources {
    Fetched,
    ToBeFetched,
}

fn weak_key(row: usize, changed: bool) -> String {
    format!("weak-{row}-{}", u8::from(changed))
}

/// What the record of an element is derived from.
struct Recording<'a> {
    shape: &'a Shape,
    recorded: &'a [ElementState],
    behind: &'a [Option<Arc<Record>>],
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
            sources: Some(self.recorded[*below].sources),
            artifact: Some(self.recorded[*below].artifact),
            record: self.behind[*below].clone(),
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
