//! How a server is set up.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use cas_client::InMemory;

use crate::runner::{LocalRunner, Runner};

/// How a server is set up. Start from [`Default`] and change what matters. A clone shares the stores.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Instance names with their contents, isolated from each other. Default: one empty instance named "".
    pub instances: Vec<(String, InMemory)>,
    /// Actions that run at the same time. Default: 2.
    pub jobs: NonZeroUsize,
    /// What runs them. Default: [`LocalRunner`].
    pub runner: Arc<dyn Runner>,
    /// Advertised limit of a batch in bytes, enforced in both readings of the specification: on the sum of
    /// the blobs' sizes, and on the encoded `BatchUpdateBlobs` message. Default: 4 MiB.
    pub max_batch_bytes: usize,
    /// Data per message of `Read`, in bytes. Default: 256 KiB.
    pub read_chunk_bytes: NonZeroUsize,
    /// Also listen on this path.
    pub unix_socket: Option<PathBuf>,
    /// Serve `GetLocalServerDetails`, too, with this answer: that the files are elsewhere or here. Default: not served.
    /// The server itself keeps nothing there.
    pub local_files: Option<LocalFiles>,
    /// Whether clients may write the action cache. Default: they may.
    pub action_cache_updates: ActionCacheUpdates,
    /// Whether results are handed out whose outputs are gone. Default: they are not.
    pub completeness: Completeness,
    /// How missing inputs are reported. Default: as the status of the call.
    pub missing_inputs: MissingInputs,
}

/// Where a server says that its files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalFiles {
    /// The name of the machine.
    pub hostname: String,
    /// The directory with `objects/HH/REST`.
    pub storage_root: PathBuf,
}

/// Whether `UpdateActionResult` is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionCacheUpdates {
    /// Advertised and accepted.
    Accepted,
    /// Advertised as disabled; PERMISSION_DENIED.
    Refused,
}

/// Whether `GetActionResult` and `Execute` look for the outputs of a cached result before they return it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// A result with missing outputs is a miss (what the specification recommends).
    Checked,
    /// Results are returned as stored (what several services do).
    Unchecked,
}

/// Which of the two permitted places names the inputs that are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingInputs {
    /// The status of the `Execute` call.
    CallStatus,
    /// `ExecuteResponse.status` of an operation that ends at once.
    ResponseStatus,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            instances: vec![(String::new(), InMemory::new())],
            jobs: NonZeroUsize::MIN.saturating_add(1),
            runner: Arc::new(LocalRunner::new("testbed")),
            max_batch_bytes: 4 << 20,
            read_chunk_bytes: NonZeroUsize::MIN.saturating_add((256 << 10) - 1),
            unix_socket: None,
            local_files: None,
            action_cache_updates: ActionCacheUpdates::Accepted,
            completeness: Completeness::Checked,
            missing_inputs: MissingInputs::CallStatus,
        }
    }
}

impl ServerConfig {
    /// Replaces what runs actions.
    #[must_use]
    pub fn with_runner(mut self, runner: impl Runner) -> Self {
        self.runner = Arc::new(runner);
        self
    }

    /// Replaces the contents of all instances by one unnamed instance over `store`.
    #[must_use]
    pub fn with_store(mut self, store: InMemory) -> Self {
        self.instances = vec![(String::new(), store)];
        self
    }

    /// Limit of a message. A small batch limit is about batches, not about the pieces of a stream.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.max_batch_bytes.max(4 << 20)
    }
}
