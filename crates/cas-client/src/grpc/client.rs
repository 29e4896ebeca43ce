//! The client itself: how one call is made.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reapi_proto::resource::InstanceName;
use reapi_proto::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use reapi_proto::{Digest, DigestFunction};
use tonic::{Code, Request, Response, Status};

use super::capabilities::CapabilitiesCache;
use super::channel::{Connection, Lease, Place};
use super::metadata::Caller;
use super::route::Route;
use super::status::call_failure;
use super::token::{Token, TokenSource};
use super::transport::Transport;
use super::{Access, GrpcConfig};
use crate::batch::require_function;
use crate::retry::{Failure, Retrier, Verdict};
use crate::{Blob, BlobStore, Chunks, Error, ErrorKind, PerBlob, Result};

/// One Remote Execution service over gRPC: one endpoint, one instance.
///
/// Implements all the capability traits; services that are split over several
/// endpoints are several clients. Cloning is cheap and shares connection,
/// retry budget and the knowledge about the service. Connecting happens with
/// the first call and again after a connection broke; every call must be made
/// within a tokio runtime. Failed calls are repeated as the
/// [`RetryPolicy`](super::RetryPolicy) says. Dropping a future aborts its call.
///
/// Two things are the caller's business. A stream from
/// [`open_blob`](BlobStore::open_blob) that is neither read on nor dropped
/// keeps one of the places in [`Limits::concurrent_calls`](super::Limits).
/// And a [`write_chunks`](BlobStore::write_chunks) of more than 4 MiB that
/// breaks fails at once, since the pieces that were sent are gone: with
/// `Unavailable`, or `Denied` if a token has just expired;
/// smaller blobs and blobs in memory are sent again.
#[derive(Clone)]
pub struct GrpcClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: GrpcConfig,
    instance: InstanceName,
    caller: Caller,
    tokens: Option<TokenSource>,
    retrier: Arc<Retrier>,
    calls: Connection,
    /// Streams of executions stay open for minutes and would take the places of short calls.
    watches: Connection,
    capabilities: CapabilitiesCache,
}

/// What is called, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rpc<'a> {
    pub(super) method: &'static str,
    pub(super) deadline: Duration,
    /// The action that the call is for.
    pub(super) action: Option<&'a Digest>,
}

impl GrpcClient {
    /// A client that has not connected yet. Reads the token and, if it is to trust what the system trusts, the
    /// system's certificates.
    ///
    /// # Errors
    /// `Invalid` for an instance name that cannot be part of a resource name; for [`GrpcConfig::tls`] where the
    /// endpoint does not use TLS, and where it does and neither the configuration nor the system has certificates to
    /// trust; for a token that is none, or would be sent in plain text. `Io` when the token cannot be read. Never
    /// because of the network.
    pub fn new(config: GrpcConfig) -> Result<Self> {
        let instance = InstanceName::new(&config.instance_name)
            .map_err(|e| Error::new(ErrorKind::Invalid, "connect", e.to_string()).at(&config.endpoint))?;
        let route = Route::new(&config)?;
        let inner = Inner {
            instance,
            caller: Caller::new(&config),
            tokens: TokenSource::new(&config)?,
            retrier: Arc::new(Retrier::new(config.retry.clone(), fastrand::Rng::with_seed(config.retry_seed))),
            calls: Connection::new(&config, route.clone(), config.limits.concurrent_calls),
            watches: Connection::new(&config, route, config.limits.concurrent_executions),
            capabilities: CapabilitiesCache::default(),
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the client was set up with.
    #[must_use]
    pub fn config(&self) -> &GrpcConfig {
        &self.inner.config
    }

    pub(super) fn retrier(&self) -> &Arc<Retrier> {
        &self.inner.retrier
    }

    pub(super) fn capabilities_cache(&self) -> &CapabilitiesCache {
        &self.inner.capabilities
    }

    pub(super) fn calls(&self) -> &Connection {
        &self.inner.calls
    }

    pub(super) fn watches(&self) -> &Connection {
        &self.inner.watches
    }

    pub(super) fn function(&self) -> DigestFunction {
        self.inner.config.digest_function
    }

    /// The instance name, as requests carry it.
    pub(super) fn instance(&self) -> String {
        self.inner.config.instance_name.clone()
    }

    /// The instance name, as resource names carry it.
    pub(super) fn instance_name(&self) -> InstanceName {
        self.inner.instance.clone()
    }

    /// An error of this client.
    pub(super) fn error(&self, kind: ErrorKind, method: &'static str, reason: impl Into<String>) -> Error {
        Error::new(kind, method, reason).at(&self.inner.config.endpoint)
    }

    /// Refuses writes on a read-only client.
    pub(super) fn check_writable(&self, method: &'static str) -> Result<()> {
        match self.config().access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(self.error(ErrorKind::Denied, method, "this client is configured as read-only")),
        }
    }

    /// Refuses digests that the service would take for something else.
    pub(super) fn check_function<'a>(
        &self,
        method: &'static str,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<()> {
        require_function(method, self.function(), digests).map_err(|e| e.at(&self.config().endpoint))
    }

