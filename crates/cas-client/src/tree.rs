//! Reading directory trees level by level.
//!
//! A service's own way to read a tree leaves out silently what it lacks, and
//! some services do not have one. Reading Directory messages by digest costs
//! one round trip per level, whatever the number of trees, skips what is
//! known already and reports exactly what is absent.

use bytes::Bytes;
use reapi_proto::raw::{Directory, RawError};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashSet;

use crate::batch::require_function;
use crate::{BlobStore, Error, ErrorKind, Result};

/// Limits of one walk, so that a hostile tree ends in an error and not in exhausted memory.
///
/// A tree is a graph of directories shared by digest, so a small message can
/// stand for an astronomic number of paths. Everything here counts *distinct*
/// directories, which are read and held once each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeBudget {
    /// Distinct directories.
    pub max_directories: usize,
    /// Bytes of all Directory messages together.
    pub max_bytes: u64,
    /// Bytes of one Directory message.
    pub max_directory_bytes: u64,
    /// Entries of all directories together.
    pub max_entries: usize,
    /// Levels below a root, the root's own level included. One level is one round trip.
    pub max_depth: usize,
}

impl TreeBudget {
    /// Fifteen times the distinct directories of 5,000 compile actions with 400 inputs each (65,217).
    pub const DIRECTORIES: usize = 1_000_000;
    /// Sixteen times the Directory bytes of those actions (32 MB).
    pub const BYTES: u64 = 512 << 20;
    /// A directory of some 100,000 files with long names. What services accept
    /// in one batch is smaller, so larger ones are hardly seen.
    pub const DIRECTORY_BYTES: u64 = 16 << 20;
    /// An entry takes about 100 bytes of memory: at most 1 GB of it.
    pub const ENTRIES: usize = 10_000_000;
    /// A path of the longest length that Linux accepts (4,096 bytes) with names
    /// of seven characters.
    pub const DEPTH: usize = 512;
}

impl Default for TreeBudget {
    fn default() -> Self {
        Self {
            max_directories: Self::DIRECTORIES,
            max_bytes: Self::BYTES,
            max_directory_bytes: Self::DIRECTORY_BYTES,
            max_entries: Self::ENTRIES,
            max_depth: Self::DEPTH,
        }
    }
}

/// What [`read_trees`] found. Every digest occurs once, in one of the lists.
#[derive(Debug, Default)]
pub struct Trees {
    /// The directories, each verified, every one before those first seen in it.
    pub directories: Vec<(Digest, Directory)>,
    /// Directories that the store lacks.
    pub missing: Vec<Digest>,
    /// Blobs that are there and are no canonical Directory.
    pub invalid: Vec<(Digest, RawError)>,
    /// Directories that could not be read for another reason, such as damage.
    pub failed: Vec<(Digest, Error)>,
}

impl Trees {
    /// Whether everything was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.invalid.is_empty() && self.failed.is_empty()
    }
}

/// Reads the directory trees below `roots`, each distinct directory once.
///
/// A directory that is `known` is neither read nor descended into: for callers
/// that hold its whole subtree. One [`BlobStore::read_blobs`] call per level.
/// What is wrong with one directory leaves the others usable.
///
/// # Errors
/// `LimitExceeded` when the trees go beyond `budget`, checked before the
/// memory is spent; `Invalid` for roots of another digest function than the
/// store's; failures of the store as a whole.
pub async fn read_trees(
    store: &dyn BlobStore,
    roots: &[Digest],
    known: impl Fn(&Digest) -> bool + Send,
    budget: &TreeBudget,
) -> Result<Trees> {
    require_function("read_trees", store.digest_function(), roots)?;
    let mut walk = Walk::new(store.digest_function(), *budget);
    let mut level = Vec::new();
    for root in roots {
        walk.enqueue(*root, &known, &mut level)?;
    }
    for _ in 0..budget.max_depth {
        if level.is_empty() {
            return Ok(walk.trees);
        }
        let answers = store.read_blobs(&level).await.map_err(|e| walk.charge_call(e, level.len()))?;
        level = walk.take_level(answers, &known)?;
    }
    if level.is_empty() { Ok(walk.trees) } else { Err(exceeded("levels", budget.max_depth as u64, level.first())) }
}

struct Walk {
    function: DigestFunction,
    budget: TreeBudget,
    seen: FxHashSet<Digest>,
    bytes: u64,
    entries: usize,
    trees: Trees,
}

impl Walk {
    fn new(function: DigestFunction, budget: TreeBudget) -> Self {
        Self { function, budget, seen: FxHashSet::default(), bytes: 0, entries: 0, trees: Trees::default() }
    }

