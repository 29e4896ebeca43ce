//! Deriving a [`Record`]: where did each input of each observed action come from?
//!
//! Two steps. [`Deriver::observe`] walks every input tree in step with the
//! element's sources, the outputs of its earlier actions and the artifacts of
//! its dependencies, and matches by *path and digest*; each distinct
//! (path, directory) is visited once, however many actions share it. What has
//! no match by path is left for [`Deriver::finish`], which looks for it by
//! digest alone, in the trees that the caller has fetched by then.

mod copy;
mod fallback;
mod intern;
mod local;
mod prefetch;
mod walk;

pub(crate) use intern::sort_origins;
pub use local::{Content, Contents};
pub use prefetch::Prefetch;

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reapi_proto::raw::{Action, Command, Node};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::forest::{Forest, MAX_DEPTH, Missing};
use crate::model::{
    ArtifactOverlay, Below, Derivation, ElementId, InputId, LevelId, Making, Origin, OriginId, PropertyInput, Record,
    RecordedAction, RecordedElement,
};
use crate::path::{NameId, PathId, index, join};

/// How much generation records. Each mode includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Mode {
    /// Nothing, and records are not used either.
    None,
    /// Existing records are used; none are written.
    PrimeOnly,
    /// SOURCE and ARTIFACT origins. No action cache is read.
    SourceArtifact,
    /// Also ACTION origins within the element.
    IntraElement,
    /// Also ACTION origins in other elements, with copies of the actions that a dependent needs.
    #[default]
    Full,
}

/// The element whose actions are observed.
#[derive(Clone, Debug)]
pub struct Observing {
    /// The element's name.
    pub name: String,
    /// Its weak key.
    pub weak_key: Option<String>,
    /// A key of what it is built by, apart from sources and dependencies.
    pub configuration: Option<String>,
    /// Root of its sources.
    pub sources: Option<Digest>,
    /// Root of its artifact.
    pub artifact: Option<Digest>,
    /// Where its own files lie in input trees: everything under this path is
    /// the element's, everything else is staged from dependencies.
    pub own_root: Bytes,
    /// Unions of artifacts that platform properties may name.
    pub platforms: Vec<Platform>,
}

/// A root file system that an action may name by its digest: the union of artifacts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// The union's digest.
    pub root: Digest,
    /// The elements and their artifacts, in staging order.
    pub of: Vec<(String, Digest)>,
}

/// An element that the observed one builds against.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The element's name.
    pub name: String,
    /// Root of its sources.
    pub sources: Option<Digest>,
    /// Root of its artifact.
    pub artifact: Option<Digest>,
    /// Its own record, whose artifact overlays show what is behind the artifact.
    pub record: Option<Arc<Record>>,
}

/// One action that ran.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Action message's digest.
    pub base: Digest,
    /// The Action message.
    pub action: Action,
    /// The Command message that it refers to.
    pub command: Command,
    /// What it made, by the paths of its result. Empty where the result is unknown.
    pub outputs: Vec<(Bytes, Node)>,
    /// How long it executed.
    pub duration: Option<Duration>,
    /// Total size of its outputs in bytes.
    pub output_bytes: Option<u64>,
}

/// Builds the [`Record`] of one element.
#[derive(Debug)]
pub struct Deriver {
    mode: Mode,
    record: Record,
    own_root: PathId,
    own_sources: Option<Digest>,
    dependencies: Vec<Dep>,
    artifact_roots: FxHashMap<Digest, usize>,
    platforms: FxHashMap<Digest, Vec<(String, Digest)>>,
    /// Unions that were met.
    unions: FxHashMap<Digest, OriginId>,
    element_ids: FxHashMap<String, ElementId>,
    origin_ids: FxHashMap<Origin, OriginId>,
    input_ids: FxHashMap<(PathId, Node), InputId>,
    /// Levels as they are found; those without entries are dropped by `finish`.
    levels: Vec<Vec<(NameId, Below)>>,
    memo: FxHashMap<(PathId, Digest), LevelId>,
    staged: FxHashMap<PathId, Arc<StagedDirectory>>,
    outputs: FxHashMap<PathId, Vec<Produced>>,
    unmatched: Vec<Unmatched>,
    /// Own files that neither sources nor actions explain.
    local: Vec<Unmatched>,
    seen: FxHashSet<Digest>,
    path_counts: FxHashMap<Digest, u64>,
}

/// The most paths that one input tree may have. A whole distribution as input
/// of every action has about 500,000; a tree bomb has billions.
pub const MAX_TREE_PATHS: u64 = 2_000_000;

