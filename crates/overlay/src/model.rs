//! What a build leaves behind: recorded actions and the origins of their inputs.

use std::time::Duration;

use reapi_proto::raw::Node;
use reapi_proto::{Digest, DigestFunction};

use crate::path::{NameId, PathId, Paths};
use crate::recorded::Recorded;

/// A row of [`Record::elements`]. Row 0 is the element that the record belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ElementId(pub(crate) u32);

impl ElementId {
    /// The element that the record belongs to.
    pub const SELF: Self = Self(0);
}

/// A row of [`Record::origins`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginId(pub(crate) u32);

/// A row of [`Record::inputs`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InputId(pub(crate) u32);

/// A row of [`Record::levels`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LevelId(pub(crate) u32);

/// A row of [`Record::derivations`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DerivationId(pub(crate) u32);

/// A row of [`Record::actions`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActionId(pub(crate) u32);

macro_rules! row_numbers {
    ($($id:ident),*) => {$(
        impl $id {
            /// The row number.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}
row_numbers!(ElementId, OriginId, InputId, LevelId, DerivationId, ActionId);

/// An element that origins refer to, with its trees as they were at recording time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedElement {
    /// The element's name; empty for row 0 in records that do not say it.
    pub name: String,
    /// Root of its sources then.
    pub sources: Option<Digest>,
    /// Root of its artifact then.
    pub artifact: Option<Digest>,
}

/// Where an input came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A path in an element's sources.
    Source {
        /// Whose sources.
        element: ElementId,
        /// The path there.
        path: PathId,
    },
    /// A path in an element's artifact; the empty path is the artifact's root.
    Artifact {
        /// Whose artifact.
        element: ElementId,
        /// The path there.
        path: PathId,
    },
    /// An output of an action.
    Action {
        /// The element in whose build the action ran.
        element: ElementId,
        /// The action as recorded.
        base: Digest,
        /// The output's path as the action's result names it.
        path: PathId,
    },
    /// Made of other inputs without an action: not in any tree, but known as soon as those are.
    Derived(DerivationId),
}

impl Origin {
    /// The element that the origin is about; the record's own for what is derived.
    #[must_use]
    pub fn element(&self) -> ElementId {
        match self {
            Self::Source { element, .. } | Self::Artifact { element, .. } | Self::Action { element, .. } => *element,
            Self::Derived(_) => ElementId::SELF,
        }
    }

    /// The path in the sources, the artifact or the outputs; the root for what is derived.
    #[must_use]
    pub fn path(&self) -> PathId {
        match self {
            Self::Source { path, .. } | Self::Artifact { path, .. } | Self::Action { path, .. } => *path,
            Self::Derived(_) => PathId::ROOT,
        }
    }

    /// Order in which origins become known: sources first, then actions, then artifacts.
    /// Among guesses, the smallest rank wins (the reference's priority).
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Source { .. } => 0,
            Self::Action { .. } | Self::Derived(_) => 1,
            Self::Artifact { .. } => 2,
        }
    }

    /// How truly the origin speaks for an input; the smallest decides.
    ///
    /// An own file is what its source says, an own intermediate what its
    /// action made, anything staged what the dependency's artifact holds. The
    /// other origins only happen to be known sooner.
    #[must_use]
    pub fn authority(&self) -> u8 {
        match self {
            Self::Source { element: ElementId::SELF, .. } => 0,
            Self::Action { element: ElementId::SELF, .. } | Self::Derived(_) => 1,
            Self::Artifact { .. } => 2,
            Self::Action { .. } => 3,
            Self::Source { .. } => 4,
        }
    }
}

/// Something that stood at a path of an input tree, or in a platform property, and where it came from.
///
/// Shared by every action that had the same thing at the same place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// What it was.
    pub recorded: Recorded,
    /// Its origins, the authoritative one first, then by [`Origin::rank`]. Never empty.
    pub origins: Vec<OriginId>,
}

/// How something is made of other inputs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Making {
    /// The union of directories, as staging makes it: of two entries at the
    /// same path, the later one's stays.
    Merge,
    /// An `ar` archive of these members, one per input, in order.
    Archive(Vec<NameId>),
    /// By steps of the element's build that are not actions. What they make
    /// stays as it is while all of this does; what they would make of anything else is not known.
    Locally,
}

/// Something that is made of inputs, but not by an action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Derivation {
    /// How it is made.
    pub making: Making,
    /// What it is made of. Whatever of this is derived itself has an earlier row.
    pub of: Vec<InputId>,
}

