//! Storage that answers after the time that a network takes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cas_client::{Blob, BlobStore, Chunks, Error, PerBlob, Result};
use futures_util::{StreamExt, stream};
use hashbrown::HashTable;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::state::FUNCTION;

/// A blob of a project by its row in [`Blobs`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlobId(u32);

/// A set of small numbers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & Self::bit(number) != 0)
    }

    /// Says whether it is new.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let row = number as usize / 64;
        if row >= self.0.len() {
            self.0.resize(row + 1, 0);
        }
        let before = self.0[row];
        self.0[row] |= Self::bit(number);
        before != self.0[row]
    }

    fn bit(number: u32) -> u64 {
        1 << (number % 64)
    }
}

impl BlobId {
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// Every blob of a project before and after the change, numbered: what simulations share. They are known by the first
/// 8 bytes of their hashes and their sizes, which tells them apart well enough: there are millions of them, and a mistake
/// would be noticed, as what is executed would not be what the build asks for.
///
/// What is made together is used together, and lies together; the table of hashes says no more than where.
#[derive(Default)]
pub(crate) struct Blobs {
    by_hash: HashTable<BlobId>,
    keys: Vec<Key>,
    sizes: Vec<u32>,
    data: Vec<Bytes>,
    /// Where what each refers to ends in `below`.
    ends: Vec<u32>,
    below: Vec<BlobId>,
    /// Where copies are put, one behind the other.
    room: BytesMut,
}

/// Bytes of memory for copies that are asked for at once.
const ROOM: usize = 1 << 16;

impl Blobs {
    /// Inserts a copy that takes no more memory than its bytes. `None` if something that it refers to is not there, or if
    /// it cannot be told from another one.
    pub(crate) fn insert(&mut self, digest: &Digest, bytes: &[u8], below: &[Digest]) -> Option<BlobId> {
        let id = BlobId(u32::try_from(self.data.len()).ok()?);
        let size = u32::try_from(bytes.len()).ok()?;
        let Self { by_hash, keys, .. } = self;
        let key = key(digest);
        let entry = by_hash.entry(key, |id| keys[id.0 as usize] == key, |id| keys[id.0 as usize]);
        let known = *entry.or_insert(id).get();
        if known != id {
            return (self.sizes[known.0 as usize] == size).then_some(known);
        }
        self.keys.push(key);
        self.sizes.push(size);
        for digest in below {
            let id = self.with_key(digest)?;
            self.below.push(id);
        }
        self.ends.push(u32::try_from(self.below.len()).ok()?);
        if self.room.capacity() < bytes.len() {
            self.room = BytesMut::with_capacity(ROOM.max(bytes.len()));
        }
        self.room.extend_from_slice(bytes);
        self.data.push(self.room.split().freeze());
        Some(id)
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<BlobId> {
        let id = self.with_key(digest)?;
        (u64::from(self.sizes[id.0 as usize]) == digest.size_bytes()).then_some(id)
    }

    fn with_key(&self, digest: &Digest) -> Option<BlobId> {
        let key = key(digest);
        // It is the beginning of a hash, so it needs none itself.
        self.by_hash.find(key, |id| self.keys[id.0 as usize] == key).copied()
    }

    /// What has to be stored for a blob to be of use: of an action, its command and its input root; of a directory,
    /// the directories in it.
    fn below(&self, id: BlobId) -> &[BlobId] {
        let row = id.0 as usize;
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.below[start as usize..self.ends[row] as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }
}

/// Enough of a digest to tell one project's from each other.
pub(crate) type Key = u64;

pub(crate) fn key(digest: &Digest) -> Key {
    digest.hash().iter().take(size_of::<Key>()).fold(0, |key, byte| key << 8 | Key::from(*byte))
}

/// What is stored in one simulation.
pub(crate) struct Store {
    blobs: Arc<Blobs>,
    stored: Mutex<Stored>,
    latency: Duration,
}

struct Stored {
    /// Of the project's blobs.
    present: Bits,
    /// Those that are stored with all that is below them.
    complete: Bits,
    /// What is no blob of the project: somebody was mistaken.
    other: FxHashMap<Digest, Bytes>,
}

impl Store {
    pub(crate) fn new(blobs: Arc<Blobs>, present: Bits, latency: Duration) -> Self {
        let stored = Stored { present, complete: Bits::default(), other: FxHashMap::default() };
        Self { blobs, stored: Mutex::new(stored), latency }
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        // A panic elsewhere cannot leave it half changed: every change is one insertion.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores blobs of the project at once.
    pub(crate) fn put(&self, ids: impl IntoIterator<Item = BlobId>) {
        let mut stored = self.stored();
        for id in ids {
            stored.present.insert(id.0);
        }
    }

    /// Whether a blob of the project is stored.
    pub(crate) fn contains(&self, id: BlobId) -> bool {
        self.stored().present.contains(id.0)
    }

    /// Whether a blob is stored with all that it needs below it.
    pub(crate) fn is_complete(&self, id: BlobId) -> bool {
        let stored = &mut *self.stored();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if stored.complete.contains(id.0) {
                continue;
            }
            if !stored.present.contains(id.0) {
                // Some of what was taken to be complete may lack this.
                stored.complete = Bits::default();
                return false;
            }
            stored.complete.insert(id.0);
            pending.extend(self.blobs.below(id));
        }
        true
    }

    /// Takes as long as a call does.
    async fn call(&self) {
        tokio::time::sleep(self.latency).await;
    }
}

impl Stored {
    fn read(&self, blobs: &Blobs, digest: &Digest) -> Option<Bytes> {
        if digest.is_empty() {
            return Some(Bytes::new());
        }
        match blobs.find(digest) {
            Some(id) => self.present.contains(id.0).then(|| blobs.data[id.0 as usize].clone()),
            None => self.other.get(digest).cloned(),
        }
    }

    fn contains(&self, blobs: &Blobs, digest: &Digest) -> bool {
        digest.is_empty()
            || match blobs.find(digest) {
                Some(id) => self.present.contains(id.0),
                None => self.other.contains_key(digest),
            }
    }
}

/// Each digest once, in order of first occurrence.
fn distinct(digests: &[Digest]) -> impl Iterator<Item = &Digest> {
    let mut seen = FxHashSet::with_capacity_and_hasher(digests.len(), FxBuildHasher);
    digests.iter().filter(move |digest| seen.insert(*digest))
}

#[async_trait]
impl BlobStore for Store {
    fn digest_function(&self) -> DigestFunction {
        FUNCTION
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.call().await;
        let stored = self.stored();
        Ok(distinct(digests).filter(|digest| !stored.contains(&self.blobs, digest)).copied().collect())
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.call().await;
        let stored = self.stored();
        let absent = |digest: &Digest| Error::not_found("read_blobs", *digest).at(self);
        let read = |digest: &Digest| stored.read(&self.blobs, digest).ok_or_else(|| absent(digest));
        Ok(distinct(digests).map(|digest| (*digest, read(digest))).collect())
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.call().await;
        let mut stored = self.stored();
        for blob in blobs {
            match self.blobs.find(&blob.digest()) {
                Some(id) => drop(stored.present.insert(id.0)),
                None => drop(stored.other.insert(blob.digest(), blob.data().clone())),
            }
        }
        Ok(blobs.iter().map(|blob| (blob.digest(), Ok(()))).collect())
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.call().await;
        let data = self.stored().read(&self.blobs, digest);
        let data = data.ok_or_else(|| Error::not_found("open_blob", *digest).at(self))?;
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
        write!(f, "Store({} blobs of the project)", self.blobs.len())
    }
}