/// The most paths in one record, at roughly 60 bytes of memory each.
pub const MAX_RECORD_PATHS: u64 = 10_000_000;

/// Why an action cannot be recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeriveError {
    /// A directory of its input tree, or of the sources or an artifact at a
    /// path that it visits, is not at hand.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Its input tree expands to more paths than any real one.
    #[error(
        "the input tree has {paths} paths; the limit is {MAX_TREE_PATHS} for a tree and {MAX_RECORD_PATHS} for a record"
    )]
    TooManyPaths {
        /// Number of paths, saturating.
        paths: u64,
    },
    /// Its input tree is deeper than any real one.
    #[error("the input tree is deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The union of what dependencies stage at one path.
type StagedDirectory = FxHashMap<Bytes, Vec<(usize, Node)>>;

#[derive(Debug)]
struct Dep {
    element: ElementId,
    sources: Option<Digest>,
    artifact: Option<Digest>,
    behind: Option<Behind>,
    /// Inputs that come from its artifact.
    used: Vec<InputId>,
}

/// A dependency's artifact overlays, by the path in its artifact.
#[derive(Debug)]
struct Behind {
    record: Arc<Record>,
    /// Most of what an element builds against, it takes nothing from.
    by_path: OnceCell<FxHashMap<PathId, Vec<OriginId>>>,
}

impl Behind {
    fn origins(&self, path: PathId) -> &[OriginId] {
        let by_path = self.by_path.get_or_init(|| {
            let mut by_path: FxHashMap<PathId, Vec<OriginId>> = FxHashMap::default();
            for ArtifactOverlay { path, origin } in &self.record.artifact_overlays {
                by_path.entry(*path).or_default().push(*origin);
            }
            by_path
        });
        by_path.get(&path).map_or(&[], Vec::as_slice)
    }
}

/// An output of an observed action.
#[derive(Clone, Debug)]
struct Produced {
    node: Node,
    base: Digest,
    /// The path as the result names it.
    output: PathId,
    /// Number of actions observed before the producing one.
    turn: usize,
}

/// An entry that no path explains.
#[derive(Debug)]
struct Unmatched {
    level: LevelId,
    name: NameId,
    path: PathId,
    node: Node,
    turn: usize,
}

impl Deriver {
    /// A deriver that has seen no action yet.
    ///
    /// `dependencies` is the transitive closure of what the element builds
    /// against, in staging order: where two stage the same path, the later wins.
    #[must_use]
    pub fn new(mode: Mode, digest_function: DigestFunction, element: Observing, dependencies: Vec<Dependency>) -> Self {
        let Observing { name, weak_key, configuration, sources, artifact, own_root, platforms } = element;
        let mut record = Record::new(digest_function, RecordedElement { name: name.clone(), sources, artifact });
        record.weak_key = weak_key;
        record.configuration = configuration;
        let own_root = record.paths.intern(&own_root);
        record.own_root = Some(own_root);
        let mut deriver = Self {
            mode,
            record,
            own_root,
            own_sources: sources,
            dependencies: Vec::new(),
            artifact_roots: FxHashMap::default(),
            platforms: platforms.into_iter().map(|platform| (platform.root, platform.of)).collect(),
            unions: FxHashMap::default(),
            element_ids: FxHashMap::from_iter([(name, ElementId::SELF)]),
            origin_ids: FxHashMap::default(),
            input_ids: FxHashMap::default(),
            levels: Vec::new(),
            memo: FxHashMap::default(),
            staged: FxHashMap::default(),
            outputs: FxHashMap::default(),
            unmatched: Vec::new(),
            local: Vec::new(),
            seen: FxHashSet::default(),
            path_counts: FxHashMap::default(),
        };
        for dependency in dependencies {
            deriver.add_dependency(dependency);
        }
        deriver
    }

    fn add_dependency(&mut self, dependency: Dependency) {
        let Dependency { name, sources, artifact, record } = dependency;
        let element = self.element_id(&name);
        let row = &mut self.record.elements[element.index()];
        row.sources = sources;
        row.artifact = artifact;
        let behind = record.filter(|r| !r.artifact_overlays.is_empty());
        let behind = behind.map(|record| Behind { record, by_path: OnceCell::new() });
        if let Some(root) = artifact.filter(|root| !root.is_empty()) {
            self.artifact_roots.insert(root, self.dependencies.len());
        }
        self.dependencies.push(Dep { element, sources, artifact, behind, used: Vec::new() });
    }

