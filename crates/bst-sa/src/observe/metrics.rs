//! Counts for monitoring, as a file in Prometheus' text format (version 0.0.4).
//!
//! docs/metrics.md lists the names. The file is replaced as a whole, so that
//! node_exporter's textfile collector never reads half of it.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use instantiate::{ActionEvent, ActionStep, Progress};
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use reapi_proto::Digest;

use super::outcome;
use crate::failure::Failure;

/// Upper bounds of the buckets for times, in seconds: from a cached look-up to a long link in a long queue.
const BUCKETS: [f64; 11] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];

type Label = (&'static str, &'static str);

/// The counts of a run.
pub(crate) struct Metrics {
    path: PathBuf,
    registry: Registry,
    active: Gauge<u64, AtomicU64>,
    actions: Family<[Label; 1], Gauge<u64, AtomicU64>>,
    in_flight: Gauge<u64, AtomicU64>,
    window: Gauge<u64, AtomicU64>,
    ready: Gauge<u64, AtomicU64>,
    results: Family<[Label; 2], Counter>,
    submissions: Counter,
    refusals: Counter,
    lookups: Counter,
    listings: Counter,
    uploaded_blobs: Counter,
    uploaded_bytes: Counter,
    queue: Histogram,
    execution: Histogram,
    /// What is in flight: when it was submitted, and when it began to execute.
    flights: HashMap<Digest, (Instant, Option<Instant>)>,
    /// That it cannot be written is said once.
    broken: bool,
}

