//! Everything a client can be told.

use std::time::Duration;

use reapi_proto::DigestFunction;

use super::{Endpoint, TlsMaterial, TokenFile};
use crate::retry::RetryPolicy;

/// How a [`GrpcClient`](super::GrpcClient) is set up. [`GrpcConfig::new`] has defaults for all but the endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcConfig {
    /// Where the service listens.
    pub endpoint: Endpoint,
    /// Whom to trust and who we are, where the endpoint uses TLS; empty where it does not.
    pub tls: TlsMaterial,
    /// The bearer token to show with every call; none by default.
    pub token: Option<TokenFile>,
    /// The instance of the service; often empty. May have several segments.
    pub instance_name: String,
    /// The function that names blobs; checked against what the service supports at first use.
    pub digest_function: DigestFunction,
    /// Whether writes are allowed.
    pub access: Access,
    /// The program's name, sent with every call.
    pub tool_name: String,
    /// The program's version, sent with every call.
    pub tool_version: String,
    /// Identifies this run of the program, sent with every call.
    pub invocation_id: String,
    /// Ties several runs together (a build and its priming), sent with every call; empty for none.
    pub correlated_invocations_id: String,
    /// Time limits.
    pub timeouts: Timeouts,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Seed of the jitter between retries; random by default.
    pub retry_seed: u64,
    /// Sizes and counts.
    pub limits: Limits,
    /// How a dead connection is noticed.
    pub keep_alive: KeepAlive,
}

impl GrpcConfig {
    /// The defaults: read and write, SHA-256, this crate's name and version, a random invocation id.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            tls: TlsMaterial::default(),
            token: None,
            instance_name: String::new(),
            digest_function: DigestFunction::Sha256,
            access: Access::ReadWrite,
            tool_name: env!("CARGO_PKG_NAME").to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            invocation_id: uuid::Uuid::new_v4().to_string(),
            correlated_invocations_id: String::new(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            retry_seed: fastrand::u64(..),
            limits: Limits::default(),
            keep_alive: KeepAlive::default(),
        }
    }
}

/// Whether a client may write. Enforced here, whatever the service would allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Every write is refused with `Denied` before anything is sent.
    ReadOnly,
    /// Writes go to the service.
    ReadWrite,
}

/// Time limits, per attempt: a retry gets the whole time again. Waiting for a
/// free place among [`Limits::concurrent_calls`] does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Establishing a connection.
    pub connect: Duration,
    /// `GetCapabilities`.
    pub capabilities: Duration,
    /// One small call (look-ups, `FindMissingBlobs`).
    pub call: Duration,
    /// One batch of blobs.
    pub batch: Duration,
    /// Longest silence within a blob stream, in either direction. A stream may last for hours as long as it moves.
    pub idle: Duration,
    /// Longest time from the start to the end of an execution, queueing included; no limit by default,
    /// because nobody knows how long an action takes. Keep-alive notices dead connections.
    pub execution: Option<Duration>,
}

impl Default for Timeouts {
    /// The values other clients settled on: connect 20 s, capabilities 5 s, calls 20 s, batches 60 s, idle 60 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            capabilities: Duration::from_secs(5),
            call: Duration::from_secs(20),
            batch: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            execution: None,
        }
    }
}

/// Sizes and counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest batch to send or ask for, in encoded bytes; what the service
    /// states and what gRPC transports by default bound it further.
    pub batch_bytes: u64,
    /// Largest message accepted from the service, in bytes. Services answer
    /// with more than was asked for, and stream in pieces of any size.
    pub receive_bytes: usize,
    /// Calls in flight at once, streams included until their end. More wait
    /// for their turn; servers commonly allow 100 streams per connection.
    pub concurrent_calls: usize,
    /// Executions watched at once, on a connection of their own.
    pub concurrent_executions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: u64::MAX,
            receive_bytes: 64 * 1024 * 1024,
            concurrent_calls: 100,
            concurrent_executions: 100,
        }
    }
}

/// HTTP/2 pings on connections with calls in flight (never on idle ones:
/// servers by default close connections that do that).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// Time between pings. Doubled whenever the service complains that it is too short.
    pub interval: Duration,
    /// How long an answer may take before the connection counts as dead.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    /// 60 s and 20 s: without pings a pull from a dead server hangs for hours,
    /// and faster ones offend servers with default settings.
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), timeout: Duration::from_secs(20) }
    }
}
