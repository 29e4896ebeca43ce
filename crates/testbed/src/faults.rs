//! Scripted faults: what the server is to do wrong, and on which call.
//!
//! A fault belongs to one RPC and is used up by one call of it, in the order
//! in which faults were armed. Nothing here depends on time: a call that is to
//! hang waits on a [`Gate`] that the test holds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::{Message, Name};
use reapi_proto::{Digest, rpc, v2};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::stats::Rpc;

/// One thing that goes wrong with one call.
///
/// A fault that means nothing for the RPC it was armed on makes that call
/// fail with INTERNAL, so that a mistaken test does not pass.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: lets one call through, to hit a later one.
    Pass,
    /// Answers with this status instead of doing anything.
    Status(Status),
    /// Severs the connection that the call came on.
    Disconnect,
    /// Waits for the gate, then proceeds as if nothing had happened.
    Hold(Gate),
    /// Removes these blobs from the store, then proceeds: an eviction between two calls.
    Evict(Vec<Digest>),

    /// Streams: ends with OK after that many messages, finished or not.
    EndAfter(usize),
    /// Streams: ends with a status after that many messages.
    FailAfter(usize, Status),
    /// Streams: severs the connection after that many messages.
    DisconnectAfter(usize),
    /// Streams: waits for the gate after that many messages, then goes on.
    HoldAfter(usize, Gate),
    /// Streams: sends every message twice.
    Repeat,

    /// Blob data (`Read`, `BatchReadBlobs`): inverts the first byte of each blob.
    CorruptBytes,
    /// Blob data (`Read`, `BatchReadBlobs`): leaves out the last byte of each blob.
    ShortBytes,
    /// Blob data (`Read`, `BatchReadBlobs`): adds one byte to each blob.
    LongBytes,

    /// Batches: leaves out the entry with this index.
    OmitEntry(usize),
    /// Batches: sends the entry with this index twice.
    DuplicateEntry(usize),
    /// Batches and `FindMissingBlobs`: adds an entry for a digest that nobody asked for.
    ForeignEntry(Digest),
    /// Batches: this status for the entry with this index, which is not read or stored.
    EntryStatus(usize, Code),
    /// `BatchReadBlobs`, `GetActionResult`: makes the reply larger by at least that many bytes.
    Pad(usize),

    /// `FindMissingBlobs`: says that everything is there.
    ClaimPresent,
    /// `FindMissingBlobs`: says that nothing is there.
    ClaimMissing,

    /// `Write`: reports this committed size after storing the blob.
    CommittedSize(i64),
    /// `Write`: breaks the stream off after keeping that many bytes of it.
    BreakWriteAt(u64),

    /// `GetCapabilities`: answers with these instead of the server's own.
    Capabilities(Box<v2::ServerCapabilities>),

    /// `GetTree`: leaves out this directory and what only it leads to.
    OmitSubtree(Digest),

    /// `Execute`, `WaitExecution`: ends with `Operation.error`, which the specification forbids.
    OperationError(rpc::Status),
    /// `Execute`, `WaitExecution`: ends with this `ExecuteResponse.status` and no result.
    ResponseStatus(rpc::Status),
    /// `Execute`, `WaitExecution`: an operation that is done and has neither response nor error.
    NoResponse,
    /// `Execute`, `WaitExecution`: an operation whose response is of another type.
    ForeignResponse,
    /// `Execute`: forgets the operation at once, so that `WaitExecution` does not find it.
    ForgetOperation,
}

/// A barrier between a test and a call that the server holds.
///
/// Clones are the same gate. Once opened it stays open.
#[derive(Clone)]
pub struct Gate(Arc<GateState>);

struct GateState {
    open: watch::Sender<bool>,
    reached: watch::Sender<u64>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(GateState { open: watch::Sender::new(false), reached: watch::Sender::new(0) }))
    }

    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Waits until that many calls have arrived at the gate, open or not.
    pub async fn reached(&self, calls: u64) {
        // The sender lives in `self`, so the channel cannot be closed here.
        let _ = self.0.reached.subscribe().wait_for(|n| *n >= calls).await;
    }

    /// Arrives at the gate and waits until it is open. Dropping the future leaves.
    pub async fn pass(&self) {
        self.0.reached.send_modify(|n| *n += 1);
        let _ = self.0.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate(open: {}, reached: {})", *self.0.open.borrow(), *self.0.reached.borrow())
    }
}

