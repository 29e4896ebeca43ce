//! What was seen present lately is not asked for again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::{Blob, BlobStore, Chunks, ErrorKind, PerBlob, Result};

/// Where the time comes from; tests pass their own.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Remembers which blobs were present, for a while.
///
/// Only presence is remembered, never absence: a blob that was missing may be
/// uploaded by somebody else at any moment, and one taken for missing is merely
/// uploaded twice. What was present may be gone as well, so an entry lives for
/// a limited time and is forgotten at once when a read says `NotFound` or
/// `Corrupt`. Writes always pass through: they are how a lost blob comes back.
#[derive(Clone)]
pub struct Remembering<S> {
    inner: S,
    memory: Arc<Mutex<Memory>>,
    clock: Clock,
}

impl<S: BlobStore> Remembering<S> {
    /// Digests remembered by default; one takes about 100 bytes.
    pub const CAPACITY: usize = 1_000_000;
    /// How long by default: much shorter than any service keeps a blob that it was asked about.
    pub const LIFETIME: Duration = Duration::from_secs(5 * 60);

    /// Remembers what `inner` has, with the default capacity and lifetime.
    pub fn new(inner: S) -> Self {
        Self::with(inner, Self::CAPACITY, Self::LIFETIME, Arc::new(Instant::now))
    }

    /// Remembers at most `capacity` digests for `lifetime` each.
    pub fn with(inner: S, capacity: usize, lifetime: Duration, clock: Clock) -> Self {
        Self { inner, memory: Arc::new(Mutex::new(Memory::new(capacity, lifetime))), clock }
    }

    fn remember(&self, digests: impl IntoIterator<Item = Digest>) {
        let now = (self.clock)();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in digests {
            memory.insert(digest, now);
        }
    }
}

/// Two generations: when the young one is full, the old one is dropped and
/// the young one takes its place. Bounded, constant time, and what was
/// inserted lately stays longest.
struct Memory {
    lifetime: Duration,
    generation: usize,
    young: FxHashMap<Digest, Instant>,
    old: FxHashMap<Digest, Instant>,
}

impl Memory {
    fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { lifetime, generation: (capacity / 2).max(1), young: FxHashMap::default(), old: FxHashMap::default() }
    }

    fn contains(&self, digest: &Digest, now: Instant) -> bool {
        let seen = self.young.get(digest).or_else(|| self.old.get(digest));
        seen.is_some_and(|at| now.saturating_duration_since(*at) < self.lifetime)
    }

    fn insert(&mut self, digest: Digest, now: Instant) {
        if self.young.len() >= self.generation && !self.young.contains_key(&digest) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, now);
    }

    fn forget(&mut self, digest: &Digest) {
        self.young.remove(digest);
        self.old.remove(digest);
    }
}

/// Forgets a blob whose read showed that it is not there, or not usable.
fn learn<T>(memory: &Mutex<Memory>, digest: &Digest, outcome: &Result<T>) {
    if outcome.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)) {
        memory.lock().unwrap_or_else(PoisonError::into_inner).forget(digest);
    }
}

impl<S: fmt::Display> fmt::Display for Remembering<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remembering({})", self.inner)
    }
}

impl<S: fmt::Debug> fmt::Debug for Remembering<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembering").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore> BlobStore for Remembering<S> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let now = (self.clock)();
        let unknown: Vec<Digest> = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            digests.iter().filter(|d| !memory.contains(d, now)).copied().collect()
        };
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.inner.find_missing(&unknown).await?;
        let absent: rustc_hash::FxHashSet<Digest> = missing.iter().copied().collect();
        self.remember(unknown.into_iter().filter(|d| !absent.contains(d)));
        Ok(missing)
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let answers = self.inner.read_blobs(digests).await?;
        for (digest, outcome) in &answers {
            learn(&self.memory, digest, outcome);
        }
        Ok(answers)
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        let answers = self.inner.write_blobs(blobs).await?;
        self.remember(answers.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(digest, _)| *digest));
        Ok(answers)
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        let opened = self.inner.open_blob(digest).await;
        learn(&self.memory, digest, &opened);
        let (memory, digest) = (Arc::clone(&self.memory), *digest);
        Ok(opened?.inspect(move |piece| learn(&memory, &digest, piece)).boxed())
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.inner.write_chunks(digest, chunks).await?;
        self.remember([*digest]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStoreExt, InMemory};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A store below, the decorator, and the seconds that its clock shows.
    fn remembering(capacity: usize) -> (InMemory, Remembering<InMemory>, Arc<AtomicU64>) {
        let (below, start, seconds) = (InMemory::new(), Instant::now(), Arc::new(AtomicU64::new(0)));
        let shown = Arc::clone(&seconds);
        let clock: Clock = Arc::new(move || start + Duration::from_secs(shown.load(Ordering::Relaxed)));
        (below.clone(), Remembering::with(below, capacity, Duration::from_secs(60), clock), seconds)
    }

    #[tokio::test]
    async fn presence_is_remembered_for_its_lifetime_and_absence_never() {
        let (below, store, seconds) = remembering(100);
        let here = below.put("here");
        let absent = DigestFunction::Sha256.digest(b"absent");
        assert_eq!(store.find_missing(&[here, absent]).await.unwrap(), [absent]);
        assert_eq!(store.find_missing(&[here]).await.unwrap(), []);
        assert_eq!(below.stats().find_missing.calls, 1, "presence is not asked for twice");
        assert_eq!(store.find_missing(&[here, absent]).await.unwrap(), [absent]);
        assert_eq!((below.stats().find_missing.calls, below.stats().find_missing.blobs), (2, 3));

        seconds.store(60, Ordering::Relaxed);
        below.forget(&here);
        assert_eq!(store.find_missing(&[here]).await.unwrap(), [here], "the memory has expired");
    }

    #[tokio::test]
    async fn a_failed_read_is_believed_more_than_the_memory() {
        let (below, store, _) = remembering(100);
        let (lost, damaged) = (below.put("lost"), below.put("damaged"));
        assert_eq!(store.find_missing(&[lost, damaged]).await.unwrap(), []);
        below.forget(&lost);
        below.corrupt(&damaged, "something");
        assert_eq!(store.find_missing(&[lost]).await.unwrap(), [], "it is still remembered");
        assert!(store.read_blob(&lost).await.is_err());
        assert_eq!(store.find_missing(&[lost]).await.unwrap(), [lost]);
        assert_eq!(store.open_blob(&damaged).await.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
        below.forget(&damaged);
        assert_eq!(store.find_missing(&[damaged]).await.unwrap(), [damaged]);
    }

    #[tokio::test]
    async fn writes_always_pass_through_and_are_remembered() {
        let (below, store, _) = remembering(100);
        let blob = Blob::new(DigestFunction::Sha256, "data");
        store.write_blob(&blob).await.unwrap();
        store.write_blob(&blob).await.unwrap();
        assert_eq!(below.stats().write_blobs.calls, 2);
        assert_eq!(store.find_missing(&[blob.digest()]).await.unwrap(), []);
        assert_eq!(below.stats().find_missing.calls, 0);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (below, store, _) = remembering(10);
        let digests: Vec<_> = (0..1000).map(|i| below.put(i.to_string())).collect();
        for digest in &digests {
            assert_eq!(store.find_missing(&[*digest]).await.unwrap(), []);
        }
        let memory = store.memory.lock().unwrap();
        assert!(memory.young.len() + memory.old.len() <= 10);
        assert!(memory.contains(&digests[999], (store.clock)()));
    }
}
