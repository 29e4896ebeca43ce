//! What every implementation does to a batch before it acts on it.

use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashSet;

use crate::{Error, ErrorKind, Result};

/// `digests` without repetitions, in order of first occurrence.
pub(crate) fn distinct(digests: &[Digest]) -> Vec<Digest> {
    let mut distinct = Vec::with_capacity(digests.len());
    distinct.extend(each_once(digests).copied());
    distinct
}

/// [`distinct`], one by one. The set holds references: it is a tenth of the
/// size of one of digests, which is what its cost depends on.
pub(crate) fn each_once(digests: &[Digest]) -> impl Iterator<Item = &Digest> {
    let mut seen = FxHashSet::with_capacity_and_hasher(digests.len(), Default::default());
    digests.iter().filter(move |d| seen.insert(*d))
}

/// How much to allocate ahead for data of a claimed size: the claim may be hostile.
pub(crate) fn preallocation(size_bytes: u64, cap: usize) -> usize {
    usize::try_from(size_bytes).map_or(cap, |size| size.min(cap))
}

/// Refuses a batch that holds a digest of another function than the store's:
/// such a digest cannot name anything there.
pub(crate) fn require_function<'a>(
    operation: &'static str,
    function: DigestFunction,
    digests: impl IntoIterator<Item = &'a Digest>,
) -> Result<()> {
    match digests.into_iter().find(|d| d.function() != function) {
        None => Ok(()),
        Some(foreign) => Err(Error::new(
            ErrorKind::Invalid,
            operation,
            format!("a {} digest in a store of {function} digests", foreign.function()),
        )
        .with_digest(*foreign)),
    }
}