/// What a name of a level leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Below {
    /// The entry itself has origins.
    Input(InputId),
    /// Entries further down have.
    Level(LevelId),
}

/// The directories of input trees, each reduced to the names that have origins at or below them.
///
/// Levels form the same Merkle-shaped graph as the directories they stand
/// for: whatever number of actions share a directory at a path, they share the
/// level. Rows are in bottom-up order: a level refers only to earlier rows.
/// The entries of a level are sorted by the names' bytes, each name once; those
/// of all levels lie end to end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    ends: Vec<u32>,
    entries: Vec<(NameId, Below)>,
}

impl Levels {
    /// Adds a row.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (NameId, Below)>) -> LevelId {
        self.entries.extend(entries);
        self.ends.push(crate::path::index(self.entries.len()));
        LevelId(crate::path::index(self.ends.len() - 1))
    }

    /// The entries of a row.
    #[must_use]
    pub fn get(&self, id: LevelId) -> &[(NameId, Below)] {
        let start = id.index().checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start as usize..self.ends[id.index()] as usize]
    }

    /// The entries of each row, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[(NameId, Below)]> {
        (0..crate::path::index(self.ends.len())).map(|row| self.get(LevelId(row)))
    }

    /// All entries of all rows.
    #[must_use]
    pub fn entries(&self) -> &[(NameId, Below)] {
        &self.entries
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A table with room for as much.
    pub(crate) fn with_capacity(rows: usize, entries: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), entries: Vec::with_capacity(entries) }
    }
}

/// A platform property whose value is a tree's digest, in an Action and its Command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PropertyInput {
    /// The property's name.
    pub name: NameId,
    /// The tree; always a directory.
    pub input: InputId,
}

/// An action that ran in a build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedAction {
    /// The element that it ran in; another than [`ElementId::SELF`] for a
    /// copy that makes this record self-sufficient.
    pub element: ElementId,
    /// The Action message's digest.
    pub base: Digest,
    /// The origins in its input tree; `None` where no input has any.
    pub root: Option<LevelId>,
    /// The origins in its platform properties.
    pub properties: Vec<PropertyInput>,
    /// What decides on its command line without being an input: build
    /// scripts, for instance. While this is as recorded, so is the command line.
    pub conditions: Vec<InputId>,
    /// How long it executed, where the result said so.
    pub duration: Option<Duration>,
    /// Total size of its outputs in bytes, where known.
    pub output_bytes: Option<u64>,
}

/// A file of the element's own artifact and where it came from: what lets
/// dependents see through an artifact that is not built yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArtifactOverlay {
    /// The path in the artifact.
    pub path: PathId,
    /// Where that file came from.
    pub origin: OriginId,
}

/// The speculative actions of one element: what generation writes and instantiation reads.
///
/// Plain tables that refer to each other by row. A value made by this crate
/// (by deriving, or by decoding bytes) has only valid references.
#[derive(Clone, Debug)]
pub struct Record {
    /// The function of every digest in the record.
    pub digest_function: DigestFunction,
    /// The element's weak key when it was recorded.
    pub weak_key: Option<String>,
    /// A key of what it was built by, apart from sources and dependencies.
    pub configuration: Option<String>,
    /// Origins were found by digest alone, as the reference layout has them:
    /// they say nothing of executable bits, which stay as recorded.
    pub by_digest: bool,
    /// Where the element's own files lie in input trees: under this path are its sources and what it makes of
    /// them, everything else is staged. Unknown in records that do not say it.
    pub own_root: Option<PathId>,
    /// Row 0 is the element itself.
    pub elements: Vec<RecordedElement>,
    /// Names and paths.
    pub paths: Paths,
    /// Distinct origins.
    pub origins: Vec<Origin>,
    /// Distinct inputs.
    pub inputs: Vec<Input>,
    /// Distinct ways in which inputs are made of others; each refers to earlier ones only.
    pub derivations: Vec<Derivation>,
    /// Distinct directories with origins below them, bottom-up.
    pub levels: Levels,
    /// In the order in which they ran; copies from other elements come first.
    pub actions: Vec<RecordedAction>,
    /// What is known of the element's own artifact.
    pub artifact_overlays: Vec<ArtifactOverlay>,
}

impl Record {
    /// A record of an element with no actions.
    #[must_use]
    pub fn new(digest_function: DigestFunction, element: RecordedElement) -> Self {
        Self {
            digest_function,
            weak_key: None,
            configuration: None,
            by_digest: false,
            own_root: None,
            elements: vec![element],
            paths: Paths::new(),
            origins: Vec::new(),
            inputs: Vec::new(),
            derivations: Vec::new(),
            levels: Levels::default(),
            actions: Vec::new(),
            artifact_overlays: Vec::new(),
        }
    }

