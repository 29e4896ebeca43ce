//! The reference layout: digest-to-digest overlays, repeated for every action.

use bytes::Bytes;
use prost::Message;
use reapi_proto::Digest;
use reapi_proto::buildstream::SpeculativeActions;
use reapi_proto::buildstream::speculative_actions::overlay::OverlayType;
use reapi_proto::buildstream::speculative_actions::{Overlay, SpeculativeAction};
use reapi_proto::raw::{Action, Node};
use rustc_hash::{FxHashMap, FxHashSet};

use super::LayoutError;
use crate::derive::{DeriveError, MAX_TREE_PATHS, sort_origins};
use crate::forest::{Forest, MAX_DEPTH, Missing};
use crate::model::{
    Below, ElementId, Input, InputId, LevelId, Origin, OriginId, PropertyInput, Record, RecordedAction, RecordedElement,
};
use crate::path::{NameId, index};

/// A message in the reference layout, as it stands: encoding gives the bytes back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReferenceRecord {
    /// In the order of the message.
    pub actions: Vec<ReferenceAction>,
    /// Overlays of the element's own artifact.
    pub artifact_overlays: Vec<ReferenceOverlay>,
}

/// An action and what its inputs came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceAction {
    /// The recorded action.
    pub base: Digest,
    /// In the order of the message.
    pub overlays: Vec<ReferenceOverlay>,
}

/// "What has this digest came from there."
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceOverlay {
    /// Where from.
    pub origin: ReferenceOrigin,
    /// The digest of the input, wherever it stands.
    pub target: Digest,
}

/// An origin by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReferenceOrigin {
    /// A path in an element's sources; the empty name is the record's own element.
    Source {
        /// Whose.
        element: String,
        /// Where.
        path: String,
    },
    /// A path in an element's artifact; the empty path is its root.
    Artifact {
        /// Whose.
        element: String,
        /// Where.
        path: String,
    },
    /// An output of an action.
    Action {
        /// The element that it ran in.
        element: String,
        /// The recorded action.
        base: Digest,
        /// The output's path.
        path: String,
    },
}

/// What [`ReferenceRecord::upgrade`] makes.
#[derive(Clone, Debug)]
pub struct Upgraded {
    /// The actions whose trees were at hand.
    pub record: Record,
    /// The others, each with the reason.
    pub skipped: Vec<(Digest, DeriveError)>,
}

impl ReferenceRecord {
    pub(super) fn from_message(message: &SpeculativeActions) -> Result<Self, LayoutError> {
        let bases = super::bases(message)?;
        let mut actions = Vec::with_capacity(bases.len());
        for (i, (base, action)) in bases.into_iter().zip(&message.actions).enumerate() {
            let overlays = action.overlays.iter().map(|o| read_overlay(o, &format!("action {i}")));
            actions.push(ReferenceAction { base, overlays: overlays.collect::<Result<_, _>>()? });
        }
        let artifact = message.artifact_overlays.iter().map(|o| read_overlay(o, "artifact_overlays"));
        Ok(Self { actions, artifact_overlays: artifact.collect::<Result<_, _>>()? })
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = SpeculativeActions {
            actions: self
                .actions
                .iter()
                .map(|action| SpeculativeAction {
                    base_action_digest: Some((&action.base).into()),
                    overlays: action.overlays.iter().map(write_overlay).collect(),
                })
                .collect(),
            artifact_overlays: self.artifact_overlays.iter().map(write_overlay).collect(),
            compact: None,
        };
        message.encode_to_vec().into()
    }

    /// The same knowledge as far as the reference layout can hold it: paths
    /// of inputs, symlinks and names that are not UTF-8 are left out. So are
    /// inputs of which `record` has no more than a stamp, as it has once it
    /// was read from the compact layout: this is for records just derived.
    ///
    /// Overlays of an action are in the reference's order of priority. The
    /// digests of the element's own artifact files are looked up in `forest`;
    /// those that are not at hand are left out.
    #[must_use]
    pub fn from_record(record: &Record, forest: &Forest) -> Self {
        let origins: Vec<Option<ReferenceOrigin>> = record.origins.iter().map(|o| name_origin(record, o)).collect();
        let mut actions = Vec::with_capacity(record.actions.len());
        for action in &record.actions {
            let mut inputs: Vec<InputId> = action.properties.iter().map(|p| p.input).collect();
            inputs.extend(inputs_below(record, action.root));
            let mut found: Vec<(u8, Digest, OriginId)> = Vec::new();
            for input in inputs {
                let input = record.input(input);
                let Some(Node::File { digest, .. } | Node::Directory { digest }) = input.recorded.whole() else {
                    continue;
                };
                found.extend(input.origins.iter().map(|id| (record.origin(*id).rank(), *digest, *id)));
            }
            found.sort_unstable();
            found.dedup();
            let overlays = found
                .into_iter()
                .filter_map(|(_, target, id)| Some(ReferenceOverlay { origin: origins[id.index()].clone()?, target }));
            actions.push(ReferenceAction { base: action.base, overlays: overlays.collect() });
        }
        let own = record.element(ElementId::SELF).artifact;
        let artifact_overlays = record.artifact_overlays.iter().filter_map(|overlay| {
            let node = forest.find(&own?, &record.paths.bytes(overlay.path)).ok()??;
            let Node::File { digest: target, .. } = node else { return None };
            Some(ReferenceOverlay { origin: origins[overlay.origin.index()].clone()?, target })
        });
        Self { actions, artifact_overlays: artifact_overlays.collect() }
    }

