//! What is at known paths of a tree now, fetched level by level.

use std::collections::BTreeMap;

use bytes::Bytes;
use reapi_proto::Digest;
use reapi_proto::raw::Node;

use crate::adapt::Now;
use crate::forest::{Forest, MAX_DEPTH};
use crate::model::{Origin, OriginId, Record};
use crate::path::{join, segments};

/// Resolves origins in one tree: the current sources or artifact of an element.
///
/// Only directories on the way to a wanted path are looked at.
#[derive(Debug)]
pub struct Lookup<'r> {
    record: &'r Record,
    /// Rows: children by name, and the origins that end here.
    wanted: Vec<Wanted>,
    frontier: Vec<(usize, Digest)>,
    found: Vec<(OriginId, Now)>,
    depth: usize,
    root: Digest,
    /// Symlinks that were found, each with the path that it leads to.
    links: Vec<(OriginId, Node, Vec<u8>)>,
    hops: usize,
}

/// Symlinks in a row that are followed; `lib.so -> lib.so.1 -> lib.so.1.0` are two.
pub(crate) const MAX_HOPS: usize = 8;

#[derive(Debug, Default)]
struct Wanted {
    children: BTreeMap<Bytes, usize>,
    origins: Vec<OriginId>,
    /// Symlinks that lead here, each with this path.
    links: Vec<(OriginId, Node, Vec<u8>)>,
}

impl<'r> Lookup<'r> {
    /// Starts to look the paths of `origins` up in the tree at `root`.
    #[must_use]
    pub fn new(record: &'r Record, root: Digest, origins: impl IntoIterator<Item = OriginId>) -> Self {
        let mut wanted = vec![Wanted::default()];
        for id in origins {
            let mut row = 0;
            for name in record.paths.segments(record.origin(id).path()) {
                let fresh = wanted.len();
                row = *wanted[row].children.entry(record.paths.name(name).clone()).or_insert(fresh);
                if row == fresh {
                    wanted.push(Wanted::default());
                }
            }
            wanted[row].origins.push(id);
        }
        let (frontier, found, links) = (Vec::new(), Vec::new(), Vec::new());
        let mut lookup = Self { record, wanted, frontier, found, depth: 0, root, links, hops: 0 };
        lookup.arrive(0, Some(&Node::Directory { digest: root }));
        lookup.follow();
        lookup
    }

    /// The directories that must be at hand for the next step, each once.
    #[must_use]
    pub fn needs(&self, forest: &Forest) -> Vec<Digest> {
        let mut needs: Vec<Digest> =
            self.frontier.iter().map(|(_, digest)| *digest).filter(|digest| !forest.contains(digest)).collect();
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// Whether every path has been followed to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.frontier.is_empty()
    }

    /// Steps down one level. Paths through a directory that is still not at
    /// hand, or deeper than any real tree, are lost.
    pub fn advance(&mut self, forest: &Forest) {
        self.depth += 1;
        for (row, digest) in std::mem::take(&mut self.frontier) {
            let directory = forest.get(&digest).filter(|_| self.depth <= MAX_DEPTH);
            let children: Vec<_> =
                self.wanted[row].children.iter().map(|(name, child)| (name.clone(), *child)).collect();
            for (name, child) in children {
                match directory {
                    Some(directory) => self.arrive(child, directory.get(&name).as_ref()),
                    None => self.conclude(child, &Now::Lost),
                }
            }
        }
        self.follow();
    }

    /// Once all paths were followed to their ends: starts anew with those that symlinks lead to.
    fn follow(&mut self) {
        while self.frontier.is_empty() && !self.links.is_empty() {
            let links = std::mem::take(&mut self.links);
            self.hops += 1;
            self.depth = 0;
            if self.hops > MAX_HOPS {
                self.found.extend(links.into_iter().map(|(id, link, _)| (id, Now::Is(link))));
                return;
            }
            self.wanted = vec![Wanted::default()];
            for (id, link, path) in links {
                let mut row = 0;
                for name in segments(&path) {
                    let fresh = self.wanted.len();
                    row = *self.wanted[row].children.entry(Bytes::copy_from_slice(name)).or_insert(fresh);
                    if row == fresh {
                        self.wanted.push(Wanted::default());
                    }
                }
                self.wanted[row].links.push((id, link, path));
            }
            self.arrive(0, Some(&Node::Directory { digest: self.root }));
        }
    }

    /// What was found, once [`is_done`](Self::is_done).
    #[must_use]
    pub fn into_found(self) -> Vec<(OriginId, Now)> {
        self.found
    }

    fn arrive(&mut self, row: usize, node: Option<&Node>) {
        let origins = std::mem::take(&mut self.wanted[row].origins);
        let links = std::mem::take(&mut self.wanted[row].links);
        if let Some(link @ Node::Symlink { target }) = node {
            let paths = &self.record.paths;
            let here = origins.into_iter().map(|id| (id, link.clone(), paths.bytes(self.record.origin(id).path())));
            for (id, first, path) in here.chain(links) {
                match follow_link(&path, target) {
                    Some(path) => self.links.push((id, first, path)),
                    None => self.found.push((id, Now::Is(first))),
                }
            }
        } else {
            let now = node.cloned().map_or(Now::Gone, Now::Is);
            self.found.extend(origins.into_iter().map(|id| (id, now.clone())));
            self.found.extend(links.into_iter().map(|(id, link, _)| match node {
                Some(file @ Node::File { .. }) => (id, Now::Linked { link, file: file.clone() }),
                _ => (id, Now::Is(link)),
            }));
        }
        match node {
            Some(Node::Directory { digest }) if !self.wanted[row].children.is_empty() => {
                self.frontier.push((row, *digest));
            }
            _ => {
                let children: Vec<usize> = self.wanted[row].children.values().copied().collect();
                for child in children {
                    self.conclude(child, &Now::Gone);
                }
            }
        }
    }

    /// Everything at and below a row is `now`.
    fn conclude(&mut self, row: usize, now: &Now) {
        let mut pending = vec![row];
        while let Some(row) = pending.pop() {
            pending.extend(self.wanted[row].children.values());
            let Wanted { origins, links, .. } = std::mem::take(&mut self.wanted[row]);
            self.found.extend(origins.into_iter().map(|id| (id, now.clone())));
            self.found.extend(links.into_iter().map(|(id, link, _)| (id, Now::Is(link))));
        }
    }
}

/// Where a symlink at `path` leads; `None` for a way out of the tree.
pub(crate) fn follow_link(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return join(b"", target);
    }
    let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |end| &path[..end]);
    join(parent, target)
}

/// Which tree of an element an origin is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TreeKind {
    /// Its sources.
    Sources,
    /// Its artifact.
    Artifact,
}

impl Origin {
    /// The tree that holds it; `None` for the output of an action and what is derived.
    #[must_use]
    pub fn tree_kind(&self) -> Option<TreeKind> {
        match self {
            Self::Source { .. } => Some(TreeKind::Sources),
            Self::Artifact { .. } => Some(TreeKind::Artifact),
            Self::Action { .. } | Self::Derived(_) => None,
        }
    }
}
