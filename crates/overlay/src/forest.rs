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

    /// Makes room for as many more directories.
    pub fn reserve(&mut self, additional: usize) {
        self.directories.reserve(additional);
    }

    /// Adds a directory.
    pub fn insert(&mut self, digest: Digest, directory: Directory) {
        self.directories.insert(digest, directory);
    }

    /// Adds a directory that is not there; says whether it was not.
    pub fn insert_new(&mut self, digest: Digest, directory: Directory) -> bool {
        if digest.is_empty() {
            return false;
        }
        match self.directories.entry(digest) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(directory);
                true
            }
        }
    }

    /// Takes a directory out, if it is there.
    pub fn remove(&mut self, digest: &Digest) -> Option<Directory> {
        self.directories.remove(digest)
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
        let mut frames: Vec<(Digest, &Directory, usize, u64)> = Vec::new();
        let open = |digest: Digest, known: &mut FxHashMap<Digest, u64>| {
            // Stands in until the children are done, and ends a cycle.
            known.insert(digest, 1);
            let directory = self.get(&digest)?;
            let files = (directory.len() - directory.directory_count()) as u64 + 1;
            Some((digest, directory, 0, files))
        };
        if !known.contains_key(root) {
            frames.extend(open(*root, known));
        }
        while let Some((digest, directory, next, count)) = frames.last_mut() {
            match directory.directory(*next) {
                None => {
                    known.insert(*digest, *count);
                    frames.pop();
                }
                Some(child) => match known.get(&child) {
                    Some(below) => {
                        *count = count.saturating_add(*below);
                        *next += 1;
                    }
                    None => frames.extend(open(child, known)),
                },
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