    /// A request with the caller's identity.
    pub(super) fn signed<T>(&self, message: T, action: Option<&Digest>) -> Request<T> {
        let mut request = Request::new(message);
        self.inner.caller.sign(&mut request, action);
        request
    }

    /// The failure of a call on `lease`, with what it tells about the connection.
    pub(super) fn judge(
        &self,
        connection: &Connection,
        lease: &Lease,
        method: &'static str,
        status: &Status,
    ) -> Failure {
        connection.observe(lease, status);
        let failure = match connection.refusal().filter(|_| status.source().is_some()) {
            Some(reason) => Failure::fatal(Error::new(ErrorKind::Denied, method, reason)),
            None => {
                let redacted = lease.credential.as_ref().and_then(|c| redact(status, &c.token));
                call_failure(method, redacted.as_ref().unwrap_or(status))
            }
        };
        let mut failure = failure.map(|e| e.at(&self.config().endpoint));
        if status.code() == Code::Unauthenticated
            && let Some((tokens, credential)) = self.inner.tokens.as_ref().zip(lease.credential.as_ref())
        {
            tokens.refused(credential);
            failure.verdict = Verdict::Renewed;
        }
        if failure.is_fatal() {
            // A definite answer, if not to our liking: the service is not down.
            self.retrier().succeeded();
        }
        failure
    }

    /// Waits for a place and gives the channel to use it on, with the token of the moment.
    pub(super) async fn enter(&self, connection: &Connection) -> Result<(Place, Lease)> {
        let place = connection.place().await;
        let credential = match &self.inner.tokens {
            Some(tokens) => Some(tokens.current().await),
            None => None,
        };
        Ok((place, connection.lease(credential)?))
    }

    /// Makes one attempt at a call with a single reply.
    pub(super) async fn attempt<M, R, F>(
        &self,
        rpc: Rpc<'_>,
        message: M,
        send: impl FnOnce(Transport, Request<M>) -> F,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (_place, lease) = self.enter(self.calls()).await?;
        let request = self.signed(message, rpc.action);
        // Below the wait for a place: a queue of our own making is no fault of the service.
        match tokio::time::timeout(rpc.deadline, send(lease.channel.clone(), request)).await {
            Ok(Ok(response)) => {
                self.retrier().succeeded();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.judge(self.calls(), &lease, rpc.method, &status)),
            Err(_) => {
                let reason = format!("no answer within {:?}", rpc.deadline);
                Err(Failure::retry(self.error(ErrorKind::Unavailable, rpc.method, reason)))
            }
        }
    }

    /// Makes a call with a single reply, repeating it as often as the policy allows.
    pub(super) async fn call<M, R, F>(
        &self,
        rpc: Rpc<'_>,
        message: M,
        send: impl Fn(Transport, Request<M>) -> F,
    ) -> Result<R>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut attempts = self.retrier().attempts();
        loop {
            match self.attempt(rpc, message.clone(), &send).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    /// The CAS stub.
    pub(super) fn cas(&self, channel: Transport) -> ContentAddressableStorageClient<Transport> {
        ContentAddressableStorageClient::new(channel).max_decoding_message_size(self.config().limits.receive_bytes)
    }
}

/// The same status without the token, if the service repeats it.
fn redact(status: &Status, token: &Token) -> Option<Status> {
    let message = token.redact(status.message())?;
    // A status with a source is of our own making.
    status
        .source()
        .is_none()
        .then(|| Status::with_details(status.code(), message, Bytes::copy_from_slice(status.details())))
}

/// `Grpc(ENDPOINT)` or `Grpc(ENDPOINT, instance NAME)`.
impl fmt::Display for GrpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GrpcConfig { endpoint, instance_name, .. } = self.config();
        if instance_name.is_empty() {
            write!(f, "Grpc({endpoint})")
        } else {
            write!(f, "Grpc({endpoint}, instance {instance_name})")
        }
    }
}

impl fmt::Debug for GrpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait::async_trait]
impl BlobStore for GrpcClient {
    fn digest_function(&self) -> DigestFunction {
        self.function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.find_missing_blobs(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        self.batch_read(digests).await
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.batch_write(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.open_read(digest)
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.stream_write(digest, chunks).await
    }
}
