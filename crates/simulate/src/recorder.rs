//! Records of a project as it was built, made by whoever has a processor to spare.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use overlay::derive::{Dependency, Deriver, Observed, Observing};
use overlay::layout::{self, Stored};
use overlay::{ArtifactOverlay, Contents, ElementId, Forest, Mode, Origin, Record, RecordedElement};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Directory, Node};

use crate::SimulationError;
use crate::shape::Shape;
use crate::state::{ElementState, FUNCTION, output_path, own_root, weak_key};

/// An element as it was built, to be recorded.
pub(crate) struct Built {
    pub(crate) state: ElementState,
    /// Of its sources and its artifact.
    pub(crate) trees: Vec<(Digest, Directory)>,
    /// Of its input trees.
    pub(crate) inputs: Vec<(Digest, Directory)>,
    /// The messages of its actions, in order, and of their commands.
    pub(crate) actions: Vec<Bytes>,
    pub(crate) commands: Vec<Bytes>,
}

/// The record of an element: its message, and what it says.
pub(crate) struct Recorded {
    pub(crate) row: usize,
    pub(crate) message: Bytes,
    pub(crate) record: Arc<Record>,
}

/// Records every so many elements, in order, as they are built: those that have actions. The others are recorded beside
/// it, and waited for where one builds against them.
pub(crate) struct Recorder<'a> {
    pub(crate) shape: &'a Shape,
    /// By element, once it is recorded; `None` if it never will be.
    pub(crate) below: &'a [OnceLock<Option<Below>>],
    /// The first of its own elements, and the distance to the next.
    pub(crate) turn: usize,
    pub(crate) recorders: usize,
}

impl Recorder<'_> {
    pub(crate) fn record(&self, built: &Receiver<Arc<Built>>) -> Result<Vec<Recorded>, SimulationError> {
        let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
        let closures = self.shape.closures();
        let mut forest = Forest::new();
        let mut records = Vec::with_capacity(self.shape.elements.len() / self.recorders + 1);
        for (row, built) in built.iter().enumerate() {
            for (digest, directory) in &built.trees {
                forest.insert(*digest, directory.clone());
            }
            if row % self.recorders != self.turn {
                continue;
            }
            let mut record = None;
            if !self.shape.elements[row].actions.is_empty() {
                let new: Vec<Digest> = built
                    .inputs
                    .iter()
                    .filter(|(digest, dir)| forest.insert_new(*digest, dir.clone()))
                    .map(|(digest, _)| *digest)
                    .collect();
                let derived = self.derive(row, &closures[row], &built, &forest)?;
                for digest in new {
                    forest.remove(&digest);
                }
                let message = layout::encode(&derived);
                let Stored::Compact(stored) = layout::decode(&message).map_err(|e| failed(&e))? else {
                    return Err(SimulationError::Internal("a record is not stored as such".to_owned()));
                };
                records.push(Recorded { row, message, record: Arc::from(stored) });
                record = Some(Arc::new(artifact_alone(&derived)));
            }
            let ElementState { sources, artifact, .. } = built.state;
            // Only this recorder knows it.
            let _ = self.below[row].set(Some(Below { sources, artifact, record }));
        }
        Ok(records)
    }

    fn derive(&self, row: usize, closure: &[usize], built: &Built, forest: &Forest) -> Result<Record, SimulationError> {
        let failed = |error: &dyn std::error::Error| SimulationError::Internal(error.to_string());
        let Built { state, actions, commands, .. } = built;
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
        let dependency = |row: &usize| {
            let below = self.below[*row].wait().as_ref();
            let below = below.ok_or_else(|| SimulationError::Internal("another element is not recorded".to_owned()))?;
            Ok(Dependency {
                name: self.shape.elements[*row].name.clone(),
                sources: Some(below.sources),
                artifact: Some(below.artifact),
                record: below.record.clone(),
            })
        };
        let dependencies = closure.iter().map(dependency).collect::<Result<_, SimulationError>>()?;
        let mut deriver = Deriver::new(Mode::Full, FUNCTION, observing, dependencies);
        let messages = actions.iter().zip(commands);
        for (turn, (action, (message, command))) in element.actions.iter().zip(messages).enumerate() {
            let output = Node::File { digest: state.outputs[turn], executable: false };
            let observed = Observed {
                base: state.actions[turn],
                action: Action::parse(message.clone()).map_err(|e| failed(&e))?,
                command: Command::parse(command.clone()).map_err(|e| failed(&e))?,
                outputs: vec![(output_path(action, turn).into(), output)],
                duration: Some(action.duration),
                output_bytes: Some(state.outputs[turn].size_bytes()),
            };
            deriver.observe(forest, &observed).map_err(|e| failed(&e))?;
        }
        Ok(deriver.finish(forest, &Contents::default()))
    }
}

/// Nobody waits for what will not come.
impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        for below in self.below.iter().skip(self.turn).step_by(self.recorders) {
            let _ = below.set(None);
        }
    }
}

/// What is known of an element when others are recorded that build against it.
pub(crate) struct Below {
    sources: Digest,
    artifact: Digest,
    record: Option<Arc<Record>>,
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
