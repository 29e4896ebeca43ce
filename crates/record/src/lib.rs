//! Placeholder header.

mod budget;
mod copies;
mod derive;
mod directories;
mod generator;
mod keep_alive;
mod messages;
mod own_root;
mod report;
mod results;
mod run;
mod source;
mod stopwatch;

pub use budget::Budget;
pub use generator::{GenerateError, Generator, Layout};
pub use report::{ElementReport, GenerateReport, KeepAlive, References, SkipReason, Skipped, Timings};
pub use source::{ExplicitList, Subaction, SubactionSource};
