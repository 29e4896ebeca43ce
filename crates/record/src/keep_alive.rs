//! Extending the lifetime of what a record refers to.
//!
//! A build that hits the cache refreshes the outputs of an action, but neither
//! the Action nor its Command and input tree: under least-recently-used
//! expiry the base actions go first. Being asked about counts as use.

use cas_client::BlobStore;
use overlay::Forest;
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::FxHashSet;

use crate::report::{KeepAlive, References};

/// The digests that an action stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) action: Digest,
    pub(crate) command: Digest,
    pub(crate) input_root: Digest,
}

pub(crate) fn references(bases: &[Base]) -> References {
    let mut blobs: Vec<Digest> = bases.iter().flat_map(|base| [base.action, base.command]).collect();
    let mut directories: Vec<Digest> = bases.iter().map(|base| base.input_root).collect();
    for list in [&mut blobs, &mut directories] {
        list.sort_unstable();
        list.dedup();
    }
    References { blobs, directories }
}

/// Asks the store about the references, everything in their trees as far as
/// at hand included, in one call. What was asked about before in this run is left out.
pub(crate) async fn keep_alive(
    store: &dyn BlobStore,
    references: &References,
    forest: &Forest,
    asked_before: &mut FxHashSet<Digest>,
) -> KeepAlive {
    let mut asked = Vec::new();
    let mut ask = |digest: Digest| {
        let new = !digest.is_empty() && digest.function() == store.digest_function() && asked_before.insert(digest);
        if new {
            asked.push(digest);
        }
        new
    };
    for blob in &references.blobs {
        ask(*blob);
    }
    let mut pending: Vec<Digest> = references.directories.iter().copied().filter(|root| ask(*root)).collect();
    while let Some(digest) = pending.pop() {
        let Some(directory) = forest.get(&digest) else { continue };
        for entry in directory.entries() {
            match entry.node {
                Node::Directory { digest } if ask(digest) => pending.push(digest),
                Node::File { digest, .. } => {
                    ask(digest);
                }
                Node::Directory { .. } | Node::Symlink { .. } => {}
            }
        }
    }
    let mut kept = KeepAlive { asked: asked.len(), ..KeepAlive::default() };
    if !asked.is_empty() {
        match store.find_missing(&asked).await {
            Ok(missing) => kept.missing = missing.len(),
            Err(error) => kept.failure = Some(error),
        }
    }
    kept
}
