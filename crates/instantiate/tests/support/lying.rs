//! A store that claims to have everything.

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{Blob, BlobStore, Chunks, InMemory, PerBlob, Result};
use reapi_proto::{Digest, DigestFunction};

#[derive(Clone, Debug)]
pub struct Lying(pub InMemory);

impl std::fmt::Display for Lying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lying({})", self.0)
    }
}

#[async_trait]
impl BlobStore for Lying {
    fn digest_function(&self) -> DigestFunction {
        self.0.digest_function()
    }

    async fn find_missing(&self, _digests: &[Digest]) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.0.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.0.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.0.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.0.write_chunks(digest, chunks).await
    }
}