    /// Finds the paths at which the overlays' targets stand, so that the
    /// actions can be treated like any others. Every place with a target's
    /// digest gets its origins, as the reference does.
    ///
    /// `actions` are the base Actions; they and their whole input trees must
    /// be at hand, or the action is skipped.
    #[must_use]
    pub fn upgrade(&self, element: RecordedElement, actions: &FxHashMap<Digest, Action>, forest: &Forest) -> Upgraded {
        let function = self.actions.first().map(|a| a.base.function()).unwrap_or_default();
        let mut upgrade = Upgrade {
            forest,
            record: Record::new(function, element),
            elements: FxHashMap::default(),
            origins: FxHashMap::default(),
            inputs: FxHashMap::default(),
            levels: FxHashMap::default(),
        };
        upgrade.record.by_digest = true;
        upgrade.elements.insert(String::new(), ElementId::SELF);
        upgrade.elements.insert(upgrade.record.elements[0].name.clone(), ElementId::SELF);
        let mut skipped = Vec::new();
        for action in &self.actions {
            if let Err(reason) = upgrade.action(action, actions.get(&action.base)) {
                skipped.push((action.base, reason));
            }
        }
        Upgraded { record: upgrade.record, skipped }
    }

    /// Number of overlays of all actions.
    #[must_use]
    pub fn overlay_count(&self) -> usize {
        self.actions.iter().map(|a| a.overlays.len()).sum()
    }
}

struct Upgrade<'a> {
    forest: &'a Forest,
    record: Record,
    elements: FxHashMap<String, ElementId>,
    origins: FxHashMap<Origin, OriginId>,
    inputs: FxHashMap<(Node, Vec<OriginId>), InputId>,
    levels: FxHashMap<Vec<(NameId, Below)>, LevelId>,
}

type Targets = FxHashMap<Digest, Vec<OriginId>>;

impl Upgrade<'_> {
    fn action(&mut self, action: &ReferenceAction, base: Option<&Action>) -> Result<(), DeriveError> {
        let base = base.ok_or(Missing(action.base))?;
        let root = base.input_root_digest();
        let paths = self.forest.path_count(&root, &mut FxHashMap::default());
        if paths > MAX_TREE_PATHS {
            return Err(DeriveError::TooManyPaths { paths });
        }
        let mut targets = Targets::default();
        for overlay in &action.overlays {
            let origin = self.origin(&overlay.origin);
            targets.entry(overlay.target).or_default().push(origin);
        }
        for origins in targets.values_mut() {
            sort_origins(&self.record.origins, origins);
        }
        let root = self.level(&targets, root, &mut FxHashMap::default(), 0)?;
        let mut properties = Vec::new();
        for property in base.platform() {
            let Some(digest) = std::str::from_utf8(property.value).ok().and_then(|v| v.parse().ok()) else { continue };
            if let Some(origins) = targets.get(&digest) {
                let input = self.input(Node::Directory { digest }, origins.clone());
                properties.push(PropertyInput { name: self.record.paths.name_id(property.name), input });
            }
        }
        let element = ElementId::SELF;
        let base = action.base;
        self.record.actions.push(RecordedAction {
            element,
            base,
            root,
            properties,
            conditions: Vec::new(),
            duration: None,
            output_bytes: None,
        });
        Ok(())
    }

    fn level(
        &mut self,
        targets: &Targets,
        digest: Digest,
        done: &mut FxHashMap<Digest, Option<LevelId>>,
        depth: usize,
    ) -> Result<Option<LevelId>, DeriveError> {
        if let Some(level) = done.get(&digest) {
            return Ok(*level);
        }
        if depth > MAX_DEPTH {
            return Err(DeriveError::TooDeep);
        }
        let forest = self.forest;
        let directory = forest.get(&digest).ok_or(Missing(digest))?;
        let mut entries = Vec::new();
        for entry in directory.entries() {
            let below = match &entry.node {
                Node::File { digest, .. } | Node::Directory { digest } if targets.contains_key(digest) => {
                    let origins = targets.get(digest).cloned().unwrap_or_default();
                    Some(Below::Input(self.input(entry.node, origins)))
                }
                Node::Directory { digest } => self.level(targets, *digest, done, depth + 1)?.map(Below::Level),
                _ => None,
            };
            entries.extend(below.map(|below| (self.record.paths.name_id(entry.name), below)));
        }
        entries.sort_unstable_by(|a, b| self.record.paths.name(a.0).cmp(self.record.paths.name(b.0)));
        let level = (!entries.is_empty()).then(|| {
            let Self { levels, record, .. } = self;
            *levels.entry(entries).or_insert_with_key(|entries| record.levels.push(entries.iter().copied()))
        });
        done.insert(digest, level);
        Ok(level)
    }

    fn input(&mut self, recorded: Node, origins: Vec<OriginId>) -> InputId {
        let Self { inputs, record, .. } = self;
        *inputs.entry((recorded, origins)).or_insert_with_key(|(recorded, origins)| {
            record.inputs.push(Input { recorded: recorded.clone().into(), origins: origins.clone() });
            InputId(index(record.inputs.len() - 1))
        })
    }

    fn origin(&mut self, origin: &ReferenceOrigin) -> OriginId {
        let (ReferenceOrigin::Source { element, path }
        | ReferenceOrigin::Artifact { element, path }
        | ReferenceOrigin::Action { element, path, .. }) = origin;
        let record = &mut self.record;
        let element = *self.elements.entry(element.clone()).or_insert_with_key(|name| {
            record.elements.push(RecordedElement { name: name.clone(), sources: None, artifact: None });
            ElementId(index(record.elements.len() - 1))
        });
        let path = record.paths.intern(path.as_bytes());
        let origin = match origin {
            ReferenceOrigin::Source { .. } => Origin::Source { element, path },
            ReferenceOrigin::Artifact { .. } => Origin::Artifact { element, path },
            ReferenceOrigin::Action { base, .. } => Origin::Action { element, base: *base, path },
        };
        *self.origins.entry(origin).or_insert_with(|| {
            record.origins.push(origin);
            OriginId(index(record.origins.len() - 1))
        })
    }
}

