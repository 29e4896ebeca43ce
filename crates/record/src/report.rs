//! What generation did, and what it left out and why.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cas_client::Error;
use reapi_proto::Digest;

/// What became of a run.
#[derive(Debug, Default)]
pub struct GenerateReport {
    /// The wanted elements that were worked on, dependencies first.
    pub elements: Vec<ElementReport>,
    /// The failure of the store that ended the run early. The elements before
    /// it are stored; the others were not worked on.
    pub stopped: Option<Error>,
    /// Why the action cache was not asked any further. What was recorded from
    /// then on knows nothing of outputs.
    pub action_cache: Option<Error>,
    /// Stored records of dependencies that could not be used, and why.
    pub unusable_records: Vec<(String, SkipReason)>,
    /// Elements that were derived only to copy their actions into the records of others.
    pub derived: usize,
    /// Further ones that would have been, beyond
    /// [`max_derived_dependencies`](crate::Budget::max_derived_dependencies).
    pub not_derived: usize,
}

impl GenerateReport {
    /// Number of skipped actions by [kind of reason](SkipReason::kind).
    #[must_use]
    pub fn skips(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for skipped in self.elements.iter().flat_map(|element| &element.skipped) {
            *counts.entry(skipped.reason.kind()).or_default() += 1;
        }
        counts
    }
}

/// What became of one element.
#[derive(Debug, Default)]
pub struct ElementReport {
    /// The element's name.
    pub name: String,
    /// Subactions that its source lists, each counted once; `None` where it knows nothing of the element.
    pub listed: Option<usize>,
    /// Why the source could not say.
    pub source_failure: Option<Error>,
    /// Its own actions in the record.
    pub actions: usize,
    /// Actions of other elements in the record, without which it could not be used.
    pub copies: usize,
    /// Actions that should have been copied, beyond [`max_copied_actions`](crate::Budget::max_copied_actions).
    pub not_copied: usize,
    /// Overlays in the record.
    pub overlays: usize,
    /// The stored message; `None` if there was nothing to store.
    pub speculative_actions: Option<Digest>,
    /// Size of the message in bytes.
    pub bytes: u64,
    /// What the message refers to.
    pub references: References,
    /// The actions that are not in the record.
    pub skipped: Vec<Skipped>,
    /// Output directories whose contents are unknown: files in them have no ACTION origin.
    pub unread_outputs: usize,
    /// Not everything that might have explained an input was searched: it was above the budget.
    pub search_cut_short: bool,
    /// What was done to keep the recorded actions usable.
    pub kept: KeepAlive,
    /// Where the time went.
    pub timings: Timings,
}

/// What must stay in CAS for as long as a record is to be used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct References {
    /// Actions and Commands, sorted.
    pub blobs: Vec<Digest>,
    /// Roots of input trees, sorted.
    pub directories: Vec<Digest>,
}

/// The attempt to extend the lifetime of what a record refers to.
#[derive(Debug, Default)]
pub struct KeepAlive {
    /// Distinct blobs that the store was asked about: actions, commands,
    /// directories and files of input trees. Each once in a run.
    pub asked: usize,
    /// Those that the store has lost already.
    pub missing: usize,
    /// Why the store did not answer. The record is stored nevertheless.
    pub failure: Option<Error>,
}

/// Durations of the work on one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timings {
    /// Reading messages, results and trees.
    pub fetch: Duration,
    /// Finding origins and encoding.
    pub derive: Duration,
    /// Storing the message and keeping alive what it refers to.
    pub store: Duration,
}

/// An action that is not in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// The Action message's digest.
    pub action: Digest,
    /// Why.
    pub reason: SkipReason,
}

/// Why something was left out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// The Action message is gone.
    #[error("the action is not in CAS")]
    ActionMissing,
    /// The Command message is gone.
    #[error("its command {0} is not in CAS")]
    CommandMissing(Digest),
    /// A directory of its input tree, or of the sources or an artifact at a
    /// path that its input tree has too, is gone.
    #[error("directory {0} is not in CAS")]
    DirectoryMissing(Digest),
    /// A stored record is gone.
    #[error("record {0} is not in CAS")]
    RecordMissing(Digest),
    /// Something that it needs is there and damaged, malformed or of a foreign digest function.
    #[error("{digest} cannot be used: {reason}")]
    Unusable {
        /// The blob, or the action whose result it is.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// It goes beyond what any real action needs.
    #[error("{0}")]
    LimitExceeded(String),
    /// The action cache does not have it, though it has others of the
    /// element: it failed, and would fail again.
    #[error("it has no result in the action cache")]
    NoResult,
    /// It says that its result must not be cached.
    #[error("it must not be cached")]
    DoNotCache,
    /// It works on names that are drawn by lot in each build, as those of
    /// CMake's `try_compile` are: it will not be asked for again.
    #[error("it works on {0}, a name that is another one in each build")]
    RandomName(String),
    /// An older build of the element ran it; the last one did not, or would not again.
    #[error("it is left from an older build: {path} has changed{}", Successor(.superseded_by.as_ref()))]
    Stale {
        /// The input that is not what the element has now, or the output that a newer action makes.
        path: String,
        /// The action in its place, where there is one.
        superseded_by: Option<Digest>,
    },
}

impl SkipReason {
    /// A short name for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ActionMissing => "action missing",
            Self::CommandMissing(_) => "command missing",
            Self::DirectoryMissing(_) => "directory missing",
            Self::RecordMissing(_) => "record missing",
            Self::Unusable { .. } => "unusable",
            Self::LimitExceeded(_) => "limit exceeded",
            Self::NoResult => "no result",
            Self::DoNotCache => "not to be cached",
            Self::RandomName(_) => "random name",
            Self::Stale { .. } => "stale",
        }
    }
}

/// The end of a sentence about what took an action's place.
struct Successor<'a>(Option<&'a Digest>);

impl fmt::Display for Successor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |by| write!(f, ", and {by} took its place"))
    }
}
