//! Matching by path: input trees walked in step with sources, outputs and artifacts.

use std::sync::Arc;

use bytes::Bytes;
use reapi_proto::Digest;
use reapi_proto::raw::{Directory, Node};

use super::{DeriveError, Deriver, StagedDirectory, Unmatched};
use crate::forest::{Forest, MAX_DEPTH, Missing};
use crate::lookup::{MAX_HOPS, follow_link};
use crate::model::{Below, ElementId, InputId, LevelId, Origin, OriginId};
use crate::path::{PathId, index};

/// Where in the element's own sources a walk is.
#[derive(Clone, Copy)]
enum Own<'f> {
    /// Not below the element's root.
    Outside,
    /// Below it, at a path that the sources have as a directory.
    At(&'f Directory, PathId),
    /// Below it, at a path that the sources do not have.
    Beyond,
}

impl Deriver {
    pub(super) fn walk(&mut self, forest: &Forest, root: Digest) -> Result<LevelId, DeriveError> {
        let staged = match self.staged.get(&PathId::ROOT) {
            Some(staged) => Arc::clone(staged),
            None => {
                let roots = self.dependencies.iter().enumerate().filter_map(|(i, d)| Some((i, d.artifact?)));
                union(forest, roots.collect::<Vec<_>>().into_iter())?
            }
        };
        self.staged.insert(PathId::ROOT, Arc::clone(&staged));
        let own = self.enter_own(forest, PathId::ROOT, Own::Outside)?;
        self.level(forest, (PathId::ROOT, root), own, &staged, 0)
    }

    fn level(
        &mut self,
        forest: &Forest,
        place: (PathId, Digest),
        own: Own<'_>,
        staged: &StagedDirectory,
        depth: usize,
    ) -> Result<LevelId, DeriveError> {
        if let Some(&level) = self.memo.get(&place) {
            return Ok(level);
        }
        let (path, digest) = place;
        if depth > MAX_DEPTH {
            return Err(DeriveError::TooDeep);
        }
        let directory = forest.get(&digest).ok_or(Missing(digest))?;
        let mut entries = Vec::new();
        let mut unmatched = Vec::new();
        for entry in directory.entries() {
            let name = self.record.paths.name_id(entry.name);
            let here = self.record.paths.child(path, name);
            let candidates = staged.get(entry.name).map_or(&[][..], Vec::as_slice);
            if let Node::Directory { digest } = entry.node {
                if let Some(&level) = self.memo.get(&(here, digest)) {
                    entries.push((name, Below::Level(level)));
                    continue;
                }
                let below = self.subdirectory(forest, (here, digest), entry.name, own, candidates, depth)?;
                entries.extend(below.map(|below| (name, below)));
                continue;
            }
            // What is known at the path is known with its origins.
            let place = (here, entry.node);
            if let Some(&input) = self.input_ids.get(&place) {
                entries.push((name, Below::Input(input)));
                continue;
            }
            let node = place.1;
            let origins = self.origins_at(forest, here, entry.name, &node, own, candidates);
            if origins.is_empty() {
                unmatched.push((name, here, node));
            } else {
                let known = self.record.inputs.len();
                let input = self.input_id(here, node, origins);
                if input.index() == known {
                    self.note_use(input);
                }
                entries.push((name, Below::Input(input)));
            }
        }
        let level = LevelId(index(self.levels.len()));
        let turn = self.record.actions.len();
        self.unmatched.extend(unmatched.into_iter().map(|(name, path, node)| Unmatched {
            level,
            name,
            path,
            node,
            turn,
        }));
        self.levels.push(entries);
        self.memo.insert(place, level);
        Ok(level)
    }

    fn subdirectory(
        &mut self,
        forest: &Forest,
        place: (PathId, Digest),
        name: &[u8],
        own: Own<'_>,
        candidates: &[(usize, Node)],
        depth: usize,
    ) -> Result<Option<Below>, DeriveError> {
        let (here, digest) = place;
        let staged = match self.staged.get(&here) {
            Some(staged) => Arc::clone(staged),
            None => {
                let roots = candidates.iter().filter_map(|(dep, node)| match node {
                    Node::Directory { digest } => Some((*dep, *digest)),
                    _ => None,
                });
                let staged = union(forest, roots)?;
                self.staged.insert(here, Arc::clone(&staged));
                staged
            }
        };
        let below = match own {
            Own::At(sources, at) => match sources.get(name) {
                Some(Node::Directory { digest }) => {
                    let sources = forest.get(&digest).ok_or(Missing(digest))?;
                    let name = self.record.paths.name_id(name);
                    Own::At(sources, self.record.paths.child(at, name))
                }
                _ => Own::Beyond,
            },
            other => self.enter_own(forest, here, other)?,
        };
        // A whole artifact in a place of its own. Where the path itself is
        // staged or the element's own, its entries say more.
        if staged.is_empty()
            && matches!(below, Own::Outside | Own::Beyond)
            && let Some(origin) = self.whole_tree(digest)
        {
            return Ok(Some(Below::Input(self.input_id(here, Node::Directory { digest }, vec![origin]))));
        }
        self.level(forest, place, below, &staged, depth + 1).map(|level| Some(Below::Level(level)))
    }

