//! What no path explains: matching by digest, as the last resort.

use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::{FxHashMap, FxHashSet};

use super::intern::sort_origins;
use super::{Contents, Deriver, MAX_TREE_PATHS, Mode, Unmatched};
use crate::forest::{Forest, MAX_DEPTH};
use crate::model::{ArtifactOverlay, Below, ElementId, LevelId, Levels, Origin, OriginId, Record};
use crate::path::NameId;
use crate::path::{PathId, Paths};

/// Files of whole trees by digest, for the digests that are looked for.
struct DigestIndex<'w> {
    wanted: &'w FxHashSet<Digest>,
    places: FxHashMap<Digest, Vec<(PathId, bool)>>,
}

impl Deriver {
    /// The trees that [`finish`](Self::finish) would search, each once. Where
    /// it can, the caller brings them to hand in full first; what is absent is
    /// simply not searched.
    #[must_use]
    pub fn wanted_trees(&self) -> Vec<Digest> {
        let mut trees = Vec::new();
        // Also for what no action reads: build scripts, templates.
        trees.extend(self.own_sources);
        if self.unmatched.iter().any(|u| worth_a_search(&u.node) && !self.is_own(u.path)) {
            trees.extend(self.dependencies.iter().filter_map(|d| d.artifact));
        }
        let used = self.dependencies.iter().filter(|d| !d.used.is_empty() && d.sources != d.artifact);
        trees.extend(used.filter_map(|d| d.sources));
        let own = self.record.element(ElementId::SELF);
        if own.sources != own.artifact {
            trees.extend(own.artifact);
            trees.extend(self.own_sources);
        }
        trees.sort_unstable();
        trees.dedup();
        trees
    }

    /// The record, with what is left matched by digest, what was made locally told by its
    /// [contents](Self::local_files), and the element's own artifact explained.
    #[must_use]
    pub fn finish(mut self, forest: &Forest, contents: &Contents) -> Record {
        self.search(forest);
        self.explain_local_files(forest, contents);
        self.look_behind_artifacts(forest);
        self.explain_own_artifact(forest);
        // A copy is made of all that is left, beside which nothing else needs to be in memory.
        self.into_record().compacted()
    }

    /// The record as far as it is known.
    fn into_record(self) -> Record {
        let Self { mut record, levels, .. } = self;
        record.levels = Levels::default();
        let rows = compact_levels(&levels, &record.paths, &mut record.levels);
        for action in &mut record.actions {
            action.root = match action.root {
                Some(level) => rows[level.index()],
                None => None,
            };
        }
        record
    }

    /// Whether a path belongs to the element. Where its files lie at the root
    /// of the tree, that is everything but what dependencies stage beside them.
    pub(super) fn is_own(&self, mut path: PathId) -> bool {
        if self.own_root == PathId::ROOT {
            let top = self.record.paths.segments(path).first().copied();
            let staged = self.staged.get(&PathId::ROOT);
            return !top
                .is_some_and(|top| staged.is_some_and(|staged| staged.contains_key(self.record.paths.name(top))));
        }
        loop {
            if path == self.own_root {
                return true;
            }
            match self.record.paths.split(path) {
                Some((parent, _)) => path = parent,
                None => return false,
            }
        }
    }

    /// Searches the [wanted trees](Self::wanted_trees), as far as they are at hand, for what no path explains:
    /// own files elsewhere in the sources or made by an earlier action, and
    /// staged files elsewhere in a dependency's artifact. The second time, nothing is left to search for.
    pub fn search(&mut self, forest: &Forest) {
        let leftovers: Vec<Unmatched> =
            std::mem::take(&mut self.unmatched).into_iter().filter(|u| worth_a_search(&u.node)).collect();
        let wanted: FxHashSet<Digest> = leftovers.iter().filter_map(|u| file_digest(&u.node)).collect();
        if wanted.is_empty() {
            return;
        }
        let mut made: FxHashMap<Digest, Vec<(PathId, OriginId, usize)>> = FxHashMap::default();
        for (place, produced) in self.outputs.clone() {
            for p in produced {
                if let Some(digest) = file_digest(&p.node).filter(|d| wanted.contains(d)) {
                    let origin =
                        self.origin_id(Origin::Action { element: ElementId::SELF, base: p.base, path: p.output });
                    made.entry(digest).or_default().push((place, origin, p.turn));
                }
            }
        }
        let sources = self.index_of(forest, self.own_sources, &wanted);
        let artifacts: Vec<_> = (0..self.dependencies.len())
            .map(|dep| (dep, self.index_of(forest, self.dependencies[dep].artifact, &wanted)))
            .collect();
        for Unmatched { level, name, path, node, turn } in leftovers {
            let Some(digest) = file_digest(&node) else { continue };
            let mut origins = Vec::new();
            if self.is_own(path) {
                let from_sources = self.source_at_same_path(forest, path);
                // What the build wrote over one of its sources comes from no other.
                if from_sources.is_some() {
                    self.local.push(Unmatched { level, name, path, node, turn });
                    continue;
                }
                if let Some(found) = best(&self.record.paths, path, &digest, sources.places(&digest, &node)) {
                    origins.push(self.origin_id(Origin::Source { element: ElementId::SELF, path: found }));
                } else {
                    let earlier = made.get(&digest).into_iter().flatten().filter(|(_, _, t)| *t < turn);
                    let latest =
                        earlier.max_by_key(|(place, _, t)| (common_suffix(&self.record.paths, *place, path), *t));
                    origins.extend(latest.map(|(_, origin, _)| *origin));
                }
            } else {
                let found = artifacts.iter().rev().find_map(|(dep, index)| {
                    Some((*dep, best(&self.record.paths, path, &digest, index.places(&digest, &node))?))
                });
                if let Some((dep, at)) = found {
                    origins
                        .push(self.origin_id(Origin::Artifact { element: self.dependencies[dep].element, path: at }));
                    origins.extend(self.origins_behind(dep, at));
                }
            }
            if origins.is_empty() {
                if self.is_own(path) {
                    self.local.push(Unmatched { level, name, path, node, turn });
                }
                continue;
            }
            let known = self.record.inputs.len();
            let input = self.input_id(path, node, origins);
            if input.index() == known {
                self.note_use(input);
            }
            self.levels[level.index()].push((name, Below::Input(input)));
        }
    }

