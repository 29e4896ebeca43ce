//! Remote execution: a number of workers, a queue by priority, and an action cache.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cas_client::{ActionCache, Error, ErrorKind, ExecuteRequest, Execution, ExecutionUpdate, Result};
use futures_util::stream::BoxStream;
use reapi_proto::Digest;
use reapi_proto::v2::{ActionResult, OutputFile};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::project::{Job, Jobs, Project};
use crate::store::{Bits, Store};
use crate::updates::Updates;

/// Executes what it is asked to, equal requests once, the lowest priority number first and then in order of arrival.
///
/// An action that waits in the queue takes the most urgent priority that it was asked for with. Cancelling takes one
/// request back; what nobody asks for any more leaves the queue. Inputs must be in the store before. Clones are
/// handles on the same service.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    latency: Duration,
    jobs: Arc<Jobs>,
    state: Mutex<State>,
    /// The next end is another one than before.
    changed: Notify,
}

#[derive(Default)]
struct State {
    free: usize,
    turn: u64,
    /// Jobs that wait or execute.
    tasks: FxHashMap<u32, Task>,
    queue: BTreeMap<(i32, u64), u32>,
    ends: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    /// The jobs whose results the action cache has.
    results: Bits,
    executions: usize,
    /// Actions that are no job.
    refused: Vec<Digest>,
}

struct Task {
    place: (i32, u64),
    executes: bool,
    requests: Vec<Request>,
}

struct Request {
    turn: u64,
    /// Whoever waits for it to begin.
    started: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<()>,
}

/// A request, as whoever made it sees it.
pub(crate) struct Operation {
    pub(crate) job: u32,
    turn: u64,
    /// If it did not start at once.
    pub(crate) started: Option<oneshot::Receiver<()>>,
    /// If it was not done before.
    pub(crate) done: Option<oneshot::Receiver<()>>,
}

impl Operation {
    /// Waits for the end; `false` if the operation was given up.
    pub(crate) async fn done(self) -> bool {
        match self.done {
            Some(done) => done.await.is_ok(),
            None => true,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.turn)
    }
}