    fn enter_own<'f>(&self, forest: &'f Forest, path: PathId, otherwise: Own<'f>) -> Result<Own<'f>, Missing> {
        match self.own_sources {
            _ if path != self.own_root => Ok(otherwise),
            Some(root) => Ok(Own::At(forest.get(&root).ok_or(Missing(root))?, PathId::ROOT)),
            None => Ok(Own::Beyond),
        }
    }

    fn origins_at(
        &mut self,
        forest: &Forest,
        here: PathId,
        name: &[u8],
        node: &Node,
        own: Own<'_>,
        candidates: &[(usize, Node)],
    ) -> Vec<OriginId> {
        let mut origins = Vec::new();
        if let Own::At(sources, at) = own
            && sources.get(name).is_some_and(|source| source == *node)
        {
            let name = self.record.paths.name_id(name);
            let path = self.record.paths.child(at, name);
            origins.push(Origin::Source { element: ElementId::SELF, path });
        }
        if let Some(produced) = self.outputs.get(&here)
            && let Some(last) = produced.iter().rev().find(|p| p.node == *node)
        {
            origins.push(Origin::Action { element: ElementId::SELF, base: last.base, path: last.output });
        }
        let mut ids: Vec<OriginId> = origins.into_iter().map(|origin| self.origin_id(origin)).collect();
        if let Some((dep, _)) = candidates.iter().rev().find(|(_, staged)| staged == node) {
            ids.push(self.origin_id(Origin::Artifact { element: self.dependencies[*dep].element, path: here }));
            ids.extend(self.origins_behind(*dep, here));
        } else if self.own_root == PathId::ROOT
            && let Some((dep, Node::Symlink { target })) = candidates.last()
            && let Some(root) = self.dependencies[*dep].artifact
            && self.file_behind(forest, root, here, target).as_ref() == Some(node)
        {
            // The client took what is behind the link.
            let element = self.dependencies[*dep].element;
            ids.push(self.origin_id(Origin::Artifact { element, path: here }));
        }
        ids
    }

    /// The file that a symlink leads to in the same tree, as far as that is at hand.
    fn file_behind(&self, forest: &Forest, root: Digest, link: PathId, target: &[u8]) -> Option<Node> {
        let mut path = follow_link(&self.record.paths.bytes(link), target)?;
        for _ in 0..MAX_HOPS {
            match forest.find(&root, &path).ok()?? {
                Node::Symlink { target } => path = follow_link(&path, &target)?,
                file @ Node::File { .. } => return Some(file),
                Node::Directory { .. } => return None,
            }
        }
        None
    }

    /// What a dependency's own record says of a file of its artifact.
    pub(super) fn origins_behind(&mut self, dep: usize, artifact_path: PathId) -> Vec<OriginId> {
        let Some(behind) = self.dependencies[dep].behind.take() else { return Vec::new() };
        let path = behind.record.paths.find(&self.record.paths.bytes(artifact_path));
        let owner = self.dependencies[dep].element;
        let found: Vec<OriginId> = path
            .map_or(&[][..], |path| behind.origins(path))
            .iter()
            .filter_map(|id| self.adopt(&behind.record, owner, behind.record.origin(*id)))
            .collect();
        self.dependencies[dep].behind = Some(behind);
        found
    }

    /// Remembers that an input comes from a dependency's artifact.
    pub(super) fn note_use(&mut self, input: InputId) {
        let Some(Origin::Artifact { element, .. }) =
            self.record.input(input).origins.first().map(|id| *self.record.origin(*id))
        else {
            return;
        };
        if let Some(dep) = self.dependencies.iter_mut().find(|d| d.element == element && d.behind.is_none()) {
            dep.used.push(input);
        }
    }
}

fn union(forest: &Forest, roots: impl Iterator<Item = (usize, Digest)>) -> Result<Arc<StagedDirectory>, Missing> {
    let mut staged = StagedDirectory::default();
    for (dep, root) in roots {
        for entry in forest.get(&root).ok_or(Missing(root))?.entries() {
            match staged.get_mut(entry.name) {
                Some(known) => known.push((dep, entry.node)),
                None => drop(staged.insert(Bytes::copy_from_slice(entry.name), vec![(dep, entry.node)])),
            }
        }
    }
    Ok(Arc::new(staged))
}