    fn source_at_same_path(&self, forest: &Forest, path: PathId) -> Option<Node> {
        let below = self.record.paths.bytes(path);
        let root = self.record.paths.bytes(self.own_root);
        let relative = below.strip_prefix(root.as_slice())?;
        forest.find(&self.own_sources?, relative).ok().flatten()
    }

    /// For dependencies without a record of their own: the source that an
    /// artifact's file was installed from, as a guess that is known earlier.
    fn look_behind_artifacts(&mut self, forest: &Forest) {
        for dep in 0..self.dependencies.len() {
            let used = std::mem::take(&mut self.dependencies[dep].used);
            let Some(sources) = self.dependencies[dep].sources else { continue };
            let imported = self.dependencies[dep].artifact == Some(sources);
            let wanted: FxHashSet<Digest> =
                used.iter().filter_map(|id| file_digest(self.record.input(*id).recorded.whole()?)).collect();
            // An import installs everything under its own path.
            let searched = (!imported && !wanted.is_empty()).then_some(sources);
            let index = self.index_of(forest, searched, &wanted);
            let element = self.dependencies[dep].element;
            for id in used {
                let input = self.record.input(id).clone();
                let Some(authority) = input.origins.first() else { continue };
                let installed = self.record.origin(*authority).path();
                let source = match input.recorded.whole().and_then(file_digest) {
                    _ if imported => Some(installed),
                    Some(digest) => best(&self.record.paths, installed, &digest, index.all_places(&digest)),
                    None => None,
                };
                if let Some(path) = source {
                    let guess = self.origin_id(Origin::Source { element, path });
                    let origins = &mut self.record.inputs[id.index()].origins;
                    origins.push(guess);
                    sort_origins(&self.record.origins, origins);
                }
            }
        }
    }

    /// Artifact overlays: which source or action each file of the own artifact is from.
    fn explain_own_artifact(&mut self, forest: &Forest) {
        let own = self.record.element(ElementId::SELF).clone();
        // An import: dependents find everything under the same path.
        if own.sources == own.artifact {
            return;
        }
        let Some(artifact) = own.artifact else { return };
        let mut files = Vec::new();
        walk_files(forest, artifact, &mut self.record.paths, &mut |path, node| {
            if let Some(digest) = file_digest(node) {
                files.push((path, digest));
            }
        });
        let wanted: FxHashSet<Digest> = files.iter().map(|(_, digest)| *digest).collect();
        let sources = self.index_of(forest, own.sources, &wanted);
        let mut made: FxHashMap<Digest, Vec<(PathId, Origin)>> = FxHashMap::default();
        for (place, produced) in &self.outputs {
            for p in produced {
                let origin = Origin::Action { element: ElementId::SELF, base: p.base, path: p.output };
                if let Some(digest) = file_digest(&p.node).filter(|d| wanted.contains(d)) {
                    made.entry(digest).or_default().push((*place, origin));
                }
            }
        }
        for (path, digest) in files {
            if let Some(source) = best(&self.record.paths, path, &digest, sources.all_places(&digest)) {
                let origin = self.origin_id(Origin::Source { element: ElementId::SELF, path: source });
                self.record.artifact_overlays.push(ArtifactOverlay { path, origin });
            }
            let paths = &self.record.paths;
            let action = made.get(&digest).filter(|_| !digest.is_empty()).and_then(|made| {
                made.iter().max_by_key(|(place, _)| (common_suffix(paths, *place, path), std::cmp::Reverse(*place)))
            });
            if let Some((_, origin)) = action.copied() {
                let origin = self.origin_id(origin);
                self.record.artifact_overlays.push(ArtifactOverlay { path, origin });
            }
        }
    }

