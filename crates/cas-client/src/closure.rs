//! What must be in CAS for an action result to be usable.
//!
//! A cached result says what an action made, not that it still exists: the
//! specification only asks services to take care of that. So nothing here
//! believes a result before every blob that it leads to was found.

use reapi_proto::Digest;
use reapi_proto::raw::{self, Directory};
use reapi_proto::v2::ActionResult;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::outputs::{OutputKind, optional, outputs};
use crate::{BlobStore, Error, ErrorKind, Result, TreeBudget, Trees, read_trees};

const OPERATION: &str = "closure of an action result";

/// What a result names directly.
#[derive(Default)]
struct Needs {
    blobs: Vec<Digest>,
    /// Tree messages, each with the root that it must have.
    trees: Vec<(Digest, Option<Digest>)>,
    /// Directories that are given without a Tree.
    roots: Vec<Digest>,
}

fn needs(result: &ActionResult) -> Result<Needs> {
    let mut needs = Needs::default();
    for output in outputs(result)? {
        match output.kind {
            OutputKind::File { digest, .. } => needs.blobs.push(digest),
            OutputKind::Directory { tree: Some(tree), root } => needs.trees.push((tree, root)),
            OutputKind::Directory { tree: None, root } => needs.roots.extend(root),
            OutputKind::Symlink { .. } => {}
        }
    }
    for file in &result.output_files {
        check_inlined(optional(file.digest.as_ref(), &file.path)?, &file.contents, &file.path)?;
    }
    for (digest, raw, name) in
        [(&result.stdout_digest, &result.stdout_raw, "stdout"), (&result.stderr_digest, &result.stderr_raw, "stderr")]
    {
        let digest = optional(digest.as_ref(), name)?;
        check_inlined(digest, raw, name)?;
        needs.blobs.extend(digest);
    }
    Ok(needs)
}

/// Contents sent along with a digest are taken for the blob by whoever reads them, so they must be it.
fn check_inlined(digest: Option<Digest>, contents: &[u8], what: &str) -> Result<()> {
    match digest {
        Some(digest) if !contents.is_empty() && !digest.matches(contents) => {
            Err(Error::corrupt(OPERATION, digest, format!("the inlined contents of {what:?} do not match")))
        }
        _ => Ok(()),
    }
}

/// For each of `results`, the blobs that it needs and that `store` lacks.
///
/// One read of all Tree messages, one walk over all directories given without
/// one, one look-up of everything together. An entry is an error when that
/// result is malformed or damaged, or when it could not be judged.
///
/// # Errors
/// When the store fails as a whole, or the directories go beyond the default [`TreeBudget`].
pub(crate) async fn missing(store: &dyn BlobStore, results: &[&ActionResult]) -> Result<Vec<Result<Vec<Digest>>>> {
    let needs: Vec<Result<Needs>> = results.iter().map(|r| needs(r)).collect();
    let trees: FxHashSet<Digest> = needs.iter().flatten().flat_map(|n| &n.trees).map(|(tree, _)| *tree).collect();
    let roots: Vec<Digest> = needs.iter().flatten().flat_map(|n| &n.roots).copied().collect();
    let trees = ReadTrees::read(store, trees).await?;
    let directories = Directories::new(read_trees(store, &roots, |_| false, &TreeBudget::default()).await?);

    let mut wanted: Vec<Result<Vec<Digest>>> = Vec::with_capacity(needs.len());
    for needs in needs {
        wanted.push(needs.and_then(|needs| {
            let mut wanted = needs.blobs;
            for (tree, root) in needs.trees {
                trees.add_closure(store, tree, root, &mut wanted)?;
            }
            for root in needs.roots {
                directories.add_closure(root, &mut wanted)?;
            }
            match wanted.iter().find(|d| d.function() != store.digest_function()) {
                Some(foreign) => {
                    Err(Error::new(ErrorKind::Protocol, OPERATION, "an output has a foreign digest function")
                        .with_digest(*foreign))
                }
                None => {
                    wanted.sort_unstable();
                    wanted.dedup();
                    Ok(wanted)
                }
            }
        }));
    }
    let mut all: Vec<Digest> = wanted.iter().flatten().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    let absent: FxHashSet<Digest> =
        if all.is_empty() { FxHashSet::default() } else { store.find_missing(&all).await?.into_iter().collect() };
    let lacking = |mut wanted: Vec<Digest>| {
        wanted.retain(|digest| absent.contains(digest));
        wanted
    };
    Ok(wanted.into_iter().map(|wanted| wanted.map(lacking)).collect())
}

/// Refuses an action cache entry that would dangle: Action, Command and all
/// outputs must be in CAS before it.
///
/// # Errors
/// `NotFound` with the missing digests; `Invalid` when the blob is no Action;
/// whatever [`missing`] finds wrong with the result.
pub(crate) async fn require_complete(store: &dyn BlobStore, action: &Digest, result: &ActionResult) -> Result<()> {
    const OPERATION: &str = "store_action_result";
    let absent = |what: &str, digests: Vec<Digest>| {
        Error::new(ErrorKind::NotFound, OPERATION, format!("{what} not in CAS")).with_digests(digests).at(store)
    };
    let bytes = match store.read_blobs(&[*action]).await?.pop() {
        Some((_, Ok(bytes))) => bytes,
        Some((_, Err(error))) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => return Err(absent("the Action is", vec![*action])),
    };
    let parsed = raw::Action::parse(bytes).map_err(|e| {
        Error::new(ErrorKind::Invalid, OPERATION, "the blob is no Action").with_digest(*action).caused_by(e)
    })?;
    let command = store.find_missing(&[parsed.command_digest()]).await?;
    if !command.is_empty() {
        return Err(absent("the Command is", command));
    }
    let missing = missing(store, &[result]).await?.pop().unwrap_or_else(|| Ok(Vec::new()))?;
    if missing.is_empty() { Ok(()) } else { Err(absent("outputs are", missing)) }
}

