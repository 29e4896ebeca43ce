//! A store with another one behind it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::{ActionCache, Blob, BlobStore, Chunks, ErrorKind, PerBlob, Result};

/// Reads from a store what it has, and everything else from one that backs it.
///
/// The counterpart of [`Nearby`](super::Nearby): here the front counts. Presence is
/// that in the front, and writes go there alone. A backing store that fails
/// costs time and a line in the log; what it would have had is then
/// `NotFound`, as it is without one. Both must have the same digest function.
/// An action cache that backs another one is asked what the first does not know.
pub struct Backed<F, B> {
    front: F,
    back: B,
}

impl<F, B> Backed<F, B> {
    /// Reads what `front` lacks from `back`.
    pub fn new(front: F, back: B) -> Self {
        Self { front, back }
    }
}

impl<F: fmt::Display, B: fmt::Display> fmt::Display for Backed<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backed({}, {})", self.front, self.back)
    }
}

impl<F: fmt::Debug, B: fmt::Debug> fmt::Debug for Backed<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backed").field("front", &self.front).field("back", &self.back).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: BlobStore, B: BlobStore> BlobStore for Backed<F, B> {
    fn digest_function(&self) -> DigestFunction {
        self.front.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.front.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let front = self.front.read_blobs(digests).await?;
        let absent = |read: &Result<Bytes>| matches!(read, Err(error) if error.kind() == ErrorKind::NotFound);
        let lacking: Vec<Digest> = front.iter().filter(|(_, read)| absent(read)).map(|(digest, _)| *digest).collect();
        if lacking.is_empty() {
            return Ok(front);
        }
        let mut back: FxHashMap<Digest, Bytes> = match self.back.read_blobs(&lacking).await {
            Ok(back) => back.into_iter().filter_map(|(digest, read)| Some((digest, read.ok()?))).collect(),
            Err(error) => {
                tracing::debug!(back = %self.back, %error, "nothing behind the store");
                return Ok(front);
            }
        };
        let merged = front.into_iter().map(|(digest, read)| match back.remove(&digest) {
            Some(bytes) => (digest, Ok(bytes)),
            None => (digest, read),
        });
        Ok(merged.collect())
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.front.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        // A stream that ends in the middle cannot be continued elsewhere, so presence is asked for first.
        if self.front.find_missing(std::slice::from_ref(digest)).await?.is_empty() {
            return self.front.open_blob(digest).await;
        }
        match self.back.open_blob(digest).await {
            Ok(chunks) => Ok(chunks),
            Err(error) => {
                tracing::debug!(back = %self.back, %error, "nothing behind the store");
                self.front.open_blob(digest).await
            }
        }
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.front.write_chunks(digest, chunks).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: ActionCache, B: ActionCache> ActionCache for Backed<F, B> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        match self.front.fetch_action_result(action).await? {
            Some(result) => Ok(Some(result)),
            None => self.back.fetch_action_result(action).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStoreExt, InMemory};

    #[tokio::test]
    async fn the_front_counts_and_the_back_is_read() {
        let (front, back) = (InMemory::new(), InMemory::new());
        let here = front.put("here");
        let there = back.put("there");
        let nowhere = DigestFunction::Sha256.digest(b"nowhere");
        let store = Backed::new(front.clone(), back.clone());

        assert_eq!(store.find_missing(&[here, there, nowhere]).await.unwrap(), [there, nowhere]);
        let read = store.read_blobs(&[here, there, nowhere]).await.unwrap();
        let found: Vec<_> = read.iter().map(|(digest, read)| (*digest, read.is_ok())).collect();
        assert_eq!(found, [(here, true), (there, true), (nowhere, false)]);

        let written = Blob::new(DigestFunction::Sha256, "new");
        store.upload_missing(std::slice::from_ref(&written)).await.unwrap();
        assert_eq!(back.find_missing(&[written.digest()]).await.unwrap(), [written.digest()]);
        assert_eq!(store.to_string(), format!("Backed({front}, {back})"));
    }

    #[tokio::test]
    async fn a_back_that_fails_is_as_good_as_none() {
        let front = InMemory::new();
        let here = front.put("here");
        let lost = DigestFunction::Sha256.digest(b"lost");
        let store = Backed::new(front, InMemory::with_function(DigestFunction::Sha512));
        let read = store.read_blobs(&[here, lost]).await.unwrap();
        assert!(read[0].1.is_ok());
        assert_eq!(read[1].1.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.open_blob(&lost).await.err().unwrap().kind(), ErrorKind::NotFound);
    }
}
