//! What the server counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use reapi_proto::Digest;

/// The calls that the server serves, by their method names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "each variant is a method name of the published services")]
pub enum Rpc {
    FindMissingBlobs,
    BatchUpdateBlobs,
    BatchReadBlobs,
    GetTree,
    Read,
    Write,
    QueryWriteStatus,
    GetActionResult,
    UpdateActionResult,
    Execute,
    WaitExecution,
    ListOperations,
    GetOperation,
    DeleteOperation,
    CancelOperation,
    GetCapabilities,
    FetchBlob,
    FetchDirectory,
    PushBlob,
    PushDirectory,
    GetLocalServerDetails,
}

/// Counters since the server started or since the last reset. Lists are in order of occurrence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Calls received, refused ones included.
    pub calls: BTreeMap<Rpc, u64>,
    /// Actions that were given to the runner, once per run.
    pub executed: Vec<Digest>,
    /// Actions whose stored result `GetActionResult` returned.
    pub hits: Vec<Digest>,
    /// Actions for which `GetActionResult` had nothing usable.
    pub misses: Vec<Digest>,
    /// Actions that `Execute` answered from the action cache.
    pub cached_executions: Vec<Digest>,
    /// Actions whose `Execute` joined a run that was already under way.
    pub merged: Vec<Digest>,
    /// Actions that were cancelled before they completed.
    pub cancelled: Vec<Digest>,
    /// Blobs that clients uploaded, present already or not.
    pub uploaded: Vec<Digest>,
}

impl Stats {
    /// How often `rpc` was called.
    #[must_use]
    pub fn calls(&self, rpc: Rpc) -> u64 {
        self.calls.get(&rpc).copied().unwrap_or(0)
    }

    /// Total size of the uploaded blobs in bytes.
    #[must_use]
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded.iter().map(Digest::size_bytes).sum()
    }
}

/// The live counters. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Mutex<Stats>>);

impl Counters {
    pub(crate) fn update<T>(&self, f: impl FnOnce(&mut Stats) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn called(&self, rpc: Rpc) {
        self.update(|s| *s.calls.entry(rpc).or_default() += 1);
    }
}
