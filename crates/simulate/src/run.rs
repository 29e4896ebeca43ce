//! One rebuild, from the change to the last artifact.

use std::sync::Arc;
use std::time::Duration;

use futures_buffered::FuturesUnordered;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use instantiate::{Engine, Event, Options, Report, Services, WhenReached};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use crate::SimulationError;
use crate::build::{Build, Requests};
use crate::project::{Project, Sources};
use crate::service::Service;
use crate::shape::MAX_DURATION;
use crate::store::{Bits, Store};

/// Who primes, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Nobody: the build alone.
    None,
    /// The engine, on everything that is known before the build; the build starts when it is done.
    Blocking,
    /// The engine, beside the build.
    Primed,
}

/// Where and how a project is rebuilt. Durations are rounded up to milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conditions {
    /// Actions that the service executes at once; at least 1.
    pub workers: usize,
    /// Round trip of a call to a service: look-ups, reads and writes of any number of small blobs, executions apart
    /// from the time that they wait and run.
    pub latency: Duration,
    /// Elements that are built at once, BuildStream's `builders`; at least 1.
    pub builders: usize,
    /// Actions that the build of an element asks for at once, BuildStream's `max-jobs`; at least 1.
    pub max_jobs: usize,
    /// What an element takes besides its actions: staging, configuring, installing.
    pub element_overhead: Duration,
    /// What an action takes on the machine that builds: finding out which files it reads, hashing them.
    pub action_overhead: Duration,
    /// Executions that the engine has under way at once; if it is `None`, a tenth more than there are workers: what
    /// waits at the service is taken in order of arrival, so that a long queue there holds up what is urgent.
    pub jobs: Option<usize>,
}

impl Default for Conditions {
    /// 100 workers, 10 ms away; 64 builders of 8 jobs; a second per element and 20 ms per action.
    fn default() -> Self {
        Self {
            workers: 100,
            latency: Duration::from_millis(10),
            builders: 64,
            max_jobs: 8,
            element_overhead: Duration::from_secs(1),
            action_overhead: Duration::from_millis(20),
            jobs: None,
        }
    }
}

/// What is under way beyond the workers, so that each finds something to do.
const SPARE_JOBS: usize = 8;

/// The most of anything that goes on at once.
const MAX_AT_ONCE: usize = 1_000_000;

impl Conditions {
    /// Checks that there is somebody to do the work.
    ///
    /// # Errors
    /// [`SimulationError::Conditions`], naming the condition.
    pub fn check(&self) -> Result<(), SimulationError> {
        let Self { workers, latency, builders, max_jobs, element_overhead, action_overhead, jobs } = self;
        let counts =
            [("workers", *workers), ("builders", *builders), ("max-jobs", *max_jobs), ("jobs", jobs.unwrap_or(1))];
        for (what, count) in counts {
            if !(1..=MAX_AT_ONCE).contains(&count) {
                return Err(SimulationError::Conditions(format!(
                    "{count} {what}; from 1 to {MAX_AT_ONCE} are possible"
                )));
            }
        }
        for (what, duration) in
            [("latency", latency), ("element overhead", element_overhead), ("action overhead", action_overhead)]
        {
            if *duration > MAX_DURATION {
                let limit = MAX_DURATION.as_secs();
                return Err(SimulationError::Conditions(format!("the {what} is longer than {limit} s")));
            }
        }
        Ok(())
    }

    fn engine(&self) -> Options {
        let jobs = self.jobs.unwrap_or(self.workers + self.workers / 10 + SPARE_JOBS);
        Options { jobs, when_reached: WhenReached::GoOn, ..Options::default() }
    }
}

/// What came of a rebuild.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// From the start to the last artifact.
    pub makespan: Duration,
    /// What the build asked for.
    pub requests: Requests,
    /// Executions by the service, for whomever. An action runs twice if it is taken back and asked for again, never for two.
    pub executions: usize,
    /// Actions that the build asked for and that the engine had adapted, or kept, before it was told.
    pub predicted: usize,
    /// Actions that the engine did not come to predict, or gave up.
    pub unpredicted: usize,
}

/// Rebuilds a project, and says how long it took.
///
/// # Errors
/// [`SimulationError::Conditions`], and [`SimulationError::Mispredicted`] if anything was executed that the build
/// did not ask for.
pub fn simulate(project: &Project, conditions: &Conditions, mode: Mode) -> Result<Outcome, SimulationError> {
    conditions.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| SimulationError::Internal(error.to_string()))?;
    runtime.block_on(rebuild(project, conditions, mode))
}