    /// Puts a directory on the next level unless it is there already or known.
    fn enqueue(&mut self, digest: Digest, known: &impl Fn(&Digest) -> bool, level: &mut Vec<Digest>) -> Result<()> {
        if known(&digest) || !self.seen.insert(digest) {
            return Ok(());
        }
        let TreeBudget { max_directories, max_bytes, max_directory_bytes, .. } = self.budget;
        self.bytes = self.bytes.saturating_add(digest.size_bytes());
        if self.seen.len() > max_directories {
            return Err(exceeded("directories", max_directories as u64, Some(&digest)));
        }
        if digest.size_bytes() > max_directory_bytes {
            return Err(exceeded("bytes in one directory", max_directory_bytes, Some(&digest)));
        }
        if self.bytes > max_bytes {
            return Err(exceeded("bytes", max_bytes, Some(&digest)));
        }
        level.push(digest);
        Ok(())
    }

    /// Takes in what was read of one level; returns the next one.
    fn take_level(
        &mut self,
        answers: Vec<(Digest, Result<Bytes>)>,
        known: &impl Fn(&Digest) -> bool,
    ) -> Result<Vec<Digest>> {
        let mut next = Vec::new();
        for (digest, outcome) in answers {
            let bytes = match outcome {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.trees.missing.push(digest);
                    continue;
                }
                Err(error) => {
                    self.trees.failed.push((digest, error));
                    continue;
                }
            };
            let directory = match Directory::parse(bytes) {
                Ok(directory) => directory,
                Err(error) => {
                    self.trees.invalid.push((digest, error));
                    continue;
                }
            };
            self.entries = self.entries.saturating_add(directory.len());
            if self.entries > self.budget.max_entries {
                return Err(exceeded("entries", self.budget.max_entries as u64, Some(&digest)));
            }
            for (name, child) in directory.directories() {
                if child.function() == self.function {
                    self.enqueue(child, known, &mut next)?;
                } else if self.seen.insert(child) {
                    let reason = format!("{:?} has a digest of another function", String::from_utf8_lossy(name));
                    self.trees.failed.push((
                        child,
                        Error::new(ErrorKind::Protocol, "read_trees", reason).with_digests([child, digest]),
                    ));
                }
            }
            self.trees.directories.push((digest, directory));
        }
        Ok(next)
    }

    fn charge_call(&self, error: Error, level: usize) -> Error {
        Error::new(
            error.kind(),
            "read_trees",
            format!("{} directories were read; reading the next {level} failed", self.trees.directories.len()),
        )
        .caused_by(error)
    }
}

