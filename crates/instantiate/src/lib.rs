//! Placeholder header.

mod engine;
mod event;
mod lookup;
mod observer;
mod options;
mod report;
mod services;
mod skip;

pub use engine::{Engine, SetupError};
pub use event::Event;
pub use lookup::{Candidate, GraphRecords, Lookup, RecordIndex};
pub use observer::{Observer, Progress};
pub use options::{Budget, Completion, Options};
pub use report::{ActionReport, ElementReport, ExecutionReport, Outcome, RecordReport, Report, Totals};
pub use services::Services;
pub use skip::{Skip, SkipKind};
