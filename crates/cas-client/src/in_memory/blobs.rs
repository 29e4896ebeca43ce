//! The in-memory CAS.

use std::fmt;
use std::iter;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::batch::{distinct, each_once, preallocation, require_function};
use crate::{Blob, BlobStore, Chunks, Error, PerBlob, Result};

/// Pieces of [`BlobStore::open_blob`]: what a service sends per message.
const CHUNK_BYTES: usize = 1 << 20;

/// Allocated ahead of the data at most: a digest's size is the sender's claim.
const MAX_PREALLOCATION_BYTES: usize = 1 << 20;

struct Stored {
    data: Bytes,
    /// The data is known to match; false once somebody tampered with it.
    verified: bool,
}

/// The blobs, without any counting.
pub(super) struct Blobs {
    function: DigestFunction,
    map: RwLock<FxHashMap<Digest, Stored>>,
}

impl Blobs {
    pub(super) fn new(function: DigestFunction) -> Self {
        Self { function, map: RwLock::default() }
    }

    pub(super) fn function(&self) -> DigestFunction {
        self.function
    }

    // A panic elsewhere cannot leave the map half changed: every change is one insertion or removal.
    fn shared(&self) -> RwLockReadGuard<'_, FxHashMap<Digest, Stored>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, FxHashMap<Digest, Stored>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.shared().len()
    }

    pub(super) fn digests(&self) -> Vec<Digest> {
        let mut all: Vec<_> = self.shared().keys().copied().collect();
        all.sort_unstable();
        all
    }

    pub(super) fn insert(&self, blob: &Blob) {
        if !blob.digest().is_empty() {
            self.exclusive().insert(blob.digest(), Stored { data: blob.data().clone(), verified: true });
        }
    }

    pub(super) fn forget(&self, digest: &Digest) -> bool {
        self.exclusive().remove(digest).is_some()
    }

    pub(super) fn corrupt(&self, digest: &Digest, data: Bytes) {
        self.exclusive().insert(*digest, Stored { data, verified: false });
    }

    pub(super) fn read(&self, operation: &'static str, digest: &Digest) -> Result<Bytes> {
        read(&self.shared(), operation, digest)
    }

    /// Those of `digests` that are absent, each once, in order.
    pub(super) fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let map = self.shared();
        let absent: Vec<_> = digests.iter().filter(|d| !d.is_empty() && !map.contains_key(d)).copied().collect();
        drop(map);
        distinct(&absent)
    }
}

fn read(map: &FxHashMap<Digest, Stored>, operation: &'static str, digest: &Digest) -> Result<Bytes> {
    match map.get(digest) {
        Some(stored) if stored.verified || digest.matches(&stored.data) => Ok(stored.data.clone()),
        Some(stored) => Err(Error::corrupt(
            operation,
            *digest,
            format!("the {} bytes held do not match the digest", stored.data.len()),
        )
        .at("InMemory")),
        None if digest.is_empty() && *digest == digest.function().empty() => Ok(Bytes::new()),
        None => Err(Error::not_found(operation, *digest).at("InMemory")),
    }
}

#[async_trait]
impl BlobStore for Blobs {
    fn digest_function(&self) -> DigestFunction {
        self.function
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        require_function("find_missing", self.function, digests)?;
        Ok(self.missing(digests))
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        require_function("read_blobs", self.function, digests)?;
        let mut answers = Vec::with_capacity(digests.len());
        let map = self.shared();
        answers.extend(each_once(digests).map(|d| (*d, read(&map, "read_blobs", d))));
        Ok(answers)
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        let digests: Vec<_> = blobs.iter().map(Blob::digest).collect();
        require_function("write_blobs", self.function, &digests)?;
        for blob in blobs {
            self.insert(blob);
        }
        Ok(distinct(&digests).into_iter().map(|d| (d, Ok(()))).collect())
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        require_function("open_blob", self.function, [digest])?;
        let mut rest = self.read("open_blob", digest)?;
        let pieces = iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(CHUNK_BYTES.min(rest.len())))));
        Ok(stream::iter(pieces).boxed())
    }

    async fn write_chunks(&self, digest: &Digest, mut chunks: Chunks) -> Result<()> {
        require_function("write_chunks", self.function, [digest])?;
        let mut data = BytesMut::with_capacity(preallocation(digest.size_bytes(), MAX_PREALLOCATION_BYTES));
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if (data.len() + chunk.len()) as u64 > digest.size_bytes() {
                return Err(Error::corrupt("write_chunks", *digest, "more bytes than the digest says").at(self));
            }
            data.extend_from_slice(&chunk);
        }
        let blob = Blob::verified(*digest, data.freeze())
            .ok_or_else(|| Error::corrupt("write_chunks", *digest, "the bytes do not match the digest").at(self))?;
        self.insert(&blob);
        Ok(())
    }
}

impl fmt::Display for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blobs({})", self.len())
    }
}