/// Tree messages by digest. `Err` says why one cannot be used; absent ones are left out.
struct ReadTrees(FxHashMap<Digest, Result<raw::Tree, (ErrorKind, String)>>);

impl ReadTrees {
    async fn read(store: &dyn BlobStore, mut distinct: FxHashSet<Digest>) -> Result<Self> {
        distinct.retain(|d| d.function() == store.digest_function());
        let total = distinct.iter().fold(0, |sum: u64, d| sum.saturating_add(d.size_bytes()));
        if total > TreeBudget::BYTES {
            let reason = format!("Tree messages of {total} bytes; the limit is {}", TreeBudget::BYTES);
            return Err(Error::new(ErrorKind::LimitExceeded, OPERATION, reason));
        }
        let distinct: Vec<_> = distinct.into_iter().collect();
        if distinct.is_empty() {
            return Ok(Self(FxHashMap::default()));
        }
        let read = store.read_blobs(&distinct).await?.into_iter().filter_map(|(digest, outcome)| {
            let tree = match outcome {
                Ok(bytes) => raw::Tree::parse(bytes).map_err(|e| (ErrorKind::Protocol, format!("not a Tree: {e}"))),
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => Err((error.kind(), error.reason().to_owned())),
            };
            Some((digest, tree))
        });
        Ok(Self(read.collect()))
    }

    /// Adds a Tree and the files below it; also its directories one by one if
    /// the result promises them, which it does by naming their root.
    fn add_closure(
        &self,
        store: &dyn BlobStore,
        tree: Digest,
        root: Option<Digest>,
        wanted: &mut Vec<Digest>,
    ) -> Result<()> {
        wanted.push(tree);
        let wrong = |kind, reason: String| Error::new(kind, OPERATION, reason).with_digest(tree);
        let message = match self.0.get(&tree) {
            Some(Ok(message)) => message,
            Some(Err((kind, reason))) => return Err(wrong(*kind, reason.clone())),
            None => {
                wanted.extend(root);
                return Ok(());
            }
        };
        let function = store.digest_function();
        let by_digest: FxHashMap<Digest, _> = message.directories(function).collect();
        let actual = message.root_digest(function);
        if root.is_some_and(|root| root != actual) {
            return Err(wrong(ErrorKind::Corrupt, "the Tree has another root than the result says".to_owned()));
        }
        let mut seen = FxHashSet::from_iter([actual]);
        let mut pending = vec![actual];
        while let Some(digest) = pending.pop() {
            let bytes = by_digest
                .get(&digest)
                .ok_or_else(|| wrong(ErrorKind::Protocol, format!("the Tree lacks its directory {digest}")))?;
            let directory = Directory::parse((*bytes).clone())
                .map_err(|e| wrong(ErrorKind::Protocol, format!("the directory {digest} of the Tree: {e}")))?;
            add_files(&directory, wanted);
            pending.extend(directory.directories().map(|(_, child)| child).filter(|child| seen.insert(*child)));
        }
        if root.is_some() {
            wanted.extend(seen);
        }
        Ok(())
    }
}

/// Directories that were read one by one.
struct Directories {
    read: FxHashMap<Digest, Directory>,
    /// Those that are there but cannot be used, and why.
    unusable: FxHashMap<Digest, (ErrorKind, String)>,
}

impl Directories {
    fn new(trees: Trees) -> Self {
        let invalid = trees.invalid.into_iter().map(|(d, e)| (d, (ErrorKind::Protocol, e.to_string())));
        let failed = trees.failed.into_iter().map(|(d, e)| (d, (e.kind(), e.reason().to_owned())));
        Self { read: trees.directories.into_iter().collect(), unusable: invalid.chain(failed).collect() }
    }

    /// Adds the directories below `root` and their files. Absent ones are added too, to be reported.
    fn add_closure(&self, root: Digest, wanted: &mut Vec<Digest>) -> Result<()> {
        let mut seen = FxHashSet::from_iter([root]);
        let mut pending = vec![root];
        while let Some(digest) = pending.pop() {
            if let Some((kind, reason)) = self.unusable.get(&digest) {
                return Err(Error::new(*kind, OPERATION, reason.clone()).with_digest(digest));
            }
            if let Some(directory) = self.read.get(&digest) {
                add_files(directory, wanted);
                pending.extend(directory.directories().map(|(_, child)| child).filter(|child| seen.insert(*child)));
            }
        }
        wanted.extend(seen);
        Ok(())
    }
}

fn add_files(directory: &Directory, wanted: &mut Vec<Digest>) {
    wanted.extend(directory.entries().filter_map(|entry| match entry.node {
        raw::Node::File { digest, .. } => Some(digest),
        raw::Node::Directory { .. } | raw::Node::Symlink { .. } => None,
    }));
}

#[cfg(test)]
mod tests;