impl Service {
    /// A service that has the results of those recorded actions that are the same now.
    pub(crate) fn new(project: &Project, store: Arc<Store>, workers: usize, latency: Duration) -> Self {
        let state = State { free: workers, results: project.jobs.as_recorded.clone(), ..State::default() };
        let jobs = Arc::clone(&project.jobs);
        Self(Arc::new(Inner { store, latency, jobs, state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that changes it can panic half-way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the action cache has a result.
    pub(crate) fn has_result(&self, job: u32) -> bool {
        self.state().results.contains(job)
    }

    /// How many executions workers have begun.
    pub(crate) fn executions(&self) -> usize {
        self.state().executions
    }

    /// The actions that it was asked to execute and that the build never asks for.
    pub(crate) fn refused(&self) -> Vec<Digest> {
        self.state().refused.clone()
    }

    /// Puts an action in the queue, or joins the one that is there. Whether its inputs are stored is not looked at.
    pub(crate) fn submit(&self, job: u32, priority: i32) -> Operation {
        let mut state = self.state();
        let State { turn, tasks, queue, results, .. } = &mut *state;
        *turn += 1;
        let mut operation = Operation { job, turn: *turn, started: None, done: None };
        if results.contains(job) {
            return operation;
        }
        let (done, is_done) = oneshot::channel();
        operation.done = Some(is_done);
        let place = (priority, *turn);
        let task = tasks.entry(job).or_insert_with(|| {
            queue.insert(place, job);
            Task { place, executes: false, requests: Vec::new() }
        });
        if !task.executes && priority < task.place.0 {
            queue.remove(&task.place);
            task.place.0 = priority;
            queue.insert(task.place, job);
        }
        task.requests.push(Request { turn: operation.turn, started: None, done });
        if state.start(&self.0.jobs) {
            self.0.changed.notify_one();
        }
        let waits = state.tasks.get_mut(&job).filter(|task| !task.executes);
        if let Some(request) = waits.and_then(|task| task.requests.last_mut()) {
            let (started, is_started) = oneshot::channel();
            request.started = Some(started);
            operation.started = Some(is_started);
        }
        operation
    }

    fn give_up(&self, job: u32, turn: u64) {
        let mut state = self.state();
        let State { tasks, queue, .. } = &mut *state;
        let Some(task) = tasks.get_mut(&job) else { return };
        task.requests.retain(|request| request.turn != turn);
        if task.requests.is_empty() && !task.executes {
            queue.remove(&task.place);
            tasks.remove(&job);
        }
    }

    /// Lets time pass at the workers. Never ends.
    pub(crate) async fn drive(&self) {
        loop {
            let next = self.state().ends.peek().map(|Reverse((end, ..))| *end);
            tokio::select! {
                biased;
                () = self.0.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.finish(),
            }
        }
    }

    /// Ends whatever has executed long enough.
    fn finish(&self) {
        let now = Instant::now();
        let mut state = self.state();
        while let Some(Reverse((end, ..))) = state.ends.peek()
            && *end <= now
        {
            let Some(Reverse((_, _, job))) = state.ends.pop() else { break };
            state.free += 1;
            let Some(Task { requests, .. }) = state.tasks.remove(&job) else { continue };
            self.0.store.put([self.0.jobs.all[job as usize].output_blob]);
            state.results.insert(job);
            for Request { done, .. } in requests {
                // Nobody minds if the one who asked has gone away, here and below.
                let _ = done.send(());
            }
        }
        state.start(&self.0.jobs);
    }

    /// Which job an action is, if it and all that it takes is there.
    fn job_of(&self, action: Digest) -> Result<u32> {
        let Inner { store, jobs, .. } = &*self.0;
        let error = |kind, reason: &str| Error::new(kind, "Execute", reason).at(self);
        let Some(job) = jobs.find(&action) else {
            self.state().refused.push(action);
            return Err(error(ErrorKind::Invalid, "the build never asks for it"));
        };
        if !store.is_complete(jobs.all[job as usize].blob) {
            return Err(error(ErrorKind::MissingInputs, "inputs are missing"));
        }
        Ok(job)
    }

    /// What the action cache says of a job that is done.
    pub(crate) fn result(&self, job: u32) -> ActionResult {
        let Job { path, output, .. } = &self.0.jobs.all[job as usize];
        let output = OutputFile { path: path.to_string(), digest: Some((*output).into()), ..OutputFile::default() };
        ActionResult { output_files: vec![output], ..ActionResult::default() }
    }
}

impl State {
    /// Gives free workers something to do. Says whether another execution ends first now.
    fn start(&mut self, jobs: &Jobs) -> bool {
        let before = self.ends.peek().map(|Reverse((end, ..))| *end);
        while self.free > 0 {
            let Some((place, job)) = self.queue.pop_first() else { break };
            let Some(task) = self.tasks.get_mut(&job) else { continue };
            self.free -= 1;
            task.executes = true;
            for request in &mut task.requests {
                request.started.take().map(|started| started.send(()));
            }
            self.executions += 1;
            self.ends.push(Reverse((Instant::now() + jobs.all[job as usize].duration, place.1, job)));
        }
        self.ends.peek().map(|Reverse((end, ..))| *end) != before
    }
}

#[async_trait]
impl ActionCache for Service {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        sleep(self.0.latency).await;
        Ok(self.0.jobs.find_if(action, |job| self.has_result(job)).map(|job| self.result(job)))
    }
}

#[async_trait]
impl Execution for Service {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let half = self.0.latency / 2;
        sleep(half).await;
        let job = self.job_of(request.action)?;
        let operation = self.submit(job, request.priority);
        Ok(Box::pin(Updates::new(self.clone(), operation, half)))
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        sleep(self.0.latency / 2).await;
        let numbers = operation.split_once('.').and_then(|(job, turn)| Some((job.parse().ok()?, turn.parse().ok()?)));
        if let Some((job, turn)) = numbers {
            self.give_up(job, turn);
        }
        sleep(self.0.latency / 2).await;
        Ok(())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

#[cfg(test)]
mod tests {
    use cas_client::CacheLookup;

    use super::*;
    use crate::state::FUNCTION;
    use crate::{Parameters, SimulationError};

    /// What is asked for is an action of the build, and everything that it takes is stored.
    #[tokio::test(start_paused = true)]
    async fn only_what_the_build_runs_is_executed() -> std::result::Result<(), SimulationError> {
        let project =
            Project::new(Parameters { elements: 2, actions: 3, depth: 2, ..Parameters::default() }.generate()?)?;
        let store = Arc::new(Store::new(Arc::clone(&project.blobs), project.present.clone(), Duration::ZERO));
        let service = Service::new(&project, Arc::clone(&store), 1, Duration::ZERO);
        let execute = |action| service.execute(ExecuteRequest { action, cache_lookup: CacheLookup::Use, priority: 0 });
        let failure = |outcome: Result<_>| outcome.err().map(|error| error.kind());

        let unknown = FUNCTION.digest(b"no action of any build");
        assert_eq!(failure(execute(unknown).await), Some(ErrorKind::Invalid));
        assert_eq!(service.refused(), [unknown]);

        let changed = (0..).take(project.jobs.all.len()).find(|job| !project.jobs.as_recorded.contains(*job));
        let Some(job) = changed else { return Err(SimulationError::Internal("nothing has changed".to_owned())) };
        let action = project.jobs.all[job as usize].action;
        assert_eq!(failure(execute(action).await), Some(ErrorKind::MissingInputs));
        store.put(project.rows.iter().flat_map(|row| row.inputs.iter().copied()));
        assert_eq!(failure(execute(action).await), None);
        assert_eq!((service.executions(), service.refused().len()), (1, 1));
        Ok(())
    }
}
