//! Services in virtual time that are slow, busy and out of order as a seed decides.
//!
//! For a paused clock: time passes only while everybody waits, so minutes cost nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{
    ActionCache, Blob, BlobStore, Chunks, Error, ErrorKind, ExecuteRequest, Execution, ExecutionUpdate, InMemory,
    PerBlob, Result,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};
use tokio::time::Instant;

use super::seeded::Seeded;
use super::toy::Toy;

/// What services do besides being slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sky {
    /// Nothing.
    Clear,
    /// The execution service has no room now and then, never for the same action more than three times.
    Busy,
    /// Anything may fail at any time.
    Stormy,
}

#[derive(Debug)]
struct Inner {
    seeded: Seeded,
    sky: Sky,
    /// When each action was submitted.
    log: Mutex<Vec<(Instant, Digest)>>,
    refused: Mutex<BTreeMap<Digest, u32>>,
    /// From and until when nobody may submit anything.
    closed: Mutex<Option<(Instant, Instant)>>,
}

/// Weather over some services. Clones share it.
#[derive(Clone, Debug)]
pub struct Weather(Arc<Inner>);

impl Weather {
    pub fn new(seeded: Seeded, sky: Sky) -> Self {
        Self(Arc::new(Inner {
            seeded,
            sky,
            log: Mutex::default(),
            refused: Mutex::default(),
            closed: Mutex::default(),
        }))
    }

    pub fn over<T>(&self, inner: T) -> Weathered<T> {
        Weathered { inner, weather: self.clone() }
    }

    /// The submissions so far, with what was refused.
    pub fn submissions(&self) -> Vec<(Instant, Digest)> {
        self.0.log.lock().unwrap().clone()
    }

    /// How often there was no room for an action.
    pub fn refusals(&self, action: &Digest) -> u32 {
        self.0.refused.lock().unwrap().get(action).copied().unwrap_or(0)
    }

    fn one_in(&self, chances: u64) -> bool {
        self.0.seeded.below(chances) == 0
    }

    /// Mostly a few milliseconds or nothing, sometimes very long.
    pub async fn pause(&self) {
        match self.0.seeded.below(8) {
            0..=2 => {}
            3 => self.0.seeded.turns(4).await,
            4..=6 => tokio::time::sleep(Duration::from_millis(self.0.seeded.below(40))).await,
            _ => tokio::time::sleep(Duration::from_secs(self.0.seeded.below(40))).await,
        }
    }

    async fn fallibly(&self, operation: &'static str) -> Result<()> {
        self.pause().await;
        if self.0.sky == Sky::Stormy && self.one_in(25) {
            return Err(Error::new(ErrorKind::Unavailable, operation, "a storm"));
        }
        Ok(())
    }

    /// A submission; `Err` if there is no room for it.
    fn submit(&self, action: Digest) -> Result<()> {
        let now = Instant::now();
        self.0.log.lock().unwrap().push((now, action));
        let mut closed = self.0.closed.lock().unwrap();
        // What is submitted at the same time cannot know it.
        let rests = closed.is_some_and(|(from, until)| from < now && now < until);
        assert!(!rests, "{action} is submitted although the service asked for a rest");
        let mut refused = self.0.refused.lock().unwrap();
        let refused = refused.entry(action).or_default();
        if self.0.sky == Sky::Clear || *refused >= 3 || !self.one_in(4) {
            return Ok(());
        }
        *refused += 1;
        let error = Error::new(ErrorKind::Exhausted, "Execute", "no room");
        if self.one_in(2) {
            return Err(error);
        }
        let rest = Duration::from_millis(1 + self.0.seeded.below(20_000));
        *closed = Some((now, now + rest));
        Err(error.with_retry_after(rest))
    }
}

#[derive(Clone, Debug)]
pub struct Weathered<T> {
    inner: T,
    weather: Weather,
}

impl<T: fmt::Display> fmt::Display for Weathered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weathered({})", self.inner)
    }
}

#[async_trait]
impl BlobStore for Weathered<InMemory> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.weather.fallibly("find_missing").await?;
        self.inner.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.weather.fallibly("read_blobs").await?;
        self.inner.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.weather.fallibly("write_blobs").await?;
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
impl ActionCache for Weathered<InMemory> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        self.weather.fallibly("fetch_action_result").await?;
        self.inner.fetch_action_result(action).await
    }
}

#[async_trait]
impl Execution for Weathered<Toy> {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        self.weather.submit(request.action)?;
        self.weather.fallibly("execute").await?;
        let weather = self.weather.clone();
        let updates = self.inner.execute(request).await?;
        // What an execution does between two updates, it does while they are waited for.
        let slow = updates.then(move |update| {
            let weather = weather.clone();
            async move {
                weather.fallibly("execute").await?;
                update
            }
        });
        let busy = self.weather.0.sky != Sky::Clear && self.weather.one_in(8);
        let delayed = busy.then(|| Ok(ExecutionUpdate::Delayed { retry_after: None }));
        Ok(stream::iter(delayed).chain(slow).boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        let inner = self.inner.clone();
        let operation = operation.to_owned();
        self.weather.fallibly("cancel").then(|_| async move { inner.cancel(&operation).await }).await
    }
}
