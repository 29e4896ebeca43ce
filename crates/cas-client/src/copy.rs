//! Copying blobs from one store to another.

use reapi_proto::Digest;

use crate::{Blob, BlobStore, ErrorKind, Result};

/// A blob up to this size travels in a batch, a larger one piece by piece.
const BATCHED_BYTES: u64 = 1 << 20;

/// What is held in memory at once.
const BATCH_BYTES: u64 = 16 << 20;

/// What became of a copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    /// Distinct blobs that were to be there in the end.
    pub asked: usize,
    /// Those that were copied.
    pub blobs: usize,
    /// Their size.
    pub bytes: u64,
    /// Those that neither store has.
    pub unavailable: Vec<Digest>,
}

/// Sees to it that `to` has `digests`, as far as `from` has them. Not atomic;
/// what a dropped future leaves are complete blobs.
///
/// # Errors
/// When a store fails as a whole, or `to` does not accept a blob.
pub async fn copy(from: &dyn BlobStore, to: &dyn BlobStore, digests: &[Digest]) -> Result<Copied> {
    let mut copied = Copied { asked: digests.len(), ..Copied::default() };
    if digests.is_empty() {
        return Ok(copied);
    }
    let mut lacking = to.find_missing(digests).await?;
    lacking.sort_unstable_by_key(Digest::size_bytes);
    let large = lacking.split_off(lacking.partition_point(|digest| digest.size_bytes() <= BATCHED_BYTES));
    let mut rest = lacking.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |digest: &&Digest| {
            bytes += digest.size_bytes();
            bytes <= BATCH_BYTES
        };
        let (batch, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = after;
        let mut blobs = Vec::with_capacity(batch.len());
        for (digest, answer) in from.read_blobs(batch).await? {
            match answer.map(|bytes| Blob::verified(digest, bytes)) {
                Ok(Some(blob)) => blobs.push(blob),
                other => {
                    tracing::debug!(%digest, ?other, "a blob cannot be copied");
                    copied.unavailable.push(digest);
                }
            }
        }
        if blobs.is_empty() {
            continue;
        }
        for (digest, answer) in to.write_blobs(&blobs).await? {
            answer?;
            copied.blobs += 1;
            copied.bytes += digest.size_bytes();
        }
    }
    for digest in large {
        let chunks = match from.open_blob(&digest).await {
            Ok(chunks) => chunks,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                copied.unavailable.push(digest);
                continue;
            }
            Err(error) => return Err(error),
        };
        match to.write_chunks(&digest, chunks).await {
            Ok(()) => {
                copied.blobs += 1;
                copied.bytes += digest.size_bytes();
            }
            // A missing blob may show only when it is read.
            Err(error) if error.kind() == ErrorKind::NotFound => copied.unavailable.push(digest),
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}
