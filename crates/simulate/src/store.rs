//! Storage that answers after the time that a network takes.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cas_client::{Blob, BlobStore, Chunks, Error, PerBlob, Result};
use futures_util::{StreamExt, stream};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::state::FUNCTION;

/// Blobs by the first half of their hashes, which tells them apart well enough: there are millions of them.
#[derive(Default)]
pub(crate) struct Blobs {
    by_hash: FxHashMap<Key, Bytes>,
    /// Where copies are put, one behind the other.
    room: BytesMut,
}

/// Bytes of memory for copies that are asked for at once.
const ROOM: usize = 1 << 20;

impl Blobs {
    pub(crate) fn insert(&mut self, digest: &Digest, data: Bytes) {
        self.by_hash.insert(key(digest), data);
    }

    /// Inserts a copy that takes no more memory than its bytes.
    pub(crate) fn insert_copy(&mut self, digest: &Digest, data: &[u8]) {
        let Entry::Vacant(place) = self.by_hash.entry(key(digest)) else { return };
        if self.room.capacity() < data.len() {
            self.room = BytesMut::with_capacity(ROOM.max(data.len()));
        }
        self.room.extend_from_slice(data);
        place.insert(self.room.split().freeze());
    }

    fn get(&self, digest: &Digest) -> Option<&Bytes> {
        self.by_hash.get(&key(digest)).filter(|data| data.len() as u64 == digest.size_bytes())
    }

    fn contains(&self, digest: &Digest) -> bool {
        self.get(digest).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }
}

/// What a digest is known by in a simulation.
pub(crate) type Key = [u8; 16];

pub(crate) fn key(digest: &Digest) -> Key {
    let mut key = [0; 16];
    let hash = digest.hash();
    let length = hash.len().min(key.len());
    key[..length].copy_from_slice(&hash[..length]);
    key
}

/// Blobs in two layers: the recorded state, which all simulations share, and what this one has stored.
pub(crate) struct Store {
    shared: Arc<Blobs>,
    own: Mutex<Blobs>,
    latency: Duration,
}

impl Store {
    pub(crate) fn new(shared: Arc<Blobs>, latency: Duration) -> Self {
        Self { shared, own: Mutex::default(), latency }
    }

    fn own(&self) -> MutexGuard<'_, Blobs> {
        // A panic elsewhere cannot leave a map half changed: every change is one insertion.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a blob at once, and takes its digest on trust.
    pub(crate) fn put(&self, digest: Digest, data: Bytes) {
        if !self.shared.contains(&digest) {
            self.own().insert(&digest, data);
        }
    }

    /// Reads a blob at once.
    pub(crate) fn peek(&self, digest: &Digest) -> Option<Bytes> {
        if digest.is_empty() {
            return Some(Bytes::new());
        }
        self.shared.get(digest).cloned().or_else(|| self.own().get(digest).cloned())
    }

    /// Whether a blob is stored, at once.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.shared.contains(digest) || self.own().contains(digest)
    }

    /// Takes as long as a call does.
    async fn call(&self) {
        tokio::time::sleep(self.latency).await;
    }
}

/// Each digest once, in order of first occurrence.
fn distinct(digests: &[Digest]) -> impl Iterator<Item = &Digest> {
    let mut seen = FxHashSet::default();
    digests.iter().filter(move |digest| seen.insert(**digest))
}

#[async_trait]
impl BlobStore for Store {
    fn digest_function(&self) -> DigestFunction {
        FUNCTION
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.call().await;
        let own = self.own();
        let absent = |digest: &&Digest| !digest.is_empty() && !self.shared.contains(digest) && !own.contains(digest);
        Ok(distinct(digests).filter(absent).copied().collect())
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.call().await;
        let read = |digest: &Digest| self.peek(digest).ok_or_else(|| Error::not_found("read_blobs", *digest).at(self));
        Ok(distinct(digests).map(|digest| (*digest, read(digest))).collect())
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.call().await;
        let mut written = Vec::with_capacity(blobs.len());
        for blob in blobs {
            self.put(blob.digest(), blob.data().clone());
            written.push((blob.digest(), Ok(())));
        }
        Ok(written)
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.call().await;
        let data = self.peek(digest).ok_or_else(|| Error::not_found("open_blob", *digest).at(self))?;
        Ok(stream::iter([Ok(data)]).boxed())
    }

    async fn write_chunks(&self, digest: &Digest, mut chunks: Chunks) -> Result<()> {
        let mut data = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            data.extend_from_slice(&chunk?);
        }
        let blob = Blob::verified(*digest, data.freeze())
            .ok_or_else(|| Error::corrupt("write_chunks", *digest, "the bytes do not match the digest").at(self))?;
        self.write_blobs(&[blob]).await.map(drop)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} blobs, {} of them shared)", self.shared.len() + self.own().len(), self.shared.len())
    }
}
