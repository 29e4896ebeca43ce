//! Runners for tests that need no real command.

use std::fmt;
use std::sync::Arc;

use reapi_proto::v2;
use tonic::async_trait;

use super::{Job, RunError, Runner};
use crate::faults::Gate;

type RunFn = dyn Fn(&Job) -> Result<v2::ActionResult, RunError> + Send + Sync;

/// Answers with what a function computes from the action.
#[derive(Clone)]
pub struct FnRunner(Arc<RunFn>);

impl FnRunner {
    /// A runner that calls `f` for each action. Output blobs are the function's business.
    pub fn new(f: impl Fn(&Job) -> Result<v2::ActionResult, RunError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// A runner whose commands all succeed at once without outputs.
    #[must_use]
    pub fn succeeding() -> Self {
        Self::new(|_| Ok(v2::ActionResult::default()))
    }
}

impl fmt::Debug for FnRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnRunner")
    }
}

#[async_trait]
impl Runner for FnRunner {
    async fn run(&self, job: &Job) -> Result<v2::ActionResult, RunError> {
        (self.0)(job)
    }
}

/// Passes a gate before each action, so that a test decides when it runs.
#[derive(Clone, Debug)]
pub struct Gated<R> {
    gate: Gate,
    inner: R,
}

impl<R> Gated<R> {
    /// `inner` behind `gate`.
    pub fn new(gate: Gate, inner: R) -> Self {
        Self { gate, inner }
    }
}

#[async_trait]
impl<R: Runner> Runner for Gated<R> {
    async fn run(&self, job: &Job) -> Result<v2::ActionResult, RunError> {
        self.gate.pass().await;
        self.inner.run(job).await
    }
}
