//! Substitutions: edits at paths, as values that can be combined and undone.

use std::collections::BTreeMap;

use bytes::Bytes;
use reapi_proto::raw::{Directory, Edit, Node};
use reapi_proto::{Blob, Digest, DigestFunction};

use crate::forest::{Forest, Missing};
use crate::path::segments;
use crate::rewrite::{Change, EditTree, RewriteError, Rewriter, sequence};

/// A set of edits at distinct paths of a tree.
///
/// Total: removing what is not there does nothing, and setting a path below
/// something that is no directory makes directories on the way. The laws that
/// hold are in the crate's tests: identity, composition, commuting of disjoint
/// substitutions, and exact inverses.
#[derive(Clone, Debug)]
pub struct Substitution {
    levels: Vec<BTreeMap<Bytes, Change<usize>>>,
}

impl Default for Substitution {
    fn default() -> Self {
        Self { levels: vec![BTreeMap::new()] }
    }
}

/// A rewritten tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    /// Its root.
    pub root: Digest,
    /// The directories that are new, children before parents.
    pub new: Vec<Blob>,
}

impl Substitution {
    /// The substitution that changes nothing.
    #[must_use]
    pub fn identity() -> Self {
        Self::default()
    }

    /// Adds an edit, to be applied after those already there: it replaces
    /// whatever was set at or below `path`. The empty path is ignored, since a
    /// root has no entry.
    pub fn edit(&mut self, path: &[u8], edit: Edit) {
        let parts: Vec<&[u8]> = segments(path).collect();
        let Some((last, parents)) = parts.split_last() else { return };
        let clear = !matches!(edit, Edit::Remove);
        let level = parents.iter().fold(0, |level, name| self.level_below(level, name, clear));
        self.levels[level].insert(Bytes::copy_from_slice(last), Change::of(edit));
    }

    /// [`edit`](Self::edit) with a node.
    pub fn set(&mut self, path: &[u8], node: Node) {
        self.edit(path, Edit::Set(node));
    }

    /// [`edit`](Self::edit) that removes.
    pub fn remove(&mut self, path: &[u8]) {
        self.edit(path, Edit::Remove);
    }

    /// The substitution that does first `self`, then `next`.
    #[must_use]
    pub fn then(mut self, next: &Self) -> Self {
        self.merge(0, next, 0);
        self
    }

    /// The tree at `root` with the edits applied.
    ///
    /// # Errors
    /// [`RewriteError`] when a directory on the way is not at hand or cannot be edited.
    pub fn apply(&self, forest: &Forest, root: Digest) -> Result<Rewritten, RewriteError> {
        let mut rewriter = Rewriter::new(root.function());
        let root = rewriter.rewrite(self, forest, 0, root)?;
        Ok(Rewritten { root, new: rewriter.take_new() })
    }

    /// The substitution that takes `apply(root)` back to `root`, byte for byte.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn inverse(&self, forest: &Forest, root: Digest) -> Result<Self, RewriteError> {
        let mut rewriter = Rewriter::new(root.function());
        let mut inverse = Self::identity();
        self.invert(forest, &mut rewriter, (0, root), &mut inverse, 0)?;
        Ok(inverse)
    }

    fn level_below(&mut self, level: usize, name: &[u8], clear: bool) -> usize {
        let fresh = self.levels.len();
        let none = Change { set: None, clear: false, below: None };
        let change = self.levels[level].entry(Bytes::copy_from_slice(name)).or_insert(none);
        change.clear |= clear;
        let below = *change.below.get_or_insert(fresh);
        if below == fresh {
            self.levels.push(BTreeMap::new());
        }
        below
    }

    fn merge(&mut self, level: usize, next: &Self, next_level: usize) {
        for (name, change) in &next.levels[next_level] {
            if let Some(set) = &change.set {
                let earlier = self.levels[level].get(name).and_then(Self::certain);
                let set = sequence(earlier.as_ref(), set.clone(), name);
                self.levels[level].insert(name.clone(), Change::of(set));
            }
            if let Some(next_below) = change.below {
                let below = self.level_below(level, name, change.clear);
                self.merge(below, next, next_below);
            }
        }
    }

    /// What an entry certainly is after a change, if it is anything.
    fn certain(change: &Change<usize>) -> Option<Edit> {
        // Of which directory does not matter: only the kind decides what is kept.
        let some_directory = || Edit::Set(Node::Directory { digest: DigestFunction::default().empty() });
        match &change.set {
            Some(Edit::Set(Node::File { .. } | Node::Symlink { .. })) if change.clear => Some(Edit::Remove),
            Some(Edit::Raw(entry)) if change.clear && !matches!(entry.node(), Node::Directory { .. }) => {
                Some(Edit::Remove)
            }
            Some(set) => Some(set.clone()),
            None => change.clear.then(some_directory),
        }
    }

    fn invert(
        &self,
        forest: &Forest,
        rewriter: &mut Rewriter<usize>,
        (level, digest): (usize, Digest),
        inverse: &mut Self,
        inverse_level: usize,
    ) -> Result<(), RewriteError> {
        let directory = forest.get(&digest).ok_or(Missing(digest))?;
        for (name, change) in &self.levels[level] {
            let inner = match directory.get(name) {
                Some(Node::Directory { digest }) if change.set.is_none() => Some(digest),
                _ => None,
            };
            if let (Some(inner), Some(below)) = (inner, change.below) {
                let after = rewriter.rewrite(self, forest, below, inner)?;
                if !after.is_empty() && !inner.is_empty() {
                    let inverse_below = inverse.level_below(inverse_level, name, false);
                    self.invert(forest, rewriter, (below, inner), inverse, inverse_below)?;
                    continue;
                }
            }
            let undo = directory.raw_entry(name).map_or(Edit::Remove, Edit::Raw);
            inverse.levels[inverse_level].insert(name.clone(), Change::of(undo));
        }
        Ok(())
    }
}

impl EditTree for Substitution {
    type Node = usize;

    fn changes(&self, node: usize) -> Vec<(&Bytes, Change<usize>)> {
        self.levels[node].iter().map(|(name, change)| (name, change.clone())).collect()
    }
}

impl Rewritten {
    /// Adds the new directories to a forest, so that the tree can be walked.
    ///
    /// # Errors
    /// Never for trees that this crate wrote; a directory that cannot be parsed is reported.
    pub fn add_to(&self, forest: &mut Forest) -> Result<(), reapi_proto::raw::RawError> {
        for blob in &self.new {
            forest.insert(blob.digest(), Directory::parse(blob.data().clone())?);
        }
        Ok(())
    }
}
