//! Remote execution: a number of workers, a queue by priority, and an action cache.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cas_client::{
    ActionCache, Error, ErrorKind, ExecuteRequest, Execution, ExecutionOutcome, ExecutionStage, ExecutionUpdate, Result,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Directory};
use reapi_proto::v2::{ActionResult, OutputFile};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use crate::project::{Project, Work};
use crate::state::{FUNCTION, output_bytes};
use crate::store::{Key, Store, key};

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
    work: Arc<FxHashMap<Digest, Work>>,
    state: Mutex<State>,
    /// The next end is another one than before.
    changed: Notify,
}

#[derive(Default)]
struct State {
    free: usize,
    turn: u64,
    tasks: FxHashMap<Digest, Task>,
    queue: BTreeMap<(i32, u64), Digest>,
    ends: BinaryHeap<Reverse<(Instant, u64, Digest)>>,
    /// What the action cache knows: outputs by action.
    results: FxHashMap<Key, Made>,
    /// Directories that are in the store with all that is below them, by the first bytes of their hashes.
    complete: FxHashSet<u64>,
    operations: FxHashMap<u64, Digest>,
    executions: Vec<Digest>,
}

struct Task {
    place: (i32, u64),
    executes: bool,
    work: Work,
    requests: Vec<Request>,
}

struct Request {
    operation: u64,
    started: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Made>,
}

/// The one output of an action.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    path: Arc<str>,
    digest: Digest,
}

impl Made {
    fn result(&self) -> ActionResult {
        let output =
            OutputFile { path: self.path.to_string(), digest: Some(self.digest.into()), ..OutputFile::default() };
        ActionResult { output_files: vec![output], ..ActionResult::default() }
    }
}

/// A request, as whoever made it sees it.
pub(crate) struct Operation {
    name: u64,
    started: oneshot::Receiver<()>,
    done: oneshot::Receiver<Made>,
}

impl Operation {
    /// Waits for the end; `false` if the operation was given up.
    pub(crate) async fn done(self) -> bool {
        self.done.await.is_ok()
    }
}

