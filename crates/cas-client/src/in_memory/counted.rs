//! The in-memory CAS as the outside sees it: every call is counted.

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::{Digest, DigestFunction};

use super::InMemory;
use crate::{Blob, BlobStore, Chunks, PerBlob, Result};

#[async_trait]
impl BlobStore for InMemory {
    fn digest_function(&self) -> DigestFunction {
        self.inner.blobs.function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.inner.counters.find_missing.add(digests.len(), 0);
        self.inner.blobs.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let read = self.inner.blobs.read_blobs(digests).await;
        let bytes =
            read.iter().flatten().filter_map(|(_, data)| data.as_ref().ok()).map(|data| data.len() as u64).sum();
        self.inner.counters.read_blobs.add(digests.len(), bytes);
        read
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        let written = self.inner.blobs.write_blobs(blobs).await;
        let bytes = written.iter().flatten().map(|(digest, _)| digest.size_bytes()).sum();
        self.inner.counters.write_blobs.add(blobs.len(), bytes);
        written
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        let opened = self.inner.blobs.open_blob(digest).await;
        self.inner.counters.open_blob.add(1, if opened.is_ok() { digest.size_bytes() } else { 0 });
        opened
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        let written = self.inner.blobs.write_chunks(digest, chunks).await;
        self.inner.counters.write_chunks.add(1, if written.is_ok() { digest.size_bytes() } else { 0 });
        written
    }
}