    /// Takes in [how many paths](Forest::path_count) directories have, where that was counted before.
    pub fn know_path_counts(&mut self, counts: FxHashMap<Digest, u64>) {
        self.path_counts = counts;
    }

    /// Adds an action, after those that ran before it. One seen already is ignored.
    ///
    /// # Errors
    /// [`DeriveError`]; nothing of the action is recorded then, and it can be offered again.
    pub fn observe(&mut self, forest: &Forest, observed: &Observed) -> Result<(), DeriveError> {
        if self.seen.contains(&observed.base) {
            return Ok(());
        }
        let paths = forest.path_count(&observed.action.input_root_digest(), &mut self.path_counts);
        if paths > MAX_TREE_PATHS || self.record.paths.path_count() as u64 + paths > MAX_RECORD_PATHS {
            return Err(DeriveError::TooManyPaths { paths });
        }
        let level = self.walk(forest, observed.action.input_root_digest())?;
        let properties = self.properties(&observed.action);
        self.learn_outputs(observed);
        self.seen.insert(observed.base);
        self.record.actions.push(RecordedAction {
            element: ElementId::SELF,
            base: observed.base,
            root: Some(level),
            properties,
            conditions: Vec::new(),
            duration: observed.duration,
            output_bytes: observed.output_bytes,
        });
        Ok(())
    }

    fn properties(&mut self, action: &Action) -> Vec<PropertyInput> {
        let mut properties = Vec::new();
        for property in action.platform() {
            let digest = std::str::from_utf8(property.value).ok().and_then(|v| v.parse::<Digest>().ok());
            let Some((digest, origin)) = digest.and_then(|d| Some((d, self.whole_tree(d)?))) else { continue };
            let input = self.input_id(PathId::ROOT, Node::Directory { digest }, vec![origin]);
            properties.push(PropertyInput { name: self.record.paths.name_id(property.name), input });
        }
        properties
    }

    /// Whose artifact this is, or of which artifacts it is the union.
    fn whole_tree(&mut self, root: Digest) -> Option<OriginId> {
        match self.platforms.get(&root).cloned() {
            Some(of) if of.len() > 1 => {
                if let Some(known) = self.unions.get(&root) {
                    return Some(*known);
                }
                let part = |(name, artifact): (String, Digest)| {
                    let element = self.element_id(&name);
                    self.record.elements[element.index()].artifact.get_or_insert(artifact);
                    let origin = self.origin_id(Origin::Artifact { element, path: PathId::ROOT });
                    self.new_input(Node::Directory { digest: artifact }, origin)
                };
                let of = of.into_iter().map(part).collect();
                let origin = self.derived(Derivation { making: Making::Merge, of });
                self.unions.insert(root, origin);
                Some(origin)
            }
            Some(_) | None => {
                let dep = *self.artifact_roots.get(&root)?;
                let element = self.dependencies[dep].element;
                Some(self.origin_id(Origin::Artifact { element, path: PathId::ROOT }))
            }
        }
    }

    fn learn_outputs(&mut self, observed: &Observed) {
        if self.mode < Mode::IntraElement {
            return;
        }
        let turn = self.record.actions.len();
        for (path, node) in &observed.outputs {
            let Some(place) = join(observed.command.working_directory(), path) else { continue };
            let place = self.record.paths.intern(&place);
            let output = self.record.paths.intern(path);
            let produced = Produced { node: node.clone(), base: observed.base, output, turn };
            let earlier = self.outputs.entry(place).or_default();
            earlier.push(produced);
            // A level that was judged before this output existed may hold the
            // same content at the same path; from now on it means this action.
            if self.input_ids.contains_key(&(place, node.clone())) || earlier.len() > 1 {
                self.forget_levels_on_the_way(place);
            }
        }
    }

    fn forget_levels_on_the_way(&mut self, place: PathId) {
        self.input_ids.retain(|(path, _), _| *path != place);
        let mut ancestors = FxHashSet::default();
        let mut path = place;
        while let Some((parent, _)) = self.record.paths.split(path) {
            ancestors.insert(parent);
            path = parent;
        }
        self.memo.retain(|(path, _), _| !ancestors.contains(path));
    }

    fn element_id(&mut self, name: &str) -> ElementId {
        match self.element_ids.entry(name.to_owned()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let id = ElementId(index(self.record.elements.len()));
                self.record.elements.push(RecordedElement { name: name.to_owned(), sources: None, artifact: None });
                *new.insert(id)
            }
        }
    }
}