/// The script of a server. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    queues: BTreeMap<Rpc, VecDeque<Fault>>,
    bearer: Option<String>,
}

impl Faults {
    /// Arms a fault for the next call of `rpc` that has none yet.
    pub fn arm(&self, rpc: Rpc, fault: Fault) {
        self.with(|s| s.queues.entry(rpc).or_default().push_back(fault));
    }

    /// How many armed faults of `rpc` no call has used up yet.
    #[must_use]
    pub fn pending(&self, rpc: Rpc) -> usize {
        self.with(|s| s.queues.get(&rpc).map_or(0, VecDeque::len))
    }

    /// From now on refuses every call without `authorization: Bearer TOKEN`
    /// (UNAUTHENTICATED); `None` accepts everybody, which is the default.
    pub fn require_bearer(&self, token: Option<&str>) {
        self.with(|s| s.bearer = token.map(str::to_owned));
    }

    pub(crate) fn take(&self, rpc: Rpc) -> Option<Fault> {
        self.with(|s| s.queues.get_mut(&rpc).and_then(VecDeque::pop_front)).filter(|f| !matches!(f, Fault::Pass))
    }

    pub(crate) fn accepts(&self, authorization: Option<&str>) -> bool {
        self.with(|s| match &s.bearer {
            None => true,
            Some(token) => authorization.and_then(|a| a.strip_prefix("Bearer ")) == Some(token),
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Script) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// UNAVAILABLE with a `RetryInfo` detail that asks for this delay.
#[must_use]
pub fn retry_after(delay: Duration) -> Status {
    let info = rpc::RetryInfo { retry_delay: prost_types::Duration::try_from(delay).ok() };
    with_detail(Code::Unavailable, "try again later", &info)
}

/// FAILED_PRECONDITION with one MISSING violation per blob (Remote Execution API, `Execute`).
#[must_use]
pub fn missing_blobs(digests: &[Digest]) -> Status {
    let status = missing_status(digests);
    Status::with_details(Code::FailedPrecondition, status.message.clone(), status.encode_to_vec().into())
}

/// The same as a message, for `ExecuteResponse.status`.
#[must_use]
pub fn missing_status(digests: &[Digest]) -> rpc::Status {
    let violations = digests
        .iter()
        .map(|d| rpc::precondition_failure::Violation {
            r#type: "MISSING".to_owned(),
            subject: format!("blobs/{d}"),
            description: String::new(),
        })
        .collect();
    rpc::Status {
        code: Code::FailedPrecondition as i32,
        message: format!("{} blobs that the action needs are not in the store", digests.len()),
        details: vec![any(&rpc::PreconditionFailure { violations })],
    }
}

/// Packs a message the way other implementations do, with their type URL prefix.
pub(crate) fn any<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn with_detail<M: Message + Name>(code: Code, message: &str, detail: &M) -> Status {
    let status = rpc::Status { code: code as i32, message: message.to_owned(), details: vec![any(detail)] };
    Status::with_details(code, message, status.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up_in_order() {
        let faults = Faults::default();
        faults.arm(Rpc::Read, Fault::Pass);
        faults.arm(Rpc::Read, Fault::CorruptBytes);
        assert!(faults.take(Rpc::Write).is_none());
        assert!(faults.take(Rpc::Read).is_none(), "Pass lets the first call through");
        assert!(matches!(faults.take(Rpc::Read), Some(Fault::CorruptBytes)));
        assert_eq!(faults.pending(Rpc::Read), 0);
    }

    #[tokio::test]
    async fn a_gate_holds_until_opened() {
        let gate = Gate::new();
        let held = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        gate.reached(1).await;
        assert!(!held.is_finished());
        gate.open();
        held.await.unwrap();
        gate.pass().await;
    }

    #[test]
    fn retry_info_survives_the_details() {
        let status = retry_after(Duration::from_millis(1500));
        let decoded = rpc::Status::decode(status.details()).unwrap();
        let info: rpc::RetryInfo = decoded.details[0].to_msg().unwrap();
        assert_eq!(info.retry_delay, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
    }
}
