//! Bottom-up rewriting of a Merkle tree along a tree of edits.

use std::hash::Hash;

use bytes::Bytes;
use reapi_proto::raw::{Directory, Edit, Node, RawEntry, RawError, encode_directory};
use reapi_proto::{Blob, Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::forest::{Forest, MAX_DEPTH, Missing};

/// What happens to one name of a directory: first `set`, then `clear`, then
/// `below` on the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change<N> {
    /// Replaces or removes the entry itself.
    pub set: Option<Edit>,
    /// Removes the entry unless it is a directory: something was put below it
    /// at some time, even if it has been taken away again.
    pub clear: bool,
    /// Edits inside the directory of that name. Where there is no directory
    /// (any more), one is made if the edits put something into it.
    pub below: Option<N>,
}

impl<N> Change<N> {
    /// The entry itself is edited.
    #[must_use]
    pub fn of(edit: Edit) -> Self {
        Self { set: Some(edit), clear: false, below: None }
    }
}

/// A tree of edits, walked in step with the tree that it applies to.
///
/// A node must mean the same edits wherever it is met: equal nodes over equal
/// directories are rewritten once.
pub trait EditTree {
    /// Names one level of the edits.
    type Node: Copy + Eq + Hash;

    /// The edits of one level, sorted by name, each name once.
    fn changes(&self, node: Self::Node) -> Vec<(&Bytes, Change<Self::Node>)>;
}

/// Why a tree could not be rewritten. Nothing is half done: the caller drops the result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewriteError {
    /// A directory on the way is not at hand.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A directory could not be edited.
    #[error("directory {directory} cannot be edited: {reason}")]
    Edit {
        /// The directory as it was.
        directory: Digest,
        /// What is wrong with it or the edit.
        reason: Box<RawError>,
    },
    /// The tree is deeper than [`MAX_DEPTH`].
    #[error("the tree is deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Rewrites trees, each distinct (edits, directory) pair once, and collects the directories that are new.
///
/// A directory that loses its last entry disappears from its parent, unless
/// something else (properties, unknown fields) is left in its message. An edit
/// that changes nothing leaves every digest as it was.
#[derive(Debug)]
pub struct Rewriter<N> {
    function: DigestFunction,
    memo: FxHashMap<N, (Digest, Option<Digest>)>,
    new: Vec<Blob>,
}

impl<N: Copy + Eq + Hash> Rewriter<N> {
    /// A rewriter with nothing remembered.
    #[must_use]
    pub fn new(function: DigestFunction) -> Self {
        Self { function, memo: FxHashMap::default(), new: Vec::new() }
    }

    /// The root of the rewritten tree.
    ///
    /// # Errors
    /// [`RewriteError`]; directories that were finished before stay in [`take_new`](Self::take_new).
    pub fn rewrite<T: EditTree<Node = N>>(
        &mut self,
        edits: &T,
        forest: &Forest,
        node: N,
        root: Digest,
    ) -> Result<Digest, RewriteError> {
        Ok(self.directory(edits, forest, node, root, 0)?.unwrap_or_else(|| self.function.empty()))
    }

    /// Forgets what became of `node`, because its edits are about to change.
    pub fn forget(&mut self, node: N) {
        self.memo.remove(&node);
    }

    /// Forgets what became of every node.
    pub fn forget_all(&mut self) {
        self.memo.clear();
    }

