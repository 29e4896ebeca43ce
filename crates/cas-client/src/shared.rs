//! A shared store is a store: what lets decorators wrap `Arc<dyn BlobStore>`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use crate::{
    ActionCache, ActionCacheWriter, AssetIndex, Blob, BlobStore, Chunks, ExecuteRequest, Execution, ExecutionUpdate,
    PerBlob, PushRequest, Result,
};

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn digest_function(&self) -> DigestFunction {
        (**self).digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        (**self).find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        (**self).read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        (**self).write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        (**self).open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        (**self).write_chunks(digest, chunks).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCache + ?Sized> ActionCache for Arc<S> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        (**self).fetch_action_result(action).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: ActionCacheWriter + ?Sized> ActionCacheWriter for Arc<S> {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        (**self).store_action_result(action, result).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Execution + ?Sized> Execution for Arc<S> {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        (**self).execute(request).await
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        (**self).cancel(operation).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: AssetIndex + ?Sized> AssetIndex for Arc<S> {
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>> {
        (**self).fetch_blob(uris).await
    }

    async fn push_blob(&self, request: &PushRequest) -> Result<()> {
        (**self).push_blob(request).await
    }
}
