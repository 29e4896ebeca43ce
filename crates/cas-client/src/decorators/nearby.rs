//! A store at hand in front of the one that counts.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::{Blob, BlobStore, Chunks, ErrorKind, PerBlob, Result};

/// Reads what it can from a near store, and everything else from a far one.
///
/// Only reads profit: presence is that in the far store, and writes go there
/// alone. So whoever uploads what is missing uploads it to where it is needed,
/// whatever happens to lie about here. A near store that fails costs time and a
/// line in the log, nothing else. Both must have the same digest function.
pub struct Nearby<N, F> {
    near: N,
    far: F,
}

impl<N: BlobStore, F: BlobStore> Nearby<N, F> {
    /// Reads from `near` first; all else is done by `far`.
    pub fn new(near: N, far: F) -> Self {
        Self { near, far }
    }
}

impl<N: fmt::Display, F: fmt::Display> fmt::Display for Nearby<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nearby({}, {})", self.near, self.far)
    }
}

impl<N: fmt::Debug, F: fmt::Debug> fmt::Debug for Nearby<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nearby").field("near", &self.near).field("far", &self.far).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<N: BlobStore, F: BlobStore> BlobStore for Nearby<N, F> {
    fn digest_function(&self) -> DigestFunction {
        self.far.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.far.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let near = match self.near.read_blobs(digests).await {
            Ok(near) => near,
            Err(error) => {
                tracing::debug!(near = %self.near, %error, "reading from further away");
                return self.far.read_blobs(digests).await;
            }
        };
        let lacking: Vec<Digest> = near.iter().filter(|(_, read)| read.is_err()).map(|(digest, _)| *digest).collect();
        if lacking.is_empty() {
            return Ok(near);
        }
        let mut far: FxHashMap<Digest, Result<Bytes>> = self.far.read_blobs(&lacking).await?.into_iter().collect();
        let merged = near.into_iter().map(|(digest, read)| match far.remove(&digest) {
            Some(far) => (digest, far),
            None => (digest, read),
        });
        Ok(merged.collect())
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.far.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        // A stream that ends in the middle cannot be continued elsewhere, so presence is asked for first.
        match self.near.find_missing(std::slice::from_ref(digest)).await {
            Ok(missing) if missing.is_empty() => match self.near.open_blob(digest).await {
                Err(error) if error.kind() == ErrorKind::NotFound => self.far.open_blob(digest).await,
                opened => opened,
            },
            Ok(_) | Err(_) => self.far.open_blob(digest).await,
        }
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.far.write_chunks(digest, chunks).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobStoreExt, InMemory};

    #[tokio::test]
    async fn near_is_read_first_and_far_is_what_counts() {
        let (near, far) = (InMemory::new(), InMemory::new());
        let both = near.put("both");
        far.put("both");
        let here = near.put("here");
        let there = far.put("there");
        let nowhere = DigestFunction::Sha256.digest(b"nowhere");
        let store = Nearby::new(near.clone(), far.clone());

        assert_eq!(store.find_missing(&[both, here, there, nowhere]).await.unwrap(), [here, nowhere]);
        let read = store.read_blobs(&[both, here, there, nowhere]).await.unwrap();
        let found: Vec<_> = read.iter().map(|(digest, read)| (*digest, read.is_ok())).collect();
        assert_eq!(found, [(both, true), (here, true), (there, true), (nowhere, false)]);

        let written = Blob::new(DigestFunction::Sha256, "new");
        store.upload_missing(std::slice::from_ref(&written)).await.unwrap();
        assert_eq!(near.find_missing(&[written.digest()]).await.unwrap(), [written.digest()]);
        assert_eq!(store.to_string(), format!("Nearby({near}, {far})"));
    }
}
