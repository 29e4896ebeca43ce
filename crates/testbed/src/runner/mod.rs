//! What runs actions.

mod capture;
mod fakes;
mod local;
mod materialise;
mod process;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cas_client::{BlobStore, ErrorKind};
use reapi_proto::{Digest, rpc, v2};
use tonic::Code;
use tonic::async_trait;

pub use fakes::{FnRunner, Gated};
pub use local::LocalRunner;

use crate::faults;

/// One action to run. Its messages are in the store and well formed.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where inputs are read from and outputs go to.
    pub store: Arc<dyn BlobStore>,
    /// The Action's digest.
    pub digest: Digest,
    /// The Action.
    pub action: v2::Action,
    /// Its Command.
    pub command: v2::Command,
    /// When the action was queued.
    pub queued: SystemTime,
}

/// Runs actions.
#[async_trait]
pub trait Runner: Debug + Send + Sync + 'static {
    /// Runs one action and stores its outputs. A command that exits non-zero is a result.
    ///
    /// Dropping the future stops the command.
    ///
    /// # Errors
    /// When the command could not be run to its end.
    async fn run(&self, job: &Job) -> Result<v2::ActionResult, RunError>;
}

/// Why an action was not run to its end; becomes `ExecuteResponse.status`.
#[derive(Clone, PartialEq, Debug)]
pub struct RunError {
    /// What went wrong, with details where the specification has some.
    pub status: rpc::Status,
    /// What there is of a result all the same, for example the output up to a time-out.
    pub result: Option<Box<v2::ActionResult>>,
}

impl RunError {
    /// An error without a result.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let status = rpc::Status { code: code as i32, message: message.into(), details: Vec::new() };
        Self { status, result: None }
    }

    /// Inputs are not in the store.
    #[must_use]
    pub fn missing(digests: &[Digest]) -> Self {
        Self { status: faults::missing_status(digests), result: None }
    }

    fn store(error: &cas_client::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::missing(error.digests()),
            _ => Self::new(Code::Internal, error.to_string()),
        }
    }

    fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Code::Internal, format!("{what}: {error}"))
    }
}

/// Wall-clock time as a message; the epoch for times before it.
fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
    }
}
