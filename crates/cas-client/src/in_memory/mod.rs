//! Storage in memory: the strictest implementation, for tests, dry runs and benchmarks.

mod assets;
mod blobs;
mod counted;
mod results;
mod stats;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use crate::Blob;
use assets::Assets;
use blobs::Blobs;
use results::Results;
use stats::Counters;
pub use stats::{MethodStats, Stats};

/// CAS, action cache and asset index in memory; executes nothing.
///
/// A clone is a second handle on the same contents. Strict where services
/// may be lenient, so that a caller that works here works there:
///
/// - digests of another function than the store's are refused (`Invalid`),
/// - the empty blob is present and is never stored,
/// - an action result is refused unless Action, Command and every output are in CAS,
/// - a name is refused unless everything that it refers to is in CAS.
///
/// Names keep for ever, whatever lifetime was asked for.
///
/// Every call is counted ([`stats`](Self::stats)). [`forget`](Self::forget)
/// and [`corrupt`](Self::corrupt) make it lose blobs and lie about them.
#[derive(Clone)]
pub struct InMemory {
    inner: Arc<Inner>,
}

struct Inner {
    blobs: Blobs,
    results: Results,
    assets: Assets,
    counters: Counters,
}

impl InMemory {
    /// An empty store of SHA-256 digests.
    #[must_use]
    pub fn new() -> Self {
        Self::with_function(DigestFunction::Sha256)
    }

    /// An empty store of `function`'s digests.
    #[must_use]
    pub fn with_function(function: DigestFunction) -> Self {
        Self {
            inner: Arc::new(Inner {
                blobs: Blobs::new(function),
                results: Results::default(),
                assets: Assets::default(),
                counters: Counters::default(),
            }),
        }
    }

    /// Stores `data` at once, uncounted.
    pub fn put(&self, data: impl Into<Bytes>) -> Digest {
        let blob = Blob::new(self.inner.blobs.function(), data);
        let digest = blob.digest();
        self.inner.blobs.insert(&blob);
        digest
    }

    /// Stores an encoded message at once, uncounted.
    pub fn put_message(&self, message: &impl Message) -> Digest {
        self.put(message.encode_to_vec())
    }

    /// The verified bytes of a blob, uncounted; `None` if absent or [corrupted](Self::corrupt).
    #[must_use]
    pub fn peek(&self, digest: &Digest) -> Option<Bytes> {
        self.inner.blobs.read("peek", digest).ok()
    }

    /// Loses a blob, as a store's expiry does. Says whether it was there.
    pub fn forget(&self, digest: &Digest) -> bool {
        self.inner.blobs.forget(digest)
    }

    /// Loses an action result. Says whether it was there.
    pub fn forget_action_result(&self, action: &Digest) -> bool {
        self.inner.results.forget(action)
    }

    /// From now on the store holds `data` as the blob `digest`, whatever it hashes to.
    /// Reads find out and answer `Corrupt`.
    pub fn corrupt(&self, digest: &Digest, data: impl Into<Bytes>) {
        self.inner.blobs.corrupt(digest, data.into());
    }

    /// The digests of all stored blobs, sorted.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.inner.blobs.digests()
    }

    /// All stored action results, sorted by action.
    #[must_use]
    pub fn action_results(&self) -> Vec<(Digest, ActionResult)> {
        self.inner.results.all()
    }

    /// All published names with what they name, sorted.
    #[must_use]
    pub fn assets(&self) -> Vec<(String, Digest)> {
        self.inner.assets.all()
    }

    /// What the trait methods were asked for so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.counters.read()
    }

    /// [`stats`](Self::stats), counting from zero again.
    pub fn take_stats(&self) -> Stats {
        self.inner.counters.take()
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

/// Counts only: contents do not belong in logs.
impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory")
            .field("blobs", &self.inner.blobs.len())
            .field("action_results", &self.inner.results.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStore, BlobStoreExt, ErrorKind};
    use futures_util::{StreamExt, stream};

    #[tokio::test]
    async fn a_lying_store_is_found_out_on_every_path() {
        let store = InMemory::new();
        let digest = store.put("truth");
        store.corrupt(&digest, "a lie");
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        assert_eq!(store.peek(&digest), None);
        let batch = store.read_blobs(&[digest]).await.unwrap().pop().unwrap().1;
        let error = batch.unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::Corrupt, &[digest][..]));
        assert!(!error.to_string().contains("a lie"), "contents do not belong in messages");
        assert_eq!(store.open_blob(&digest).await.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);

        store.write_blob(&Blob::new(DigestFunction::Sha256, "truth")).await.unwrap();
        assert_eq!(store.read_blob(&digest).await.unwrap(), "truth", "a write repairs it");
    }

    #[tokio::test]
    async fn a_forgotten_blob_is_gone_for_every_handle() {
        let store = InMemory::new();
        let (kept, lost) = (store.put("kept"), store.put("lost"));
        assert!(store.clone().forget(&lost));
        assert!(!store.forget(&lost));
        assert_eq!(store.find_missing(&[lost, kept]).await.unwrap(), [lost]);
        assert_eq!(store.read_blob(&lost).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.digests(), [kept]);
    }

    #[tokio::test]
    async fn a_hostile_size_costs_no_memory() {
        let store = InMemory::new();
        let hash = DigestFunction::Sha256.digest(b"small");
        let digest = Digest::from_raw(DigestFunction::Sha256, hash.hash(), i64::MAX as u64).unwrap();
        let sent = store.write_chunks(&digest, stream::iter([Ok(Bytes::from("small"))]).boxed()).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(store.digests(), []);
    }

    #[tokio::test]
    async fn calls_are_counted() {
        let store = InMemory::new();
        let blob = Blob::new(DigestFunction::Sha256, "12345");
        let digest = blob.digest();
        store.write_blobs(&[blob.clone(), blob]).await.unwrap();
        store.read_blobs(&[digest, DigestFunction::Sha256.digest(b"absent")]).await.unwrap();
        store.open_blob(&digest).await.map(drop).unwrap();
        assert!(store.find_missing(&[DigestFunction::Sha512.empty()]).await.is_err());
        let expected = Stats {
            find_missing: MethodStats { calls: 1, blobs: 1, bytes: 0 },
            read_blobs: MethodStats { calls: 1, blobs: 2, bytes: 5 },
            write_blobs: MethodStats { calls: 1, blobs: 2, bytes: 5 },
            open_blob: MethodStats { calls: 1, blobs: 1, bytes: 5 },
            ..Stats::default()
        };
        assert_eq!(store.take_stats(), expected);
        assert_eq!(store.stats(), Stats::default());
    }
}
