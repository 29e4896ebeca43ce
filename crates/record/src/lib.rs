//! Recording, after a build: which actions did each element run, and where did every input come from?
//!
//! A [`Generator`] asks a [`SubactionSource`] for the actions of an element, reads their messages, results and
//! input trees, has `overlay` find the origin of each input, and stores what comes out as one message per element
//! in CAS: the element's *speculative actions*. Reads are batched: Actions, then Commands, then directories level
//! by level, each at most once while it is held, whatever the number of actions.
//!
//! Released programs write nowhere down which actions an element ran, but they leave traces: [`CasdLog`] and
//! [`ReccLogs`] read those, [`NestedResults`] and [`ExplicitList`] take what patched servers and orchestrators say,
//! and [`Combined`] merges them. An [`Attributor`] finds the element of an action. Actions that are left from older
//! builds are recognised with the trees at hand, and skipped as [`Stale`](SkipReason::Stale).
//!
//! An action that cannot be recorded is left out and counted with its [reason](SkipReason); it never spoils the
//! others. What hostile or broken input can cost is bounded by a [`Budget`].
//!
//! Not here: how origins are found and records are written (`overlay`), concrete stores (`cas-client`), what to do
//! with a record (`instantiate`), and attaching it to an artifact (whoever knows the orchestrator's storage).
//!
//! ```
//! use std::sync::Arc;
//!
//! use cas_client::InMemory;
//! use overlay::graph::Graph;
//! use record::{ExplicitList, Generator};
//! use reapi_proto::v2::{Action, Command, Directory, FileNode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // An action that compiled main.c, which is all that the element's sources hold.
//! let store = InMemory::new();
//! let main_c = FileNode {
//!     name: "main.c".into(),
//!     digest: Some(store.put("int main() {}").into()),
//!     ..FileNode::default()
//! };
//! let sources = store.put_message(&Directory { files: vec![main_c], ..Directory::default() });
//! let command = Command { arguments: vec!["cc".into(), "main.c".into()], ..Command::default() };
//! let action = store.put_message(&Action {
//!     command_digest: Some(store.put_message(&command).into()),
//!     input_root_digest: Some(sources.into()),
//!     ..Action::default()
//! });
//!
//! let graph = Graph::from_json(
//!     format!(
//!         r#"{{ "version": 1, "elements": [
//!             {{ "name": "app.bst", "sources": "{sources}", "subactions": ["{action}"] }}
//!         ] }}"#
//!     )
//!     .as_bytes(),
//! )?;
//! let store = Arc::new(store);
//! let generator = Generator::new(store.clone(), store, Arc::new(ExplicitList));
//! let report = generator.generate(&graph, &["app.bst"]).await?;
//!
//! let app = &report.elements[0];
//! assert_eq!((app.actions, app.overlays, app.skipped.len()), (1, 1, 0));
//! assert!(app.speculative_actions.is_some());
//! # Ok(())
//! # }
//! ```

mod budget;
mod contents;
mod copies;
mod derive;
mod directories;
mod generator;
mod keep_alive;
mod messages;
mod own_root;
mod platforms;
mod random;
mod report;
mod results;
mod run;
mod source;
mod stale;
mod stopwatch;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use generator::{GenerateError, Generator, Layout};
pub use report::{ElementReport, GenerateReport, KeepAlive, References, SkipReason, Skipped, Timings};
pub use source::{
    AttributionReport, Attributor, Build, CasdLog, CasdLogScanner, Combined, ExplicitList, Follower, Grounds,
    LoggedAction, LoggedOutcome, MergeCounts, MergeFailure, NestedResults, Placement, ReccLogScanner, ReccLogs,
    ScanStats, Sessions, Subaction, SubactionSource,
};