    /// The new directories since the last call, children before parents, each once.
    pub fn take_new(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.new)
    }

    /// `None`: the directory has become empty.
    fn directory<T: EditTree<Node = N>>(
        &mut self,
        edits: &T,
        forest: &Forest,
        node: N,
        digest: Digest,
        depth: usize,
    ) -> Result<Option<Digest>, RewriteError> {
        if let Some((before, after)) = self.memo.get(&node)
            && *before == digest
        {
            return Ok(*after);
        }
        if depth > MAX_DEPTH {
            return Err(RewriteError::TooDeep);
        }
        let directory = forest.get(&digest).ok_or(Missing(digest))?;
        let failed = |reason| RewriteError::Edit { directory: digest, reason: Box::new(reason) };
        let changes = edits.changes(node);
        let mut applied: Vec<(&Bytes, Edit)> = Vec::with_capacity(changes.len());
        for (name, change) in changes {
            let mut edit = change.set;
            if let Some(below) = change.below {
                let mut replaced = match &edit {
                    None => None,
                    Some(Edit::Set(node)) => {
                        Some(entry_after(directory.raw_entry(name).as_ref(), node, name).map_err(failed)?)
                    }
                    Some(Edit::Raw(entry)) => Some(Some(entry.clone())),
                    Some(Edit::Remove) => Some(None),
                };
                let inner = match &replaced {
                    None => directory.subdirectory(name),
                    Some(entry) => entry.as_ref().map(RawEntry::node).as_ref().and_then(as_directory),
                };
                let stands = || match &replaced {
                    None => directory.get(name).is_some(),
                    Some(entry) => entry.is_some(),
                };
                if change.clear && inner.is_none() && stands() {
                    edit = Some(Edit::Remove);
                    replaced = Some(None);
                }
                let before = inner.unwrap_or_else(|| self.function.empty());
                let after = match self.directory(edits, forest, below, before, depth + 1)? {
                    Some(after) => Some(after),
                    None => {
                        // What the entry says beyond its digest would be lost with it.
                        let entry = replaced.unwrap_or_else(|| directory.raw_entry(name));
                        entry.is_some_and(|entry| !is_plain(&entry)).then(|| self.function.empty())
                    }
                };
                match after {
                    Some(after) if after != before => {
                        let directory = Edit::Set(Node::Directory { digest: after });
                        edit = Some(sequence(edit.as_ref(), directory, name));
                    }
                    None if inner.is_some() && !before.is_empty() => edit = Some(Edit::Remove),
                    _ => {}
                }
            }
            match edit {
                Some(Edit::Remove) if directory.get(name).is_none() => {}
                Some(edit) => applied.push((name, edit)),
                None => {}
            }
        }
        let after = if applied.is_empty() {
            (!directory.bytes().is_empty()).then_some(digest)
        } else {
            let bytes = directory.splice(&applied).map_err(failed)?;
            if bytes.is_empty() {
                None
            } else if bytes == *directory.bytes() {
                Some(digest)
            } else {
                let blob = Blob::new(self.function, bytes);
                let after = blob.digest();
                self.new.push(blob);
                Some(after)
            }
        };
        self.memo.insert(node, (digest, after));
        Ok(after)
    }
}

/// The single edit that does what `first` and then `next` do to the entry `name`.
///
/// Setting a node keeps what else an entry of the same kind says; so when
/// `first` has replaced the entry, `next` must not find the old one again.
pub(crate) fn sequence(first: Option<&Edit>, next: Edit, name: &Bytes) -> Edit {
    let (Some(first), Edit::Set(node)) = (first, &next) else { return next };
    let replaced = match first {
        Edit::Set(before) if same_kind(before, node) => return next,
        Edit::Set(_) | Edit::Remove => None,
        Edit::Raw(entry) => Some(entry),
    };
    // A name that no entry may have is refused when the edit is applied.
    match entry_after(replaced, node, name) {
        Ok(Some(entry)) => Edit::Raw(entry),
        _ => next,
    }
}

/// The entry that setting `node` makes of `entry`.
fn entry_after(entry: Option<&RawEntry>, node: &Node, name: &Bytes) -> Result<Option<RawEntry>, RawError> {
    let bytes = match entry.filter(|entry| same_kind(&entry.node(), node)) {
        Some(entry) => Directory::parse(entry.bytes().clone())?.splice(&[(name.clone(), Edit::Set(node.clone()))])?,
        None => encode_directory([(name.clone(), node.clone())])?,
    };
    RawEntry::parse(bytes).map(Some)
}

/// Whether an entry says nothing but its name and node.
fn is_plain(entry: &RawEntry) -> bool {
    encode_directory([(Bytes::copy_from_slice(entry.name()), entry.node())]).is_ok_and(|plain| plain == *entry.bytes())
}

fn same_kind(a: &Node, b: &Node) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn as_directory(node: &Node) -> Option<Digest> {
    match node {
        Node::Directory { digest } => Some(*digest),
        _ => None,
    }
}
