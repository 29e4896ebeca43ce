//! What became of everything that was recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use cas_client::UploadStats;
use reapi_proto::Digest;

use crate::skip::{Skip, SkipKind};

/// The outcome of a run: every action of every record, each with what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The elements asked for, dependencies before dependents.
    pub elements: Vec<ElementReport>,
    /// Sums over all elements.
    pub totals: Totals,
}

/// What became of one element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElementReport {
    /// The element's name.
    pub name: String,
    /// Its record.
    pub record: RecordReport,
    /// The recorded actions in the order in which they ran. A copy of an
    /// action that is in its own element's record as well is only listed
    /// there, one of an element that will not be built nowhere.
    pub actions: Vec<ActionReport>,
}

/// Whether an element has a usable record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordReport {
    /// It was recorded under the element's weak key, or one of the two keys is unknown.
    Exact,
    /// It was recorded under another weak key, with other sources.
    Nearest,
    /// The element is current: it will not be built, so nobody asks for its
    /// actions. Whether there is a record was not looked at.
    Current,
    /// There is none.
    None(Skip),
}

/// What became of one recorded action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActionReport {
    /// The Action as recorded.
    pub base: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The adapted Action, where there is one that differs from the base; also
    /// that of an action that was dropped later.
    pub adapted: Option<Digest>,
    /// Why it is deferred or dropped.
    pub reason: Option<String>,
    /// The kind of reason for which it is dropped.
    pub skip: Option<SkipKind>,
    /// Whether an input is known only from an origin that is not its authority.
    pub guess: bool,
    /// What the prediction rests on; `None` where there is none.
    pub confidence: Option<Confidence>,
    /// What was done about its result.
    pub execution: ExecutionReport,
    /// How long it executed when it was recorded.
    pub recorded_duration: Option<Duration>,
}

/// What became of an action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// The build will ask for the action as it was recorded.
    Unchanged,
    /// The build is expected to ask for the adapted action.
    Adapted,
    /// It waits for something that did not become known.
    Deferred,
    /// It cannot or should not be predicted.
    Dropped,
}

impl Outcome {
    /// The name in the machine-readable report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Adapted => "adapted",
            Self::Deferred => "deferred",
            Self::Dropped => "dropped",
        }
    }
}

/// What a prediction rests on, the firmest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Confidence {
    /// What every input's authority says.
    Known,
    /// For the set of its inputs, what the compiler says.
    Listed,
    /// For its command or for files that its element makes by itself, what the build showed of another step.
    Learned,
    /// For some input, an origin that is not its authority.
    Guess,
}

impl Confidence {
    /// The name in the machine-readable report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Listed => "listed",
            Self::Learned => "learned",
            Self::Guess => "guess",
        }
    }
}

/// What was done about an action's result.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ExecutionReport {
    /// Nothing: not needed, not possible, or a dry run.
    #[default]
    NotRun,
    /// The action cache had a usable result.
    Cached,
    /// It was executed, and the action cache has the result with all outputs. Of the executions of a run, the first
    /// 1,024 are looked up; then one in 64, until one has no such result.
    Executed,
    /// It was handed to the service, which may not be done with it.
    Submitted,
    /// It was tried without a result that a build could use, for this reason.
    Failed(String),
}

/// Sums of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Elements asked for.
    pub elements: u64,
    /// Elements with a usable record.
    pub records: u64,
    /// Elements that are current, whose records were not needed.
    pub current: u64,
    /// Recorded actions, those of current elements apart.
    pub actions: u64,
    /// Actions with [`Outcome::Unchanged`].
    pub unchanged: u64,
    /// Actions with [`Outcome::Adapted`].
    pub adapted: u64,
    /// Actions with [`Outcome::Deferred`].
    pub deferred: u64,
    /// Actions with [`Outcome::Dropped`].
    pub dropped: u64,
    /// Dropped actions and elements without a record, by kind of reason.
    pub skips: BTreeMap<SkipKind, u64>,
    /// Adapted actions that rest on a guess.
    pub guesses: u64,
    /// Actions with [`ExecutionReport::Executed`].
    pub executed: u64,
    /// Actions with [`ExecutionReport::Cached`].
    pub cached: u64,
    /// Actions with [`ExecutionReport::Submitted`].
    pub submitted: u64,
    /// Actions with [`ExecutionReport::Failed`].
    pub failed: u64,
    /// Adapted actions that gave way to another adaptation of the same base when more became known.
    pub superseded: u64,
    /// Executions that were requested, repetitions after missing inputs not counted.
    pub executions: u64,
    /// How often the service had no room for an execution, and was asked again later.
    pub refused: u64,
    /// Results looked up in the action cache, before executions and, to confirm some of them, after.
    pub lookups: u64,
    /// Actions that the build asked for and that showed what has changed about others.
    pub learned: u64,
    /// How often the compiler was asked which files it reads: executions that no build asks for.
    pub listings: u64,
    /// Executions that were taken back.
    pub cancelled: u64,
    /// What was uploaded.
    pub upload: UploadStats,
    /// Sum of the recorded durations of the actions executed or found in the
    /// cache after adaptation: work that the build need not wait for.
    pub primed: Duration,
}
