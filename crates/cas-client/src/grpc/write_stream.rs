//! Storing one blob piece by piece (`ByteStream.Write`).

use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reapi_proto::Digest;
use reapi_proto::bytestream::byte_stream_client::ByteStreamClient;
use reapi_proto::bytestream::{WriteRequest, WriteResponse};
use reapi_proto::resource::WriteName;
use reapi_proto::v2::compressor::Value as Compressor;
use tokio::sync::mpsc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{CancellationHandle, Code, Response, Status};

use super::GrpcClient;
use crate::batch::preallocation;
use crate::retry::Failure;
use crate::{Blob, Chunks, Error, ErrorKind, Result};

const METHOD: &str = "ByteStream.Write";

/// Largest piece per message; every client in use stays at or near this, and servers expect it.
const PIECE_BYTES: usize = 1024 * 1024;

/// Blobs up to this size are gathered before they are sent: then a wrong one
/// is never sent at all, and a failed upload can start over. Of larger ones
/// only the caller has the bytes.
const GATHER_BYTES: usize = 4 * 1024 * 1024;

/// The resource name as a header, for proxies that route by it (Remote Execution API, comment on `ContentAddressableStorage`).
const RESOURCE_NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

impl GrpcClient {
    pub(super) async fn stream_write(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.check_writable(METHOD)?;
        self.check_function(METHOD, [digest])?;
        // Connects, with retries, while nothing of the only copy has been used up.
        if !digest.is_empty()
            && let Some(error) = self.size_objection(METHOD, digest).await?
        {
            return Err(error);
        }
        if digest.size_bytes() <= GATHER_BYTES as u64 {
            let data = gather(digest, chunks).await.map_err(|e| e.at(&self.config().endpoint))?;
            let blob = Blob::verified(*digest, data).ok_or_else(|| self.mismatch(digest))?;
            return if digest.is_empty() { Ok(()) } else { self.write_whole(&blob).await };
        }
        self.write_once(digest, chunks).await.map_err(|failure| failure.error)
    }

