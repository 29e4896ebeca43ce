//! What a store or service can do, one trait per capability.
//!
//! The traits are for implementers and small on purpose; callers use the
//! `…Ext` traits beside them. Every implementer says in its `Display` what
//! it is and what it wraps, so that one log line shows the whole stack.

use std::fmt::{Debug, Display};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};

use crate::{Blob, Result};

/// A stream of consecutive pieces of one blob. Pieces may be empty.
pub type Chunks = BoxStream<'static, Result<Bytes>>;

/// What became of each blob of a batch: one entry per distinct digest asked
/// for, in order of first occurrence.
pub type PerBlob<T> = Vec<(Digest, Result<T>)>;

/// Content-addressed storage.
///
/// Implementations verify every byte that they hand out, treat the empty blob
/// as always present without asking anyone, and split requests of any size as
/// their transport needs. All calls are idempotent; dropping a future leaves
/// at most complete blobs behind, never partial ones.
#[async_trait]
pub trait BlobStore: Debug + Display + Send + Sync + 'static {
    /// The function that names blobs in this store.
    fn digest_function(&self) -> DigestFunction;

    /// Which of `digests` the store lacks: each once, in order of first occurrence.
    ///
    /// Presence is a hint whose lifetime the service extends, not a lease
    /// (`FindMissingBlobs`).
    ///
    /// # Errors
    /// When the store cannot answer; a missing blob is not an error.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>>;

    /// Reads whole blobs. Meant for metadata-sized blobs; use [`open_blob`](Self::open_blob) for files.
    ///
    /// # Errors
    /// When the request as a whole fails; what is wrong with one blob stands
    /// in its own entry (`NotFound`, `Corrupt`, …) and leaves the others usable.
    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>>;

    /// Stores whole blobs, present or not.
    ///
    /// # Errors
    /// When the request as a whole fails; what is wrong with one blob stands in its own entry.
    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>>;

    /// Reads one blob of any size piece by piece.
    ///
    /// The stream ends with an error when the bytes turn out not to match, so
    /// a consumer must not publish them before the end.
    ///
    /// # Errors
    /// `NotFound` here or as the stream's first item.
    async fn open_blob(&self, digest: &Digest) -> Result<Chunks>;

    /// Stores one blob of any size from its pieces.
    ///
    /// # Errors
    /// `Corrupt` when the pieces do not add up to `digest`; nothing is stored then.
    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()>;
}

/// Reading an action cache.
#[async_trait]
pub trait ActionCache: Debug + Display + Send + Sync + 'static {
    /// The stored result of an action, or `None`. A hit says nothing about
    /// whether the outputs still exist; see
    /// [`ActionCacheExt::fetch_usable_result`](crate::ActionCacheExt::fetch_usable_result).
    ///
    /// # Errors
    /// When the cache cannot answer; a miss is not an error.
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>>;
}

/// Writing an action cache: a privilege, hence a capability of its own.
#[async_trait]
pub trait ActionCacheWriter: ActionCache {
    /// Stores the result of an action. The Action and Command must be in CAS first.
    ///
    /// # Errors
    /// `Denied` where the service does not accept updates.
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()>;
}

/// One action to execute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecuteRequest {
    /// The Action message's digest. Action, Command and input tree must be in CAS.
    pub action: Digest,
    /// Execute even where a cached result exists.
    pub cache_lookup: CacheLookup,
    /// Lower runs sooner, 0 is the default; speculative work uses positive numbers.
    pub priority: i32,
}

impl ExecuteRequest {
    /// A request with cache look-up and default priority.
    #[must_use]
    pub fn new(action: Digest) -> Self {
        Self { action, cache_lookup: CacheLookup::Use, priority: 0 }
    }
}

/// Whether a cached result may answer an execution request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheLookup {
    /// A cached result is as good as a run.
    Use,
    /// Run it whatever the cache holds.
    Skip,
}

/// Where an execution is. Stages may go backwards (a worker may be lost).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExecutionStage {
    /// Not said.
    Unknown,
    /// The service looks for a cached result.
    CacheCheck,
    /// Waiting for a worker.
    Queued,
    /// Running.
    Executing,
    /// Done; the outcome follows.
    Completed,
}

/// One event of a running execution.
#[derive(Clone, PartialEq, Debug)]
pub enum ExecutionUpdate {
    /// The service gave the operation a name, usable with [`Execution::cancel`].
    Accepted {
        /// The operation's name.
        operation: String,
    },
    /// The service has too much to do to take the action now. It is asked
    /// again, by itself, after this or longer where the service said how long.
    Delayed {
        /// What the service asked for.
        retry_after: Option<Duration>,
    },
    /// The stage changed.
    Stage(ExecutionStage),
    /// It is over; the stream ends after this.
    Done(Box<ExecutionOutcome>),
}

/// How an execution ended. A command that exits non-zero is a normal outcome.
#[derive(Clone, PartialEq, Debug)]
pub struct ExecutionOutcome {
    /// The result, with the exit code.
    pub result: ActionResult,
    /// Whether it came from the action cache.
    pub cached: bool,
    /// What the service adds for people; usually empty.
    pub message: String,
}

/// Remote execution of actions.
#[async_trait]
pub trait Execution: Debug + Display + Send + Sync + 'static {
    /// Starts (or joins) an execution and follows it to its end.
    ///
    /// Reconnects by itself. An action that the service has no room for is
    /// submitted again only while the stream is read. Dropping the stream stops watching, not the
    /// action; use [`cancel`](Self::cancel) for that.
    ///
    /// # Errors
    /// `MissingInputs` (with the digests) when inputs are absent from CAS,
    /// `Unsupported` where the service executes nothing, and any failure of
    /// the service; the same may come as the stream's last item.
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>>;

    /// Asks the service to give up an operation. Best effort: a service that
    /// cannot cancel is not an error.
    ///
    /// # Errors
    /// When the service cannot be reached.
    async fn cancel(&self, operation: &str) -> Result<()>;
}

/// A name to publish in an asset index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushRequest {
    /// The names, all equivalent.
    pub uris: Vec<String>,
    /// What they name. Must be in CAS.
    pub blob: Digest,
    /// Further blobs that must stay as long as the name does.
    pub references_blobs: Vec<Digest>,
    /// Further directory trees that must stay as long as the name does.
    pub references_directories: Vec<Digest>,
    /// How long the name should live; the service's default if `None`.
    pub lifetime: Option<Duration>,
}

/// A Remote Asset index: names to blobs.
#[async_trait]
pub trait AssetIndex: Debug + Display + Send + Sync + 'static {
    /// The blob that one of `uris` names, or `None`. It may dangle: the index and CAS expire separately.
    ///
    /// # Errors
    /// When the index cannot answer; an unknown name is not an error.
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>>;

    /// Publishes a name.
    ///
    /// # Errors
    /// `Denied` where the index is read-only.
    async fn push_blob(&self, request: &PushRequest) -> Result<()>;
}
