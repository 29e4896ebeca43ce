//! At most so many operations at once.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    ActionCache, ActionCacheWriter, AssetIndex, Blob, BlobStore, Chunks, Error, ErrorKind, ExecuteRequest, Execution,
    ExecutionUpdate, PerBlob, PushRequest, Result,
};

/// Lets at most a number of operations run at once; the others wait in order.
///
/// A stream counts until it ended or was dropped. Clones share the limit, so
/// that a store and an action cache of one service can be limited together.
/// Asking for a cancellation never waits: it is what frees places.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    permits: Arc<Semaphore>,
    limit: usize,
}

impl<S: fmt::Display> Limited<S> {
    /// Limits `inner` to `limit` operations at once; 0 counts as 1.
    pub fn new(inner: S, limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { inner, permits: Arc::new(Semaphore::new(limit)), limit }
    }

    async fn permit(&self, operation: &'static str) -> Result<OwnedSemaphorePermit> {
        // The semaphore is never closed, so this does not fail; if it did, nothing may run.
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|e| Error::new(ErrorKind::Cancelled, operation, "no permit").at(self).caused_by(e))
    }
}

/// Keeps the permit until the stream has ended or is dropped.
fn hold<T: Send + 'static>(stream: BoxStream<'static, T>, permit: OwnedSemaphorePermit) -> BoxStream<'static, T> {
    let held = futures_util::stream::unfold(Some((stream, permit)), |state| async {
        let (mut stream, permit) = state?;
        let item = stream.next().await?;
        Some((item, Some((stream, permit))))
    });
    held.boxed()
}

impl<S: fmt::Display> fmt::Display for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limited({}, {})", self.limit, self.inner)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore> BlobStore for Limited<S> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let _permit = self.permit("find_missing").await?;
        self.inner.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let _permit = self.permit("read_blobs").await?;
        self.inner.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        let _permit = self.permit("write_blobs").await?;
        self.inner.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        let permit = self.permit("open_blob").await?;
        Ok(hold(self.inner.open_blob(digest).await?, permit))
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        let _permit = self.permit("write_chunks").await?;
        self.inner.write_chunks(digest, chunks).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCache> ActionCache for Limited<S> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        let _permit = self.permit("fetch_action_result").await?;
        self.inner.fetch_action_result(action).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCacheWriter> ActionCacheWriter for Limited<S> {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        let _permit = self.permit("store_action_result").await?;
        self.inner.store_action_result(action, result).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Execution> Execution for Limited<S> {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let permit = self.permit("execute").await?;
        Ok(hold(self.inner.execute(request).await?, permit))
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        self.inner.cancel(operation).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: AssetIndex> AssetIndex for Limited<S> {
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>> {
        let _permit = self.permit("fetch_blob").await?;
        self.inner.fetch_blob(uris).await
    }

    async fn push_blob(&self, request: &PushRequest) -> Result<()> {
        let _permit = self.permit("push_blob").await?;
        self.inner.push_blob(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStoreExt, InMemory};
    use futures_util::FutureExt;

    #[tokio::test]
    async fn an_open_stream_holds_its_place_until_it_ends_or_is_dropped() {
        let below = InMemory::new();
        let digest = below.put("data");
        let store = Limited::new(below, 1);
        assert_eq!(store.to_string(), "Limited(1, InMemory)");

        let mut stream = store.open_blob(&digest).await.unwrap();
        let mut waiting = store.read_blob(&digest);
        assert!(waiting.as_mut().now_or_never().is_none(), "a second operation must wait");
        assert_eq!(stream.next().await.unwrap().unwrap(), "data");
        assert!(waiting.as_mut().now_or_never().is_none(), "the stream has not ended yet");
        assert!(stream.next().await.is_none());
        assert_eq!(waiting.await.unwrap(), "data");

        let dropped = store.open_blob(&digest).await.unwrap();
        drop(dropped);
        assert_eq!(store.read_blob(&digest).await.unwrap(), "data");
    }

    #[tokio::test]
    async fn a_failed_operation_gives_its_place_back() {
        let store = Limited::new(InMemory::new(), 0);
        let absent = DigestFunction::Sha256.digest(b"absent");
        for _ in 0..3 {
            let error = store.open_blob(&absent).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }
}