impl Metrics {
    /// Registers everything and writes the first state.
    pub(crate) fn create(path: PathBuf) -> Result<Self, Failure> {
        let mut metrics = Self {
            path,
            registry: Registry::with_prefix("bst_sa"),
            active: Gauge::default(),
            actions: Family::default(),
            in_flight: Gauge::default(),
            window: Gauge::default(),
            ready: Gauge::default(),
            results: Family::default(),
            submissions: Counter::default(),
            refusals: Counter::default(),
            lookups: Counter::default(),
            listings: Counter::default(),
            uploaded_blobs: Counter::default(),
            uploaded_bytes: Counter::default(),
            queue: Histogram::new(BUCKETS),
            execution: Histogram::new(BUCKETS),
            flights: HashMap::new(),
            broken: false,
        };
        metrics.register();
        metrics.active.set(1);
        metrics.progress(&Progress::default());
        metrics
            .try_write()
            .map_err(|e| Failure::usage(format!("{} cannot be written", metrics.path.display())).because(&e))?;
        Ok(metrics)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let started: Gauge<f64, AtomicU64> = Gauge::default();
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        registry.register("start_time_seconds", "When the run began, in seconds since 1970", started);
        registry.register("active", "1 while the run goes on, 0 when it is over", self.active.clone());
        registry.register("actions", "Recorded actions by what they have become", self.actions.clone());
        registry.register("in_flight", "Actions that execute or are queued at the service", self.in_flight.clone());
        registry.register("window", "How many actions may be in flight at present", self.window.clone());
        registry.register("ready", "Actions to be executed as soon as it is their turn", self.ready.clone());
        registry.register("results", "Distinct actions by what came of them", self.results.clone());
        registry.register("submissions", "Executions requested, repetitions included", self.submissions.clone());
        registry.register("refusals", "Times that the service had no room", self.refusals.clone());
        registry.register("lookups", "Results looked up in the action cache", self.lookups.clone());
        registry.register("listings", "Times that a compiler was asked what it reads", self.listings.clone());
        registry.register("uploaded_blobs", "Blobs uploaded", self.uploaded_blobs.clone());
        registry.register("uploaded_bytes", "Bytes uploaded", self.uploaded_bytes.clone());
        registry.register("queue_seconds", "Time from a request until a worker took it", self.queue.clone());
        registry.register("execution_seconds", "Time that commands ran", self.execution.clone());
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        let outcomes = [
            ("waiting", progress.waiting),
            ("preparing", progress.preparing),
            ("unchanged", progress.unchanged),
            ("adapted", progress.adapted),
            ("dropped", progress.dropped),
        ];
        for (outcome, count) in outcomes {
            self.actions.get_or_create(&[("outcome", outcome)]).set(count);
        }
        self.in_flight.set(progress.running);
        self.window.set(progress.window);
        self.ready.set(progress.ready);
        let counters = [
            (&self.refusals, progress.refused),
            (&self.lookups, progress.lookups),
            (&self.listings, progress.listings),
            (&self.uploaded_blobs, progress.uploaded_blobs),
            (&self.uploaded_bytes, progress.uploaded_bytes),
        ];
        for (counter, count) in counters {
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn action(&mut self, event: &ActionEvent<'_>) {
        let now = Instant::now();
        let count = |result| self.results.get_or_create(&[("kind", event.kind.name()), ("result", result)]).inc();
        match event.step {
            ActionStep::Wanted => {}
            ActionStep::Submitted => {
                self.submissions.inc();
                self.flights.insert(event.action, (now, None));
            }
            ActionStep::Executing => {
                if let Some((_, executing)) = self.flights.get_mut(&event.action) {
                    *executing = Some(now);
                }
            }
            ActionStep::Completed { cached: true, .. } => {}
            ActionStep::Completed { cached: false, queued, executed } => {
                // What the service says is more exact than what is seen from here.
                let flight = self.flights.get(&event.action);
                let seen = flight.and_then(|(submitted, executing)| Some((*submitted, (*executing)?)));
                let queued = queued.or_else(|| seen.map(|(submitted, executing)| executing - submitted));
                let executed = executed.or_else(|| seen.map(|(_, executing)| now - executing));
                let observe = |histogram: &Histogram, time: Duration| histogram.observe(time.as_secs_f64());
                queued.into_iter().for_each(|time| observe(&self.queue, time));
                executed.into_iter().for_each(|time| observe(&self.execution, time));
            }
            ActionStep::Withdrawn => {
                self.flights.remove(&event.action);
                count("withdrawn");
            }
            ActionStep::Ended(execution) => {
                self.flights.remove(&event.action);
                count(outcome(execution));
            }
        }
    }

    /// Replaces the file. That it does not work is logged.
    pub(crate) fn write(&mut self) {
        if let Err(error) = self.try_write()
            && !std::mem::replace(&mut self.broken, true)
        {
            tracing::warn!("{} is not up to date: {error}", self.path.display());
        }
    }

    /// The run is over.
    pub(crate) fn finish(mut self) {
        self.active.set(0);
        self.in_flight.set(0);
        self.ready.set(0);
        self.write();
    }

    fn try_write(&self) -> std::io::Result<()> {
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(std::io::Error::other)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Collectors run as another user, and take only files of another ending.
        let mut file = tempfile::Builder::new()
            .prefix(".bst-sa-metrics-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.persist(&self.path).map_err(|e| e.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instantiate::{ActionKind, ExecutionReport};
    use reapi_proto::DigestFunction;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn what_happens_is_counted_and_the_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bst_sa.prom");
        let mut metrics = Metrics::create(path.clone()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((value(&text, "bst_sa_active"), value(&text, "bst_sa_submissions_total")), (1.0, 0.0));
        assert!(text.contains("# TYPE bst_sa_submissions_total counter\n"), "{text}");

        let action = DigestFunction::Sha256.digest(b"a");
        let mut tell = |step| {
            metrics.action(&ActionEvent { action, element: "a.bst", kind: ActionKind::Adapted, upload_bytes: 0, step });
        };
        tell(ActionStep::Wanted);
        tell(ActionStep::Submitted);
        tell(ActionStep::Executing);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        tell(ActionStep::Completed { cached: false, queued: seconds(2), executed: seconds(20) });
        tell(ActionStep::Ended(&ExecutionReport::Executed));
        metrics.progress(&Progress { adapted: 4, uploaded_bytes: 9, lookups: 2, refused: 3, ..Progress::default() });
        metrics.write();
        let text = std::fs::read_to_string(&path).unwrap();
        for (name, expected) in [
            ("bst_sa_actions{outcome=\"adapted\"}", 4.0),
            ("bst_sa_results_total{kind=\"adapted\",result=\"executed\"}", 1.0),
            ("bst_sa_uploaded_bytes_total", 9.0),
            ("bst_sa_lookups_total", 2.0),
            ("bst_sa_refusals_total", 3.0),
            ("bst_sa_queue_seconds_sum", 2.0),
            ("bst_sa_execution_seconds_count", 1.0),
            ("bst_sa_execution_seconds_bucket{le=\"10\"}", 0.0),
            ("bst_sa_execution_seconds_bucket{le=\"30\"}", 1.0),
        ] {
            assert!((value(&text, name) - expected).abs() < 1e-9, "{name} in\n{text}");
        }
        metrics.finish();
        assert!(value(&std::fs::read_to_string(&path).unwrap(), "bst_sa_active").abs() < 1e-9);
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["bst_sa.prom"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o444, 0o444, "others may read it");
    }
}
