//! The priming engine: recorded actions and current state in, adapted actions
//! and their results out, ahead of the build that will ask for them.
//!
//! An [`Engine`] takes the records of a [graph](overlay::graph::Graph)'s
//! elements, looks up what became of everything that their actions took as
//! input, rewrites those that are affected, and has them executed, so that the
//! build finds their results in the action cache. It reacts to [`Event`]s: an
//! action waits for exactly the origins that it lacks, and an event touches
//! only the actions that wait for it. With a graph that says everything there
//! is to say, [`run_static`](Engine::run_static) needs no events at all.
//!
//! Nothing here can fail a build. What cannot be predicted is skipped, with a
//! reason, and counted in the [`Report`]; an adapted action is named by
//! everything that goes into it, so a wrong prediction is wasted work and
//! never a wrong result. The dry run ([`Services::dry_run`]) shows what would
//! be done and stores nothing.
//!
//! The crate knows no concrete store or service (only the traits of
//! [`cas_client`]), no orchestrator, and not how records are made. It spawns
//! no tasks: dropping the future of a run ends it. Its only clock is `tokio`'s,
//! for queue times and for rests that a busy service asks for, so a paused one
//! works; the runtime must have time enabled where something is executed.
//!
//! ```
//! use std::sync::Arc;
//!
//! use cas_client::InMemory;
//! use instantiate::{Engine, Outcome, RecordReport, Services};
//! use overlay::graph::Graph;
//! use overlay::{ElementId, Record, RecordedAction, RecordedElement, layout};
//! use reapi_proto::DigestFunction;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A record of one action, none of whose inputs comes from anywhere.
//! let store = InMemory::new();
//! let function = DigestFunction::Sha256;
//! let element = RecordedElement { name: "app.bst".to_owned(), sources: None, artifact: None };
//! let mut record = Record::new(function, element);
//! record.actions.push(RecordedAction {
//!     element: ElementId::SELF,
//!     base: function.digest(b"an Action message"),
//!     root: None,
//!     properties: Vec::new(),
//!     conditions: Vec::new(),
//!     duration: None,
//!     output_bytes: None,
//! });
//! let message = store.put(layout::encode(&record));
//!
//! let graph = format!(r#"{{"elements": [{{"name": "app.bst", "speculative_actions": "{message}"}}]}}"#);
//! let graph = Arc::new(Graph::from_json(graph.as_bytes())?);
//! let store = Arc::new(store);
//! let report = Engine::new(Services::dry_run(store.clone(), store), graph).run_static().await?;
//! assert_eq!(report.elements[0].record, RecordReport::Exact);
//! assert_eq!(report.elements[0].actions[0].outcome, Outcome::Unchanged);
//! # Ok(())
//! # }
//! ```

mod event;
mod options;
mod services;

mod lookup;
mod observer;
mod report;
mod skip;

mod engine;

pub use engine::{Engine, SetupError};
pub use event::Event;
pub use lookup::{Candidate, GraphRecords, Lookup, RecordIndex};
pub use observer::{ActionEvent, ActionKind, ActionStep, Observer, Progress};
pub use options::{Budget, Completion, Options, PRIORITY_STEPS, WhenReached};
pub use report::{ActionReport, Confidence, ElementReport, ExecutionReport, Outcome, RecordReport, Report, Totals};
pub use services::Services;
pub use skip::{Skip, SkipKind};
