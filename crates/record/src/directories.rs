//! The directories at hand, and reading the others level by level.
//!
//! Unlike `cas_client::read_trees` this descends into what is at hand already
//! without reading it again, and tells apart which of many trees are beyond
//! the budget.

use cas_client::{BlobStore, ErrorKind, Result, TreeBudget};
use overlay::derive::MAX_TREE_PATHS;
use overlay::{Forest, MAX_DEPTH, Merge, Prefetch};
use reapi_proto::raw::{Directory, Tree};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::SkipReason;
use crate::messages::unanswered;

/// Shares of the budget that a single tree may use where all trees together are beyond it.
const SHARES: u64 = 8;

/// Directories of all elements of a run, each read at most once while it is held.
#[derive(Debug)]
pub(crate) struct Directories {
    function: DigestFunction,
    budget: TreeBudget,
    forest: Forest,
    held: Amount,
    /// Those that were asked for in vain, and why.
    flaws: FxHashMap<Digest, SkipReason>,
    path_counts: FxHashMap<Digest, u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    directories: u64,
    bytes: u64,
    entries: u64,
}

impl Amount {
    fn count(&mut self, bytes: u64, entries: u64) {
        self.directories += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries = self.entries.saturating_add(entries);
    }

    /// Whether this is more than one `share`th of the budget.
    fn exceeds(&self, budget: &TreeBudget, share: u64) -> bool {
        self.directories > budget.max_directories as u64 / share
            || self.bytes > budget.max_bytes / share
            || self.entries > budget.max_entries as u64 / share
    }
}

/// The directories that one walk has come by.
struct Walk {
    seen: FxHashSet<Digest>,
    amount: Amount,
    share: u64,
}

/// The trees are beyond the budget; what was read of them is held.
struct OverBudget;

impl Directories {
    pub(crate) fn new(function: DigestFunction, budget: TreeBudget) -> Self {
        Self {
            function,
            budget,
            forest: Forest::new(),
            held: Amount::default(),
            flaws: FxHashMap::default(),
            path_counts: FxHashMap::default(),
        }
    }

    pub(crate) fn forest(&self) -> &Forest {
        &self.forest
    }

    /// Forgets everything once it is more than half of the budget, so that a
    /// run of many elements does not hold all their directories.
    pub(crate) fn trim(&mut self) {
        if self.held.exceeds(&self.budget, 2) {
            *self = Self::new(self.function, self.budget);
        }
    }

    /// Why a directory is not at hand.
    pub(crate) fn reason(&self, digest: Digest) -> SkipReason {
        let unread = || SkipReason::LimitExceeded(format!("directory {digest} was not read: the trees are too large"));
        self.flaws.get(&digest).cloned().unwrap_or_else(unread)
    }

    /// Reads input trees. Returns those that are beyond the budget or expand
    /// to more paths than any real tree; the others are at hand, or the store does not have them.
    pub(crate) async fn read_inputs(
        &mut self,
        store: &dyn BlobStore,
        roots: &[Digest],
    ) -> Result<FxHashMap<Digest, SkipReason>> {
        let mut refused = FxHashMap::default();
        if self.read_trees(store, roots).await?.is_err() {
            // One tree must not spoil the others: each by itself, the first ones first.
            *self = Self::new(self.function, self.budget);
            let mut total = Walk::new(1);
            for root in roots {
                let mut walk = Walk::new(SHARES);
                let fits = self.walk(store, &[*root], &mut walk).await?.is_ok() && total.take_in(walk, self);
                if !fits {
                    let reason = format!("input tree {root} is beyond the limits for directories of one element");
                    refused.insert(*root, SkipReason::LimitExceeded(reason));
                }
                if self.held.exceeds(&self.budget, 1) {
                    self.keep_only(&total.seen);
                }
            }
        }
        let mut counts = FxHashMap::default();
        counts.reserve(self.forest.len());
        for root in roots {
            let paths = self.forest.path_count(root, &mut counts);
            if paths > MAX_TREE_PATHS {
                let reason = format!("input tree {root} has {paths} paths; the limit is {MAX_TREE_PATHS}");
                refused.entry(*root).or_insert(SkipReason::LimitExceeded(reason));
            }
        }
        self.path_counts = counts;
        Ok(refused)
    }

    /// How many paths the [input trees](Self::read_inputs) have, and everything below them.
    pub(crate) fn take_path_counts(&mut self) -> FxHashMap<Digest, u64> {
        std::mem::take(&mut self.path_counts)
    }

    /// Reads whole trees as far as they fit into the budget; says whether all of them did.
    pub(crate) async fn read_whole(&mut self, store: &dyn BlobStore, roots: &[Digest]) -> Result<bool> {
        Ok(self.read_trees(store, roots).await?.is_ok())
    }

    /// Reads what deriving looks at beside the input trees. What does not fit
    /// into the budget stays unread.
    pub(crate) async fn read_beside(&mut self, store: &dyn BlobStore, mut prefetch: Prefetch) -> Result<()> {
        let mut walk = Walk::new(1);
        while !prefetch.is_done() {
            let mut needs = prefetch.needs(&self.forest);
            needs.retain(|digest| !self.flaws.contains_key(digest));
            if self.read(store, &needs, &mut walk).await?.is_err() {
                break;
            }
            prefetch.advance(&self.forest);
        }
        Ok(())
    }

    /// The root of the union of trees; `None` where what it takes cannot be read.
    pub(crate) async fn union(&mut self, store: &dyn BlobStore, roots: &[Digest]) -> Result<Option<Digest>> {
        let mut merge = Merge::new(self.function, roots.iter().copied());
        let mut walk = Walk::new(1);
        while !merge.is_done() {
            let needs = merge.needs(&self.forest);
            if needs.iter().any(|digest| self.flaws.contains_key(digest))
                || self.read(store, &needs, &mut walk).await?.is_err()
            {
                return Ok(None);
            }
            merge.advance(&self.forest);
        }
        Ok(merge.finish(&self.forest).ok().map(|merged| merged.root))
    }