    /// The element of a row.
    #[must_use]
    pub fn element(&self, id: ElementId) -> &RecordedElement {
        &self.elements[id.index()]
    }

    /// The origin of a row.
    #[must_use]
    pub fn origin(&self, id: OriginId) -> &Origin {
        &self.origins[id.index()]
    }

    /// The input of a row.
    #[must_use]
    pub fn input(&self, id: InputId) -> &Input {
        &self.inputs[id.index()]
    }

    /// The derivation of a row.
    #[must_use]
    pub fn derivation(&self, id: DerivationId) -> &Derivation {
        &self.derivations[id.index()]
    }

    /// What a derivation made when it was recorded, where it stood in an input tree or a property.
    #[must_use]
    pub fn recorded_as(&self, id: DerivationId) -> Option<&Node> {
        let made = |input: &&Input| input.origins.iter().any(|origin| *self.origin(*origin) == Origin::Derived(id));
        self.inputs.iter().filter(made).find_map(|input| input.recorded.whole())
    }

    /// The entries of a level.
    #[must_use]
    pub fn level(&self, id: LevelId) -> &[(NameId, Below)] {
        self.levels.get(id)
    }

    /// The action of a row.
    #[must_use]
    pub fn action(&self, id: ActionId) -> &RecordedAction {
        &self.actions[id.index()]
    }

    /// The rows of all actions, in order.
    pub fn action_ids(&self) -> impl Iterator<Item = ActionId> + use<> {
        (0..crate::path::index(self.actions.len())).map(ActionId)
    }

    /// The rows of all elements.
    pub fn element_ids(&self) -> impl Iterator<Item = ElementId> + use<> {
        (0..crate::path::index(self.elements.len())).map(ElementId)
    }

    /// The origins with their rows.
    pub fn origin_ids(&self) -> impl Iterator<Item = (OriginId, &Origin)> {
        (0..).map(OriginId).zip(&self.origins)
    }

    /// Number of overlays: (origin, place) pairs in input trees and properties, each place counted once however
    /// many actions share it. What is derived is no origin of its own.
    #[must_use]
    pub fn overlay_count(&self) -> usize {
        let mut placed = vec![false; self.inputs.len()];
        for (_, below) in self.levels.entries() {
            if let Below::Input(input) = below {
                placed[input.index()] = true;
            }
        }
        for property in self.actions.iter().flat_map(|action| &action.properties) {
            placed[property.input.index()] = true;
        }
        let placed = self.inputs.iter().zip(placed).filter_map(|(input, placed)| placed.then_some(input));
        placed
            .flat_map(|input| &input.origins)
            .filter(|origin| !matches!(self.origin(**origin), Origin::Derived(_)))
            .count()
    }

    /// Of which inputs more must be known than whether something else is the same: what is named in messages, or made,
    /// or what something is made of.
    pub(crate) fn needed_in_full(&self) -> Vec<bool> {
        let made = |input: &Input| input.origins.iter().any(|id| matches!(self.origin(*id), Origin::Derived(_)));
        let mut needed: Vec<bool> = self.inputs.iter().map(made).collect();
        let parts = self.derivations.iter().flat_map(|derivation| &derivation.of);
        let conditions = self.actions.iter().flat_map(|action| &action.conditions);
        let properties = self.actions.iter().flat_map(|action| &action.properties).map(|property| &property.input);
        for input in parts.chain(conditions).chain(properties) {
            needed[input.index()] = true;
        }
        needed
    }

    /// An origin in words, for reasons and tables.
    #[must_use]
    pub fn describe(&self, origin: &Origin) -> String {
        let element = match self.element(origin.element()).name.as_str() {
            "" => "this element",
            name => name,
        };
        let path = self.paths.display(origin.path());
        match origin {
            Origin::Source { .. } => format!("source {path} of {element}"),
            Origin::Artifact { path: PathId::ROOT, .. } => format!("artifact of {element}"),
            Origin::Artifact { .. } => format!("{path} in the artifact of {element}"),
            Origin::Action { base, .. } => {
                format!("output {path} of action {} of {element}", &base.to_hex()[..12])
            }
            Origin::Derived(id) => match self.derivation(*id).making {
                Making::Merge => "the union of several artifacts".to_owned(),
                Making::Archive(_) => "an archive of objects".to_owned(),
                Making::Locally => "what the element's build makes without an action".to_owned(),
            },
        }
    }
}
