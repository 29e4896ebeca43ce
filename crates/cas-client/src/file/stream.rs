//! Blobs of any size, piece by piece.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reapi_proto::{Digest, Hasher};
use tempfile::NamedTempFile;

use super::layout::Layout;
use super::store::blocking;
use super::write;
use crate::batch::preallocation;
use crate::{Chunks, Error, Result};

/// Read per piece, and gathered per write.
const CHUNK_BYTES: usize = 1 << 20;

struct Open {
    file: File,
    hasher: Hasher,
    digest: Digest,
}

/// Opens the blob; the pieces are read as they are asked for.
pub(super) async fn open(layout: Arc<Layout>, digest: Digest) -> Result<Chunks> {
    if digest.is_empty() && digest.matches(&[]) {
        return Ok(stream::empty().boxed());
    }
    let at = Arc::clone(&layout);
    let file = blocking(move || match File::open(at.blobs.path(&digest)) {
        Ok(file) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::not_found("open_blob", digest).at(&*at)),
        Err(e) => Err(at.error("open_blob", e).with_digest(digest)),
    })
    .await?;
    let start = Open { file, hasher: digest.function().hasher(), digest };
    let pieces = stream::try_unfold(Some(start), move |state| {
        let layout = Arc::clone(&layout);
        async move {
            match state {
                None => Ok(None),
                Some(open) => blocking(move || next(&layout, open)).await,
            }
        }
    });
    Ok(pieces.boxed())
}

/// The next piece, and what follows it.
fn next(layout: &Layout, mut open: Open) -> Result<Option<(Bytes, Option<Open>)>> {
    let digest = open.digest;
    let left = digest.size_bytes() - open.hasher.size_bytes();
    // One byte beyond the end shows a file that is too long.
    let room = preallocation(left.saturating_add(1), CHUNK_BYTES);
    let mut piece = Vec::with_capacity(room);
    (&mut open.file)
        .take(room as u64)
        .read_to_end(&mut piece)
        .map_err(|e| layout.error("open_blob", e).with_digest(digest))?;
    if piece.len() as u64 > left {
        return Err(Error::corrupt("open_blob", digest, "the file is longer than the blob").at(layout));
    }
    open.hasher.update(&piece);
    if piece.len() == room {
        return Ok(Some((piece.into(), Some(open))));
    }
    if open.hasher.finish() != digest {
        return Err(Error::corrupt("open_blob", digest, "the file's contents do not match").at(layout));
    }
    Ok(if piece.is_empty() { None } else { Some((piece.into(), None)) })
}

/// Stores the pieces as the blob if they are it. A dropped future leaves nothing behind.
pub(super) async fn write(layout: Arc<Layout>, digest: Digest, mut chunks: Chunks) -> Result<()> {
    let mut sink = Sink { layout, digest, hasher: digest.function().hasher(), file: None };
    let mut gathered: Vec<Bytes> = Vec::new();
    let mut gathered_bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        gathered_bytes += chunk.len();
        gathered.push(chunk);
        if gathered_bytes >= CHUNK_BYTES {
            let pieces = std::mem::take(&mut gathered);
            gathered_bytes = 0;
            sink = blocking(move || sink.append(&pieces)).await?;
        }
    }
    blocking(move || sink.append(&gathered)?.publish()).await
}

struct Sink {
    layout: Arc<Layout>,
    digest: Digest,
    hasher: Hasher,
    /// Made with the first bytes.
    file: Option<NamedTempFile>,
}

impl Sink {
    fn append(mut self, pieces: &[Bytes]) -> Result<Self> {
        let added: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        if self.hasher.size_bytes().saturating_add(added) > self.digest.size_bytes() {
            return Err(
                Error::corrupt("write_chunks", self.digest, "more bytes than the digest says").at(&*self.layout)
            );
        }
        let failed = |e| self.layout.error("write_chunks", e).with_digest(self.digest);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => write::temporary(&self.layout.blobs).map_err(failed)?,
        };
        for piece in pieces {
            self.hasher.update(piece);
            file.write_all(piece).map_err(failed)?;
        }
        self.file = Some(file);
        Ok(self)
    }

    fn publish(self) -> Result<()> {
        if self.hasher.finish() != self.digest {
            return Err(
                Error::corrupt("write_chunks", self.digest, "the bytes do not match the digest").at(&*self.layout)
            );
        }
        match self.file {
            Some(file) if !self.digest.is_empty() => write::publish_blob(&self.layout, file, &self.digest),
            _ => Ok(()),
        }
    }
}
