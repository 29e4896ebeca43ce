//! Runs, the operations that follow them, and the queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{Digest, v2};
use tokio::sync::{Semaphore, watch};

/// Finished operations that `WaitExecution` and `GetOperation` still find.
const MAX_FINISHED: usize = 4096;

/// How far a run has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Every stage so far, in order.
    pub(super) stages: Vec<Stage>,
    /// How it ended.
    pub(super) response: Option<Arc<v2::ExecuteResponse>>,
}

/// One run of an action, which several operations may share.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) instance: String,
    pub(super) action: Digest,
    pub(super) message: v2::Action,
    pub(super) skip_cache_lookup: bool,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) cancelled: watch::Sender<bool>,
    pub(super) started: AtomicBool,
    queued: Mutex<SystemTime>,
}

impl Run {
    pub(super) fn new(request: &v2::ExecuteRequest, action: Digest, message: v2::Action) -> Self {
        Self {
            instance: request.instance_name.clone(),
            action,
            message,
            skip_cache_lookup: request.skip_cache_lookup,
            progress: watch::Sender::default(),
            cancelled: watch::Sender::new(false),
            started: AtomicBool::new(false),
            queued: Mutex::new(SystemTime::now()),
        }
    }

    /// Enters the queue, now.
    pub(super) fn enter_queue(&self) {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        self.enter(Stage::Queued);
    }

    /// When it entered the queue.
    pub(super) fn queued(&self) -> SystemTime {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.progress.send_modify(|p| p.stages.push(stage));
    }

    pub(super) fn stage(&self) -> Stage {
        self.progress.borrow().stages.last().copied().unwrap_or(Stage::Unknown)
    }

    pub(super) fn finish(&self, response: v2::ExecuteResponse) {
        self.progress.send_modify(|p| {
            if p.response.is_none() {
                p.stages.push(Stage::Completed);
                p.response = Some(Arc::new(response));
            }
        });
    }

    pub(super) fn is_over(&self) -> bool {
        self.progress.borrow().response.is_some()
    }
}

/// A client's view of a run.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) run: Arc<Run>,
    /// This operation was cancelled; the run goes on while others want it.
    pub(super) cancelled: watch::Sender<bool>,
    pub(super) inline_stdout: bool,
    pub(super) inline_stderr: bool,
}

impl Operation {
    pub(super) fn is_open(&self) -> bool {
        !*self.cancelled.borrow() && !self.run.is_over()
    }
}

/// An entry of the queue: lowest priority number first, then first come, first served.
#[derive(Debug)]
struct Queued {
    order: Reverse<(i32, u64)>,
    run: Arc<Run>,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    queue: BinaryHeap<Queued>,
    /// Entries made so far, for the order among equal priorities.
    sequence: u64,
    /// Runs that a further request for the same action may join.
    pub(super) joinable: HashMap<(String, Digest), Arc<Run>>,
    operations: BTreeMap<String, Operation>,
    /// Names in order of creation, to forget the oldest.
    names: VecDeque<String>,
}

#[derive(Debug)]
pub(super) struct Scheduler {
    state: Mutex<State>,
    /// One permit per entry of the queue.
    entries: Semaphore,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self { state: Mutex::default(), entries: Semaphore::new(0) }
    }
}

impl Scheduler {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn operation(&self, name: &str) -> Option<Operation> {
        self.with(|s| s.operations.get(name).cloned())
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        self.with(|s| s.operations.values().cloned().collect())
    }

    pub(super) fn forget(&self, name: &str) -> bool {
        self.with(|s| s.operations.remove(name).is_some())
    }

    /// Cancels every run; used when the server stops.
    pub(super) fn stop(&self) {
        for operation in self.operations() {
            operation.run.cancelled.send_replace(true);
        }
        self.entries.close();
    }

    pub(super) fn enqueue(&self, run: &Arc<Run>, priority: i32) {
        self.with(|s| {
            let order = Reverse((priority, s.sequence));
            s.sequence += 1;
            s.queue.push(Queued { order, run: Arc::clone(run) });
        });
        self.entries.add_permits(1);
    }

    /// The next run to start; waits for one. `None` when the server stops.
    pub(super) async fn next(&self) -> Option<Arc<Run>> {
        loop {
            self.entries.acquire().await.ok()?.forget();
            // A run that was asked for again with a better priority is in the queue twice.
            let run = self.with(|s| s.queue.pop())?.run;
            if !run.is_over() && !run.started.swap(true, Ordering::AcqRel) {
                return Some(run);
            }
        }
    }

    /// No further request may join this run.
    pub(super) fn close(&self, run: &Arc<Run>) {
        let key = (run.instance.clone(), run.action);
        self.with(|s| {
            if s.joinable.get(&key).is_some_and(|r| Arc::ptr_eq(r, run)) {
                s.joinable.remove(&key);
            }
        });
    }

    /// Gives up a run that no operation wants any more, so that nobody joins it. Says whether it did.
    pub(super) fn abandon(&self, run: &Arc<Run>) -> bool {
        let key = (run.instance.clone(), run.action);
        self.with(|s| {
            let wanted = s.operations.values().any(|o| Arc::ptr_eq(&o.run, run) && !*o.cancelled.borrow());
            if !wanted && s.joinable.get(&key).is_some_and(|r| Arc::ptr_eq(r, run)) {
                s.joinable.remove(&key);
            }
            !wanted
        })
    }

    pub(super) fn add(state: &mut State, run: Arc<Run>, request: &v2::ExecuteRequest) -> Operation {
        let operation = Operation {
            name: uuid::Uuid::new_v4().to_string(),
            run,
            cancelled: watch::Sender::new(false),
            inline_stdout: request.inline_stdout,
            inline_stderr: request.inline_stderr,
        };
        state.operations.insert(operation.name.clone(), operation.clone());
        state.names.push_back(operation.name.clone());
        while state.names.len() > MAX_FINISHED {
            let Some(oldest) = state.names.pop_front() else { break };
            if state.operations.get(&oldest).is_some_and(Operation::is_open) {
                state.names.push_back(oldest);
                break;
            }
            state.operations.remove(&oldest);
        }
        operation
    }
}