fn name_origin(record: &Record, origin: &Origin) -> Option<ReferenceOrigin> {
    let element = match origin.element() {
        ElementId::SELF => String::new(),
        other => record.element(other).name.clone(),
    };
    let path = String::from_utf8(record.paths.bytes(origin.path())).ok()?;
    Some(match origin {
        Origin::Source { .. } => ReferenceOrigin::Source { element, path },
        Origin::Artifact { .. } => ReferenceOrigin::Artifact { element, path },
        Origin::Action { base, .. } => ReferenceOrigin::Action { element, base: *base, path },
        // Nothing that the reference has a name for.
        Origin::Derived(_) => return None,
    })
}

/// Every input below a level, each once.
fn inputs_below(record: &Record, root: Option<LevelId>) -> Vec<InputId> {
    let mut pending: Vec<LevelId> = root.into_iter().collect();
    let mut seen = FxHashSet::default();
    let mut inputs = Vec::new();
    while let Some(level) = pending.pop() {
        if !seen.insert(level) {
            continue;
        }
        for (_, below) in record.level(level) {
            match below {
                Below::Input(input) => inputs.push(*input),
                Below::Level(level) => pending.push(*level),
            }
        }
    }
    inputs
}

fn read_overlay(overlay: &Overlay, place: &str) -> Result<ReferenceOverlay, LayoutError> {
    let field = |name: &str, digest: Option<&reapi_proto::v2::Digest>| {
        Digest::try_from(digest).map_err(|reason| LayoutError::Digest { what: format!("{name} in {place}"), reason })
    };
    let target = field("target_digest", overlay.target_digest.as_ref())?;
    let (element, path) = (overlay.source_element.clone(), overlay.source_path.clone());
    let kind = OverlayType::try_from(overlay.r#type)
        .map_err(|_| LayoutError::Inconsistent(format!("unknown type of overlay {} in {place}", overlay.r#type)))?;
    let origin = match kind {
        OverlayType::Action => {
            let base = field("source_action_digest", overlay.source_action_digest.as_ref())?;
            ReferenceOrigin::Action { element, base, path }
        }
        _ if overlay.source_action_digest.is_some() => {
            return Err(LayoutError::Inconsistent(format!("an overlay that is no ACTION names one, in {place}")));
        }
        OverlayType::Source => ReferenceOrigin::Source { element, path },
        OverlayType::Artifact => ReferenceOrigin::Artifact { element, path },
    };
    Ok(ReferenceOverlay { origin, target })
}

fn write_overlay(overlay: &ReferenceOverlay) -> Overlay {
    let (kind, element, base, path) = match &overlay.origin {
        ReferenceOrigin::Source { element, path } => (OverlayType::Source, element, None, path),
        ReferenceOrigin::Artifact { element, path } => (OverlayType::Artifact, element, None, path),
        ReferenceOrigin::Action { element, base, path } => (OverlayType::Action, element, Some(base.into()), path),
    };
    Overlay {
        r#type: kind.into(),
        source_element: element.clone(),
        source_action_digest: base,
        source_path: path.clone(),
        target_digest: Some((&overlay.target).into()),
    }
}