impl Service {
    /// A service that has the results of those recorded actions that are the same now.
    pub(crate) fn new(project: &Project, store: Arc<Store>, workers: usize, latency: Duration) -> Self {
        let mut state = State { free: workers, ..State::default() };
        for (row, element) in project.shape.elements.iter().enumerate() {
            let unchanged = (0..element.actions.len()).filter(|turn| project.is_as_recorded(row, *turn));
            for turn in unchanged {
                let recorded = &project.recorded[row];
                let path = project.work.get(&recorded.commands[turn]).map(|work| Arc::clone(&work.output));
                let made = Made { path: path.unwrap_or_else(|| Arc::from("")), digest: recorded.outputs[turn] };
                state.results.insert(key(&recorded.actions[turn]), made);
            }
        }
        let work = Arc::clone(&project.work);
        Self(Arc::new(Inner { store, latency, work, state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that changes it can panic half-way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the action cache has a result.
    pub(crate) fn has_result(&self, action: &Digest) -> bool {
        self.state().results.contains_key(&key(action))
    }

    /// The actions that workers have executed or are executing, in order of their starts.
    pub(crate) fn executions(&self) -> Vec<Digest> {
        self.state().executions.clone()
    }

    /// Puts an action in the queue, or joins the one that is there. Whether its inputs are stored is not looked at.
    pub(crate) fn submit(&self, action: Digest, work: &Work, priority: i32) -> Operation {
        let (started, is_started) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let mut state = self.state();
        let State { turn, tasks, queue, operations, results, .. } = &mut *state;
        *turn += 1;
        let operation = Operation { name: *turn, started: is_started, done: is_done };
        if let Some(made) = results.get(&key(&action)) {
            // Nobody minds if the one who asked has gone away, here and below.
            let _ = (started.send(()), done.send(made.clone()));
            return operation;
        }
        operations.insert(*turn, action);
        let mut request = Request { operation: *turn, started: Some(started), done };
        let place = (priority, *turn);
        let task = tasks.entry(action).or_insert_with(|| {
            queue.insert(place, action);
            Task { place, executes: false, work: work.clone(), requests: Vec::new() }
        });
        if task.executes {
            request.started.take().map(|started| started.send(()));
        } else if priority < task.place.0 {
            queue.remove(&task.place);
            task.place.0 = priority;
            queue.insert(task.place, action);
        }
        task.requests.push(request);
        if state.start() {
            self.0.changed.notify_one();
        }
        operation
    }

    fn give_up(&self, operation: u64) {
        let mut state = self.state();
        let State { tasks, queue, operations, .. } = &mut *state;
        let Some(action) = operations.remove(&operation) else { return };
        let Some(task) = tasks.get_mut(&action) else { return };
        task.requests.retain(|request| request.operation != operation);
        if task.requests.is_empty() && !task.executes {
            queue.remove(&task.place);
            tasks.remove(&action);
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
            let Some(Reverse((_, _, action))) = state.ends.pop() else { break };
            state.free += 1;
            let Some(Task { work, requests, .. }) = state.tasks.remove(&action) else { continue };
            let output = output_bytes(&action);
            let made = Made { path: work.output, digest: FUNCTION.digest(&output) };
            self.0.store.put(made.digest, output);
            for Request { operation, done, .. } in requests {
                state.operations.remove(&operation);
                let _ = done.send(made.clone());
            }
            state.results.insert(key(&action), made);
        }
        state.start();
    }

    /// What an action does, if it and all that it takes is there.
    fn work_of(&self, action: Digest) -> Result<Work> {
        let store = &self.0.store;
        let error = |kind, reason: String| Error::new(kind, "Execute", reason).at(self);
        let missing = |digest| error(ErrorKind::MissingInputs, "inputs are missing".to_owned()).with_digests([digest]);
        let message = store.peek(&action).ok_or_else(|| missing(action))?;
        let message = Action::parse(message).map_err(|e| error(ErrorKind::Invalid, e.to_string()))?;
        let command = message.command_digest();
        if store.peek(&command).is_none() {
            return Err(missing(command));
        }
        let mut state = self.state();
        let mut pending = vec![message.input_root_digest()];
        while let Some(digest) = pending.pop() {
            if !state.complete.insert(start_of(&digest)) {
                continue;
            }
            let Some(bytes) = store.peek(&digest) else {
                state.complete.clear();
                return Err(missing(digest));
            };
            let directory = Directory::parse(bytes).map_err(|e| error(ErrorKind::Invalid, e.to_string()))?;
            pending.extend(directory.directories().map(|(_, child)| child));
        }
        let unknown = || error(ErrorKind::Invalid, "nobody knows how long its command takes".to_owned());
        self.0.work.get(&command).cloned().ok_or_else(unknown)
    }
}

impl State {
    /// Gives free workers something to do. Says whether another execution ends first now.
    fn start(&mut self) -> bool {
        let before = self.ends.peek().map(|Reverse((end, ..))| *end);
        while self.free > 0 {
            let Some((place, action)) = self.queue.pop_first() else { break };
            let Some(task) = self.tasks.get_mut(&action) else { continue };
            self.free -= 1;
            task.executes = true;
            for request in &mut task.requests {
                request.started.take().map(|started| started.send(()));
            }
            self.executions.push(action);
            self.ends.push(Reverse((Instant::now() + task.work.duration, place.1, action)));
        }
        self.ends.peek().map(|Reverse((end, ..))| *end) != before
    }
}

/// Enough of a digest to tell one simulation's from each other.
fn start_of(digest: &Digest) -> u64 {
    digest.hash().iter().take(8).fold(0, |start, byte| start << 8 | u64::from(*byte))
}

#[async_trait]
impl ActionCache for Service {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        sleep(self.0.latency).await;
        Ok(self.state().results.get(&key(action)).map(Made::result))
    }
}

/// How far a stream of updates is.
enum Follow {
    Accepted(Operation),
    Known(Operation),
    Queued(Operation),
    Executing(Operation),
    End,
}

#[async_trait]
impl Execution for Service {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let half = self.0.latency / 2;
        sleep(half).await;
        let work = self.work_of(request.action)?;
        let operation = self.submit(request.action, &work, request.priority);
        let updates = stream::unfold(Follow::Accepted(operation), move |state| async move {
            let (update, next) = match state {
                Follow::Accepted(operation) => {
                    sleep(half).await;
                    (ExecutionUpdate::Accepted { operation: operation.name.to_string() }, Follow::Known(operation))
                }
                Follow::Known(mut operation) => match operation.started.try_recv() {
                    Ok(()) => (ExecutionUpdate::Stage(ExecutionStage::Executing), Follow::Executing(operation)),
                    Err(TryRecvError::Empty) => {
                        (ExecutionUpdate::Stage(ExecutionStage::Queued), Follow::Queued(operation))
                    }
                    Err(TryRecvError::Closed) => return None,
                },
                Follow::Queued(mut operation) => {
                    (&mut operation.started).await.ok()?;
                    (ExecutionUpdate::Stage(ExecutionStage::Executing), Follow::Executing(operation))
                }
                Follow::Executing(operation) => {
                    let made = operation.done.await.ok()?;
                    sleep(half).await;
                    let outcome = ExecutionOutcome { result: made.result(), cached: false, message: String::new() };
                    (ExecutionUpdate::Done(Box::new(outcome)), Follow::End)
                }
                Follow::End => return None,
            };
            Some((Ok(update), next))
        });
        Ok(updates.boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        sleep(self.0.latency / 2).await;
        if let Ok(operation) = operation.parse() {
            self.give_up(operation);
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
