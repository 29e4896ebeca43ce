//! What a run leaves for others to look at, besides its result: a trace, metrics, a line of progress.

mod metrics;
mod trace;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use instantiate::{ActionEvent, ExecutionReport, Observer, Progress};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use metrics::Metrics;
use trace::Trace;

/// How often the metrics are written while something goes on. Scrapers come every 15 seconds or more.
const PERIOD: Duration = Duration::from_secs(5);

/// What to write.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct ObserveOptions {
    /// Write what happens when to FILE, to be opened in ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Keep counts in FILE in Prometheus' text format, replaced every few seconds and at the end
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

impl ObserveOptions {
    /// Whether nobody looks on.
    pub(crate) fn is_empty(&self) -> bool {
        self.trace.is_none() && self.metrics.is_none()
    }
}

/// Called with every state of the run.
type Show = dyn Fn(&Progress) + Send + Sync;

/// Whoever looks on. Dropping it completes what is written.
pub(crate) struct Observation {
    sinks: Arc<Sinks>,
    writer: Option<JoinHandle<()>>,
}

struct Sinks {
    trace: Mutex<Option<Trace>>,
    metrics: Mutex<Option<Metrics>>,
    show: Box<Show>,
}

impl Observation {
    /// Creates the files. `show` is called from within the run and must be quick.
    pub(crate) fn start(
        options: &ObserveOptions,
        show: impl Fn(&Progress) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let trace = options.trace.clone().map(Trace::create).transpose()?;
        let metrics = options.metrics.clone().map(Metrics::create).transpose()?;
        let periodic = metrics.is_some();
        let sinks = Arc::new(Sinks { trace: Mutex::new(trace), metrics: Mutex::new(metrics), show: Box::new(show) });
        let writer = periodic.then(|| tokio::spawn(write_periodically(Arc::clone(&sinks))));
        Ok(Self { sinks, writer })
    }

    /// For the engine.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        self.sinks.clone()
    }

    /// The build has started on an element: its sandbox is being set up.
    pub(crate) fn element_started(&self, element: &str) {
        self.sinks.trace(|trace| trace.element_started(element));
    }

    /// The element's own commands are being run.
    pub(crate) fn element_running(&self, element: &str) {
        self.sinks.trace(|trace| trace.element_running(element));
    }

    /// The element is built.
    pub(crate) fn element_built(&self, element: &str) {
        self.sinks.trace(|trace| trace.element_built(element));
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.abort();
        }
        // An engine that is still being stopped has nobody to tell any more.
        if let Some(trace) = lock(&self.sinks.trace).take() {
            trace.finish();
        }
        if let Some(metrics) = lock(&self.sinks.metrics).take() {
            metrics.finish();
        }
    }
}

impl Sinks {
    fn trace(&self, tell: impl FnOnce(&mut Trace)) {
        if let Some(trace) = &mut *lock(&self.trace) {
            tell(trace);
        }
    }
}

impl Observer for Sinks {
    fn progress(&self, progress: &Progress) {
        (self.show)(progress);
        self.trace(|trace| trace.progress(progress));
        if let Some(metrics) = &mut *lock(&self.metrics) {
            metrics.progress(progress);
        }
    }

    fn action(&self, event: &ActionEvent<'_>) {
        self.trace(|trace| trace.action(event));
        if let Some(metrics) = &mut *lock(&self.metrics) {
            metrics.action(event);
        }
    }
}

async fn write_periodically(sinks: Arc<Sinks>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        match &mut *lock(&sinks.metrics) {
            Some(metrics) => metrics.write(),
            None => return,
        }
    }
}

/// Nothing panics while it is held, and what is behind it is valid at any point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of an action, in one word.
fn outcome(execution: &ExecutionReport) -> &'static str {
    match execution {
        ExecutionReport::NotRun => "skipped",
        ExecutionReport::Cached => "cached",
        ExecutionReport::Executed => "executed",
        ExecutionReport::Submitted => "submitted",
        ExecutionReport::Failed(_) => "failed",
    }
}
