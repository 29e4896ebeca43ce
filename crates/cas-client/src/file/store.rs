//! The CAS of a directory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use reapi_proto::{Digest, DigestFunction};

use super::layout::Layout;
use super::read::Reader;
use super::{FileStore, stream, write};
use crate::batch::{distinct, require_function};
use crate::{Blob, BlobStore, Chunks, Error, ErrorKind, PerBlob, Result};

/// A batch is cut into pieces of at least this many blobs, one per processor at most:
/// below it, starting another thread costs more than it saves.
const MIN_PIECE: usize = 1024;

/// Processors used for one batch at most, so that one caller does not take a large machine's whole pool.
const MAX_PIECES: usize = 8;

/// Runs a file operation on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => {
            Err(Error::new(ErrorKind::Cancelled, "file operation", "the blocking task was stopped").caused_by(stopped))
        }
    }
}

impl FileStore {
    /// Runs `work` over pieces of `items` on blocking threads; results in order.
    async fn in_pieces<I, T>(
        &self,
        items: Vec<I>,
        work: impl Fn(&Layout, &[I]) -> Result<Vec<T>> + Copy + Send + 'static,
    ) -> Result<Vec<T>>
    where
        I: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let pieces = (items.len() / MIN_PIECE).clamp(1, processors.min(MAX_PIECES));
        let piece_len = items.len().div_ceil(pieces).max(1);
        let items: Arc<[I]> = items.into();
        let tasks = (0..pieces).map(|index| {
            let (layout, items) = (Arc::clone(&self.layout), Arc::clone(&items));
            blocking(move || {
                let piece = items.chunks(piece_len).nth(index).unwrap_or_default();
                work(&layout, piece)
            })
        });
        Ok(try_join_all(tasks).await?.into_iter().flatten().collect())
    }
}

#[async_trait]
impl BlobStore for FileStore {
    fn digest_function(&self) -> DigestFunction {
        DigestFunction::Sha256
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        require_function("find_missing", self.digest_function(), digests)?;
        let mut digests = distinct(digests);
        digests.retain(|d| !(d.is_empty() && d.matches(&[])));
        self.in_pieces(digests, |layout, piece| {
            let mut missing = Vec::new();
            for digest in piece {
                if !write::present(layout, digest)? {
                    missing.push(*digest);
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        require_function("read_blobs", self.digest_function(), digests)?;
        self.in_pieces(distinct(digests), |layout, piece| {
            let mut reader = Reader::new(layout);
            let read = |digest: &Digest| {
                let outcome = match reader.read(digest) {
                    Ok(Some(data)) => Ok(data),
                    Ok(None) => Err(Error::not_found("read_blobs", *digest).at(layout)),
                    Err(error) => Err(error),
                };
                (*digest, outcome)
            };
            Ok(piece.iter().map(read).collect())
        })
        .await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        require_function("write_blobs", self.digest_function(), &blobs.iter().map(Blob::digest).collect::<Vec<_>>())?;
        let mut seen = rustc_hash::FxHashSet::default();
        let blobs: Vec<Blob> = blobs.iter().filter(|b| seen.insert(b.digest())).cloned().collect();
        self.in_pieces(blobs, |layout, piece| {
            Ok(piece.iter().map(|blob| (blob.digest(), write::write_blob(layout, blob))).collect())
        })
        .await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        require_function("open_blob", self.digest_function(), [digest])?;
        stream::open(Arc::clone(&self.layout), *digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        require_function("write_chunks", self.digest_function(), [digest])?;
        stream::write(Arc::clone(&self.layout), *digest, chunks).await
    }
}