    fn index_of<'w>(
        &mut self,
        forest: &Forest,
        root: Option<Digest>,
        wanted: &'w FxHashSet<Digest>,
    ) -> DigestIndex<'w> {
        let mut index = DigestIndex { wanted, places: FxHashMap::default() };
        if let Some(root) = root {
            let DigestIndex { wanted, places } = &mut index;
            walk_files(forest, root, &mut self.record.paths, &mut |path, node| {
                if let Node::File { digest, executable } = node
                    && wanted.contains(digest)
                {
                    places.entry(*digest).or_default().push((path, *executable));
                }
            });
        }
        index
    }

    /// Whether this mode records anything at all.
    #[must_use]
    pub fn records(&self) -> bool {
        self.mode >= Mode::SourceArtifact
    }
}

impl DigestIndex<'_> {
    /// Where the contents are, whatever the executable bit: installing sets that anew.
    fn all_places(&self, digest: &Digest) -> impl Iterator<Item = PathId> {
        self.places.get(digest).into_iter().flatten().map(|(path, _)| *path)
    }

    fn places(&self, digest: &Digest, node: &Node) -> impl Iterator<Item = PathId> {
        let executable = matches!(node, Node::File { executable: true, .. });
        self.places.get(digest).into_iter().flatten().filter(move |(_, e)| *e == executable).map(|(path, _)| *path)
    }
}

/// The candidate most like `target`: same last segment and the longest common
/// suffix. Without one of the same name, a single candidate will do if it has
/// any content at all; several are a coin toss.
fn best(paths: &Paths, target: PathId, content: &Digest, candidates: impl Iterator<Item = PathId>) -> Option<PathId> {
    let mut count = 0;
    let like = candidates.map(|candidate| {
        count += 1;
        (common_suffix(paths, candidate, target), std::cmp::Reverse(candidate))
    });
    let (suffix, path) = like.max()?;
    (suffix > 0 || (count == 1 && !content.is_empty())).then_some(path.0)
}

/// Number of equal trailing segments.
fn common_suffix(paths: &Paths, mut a: PathId, mut b: PathId) -> usize {
    let mut common = 0;
    while let (Some((parent_a, name_a)), Some((parent_b, name_b))) = (paths.split(a), paths.split(b)) {
        if name_a != name_b {
            break;
        }
        common += 1;
        (a, b) = (parent_a, parent_b);
    }
    common
}

pub(super) fn file_digest(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } => Some(*digest),
        _ => None,
    }
}

/// Empty files are everywhere and mean nothing; symlinks have no digest.
fn worth_a_search(node: &Node) -> bool {
    file_digest(node).is_some_and(|d| !d.is_empty())
}

/// Every file below `root` that can be reached with what is at hand. A tree
/// with more paths than any real one is not walked.
pub(super) fn walk_files(forest: &Forest, root: Digest, paths: &mut Paths, visit: &mut impl FnMut(PathId, &Node)) {
    if forest.path_count(&root, &mut FxHashMap::default()) > MAX_TREE_PATHS {
        return;
    }
    let mut pending = vec![(PathId::ROOT, root, 0)];
    while let Some((at, digest, depth)) = pending.pop() {
        let Some(directory) = forest.get(&digest).filter(|_| depth <= MAX_DEPTH) else { continue };
        for entry in directory.entries() {
            let name = paths.name_id(entry.name);
            let path = paths.child(at, name);
            match entry.node {
                Node::Directory { digest } => pending.push((path, digest, depth + 1)),
                node => visit(path, &node),
            }
        }
    }
}

/// Drops levels without entries and renumbers the others; order stays bottom-up.
fn compact_levels(found: &[Vec<(NameId, Below)>], paths: &Paths, levels: &mut Levels) -> Vec<Option<LevelId>> {
    let mut rows: Vec<Option<LevelId>> = Vec::with_capacity(found.len());
    let ranks = paths.name_ranks();
    let mut kept: Vec<(NameId, Below)> = Vec::new();
    for entries in found {
        kept.clear();
        kept.extend(entries.iter().filter_map(|(name, below)| match below {
            Below::Level(level) => rows[level.index()].map(|row| (*name, Below::Level(row))),
            input => Some((*name, *input)),
        }));
        kept.sort_unstable_by_key(|(name, _)| ranks[name.0 as usize]);
        rows.push((!kept.is_empty()).then(|| levels.push(kept.iter().copied())));
    }
    rows
}
