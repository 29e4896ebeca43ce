//! The directories at hand.

use std::fmt;

use reapi_proto::raw::{Directory, Node};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

/// Directories by digest: the only trees that pure code sees.
///
/// Whoever fills it vouches that each digest names its bytes (`cas-client`
/// verifies every blob it reads). The empty directory is always there.
#[derive(Clone)]
pub struct Forest {
    directories: FxHashMap<Digest, Directory>,
    empty: Option<Directory>,
}

impl Default for Forest {
    fn default() -> Self {
        Self { directories: FxHashMap::default(), empty: Directory::parse(bytes::Bytes::new()).ok() }
    }
}

/// The deepest tree that is walked. Real ones end before 40; Linux paths
/// cannot have more than 2048 segments, and a recursion this deep still fits
/// any thread's stack.
pub const MAX_DEPTH: usize = 256;

impl Forest {
    /// A forest with the empty directory alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub fn insert(&mut self, digest: Digest, directory: Directory) {
        self.directories.insert(digest, directory);
    }

    /// Hashes a directory and adds it.
    pub fn add(&mut self, function: DigestFunction, directory: Directory) -> Digest {
        let digest = function.digest(directory.bytes());
        self.insert(digest, directory);
        digest
    }

    /// The directory with this digest, if at hand.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Directory> {
        if digest.is_empty() { self.empty.as_ref() } else { self.directories.get(digest) }
    }

    /// Whether [`get`](Self::get) would find it.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        digest.is_empty() || self.directories.contains_key(digest)
    }

    /// Number of directories, without the empty one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directories.len()
    }

    /// Whether only the empty directory is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Number of paths in the tree at `root`, the root included and every
    /// shared directory counted wherever it is seen. Saturates; what is not at
    /// hand counts as one. Takes time in the number of *distinct* directories,
    /// so a tree of a billion paths made from thirty directories is refused
    /// before anyone walks it.
    #[must_use]
    pub fn path_count(&self, root: &Digest, known: &mut FxHashMap<Digest, u64>) -> u64 {
        let mut pending = vec![(*root, false)];
        while let Some((digest, children_done)) = pending.pop() {
            if known.contains_key(&digest) && !children_done {
                continue;
            }
            let Some(directory) = self.get(&digest) else {
                known.insert(digest, 1);
                continue;
            };
            if children_done {
                let files = (directory.len() as u64 + 1).saturating_sub(directory.directories().count() as u64);
                let below = directory.directories().map(|(_, child)| known.get(&child).copied().unwrap_or(1));
                let count = below.fold(files, u64::saturating_add);
                known.insert(digest, count);
            } else {
                // Stands in until the children are done, and ends a cycle.
                known.insert(digest, 1);
                pending.push((digest, true));
                pending.extend(directory.directories().map(|(_, child)| (child, false)));
            }
        }
        known.get(root).copied().unwrap_or(1)
    }

    /// What stands at `path` in the tree at `root`.
    ///
    /// # Errors
    /// [`Missing`] names the first directory on the way that is not at hand.
    pub fn find(&self, root: &Digest, path: &[u8]) -> Result<Option<Node>, Missing> {
        let mut node = Node::Directory { digest: *root };
        for segment in crate::path::segments(path) {
            let Node::Directory { digest } = node else { return Ok(None) };
            let directory = self.get(&digest).ok_or(Missing(digest))?;
            match directory.get(segment) {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }
}

impl fmt::Debug for Forest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forest({} directories)", self.directories.len())
    }
}

/// A directory that is needed and not at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("directory {0} is not at hand")]
pub struct Missing(pub Digest);