    /// Stores a blob from memory, starting over as often as the policy allows.
    pub(super) async fn write_whole(&self, blob: &Blob) -> Result<()> {
        let mut attempts = self.retrier().attempts();
        loop {
            let chunks = stream::iter([Ok(blob.data().clone())]).boxed();
            match self.write_once(&blob.digest(), chunks).await {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    fn mismatch(&self, digest: &Digest) -> Error {
        self.error(ErrorKind::Corrupt, METHOD, "the pieces do not add up to this blob").with_digest(*digest)
    }

    /// Makes one attempt.
    ///
    /// The service may answer before it has everything, because somebody else
    /// stored the blob: then nothing more is produced. The last piece is held
    /// back until the hash is known, so a wrong blob is never completed.
    async fn write_once(&self, digest: &Digest, chunks: Chunks) -> Result<(), Failure> {
        let (_place, lease) = self.enter(self.calls()).await?;
        let name =
            WriteName::new(self.instance_name(), uuid::Uuid::new_v4().to_string(), Compressor::Identity, *digest)
                .map_err(|e| self.error(ErrorKind::Invalid, METHOD, e.to_string()))?
                .to_string();
        let idle = self.config().timeouts.idle;
        let (sender, receiver) = mpsc::channel(1);
        let mut request = self.signed(until_finished(receiver), None);
        if let Ok(value) = AsciiMetadataValue::try_from(name.as_str()) {
            request.metadata_mut().insert(RESOURCE_NAME_HEADER, value);
        }
        let mut abort = AbortOnDrop(Some(request.cancellation_handle()));
        let mut stub = ByteStreamClient::new(lease.channel.clone());
        let reply = pin!(stub.write(request));
        let feed = pin!(feed(digest, name, chunks, sender, idle));
        let located = |failure: Failure| failure.map(|e| e.at(&self.config().endpoint).with_digest(*digest));

        let reply = match select(reply, feed).await {
            Either::Left((reply, _)) => reply,
            Either::Right((Ok(()) | Err(FeedError::Hung), reply)) => {
                tokio::time::timeout(idle, reply).await.map_err(|_| located(stalled(idle)))?
            }
            Either::Right((Err(FeedError::Stalled), _)) => return Err(located(stalled(idle))),
            Either::Right((Err(FeedError::Source(error)), _)) => return Err(Failure::fatal(error)),
            Either::Right((Err(FeedError::Mismatch), _)) => return Err(Failure::fatal(self.mismatch(digest))),
        };
        self.judge_reply(digest, reply, |status| located(self.judge(self.calls(), &lease, METHOD, status)))?;
        abort.0 = None;
        Ok(())
    }

    fn judge_reply(
        &self,
        digest: &Digest,
        reply: Result<Response<WriteResponse>, Status>,
        failure: impl FnOnce(&Status) -> Failure,
    ) -> Result<(), Failure> {
        match reply.map(|r| r.into_inner().committed_size) {
            Ok(committed) if committed == digest.wire_size() => {
                self.retrier().succeeded();
                Ok(())
            }
            Ok(committed) => {
                let reason = format!("the service says that it stored {committed} bytes");
                Err(Failure::fatal(self.error(ErrorKind::Protocol, METHOD, reason).with_digest(*digest)))
            }
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(failure(&status)),
        }
    }
}

fn stalled(idle: Duration) -> Failure {
    Failure::retry(Error::new(ErrorKind::Unavailable, METHOD, format!("no progress for {idle:?}")))
}

/// The messages up to the one that finishes the upload. Without that one they
/// never end: an end would tell the service that everything has been sent, and
/// could overtake the abort.
fn until_finished(mut receiver: mpsc::Receiver<WriteRequest>) -> impl Stream<Item = WriteRequest> {
    let mut finished = false;
    stream::poll_fn(move |context| {
        if finished {
            return Poll::Ready(None);
        }
        match ready!(receiver.poll_recv(context)) {
            Some(message) => {
                finished = message.finish_write;
                Poll::Ready(Some(message))
            }
            None => Poll::Pending,
        }
    })
}

/// Aborts an upload that did not come to its end.
struct AbortOnDrop(Option<CancellationHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.cancel();
        }
    }
}

/// Why an upload was not fed to its end.
enum FeedError {
    /// The caller's stream failed.
    Source(Error),
    /// The caller's stream is not the blob.
    Mismatch,
    /// The service stopped taking data.
    Stalled,
    /// The call is over; its reply says why.
    Hung,
}

/// Cuts `chunks` into messages and sends them, checking them on the way.
async fn feed(
    digest: &Digest,
    name: String,
    mut chunks: Chunks,
    sender: mpsc::Sender<WriteRequest>,
    idle: Duration,
) -> Result<(), FeedError> {
    let mut messages = Messages { name, offset: 0, sender, idle };
    let mut hasher = digest.function().hasher();
    let mut held: Option<Bytes> = None;
    while let Some(mut chunk) = chunks.try_next().await.map_err(FeedError::Source)? {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(PIECE_BYTES));
            hasher.update(&piece);
            if hasher.size_bytes() > digest.size_bytes() {
                return Err(FeedError::Mismatch);
            }
            if let Some(previous) = held.replace(piece) {
                messages.send(previous, false).await?;
            }
        }
    }
    if hasher.finish() != *digest {
        return Err(FeedError::Mismatch);
    }
    messages.send(held.unwrap_or_default(), true).await
}

/// The sending end of an upload.
struct Messages {
    /// The resource name; only the first message has it.
    name: String,
    offset: i64,
    sender: mpsc::Sender<WriteRequest>,
    idle: Duration,
}

impl Messages {
    async fn send(&mut self, data: Bytes, finish_write: bool) -> Result<(), FeedError> {
        // A piece has at most PIECE_BYTES bytes.
        let bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let resource_name = std::mem::take(&mut self.name);
        let message = WriteRequest { resource_name, write_offset: self.offset, finish_write, data };
        self.offset = self.offset.saturating_add(bytes);
        match tokio::time::timeout(self.idle, self.sender.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(FeedError::Hung),
            Err(_) => Err(FeedError::Stalled),
        }
    }
}

/// Collects `chunks`, giving up as soon as they are too many.
async fn gather(digest: &Digest, mut chunks: Chunks) -> Result<Bytes> {
    let mut data = BytesMut::with_capacity(preallocation(digest.size_bytes(), GATHER_BYTES));
    while let Some(chunk) = chunks.try_next().await? {
        if (data.len() + chunk.len()) as u64 > digest.size_bytes() {
            let reason = format!("more than {} bytes were given", digest.size_bytes());
            return Err(Error::corrupt(METHOD, *digest, reason));
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data.freeze())
}
