//! Writes are refused on our side, whatever the service would allow.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use crate::{
    ActionCache, ActionCacheWriter, AssetIndex, Blob, BlobStore, Chunks, Error, ErrorKind, PerBlob, PushRequest, Result,
};

/// Reads pass through; every write fails with `Denied` before it is sent.
#[derive(Clone, Debug)]
pub struct ReadOnly<S> {
    inner: S,
}

impl<S: fmt::Display> ReadOnly<S> {
    /// Forbids writing to `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    fn denied<T>(&self, operation: &'static str) -> Result<T> {
        Err(Error::new(ErrorKind::Denied, operation, "configured as read-only").at(self))
    }
}

impl<S: fmt::Display> fmt::Display for ReadOnly<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnly({})", self.inner)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore> BlobStore for ReadOnly<S> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.inner.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.inner.read_blobs(digests).await
    }

    async fn write_blobs(&self, _: &[Blob]) -> Result<PerBlob<()>> {
        self.denied("write_blobs")
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.inner.open_blob(digest).await
    }

    async fn write_chunks(&self, _: &Digest, _: Chunks) -> Result<()> {
        self.denied("write_chunks")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCache> ActionCache for ReadOnly<S> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        self.inner.fetch_action_result(action).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCache> ActionCacheWriter for ReadOnly<S> {
    async fn store_action_result(&self, _: &Digest, _: &ActionResult) -> Result<()> {
        self.denied("store_action_result")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: AssetIndex> AssetIndex for ReadOnly<S> {
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>> {
        self.inner.fetch_blob(uris).await
    }

    async fn push_blob(&self, _: &PushRequest) -> Result<()> {
        self.denied("push_blob")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStoreExt, InMemory};
    use futures_util::{StreamExt, stream};

    #[tokio::test]
    async fn every_write_is_denied_and_nothing_is_sent() {
        let below = InMemory::new();
        let here = below.put("here");
        let store = ReadOnly::new(below.clone());
        assert_eq!(store.to_string(), "ReadOnly(InMemory)");
        assert_eq!(store.read_blob(&here).await.unwrap(), "here");

        let blob = Blob::new(DigestFunction::Sha256, "new");
        let push = PushRequest {
            uris: vec!["urn:a".into()],
            blob: here,
            references_blobs: Vec::new(),
            references_directories: Vec::new(),
            lifetime: None,
        };
        let refusals = [
            store.write_blobs(std::slice::from_ref(&blob)).await.unwrap_err(),
            store.write_chunks(&blob.digest(), stream::empty().boxed()).await.unwrap_err(),
            store.store_action_result(&here, &ActionResult::default()).await.unwrap_err(),
            store.push_blob(&push).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Denied, "{refusal}");
            assert!(refusal.to_string().contains("at ReadOnly(InMemory)"), "{refusal}");
        }
        assert_eq!((below.digests(), below.assets().len()), (vec![here], 0));
        let sent = below.stats();
        assert_eq!((sent.write_blobs.calls, sent.write_chunks.calls, sent.store_action_result.calls), (0, 0, 0));
    }
}
