//! How much priming may do, and how.

use std::time::Duration;

use crate::lookup::Lookup;

/// How an [`Engine`](crate::Engine) works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The most executions that are requested and not answered at a time; at
    /// least 1. It may be fewer: as many as the service starts within seconds,
    /// found out as the run goes on, and fewer again when it has no room for more.
    /// So a bound far above what a cluster has workers costs nothing, and one below leaves workers idle.
    pub jobs: usize,
    /// Priority of the executions: lower runs sooner, builds use 0, so
    /// speculative work takes a positive number. It is that of what the longest
    /// chain of others waits for; the rest gets up to [`PRIORITY_STEPS`] more, the
    /// shorter its chain the more, as services do not know what holds up what.
    pub priority: i32,
    /// Which records are good enough for an element.
    pub lookup: Lookup,
    /// What may be spent.
    pub budget: Budget,
    /// What becomes of an execution once it is requested.
    pub completion: Completion,
    /// What becomes of an element's actions once the build has reached it.
    pub when_reached: WhenReached,
    /// Actions that ran for less than this when they were recorded are not
    /// executed, unless another recorded action uses their outputs or they
    /// are part of a configure script, all of which the element waits for.
    /// Actions of unknown duration are executed.
    ///
    /// Zero by default: a hit saves the build the time that its client takes
    /// to upload and submit besides the time that the action runs, and both
    /// machines of a cluster and processors of a quiet workstation are there
    /// to be used. It pays to leave cheap actions out where executions cost
    /// money or compete with the build; then a sensible value is what one
    /// execution costs besides running, some tenths of a second.
    pub minimum_duration: Duration,
}

/// By how much the priority of what nothing waits for may exceed that of what holds up most.
pub const PRIORITY_STEPS: i32 = 99;

impl Default for Options {
    /// 2000 jobs at priority 100, nearest records, no budget, results awaited, every action.
    fn default() -> Self {
        Self {
            jobs: 2000,
            priority: 100,
            lookup: Lookup::default(),
            budget: Budget::default(),
            completion: Completion::default(),
            when_reached: WhenReached::default(),
            minimum_duration: Duration::ZERO,
        }
    }
}

/// Whether results of executions are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Completion {
    /// Follow each execution to its end, and adapt what uses its outputs.
    #[default]
    Await,
    /// Leave an execution alone as soon as the service has accepted it. What
    /// would use its outputs stays deferred.
    Detach,
}

/// What becomes of an element's actions when [the build has reached it](crate::Event::BuildReached).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WhenReached {
    /// What is not submitted will not be, and what is only queued is taken
    /// back: the build is about to ask for it. Right where priming and build
    /// share processors, and where a service executes equal actions twice.
    #[default]
    GiveWay,
    /// Priming goes on. A build asks for no more of an element's actions at a
    /// time than its machine has processors; a cluster executes the others
    /// meanwhile. Right where the service executes equal actions once,
    /// whoever asks for them.
    GoOn,
}

/// Limits of one run. `None` is no limit. An action that would exceed one is
/// dropped; a later, smaller one may still fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Executions requested.
    pub actions: Option<u64>,
    /// Sum of the recorded durations of what is executed; actions of unknown duration count as nothing.
    pub work: Option<Duration>,
    /// Bytes offered for upload, whether or not the store turns out to have them.
    pub upload_bytes: Option<u64>,
}
