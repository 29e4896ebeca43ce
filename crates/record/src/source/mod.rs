//! Which actions an element ran.
//!
//! Released programs leave that behind in several places, none of which says
//! everything:
//!
//! | source | says | lacks |
//! |---|---|---|
//! | [`ExplicitList`] | what the orchestrator knows | |
//! | [`NestedResults`] | what executed | patched servers only; hits, perhaps |
//! | [`ReccLogs`] | what one element's recc processes did | elements without a cached buildtree; deleted log files |
//! | [`CasdLog`] | what every recc process asked for | which element it was: see [`Attributor`] |
//!
//! recc's logs of an incremental build also have what older builds did.
//! [`Combined`] merges them. What is left of older builds is recognised later,
//! by the [`Generator`](crate::Generator), which has the trees at hand.

mod attribution;
mod casd_log;
mod casd_scan;
mod combined;
mod content;
mod explicit;
mod follow;
mod lines;
mod nested;
mod recc_logs;
mod recc_scan;

use std::fmt::{Debug, Display};

use async_trait::async_trait;
use cas_client::Result;
use overlay::graph::Element;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

pub use attribution::{Attributor, Grounds, Placement};
pub use casd_log::{AttributionReport, CasdLog, Sessions};
pub use casd_scan::{CasdLogScanner, ScanStats};
pub use combined::{Combined, MergeCounts, MergeFailure};
pub use explicit::ExplicitList;
pub use follow::Follower;
pub use nested::NestedResults;
pub use recc_logs::ReccLogs;
pub use recc_scan::ReccLogScanner;

/// An action that ran in the build of an element.
#[derive(Clone, PartialEq, Debug)]
pub struct Subaction {
    /// The Action message's digest.
    pub action: Digest,
    /// Its result, where the source came by it; otherwise the action cache is asked.
    pub result: Option<Box<ActionResult>>,
    /// Which build it ran in.
    pub build: Build,
}

impl From<Digest> for Subaction {
    fn from(action: Digest) -> Self {
        Self { action, result: None, build: Build::Last }
    }
}

/// Which of the element's builds a source saw an action in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Build {
    /// The last one, as far as the source can tell.
    #[default]
    Last,
    /// An older one. Incremental builds (BuildStream's workspaces) run only
    /// what changed, so such an action may still be part of the build. It is
    /// recorded if the last build used its outputs, or if every own input is
    /// what the element has now; and in any case only if nothing newer makes its outputs.
    Earlier,
}

/// An action that a log names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoggedAction {
    /// The Action message's digest.
    pub action: Digest,
    /// What became of it.
    pub outcome: LoggedOutcome,
}

/// What a log says of an action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LoggedOutcome {
    /// The client looked for it, and the log does not say what came of that.
    Asked,
    /// The action cache had it.
    Hit,
    /// The action cache did not have it. Without an execution: the client ran it locally, or gave up.
    Missed,
    /// It was executed.
    Executed,
}

/// Tells which actions an element ran in its last build.
///
/// Its `Display` says where the knowledge comes from.
#[async_trait]
pub trait SubactionSource: Debug + Display + Send + Sync + 'static {
    /// The element's actions in the order in which they ran, repetitions
    /// included; `None` where the source knows nothing of the element, which
    /// is not the same as an element without actions.
    ///
    /// # Errors
    /// When the source cannot be read.
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>>;
}
