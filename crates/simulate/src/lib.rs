//! Would priming help? A build with and without it, in virtual time.
//!
//! A [`Project`] is a recorded state and what has changed since: generated from [`Parameters`], or of the [`Shape`]
//! that recorded builds had. [`simulate`] rebuilds it with so many workers and such latencies
//! ([`Conditions`]) in one of three [`Mode`]s, and says how long that takes.
//!
//! What is simulated is the outside: storage and action cache that answer after a while, workers that are busy for as
//! long as an action took, and a build that asks for one action after the other. The engine in between is
//! `instantiate`, which reads real records, rewrites real messages, and finds out nothing in any other way than
//! beside a real build; what it executes is held against what the build asks for by digest. Time is that of a clock
//! that only goes on while everybody waits. So what programs compute takes no time here, and the resolution of the
//! clock is one millisecond: shorter waits take as long.
//!
//! Not here: reading records and graphs from services, tables. Nothing here is random but by seed: equal arguments
//! give equal results.
//!
//! ```
//! use simulate::{Conditions, Mode, Parameters, Project, simulate};
//!
//! # fn main() -> Result<(), simulate::SimulationError> {
//! let parameters = Parameters { elements: 4, actions: 10, depth: 4, ..Parameters::default() };
//! let project = Project::new(parameters.generate()?)?;
//! let conditions = Conditions { workers: 100, ..Conditions::default() };
//! let without = simulate(&project, &conditions, Mode::None)?;
//! let with = simulate(&project, &conditions, Mode::Primed)?;
//! assert!(with.makespan < without.makespan);
//! assert!(with.makespan >= project.bounds().with_workers(100));
//! # Ok(())
//! # }
//! ```

mod bound;
mod build;
mod generate;
mod project;
mod recorded;
mod recorder;
mod run;
mod service;
mod shape;
mod state;
mod store;
mod updates;

use std::time::Duration;

pub use bound::Bounds;
pub use build::Requests;
pub use generate::{Distribution, Parameters, seconds};
pub use project::Project;
pub use recorded::shape_of;
pub use run::{Conditions, Mode, Outcome, simulate};
pub use shape::{ActionShape, ElementShape, MAX_ACTIONS, MAX_DURATION, MAX_ELEMENTS, MAX_TREE_FILES, Shape};

/// Why nothing can be simulated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SimulationError {
    /// There is no such project, or it is too large.
    #[error("{0}")]
    Shape(String),
    /// The conditions cannot be.
    #[error("{0}")]
    Conditions(String),
    /// The engine asked for executions of actions that the build never asks for, which is an error of the engine.
    #[error("{count} executions were not what the build asked for, {example} among them")]
    Mispredicted {
        /// How many.
        count: usize,
        /// The digest of one.
        example: String,
    },
    /// The simulation itself is wrong.
    #[error("the simulation failed: {0}")]
    Internal(String),
}

/// Rounded to the resolution of the clock.
fn millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}
