//! Services that answer after a number of turns that a seed decides.
//!
//! No clock is involved: a future that is not ready yet asks to be polled
//! again, so that everything under way at a time finishes in an order that
//! the seed decides, and the same seed gives the same run.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{
    ActionCache, Blob, BlobStore, Chunks, ExecuteRequest, Execution, ExecutionUpdate, InMemory, PerBlob, Result,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use super::toy::Toy;

/// A small random number generator (SplitMix64). Clones share the sequence.
#[derive(Clone, Debug)]
pub struct Seeded(Arc<Mutex<u64>>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Ready after up to `limit` turns.
    pub fn turns(&self, limit: u64) -> Turns {
        Turns(self.below(limit))
    }
}

pub struct Turns(u64);

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[derive(Clone, Debug)]
pub struct Jittery<T> {
    pub inner: T,
    pub seeded: Seeded,
}

const TURNS: u64 = 12;

impl<T: fmt::Display> fmt::Display for Jittery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jittery({})", self.inner)
    }
}

#[async_trait]
impl BlobStore for Jittery<InMemory> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.seeded.turns(TURNS).await;
        self.inner.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.seeded.turns(TURNS).await;
        self.inner.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.seeded.turns(TURNS).await;
        self.inner.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.inner.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.inner.write_chunks(digest, chunks).await
    }
}

#[async_trait]
impl ActionCache for Jittery<InMemory> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        self.seeded.turns(TURNS).await;
        self.inner.fetch_action_result(action).await
    }
}

#[async_trait]
impl Execution for Jittery<Toy> {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        self.seeded.turns(TURNS).await;
        let seeded = self.seeded.clone();
        let updates = self.inner.execute(request).await?;
        let delayed = updates.then(move |update| {
            let turns = seeded.turns(TURNS);
            async move {
                turns.await;
                update
            }
        });
        Ok(delayed.boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        self.inner.cancel(operation).await
    }
}
