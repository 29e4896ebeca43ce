//! Progress, for whoever wants to show it.

use std::time::Duration;

use reapi_proto::Digest;

use crate::report::ExecutionReport;

/// Where a run stands. Numbers of actions unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Recorded actions.
    pub actions: u64,
    /// Those whose inputs are not all known.
    pub waiting: u64,
    /// Those that are being adapted.
    pub preparing: u64,
    /// Those that stay as recorded.
    pub unchanged: u64,
    /// Those that are adapted.
    pub adapted: u64,
    /// Those that are given up.
    pub dropped: u64,
    /// Distinct actions that are to be executed as soon as it is their turn.
    pub ready: u64,
    /// Distinct actions that are executing or queued at the service.
    pub running: u64,
    /// How many may be so at present; 0 until something is to be executed.
    pub window: u64,
    /// Distinct actions whose result was found or made.
    pub finished: u64,
    /// How often the service had no room for an execution, and was asked again later.
    pub refused: u64,
    /// Results looked up in the action cache, before executions and, to confirm some of them, after.
    pub lookups: u64,
    /// How often the compiler was asked which files it reads.
    pub listings: u64,
    /// Blobs uploaded.
    pub uploaded_blobs: u64,
    /// Bytes uploaded.
    pub uploaded_bytes: u64,
}

/// Something about one distinct action whose result is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionEvent<'a> {
    /// The action that is to be executed, or is looked up: the adapted one, where it is adapted.
    pub action: Digest,
    /// The element in whose build it runs; of several with equal actions, the one whose turn comes first.
    pub element: &'a str,
    /// What it is.
    pub kind: ActionKind,
    /// What was offered for upload for its sake so far, in bytes, whether or
    /// not the store had it. What several actions share counts for the first.
    pub upload_bytes: u64,
    /// What has happened.
    pub step: ActionStep<'a>,
}

/// What an action is to the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ActionKind {
    /// It was recorded like this, and its inputs are as they were.
    Recorded,
    /// A recorded action with other inputs.
    Adapted,
    /// It asks the compiler which files it reads; no build asks for it.
    Listing,
}

impl ActionKind {
    /// A short name for people and machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Adapted => "adapted",
            Self::Listing => "listing",
        }
    }
}

/// The way of an action. Steps come in this order, except that `Submitted`
/// comes once more for every repetition, and after `Withdrawn` it may begin
/// again. An action that is not executed goes from `Wanted` to `Ended`. A
/// cancelled or dropped run leaves actions without an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionStep<'a> {
    /// Its result is wanted, and is looked up.
    Wanted,
    /// Its execution is requested.
    Submitted,
    /// The service says that it executes. Many services say nothing.
    Executing,
    /// The service is done with it; the result may be about to be confirmed.
    Completed {
        /// The service had the result already.
        cached: bool,
        /// How long it waited for a worker, if the service says so.
        queued: Option<Duration>,
        /// How long its command ran, if the service says so.
        executed: Option<Duration>,
    },
    /// Nobody wants it any more; what was queued at the service is taken back.
    Withdrawn,
    /// That is what came of it.
    Ended(&'a ExecutionReport),
}

/// Is told how a run goes on.
///
/// Called from within the run, so it must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// The state after a step that changed something.
    fn progress(&self, progress: &Progress);

    /// What has happened to an action, as it happens: before the
    /// [`progress`](Self::progress) that it is part of. Ignored by default.
    fn action(&self, _event: &ActionEvent<'_>) {}
}

impl<F: Fn(&Progress) + Send + Sync + 'static> Observer for F {
    fn progress(&self, progress: &Progress) {
        self(progress);
    }
}