async fn rebuild(project: &Project, conditions: &Conditions, mode: Mode) -> Result<Outcome, SimulationError> {
    let start = Instant::now();
    let store = Arc::new(Store::new(Arc::clone(&project.blobs), project.present.clone(), conditions.latency));
    let service = Service::new(project, Arc::clone(&store), conditions.workers, conditions.latency);
    let engine = |sources| -> Result<Engine, SimulationError> {
        let services = Services {
            blobs: Arc::clone(&store) as _,
            cache: Arc::new(service.clone()),
            execution: Some(Arc::new(service.clone())),
        };
        let engine = Engine::new(services, project.graph(sources)?).with_options(conditions.engine());
        Ok(engine.with_records(Arc::new(project.decoded.clone())))
    };
    let failed = |error: instantiate::SetupError| SimulationError::Internal(error.to_string());
    let build = |events| Build::new(project, conditions, service.clone(), Arc::clone(&store), events);
    let (events, receiver) = unbounded_channel();
    // Each is woken for itself: nearly everything that happens concerns only one of them.
    let mut parts: FuturesUnordered<LocalBoxFuture<'_, Result<Part, SimulationError>>> = FuturesUnordered::new();
    let mut lacking = 1;
    match mode {
        Mode::None => parts.push(Box::pin(async { Ok(Part::Built(build(None).run().await)) })),
        Mode::Blocking => {
            let engine = engine(Sources::Fetched)?;
            lacking += 1;
            parts.push(Box::pin(async move { Ok(Part::Primed(Box::new(engine.run_static().await.map_err(failed)?))) }));
        }
        Mode::Primed => {
            let engine = engine(Sources::ToBeFetched)?;
            lacking += 1;
            parts
                .push(Box::pin(async move { Ok(Part::Primed(Box::new(engine.run(receiver).await.map_err(failed)?))) }));
            parts.push(Box::pin(async { Ok(Part::Built(build(Some(events.clone())).run().await)) }));
        }
    }
    parts.push(Box::pin(async {
        service.drive().await;
        Err(SimulationError::Internal("the workers have stopped".to_owned()))
    }));
    let (mut makespan, mut requests, mut report) = (Duration::ZERO, Requests::default(), None);
    while lacking > 0
        && let Some(part) = parts.next().await
    {
        lacking -= 1;
        match part? {
            Part::Primed(primed) => {
                report = Some(primed);
                if mode == Mode::Blocking {
                    parts.push(Box::pin(async { Ok(Part::Built(build(None).run().await)) }));
                }
            }
            Part::Built(asked) => {
                (makespan, requests) = (start.elapsed(), asked);
                // An engine that has come to its end listens no more.
                let _ = events.send(Event::Cancel);
            }
        }
    }
    drop(parts);
    if let [example, ..] = &*service.refused() {
        let count = service.refused().len();
        return Err(SimulationError::Mispredicted { count, example: example.to_string() });
    }
    let asked = project.shape.elements.iter().zip(&project.rows).filter(|(_, row)| row.rebuilt);
    let asked: usize = asked.map(|(element, _)| element.actions.len()).sum();
    let predicted = report.as_ref().map_or(0, |report| predictions(report, project));
    let executions = service.executions();
    Ok(Outcome { makespan, requests, executions, predicted, unpredicted: asked.saturating_sub(predicted) })
}

/// What goes on in a rebuild has come to its end.
enum Part {
    Primed(Box<Report>),
    Built(Requests),
}

/// How many of the actions that the build asks for the engine predicted.
fn predictions(report: &Report, project: &Project) -> usize {
    let actions = report.elements.iter().flat_map(|element| &element.actions);
    let predicted = actions.filter_map(|action| match action.outcome {
        instantiate::Outcome::Unchanged => Some(action.base),
        instantiate::Outcome::Adapted | instantiate::Outcome::Dropped | instantiate::Outcome::Deferred => {
            action.adapted
        }
    });
    let mut seen = Bits::default();
    // What the engine is asked for are elements that are rebuilt.
    predicted.filter_map(|action| project.jobs.find(&action)).filter(|job| seen.insert(*job)).count()
}
