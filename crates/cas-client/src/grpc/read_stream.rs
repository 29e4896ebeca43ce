//! Reading one blob piece by piece (`ByteStream.Read`).

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reapi_proto::bytestream::byte_stream_client::ByteStreamClient;
use reapi_proto::bytestream::{ReadRequest, ReadResponse};
use reapi_proto::resource::ReadName;
use reapi_proto::v2::compressor::Value as Compressor;
use reapi_proto::{Digest, Hasher};
use tonic::Streaming;

use super::GrpcClient;
use super::batch::{Emptiness, emptiness};
use super::channel::{Lease, Place};
use crate::batch::preallocation;
use crate::retry::{Attempts, Failure};
use crate::{Chunks, Error, ErrorKind, Result};

const METHOD: &str = "ByteStream.Read";

/// Most memory set aside before any byte has come: sizes in digests are anybody's claim.
const MAX_PREALLOCATED_BYTES: usize = 16 * 1024 * 1024;

/// A blob being read. Survives broken streams: it goes on where the last one stopped, with the hash so far.
struct Reader {
    client: GrpcClient,
    digest: Digest,
    hasher: Hasher,
    attempts: Attempts,
    source: Option<Source>,
}

/// One call, with its place among the calls in flight.
struct Source {
    messages: Streaming<ReadResponse>,
    lease: Lease,
    _place: Place,
}

impl GrpcClient {
    /// Nothing is sent before the stream is polled.
    pub(super) fn open_read(&self, digest: &Digest) -> Result<Chunks> {
        self.check_function(METHOD, [digest])?;
        match emptiness(self.function(), digest) {
            Emptiness::Empty => return Ok(stream::empty().boxed()),
            Emptiness::Impossible => return Err(Error::not_found(METHOD, *digest)),
            Emptiness::Not => {}
        }
        let reader = Reader {
            client: self.clone(),
            digest: *digest,
            hasher: self.function().hasher(),
            attempts: self.retrier().attempts(),
            source: None,
        };
        Ok(stream::try_unfold(reader, |mut reader| async move {
            let piece = reader.next().await?;
            Ok(piece.map(|piece| (piece, reader)))
        })
        .boxed())
    }

    /// The whole blob in memory.
    pub(super) async fn read_whole(&self, digest: Digest) -> Result<Bytes> {
        let mut data = BytesMut::with_capacity(preallocation(digest.size_bytes(), MAX_PREALLOCATED_BYTES));
        let mut pieces = self.open_read(&digest)?;
        while let Some(piece) = pieces.try_next().await? {
            data.extend_from_slice(&piece);
        }
        Ok(data.freeze())
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.step().await {
                Ok(None) => return Ok(None),
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    self.attempts.progressed();
                    return Ok(Some(piece));
                }
                Err(failure) => {
                    self.source = None;
                    self.attempts.again(failure.map(|e| e.with_digest(self.digest))).await?;
                }
            }
        }
    }

    /// The next message, or `None` at the verified end of the blob.
    async fn step(&mut self) -> Result<Option<Bytes>, Failure> {
        let complete = self.hasher.size_bytes() == self.digest.size_bytes();
        let message = match self.receive().await {
            // Everything is here and matches: how the stream ends does not matter.
            Err(_) if complete => None,
            result => result?,
        };
        let Some(piece) = message else {
            return if complete {
                Ok(None)
            } else {
                Err(self.corrupt("the stream ended after", self.hasher.size_bytes()))
            };
        };
        let total = self.hasher.size_bytes() + piece.len() as u64;
        if total > self.digest.size_bytes() {
            return Err(self.corrupt("the blob is longer than its digest says: at least", total));
        }
        self.hasher.update(&piece);
        if !piece.is_empty() && total == self.digest.size_bytes() && self.hasher.clone().finish() != self.digest {
            return Err(self.corrupt("other content in", total));
        }
        Ok(Some(piece))
    }

    fn corrupt(&self, what: &str, bytes: u64) -> Failure {
        let error = self.client.error(ErrorKind::Corrupt, METHOD, format!("{what} {bytes} bytes"));
        Failure::fatal(error)
    }

    /// The next message as it comes, opening the stream where needed.
    async fn receive(&mut self) -> Result<Option<Bytes>, Failure> {
        let idle = self.client.config().timeouts.idle;
        let stalled = || {
            let reason = format!("no data for {idle:?}");
            Failure::retry(self.client.error(ErrorKind::Unavailable, METHOD, reason))
        };
        let source = match &mut self.source {
            Some(source) => source,
            None => {
                let (place, lease) = self.client.enter(self.client.calls()).await?;
                let opening = open(&self.client, &lease, &self.digest, self.hasher.size_bytes());
                let messages = tokio::time::timeout(idle, opening).await.map_err(|_| stalled())??;
                self.source.insert(Source { messages, lease, _place: place })
            }
        };
        match tokio::time::timeout(idle, source.messages.message()).await {
            Ok(Ok(message)) => {
                self.client.retrier().succeeded();
                Ok(message.map(|m| m.data))
            }
            Ok(Err(status)) => Err(self.client.judge(self.client.calls(), &source.lease, METHOD, &status)),
            Err(_) => Err(stalled()),
        }
    }
}

async fn open(
    client: &GrpcClient,
    lease: &Lease,
    digest: &Digest,
    offset: u64,
) -> Result<Streaming<ReadResponse>, Failure> {
    let name = ReadName { instance: client.instance_name(), compressor: Compressor::Identity, digest: *digest };
    let request = ReadRequest { resource_name: name.to_string(), read_offset: offset.cast_signed(), read_limit: 0 };
    ByteStreamClient::new(lease.channel.clone())
        .max_decoding_message_size(client.config().limits.receive_bytes)
        .read(client.signed(request, None))
        .await
        .map(tonic::Response::into_inner)
        .map_err(|status| client.judge(client.calls(), lease, METHOD, &status))
}