fn exceeded(what: &str, limit: u64, at: Option<&Digest>) -> Error {
    Error::new(ErrorKind::LimitExceeded, "read_trees", format!("the trees have more than {limit} {what}"))
        .with_digests(at.copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;
    use proptest::prelude::*;
    use reapi_proto::raw::{Node, encode_directory};

    fn directory(store: &InMemory, entries: &[(&str, Digest)]) -> Digest {
        let nodes = entries.iter().map(|(name, digest)| match name.strip_suffix('/') {
            Some(name) => (Bytes::copy_from_slice(name.as_bytes()), Node::Directory { digest: *digest }),
            None => (Bytes::copy_from_slice(name.as_bytes()), Node::File { digest: *digest, executable: false }),
        });
        store.put(encode_directory(nodes).unwrap())
    }

    /// A chain of `length` directories above `bottom`, each holding the one below `width` times.
    fn bomb(store: &InMemory, bottom: Digest, length: usize, width: usize) -> Digest {
        (0..length).fold(bottom, |below, _| {
            let names: Vec<_> = (0..width).map(|i| format!("d{i}/")).collect();
            directory(store, &names.iter().map(|name| (name.as_str(), below)).collect::<Vec<_>>())
        })
    }

    async fn read(store: &InMemory, roots: &[Digest], budget: TreeBudget) -> Result<Trees> {
        read_trees(store, roots, |_| false, &budget).await
    }

    #[tokio::test]
    async fn each_directory_is_read_once_whatever_the_number_of_roots() {
        let store = InMemory::new();
        let file = store.put("file");
        let shared = directory(&store, &[("f", file)]);
        let roots: Vec<_> =
            (0..50).map(|i| directory(&store, &[("shared/", shared), (&format!("f{i}"), file)])).collect();
        store.take_stats();
        let trees = read(&store, &[&roots[..], &roots[..]].concat(), TreeBudget::default()).await.unwrap();
        assert!(trees.is_complete());
        assert_eq!(trees.directories.len(), 51);
        let asked = store.stats().read_blobs;
        assert_eq!((asked.calls, asked.blobs), (2, 51), "one round trip per level");
        assert_eq!(trees.directories.last().map(|(digest, _)| *digest), Some(shared), "parents come first");
    }

    #[tokio::test]
    async fn what_is_known_is_not_read() {
        let store = InMemory::new();
        let below = directory(&store, &[("f", store.put("file"))]);
        let known = directory(&store, &[("below/", below)]);
        let root = directory(&store, &[("known/", known)]);
        let trees = read_trees(&store, &[root], |d| *d == known, &TreeBudget::default()).await.unwrap();
        assert_eq!(trees.directories.iter().map(|(d, _)| *d).collect::<Vec<_>>(), [root]);
        assert!(trees.is_complete());
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_directory_leaves_the_others() {
        let store = InMemory::new();
        let good = directory(&store, &[("f", store.put("file"))]);
        let gone = DigestFunction::Sha256.digest(b"gone");
        let text = store.put("no directory");
        let damaged = directory(&store, &[("g", good)]);
        store.corrupt(&damaged, "damaged");
        let foreign = DigestFunction::Sha512.digest(b"foreign");
        let root = directory(
            &store,
            &[("a/", good), ("b/", gone), ("c/", text), ("d/", damaged), ("e/", foreign), ("f/", gone)],
        );
        let trees = read(&store, &[root], TreeBudget::default()).await.unwrap();
        assert_eq!(trees.directories.iter().map(|(d, _)| *d).collect::<Vec<_>>(), [root, good]);
        assert_eq!(trees.missing, [gone]);
        assert_eq!(trees.invalid.iter().map(|(d, _)| *d).collect::<Vec<_>>(), [text]);
        let failed: Vec<_> = trees.failed.iter().map(|(d, e)| (*d, e.kind())).collect();
        assert_eq!(failed, [(foreign, ErrorKind::Protocol), (damaged, ErrorKind::Corrupt)]);
    }

    #[tokio::test]
    async fn the_empty_directory_needs_no_store() {
        let store = InMemory::new();
        let trees = read(&store, &[DigestFunction::Sha256.empty()], TreeBudget::default()).await.unwrap();
        assert!(trees.is_complete() && trees.directories[0].1.is_empty());
    }

    #[tokio::test]
    async fn a_tree_bomb_is_as_cheap_as_its_directories() {
        let store = InMemory::new();
        let root = bomb(&store, DigestFunction::Sha256.empty(), 100, 2);
        let trees = read(&store, &[root], TreeBudget::default()).await.unwrap();
        assert_eq!(trees.directories.len(), 101, "2^100 paths, 101 directories");
    }

    #[tokio::test]
    async fn every_limit_holds() {
        let store = InMemory::new();
        let file = store.put("file");
        let wide = directory(&store, &[("a", file), ("b", file), ("c", file)]);
        let root = bomb(&store, wide, 5, 1);
        let total: u64 = store.digests().iter().map(Digest::size_bytes).sum::<u64>() - file.size_bytes();
        let exact = TreeBudget {
            max_directories: 6,
            max_bytes: total,
            max_directory_bytes: wide.size_bytes(),
            max_entries: 8,
            max_depth: 6,
        };
        assert_eq!(read(&store, &[root], exact).await.unwrap().directories.len(), 6);
        for (budget, what) in [
            (TreeBudget { max_directories: 5, ..exact }, "5 directories"),
            (TreeBudget { max_bytes: total - 1, ..exact }, "bytes"),
            (TreeBudget { max_directory_bytes: wide.size_bytes() - 1, ..exact }, "bytes in one directory"),
            (TreeBudget { max_entries: 7, ..exact }, "7 entries"),
            (TreeBudget { max_depth: 5, ..exact }, "5 levels"),
        ] {
            let error = read(&store, &[root], budget).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            assert!(error.reason().contains(what), "{error}");
        }
    }

    #[tokio::test]
    async fn hostile_sizes_are_refused_before_anything_is_read() {
        let store = InMemory::new();
        let hash = DigestFunction::Sha256.digest(b"x");
        let huge = Digest::from_raw(DigestFunction::Sha256, hash.hash(), i64::MAX as u64).unwrap();
        let error = read(&store, &[huge, huge], TreeBudget::default()).await.unwrap_err();
        assert_eq!((error.kind(), store.stats().read_blobs.calls), (ErrorKind::LimitExceeded, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let store = InMemory::new();
            let root = store.put(bytes);
            let roots = [root];
            let read = read(&store, &roots, TreeBudget::default());
            let trees = futures_util::FutureExt::now_or_never(read).unwrap().unwrap();
            prop_assert_eq!(trees.directories.len() + trees.invalid.len(), 1, "it is a directory or it is not");
        }
    }
}