    /// Takes in a Tree message; returns its root.
    pub(crate) fn add_tree(&mut self, tree: &Tree) -> Digest {
        for (digest, bytes) in tree.directories(self.function) {
            // A malformed one is missed when somebody looks for it.
            if let Ok(directory) = Directory::parse(bytes.clone()) {
                self.hold(digest, directory);
            }
        }
        tree.root_digest(self.function)
    }

    async fn read_trees(
        &mut self,
        store: &dyn BlobStore,
        roots: &[Digest],
    ) -> Result<std::result::Result<(), OverBudget>> {
        self.walk(store, roots, &mut Walk::new(1)).await
    }

    /// Walks trees level by level, one read per level at most.
    async fn walk(
        &mut self,
        store: &dyn BlobStore,
        roots: &[Digest],
        walk: &mut Walk,
    ) -> Result<std::result::Result<(), OverBudget>> {
        let mut level: Vec<Digest> = roots.iter().filter(|root| walk.seen.insert(**root)).copied().collect();
        for _ in 0..=MAX_DEPTH {
            let is_absent = |d: &Digest| !self.forest.contains(d) && !self.flaws.contains_key(d);
            let read: Vec<bool> = level.iter().map(is_absent).collect();
            let absent: Vec<Digest> =
                level.iter().zip(&read).filter(|(_, absent)| **absent).map(|(digest, _)| *digest).collect();
            if self.read(store, &absent, walk).await?.is_err() {
                return Ok(Err(OverBudget));
            }
            drop(absent);
            let mut next = Vec::new();
            for (digest, read) in level.into_iter().zip(read) {
                let Some(directory) = self.forest.get(&digest) else { continue };
                // What was read just now is counted already.
                if !read {
                    walk.amount.count(digest.size_bytes(), directory.len() as u64);
                }
                next.extend(directory.directories().map(|(_, child)| child).filter(|child| walk.seen.insert(*child)));
            }
            if walk.amount.exceeds(&self.budget, walk.share) {
                return Ok(Err(OverBudget));
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        Ok(Ok(()))
    }

    /// Reads directories in one call, unless their sizes are beyond the budget.
    async fn read(
        &mut self,
        store: &dyn BlobStore,
        digests: &[Digest],
        walk: &mut Walk,
    ) -> Result<std::result::Result<(), OverBudget>> {
        let mut wanted = Vec::with_capacity(digests.len());
        for digest in digests {
            let limit = self.budget.max_directory_bytes;
            if digest.function() != self.function {
                let reason = format!("a {} digest among {} ones", digest.function(), self.function);
                self.flaws.insert(*digest, SkipReason::Unusable { digest: *digest, reason });
            } else if digest.size_bytes() > limit {
                let reason = format!("directory {digest} is larger than {limit} bytes");
                self.flaws.insert(*digest, SkipReason::LimitExceeded(reason));
            } else {
                walk.amount.count(digest.size_bytes(), 0);
                wanted.push(*digest);
            }
        }
        if walk.amount.exceeds(&self.budget, walk.share) {
            return Ok(Err(OverBudget));
        }
        if wanted.is_empty() {
            return Ok(Ok(()));
        }
        let answers = store.read_blobs(&wanted).await?;
        let all_answered = answers.len() == wanted.len();
        for (digest, answer) in answers {
            let unusable = |reason: String| SkipReason::Unusable { digest, reason };
            let read = match answer {
                Ok(bytes) => Directory::parse(bytes).map_err(|e| unusable(format!("not a canonical Directory: {e}"))),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(SkipReason::DirectoryMissing(digest)),
                Err(error) => Err(unusable(error.to_string())),
            };
            match read {
                Ok(directory) => {
                    walk.amount.entries = walk.amount.entries.saturating_add(directory.len() as u64);
                    self.hold(digest, directory);
                }
                Err(flaw) => {
                    self.flaws.insert(digest, flaw);
                }
            }
        }
        for digest in wanted.into_iter().filter(|_| !all_answered) {
            if !self.forest.contains(&digest) {
                self.flaws.entry(digest).or_insert_with(|| unanswered(digest));
            }
        }
        Ok(if walk.amount.exceeds(&self.budget, walk.share) { Err(OverBudget) } else { Ok(()) })
    }

    fn hold(&mut self, digest: Digest, directory: Directory) {
        let entries = directory.len() as u64;
        if self.forest.insert_new(digest, directory) {
            self.held.count(digest.size_bytes(), entries);
        }
    }

    fn keep_only(&mut self, digests: &FxHashSet<Digest>) {
        let mut kept = Self::new(self.function, self.budget);
        for digest in digests {
            if let Some(directory) = self.forest.get(digest) {
                kept.hold(*digest, directory.clone());
            }
        }
        kept.flaws = std::mem::take(&mut self.flaws);
        *self = kept;
    }
}

impl Walk {
    fn new(share: u64) -> Self {
        Self { seen: FxHashSet::default(), amount: Amount::default(), share }
    }

    /// Adds another walk to this one, unless that would be beyond the budget.
    fn take_in(&mut self, other: Self, directories: &Directories) -> bool {
        let mut amount = self.amount;
        for digest in other.seen.difference(&self.seen) {
            if let Some(directory) = directories.forest.get(digest) {
                amount.count(digest.size_bytes(), directory.len() as u64);
            }
        }
        let fits = !amount.exceeds(&directories.budget, self.share);
        if fits {
            self.amount = amount;
            self.seen.extend(other.seen);
        }
        fits
    }
}
