//! Operations, the queue, and the workers that empty it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use cas_client::ActionCacheWriter;
use futures_util::FutureExt;
use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{Digest, rpc, v2};
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Status};

use super::shared::Shared;
use super::{action_cache, inputs, wire};
use crate::faults;
use crate::runner;

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
    message: v2::Action,
    skip_cache_lookup: bool,
    pub(super) progress: watch::Sender<Progress>,
    cancelled: watch::Sender<bool>,
    started: AtomicBool,
    queued: Mutex<SystemTime>,
}

impl Run {
    fn enter(&self, stage: Stage) {
        self.progress.send_modify(|p| p.stages.push(stage));
    }

    fn stage(&self) -> Stage {
        self.progress.borrow().stages.last().copied().unwrap_or(Stage::Unknown)
    }

    fn finish(&self, response: v2::ExecuteResponse) {
        self.progress.send_modify(|p| {
            if p.response.is_none() {
                p.stages.push(Stage::Completed);
                p.response = Some(Arc::new(response));
            }
        });
    }

    fn is_over(&self) -> bool {
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
    fn is_open(&self) -> bool {
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
struct State {
    queue: BinaryHeap<Queued>,
    /// Entries made so far, for the order among equal priorities.
    sequence: u64,
    /// Runs that a further request for the same action may join.
    joinable: HashMap<(String, Digest), Arc<Run>>,
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
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
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

    fn enqueue(&self, run: &Arc<Run>, priority: i32) {
        self.with(|s| {
            let order = Reverse((priority, s.sequence));
            s.sequence += 1;
            s.queue.push(Queued { order, run: Arc::clone(run) });
        });
        self.entries.add_permits(1);
    }

    /// The next run to start; waits for one. `None` when the server stops.
    async fn next(&self) -> Option<Arc<Run>> {
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
    fn close(&self, run: &Arc<Run>) {
        let key = (run.instance.clone(), run.action);
        self.with(|s| {
            if s.joinable.get(&key).is_some_and(|r| Arc::ptr_eq(r, run)) {
                s.joinable.remove(&key);
            }
        });
    }

    /// Gives up a run that no operation wants any more, so that nobody joins it. Says whether it did.
    fn abandon(&self, run: &Arc<Run>) -> bool {
        let key = (run.instance.clone(), run.action);
        self.with(|s| {
            let wanted = s.operations.values().any(|o| Arc::ptr_eq(&o.run, run) && !*o.cancelled.borrow());
            if !wanted && s.joinable.get(&key).is_some_and(|r| Arc::ptr_eq(r, run)) {
                s.joinable.remove(&key);
            }
            !wanted
        })
    }

    fn add(state: &mut State, run: Arc<Run>, request: &v2::ExecuteRequest) -> Operation {
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

impl Shared {
    /// Joins or starts a run of an action.
    pub(super) fn submit(
        self: &Arc<Self>,
        request: &v2::ExecuteRequest,
        action: Digest,
        message: v2::Action,
    ) -> Operation {
        let key = (request.instance_name.clone(), action);
        let priority = request.execution_policy.map_or(0, |p| p.priority);
        let cacheable = !message.do_not_cache;
        let (operation, joined) = self.scheduler.with(|s| {
            let known = s.joinable.get(&key).filter(|run| {
                // A run that may still be answered from the cache is no answer to a request that rules that out.
                !request.skip_cache_lookup
                    || run.skip_cache_lookup
                    || matches!(run.stage(), Stage::Queued | Stage::Executing)
            });
            if let Some(run) = known.filter(|run| cacheable && !*run.cancelled.borrow()) {
                let run = Arc::clone(run);
                return (Scheduler::add(s, run, request), true);
            }
            let run = Arc::new(Run {
                instance: request.instance_name.clone(),
                action,
                message,
                skip_cache_lookup: request.skip_cache_lookup,
                progress: watch::Sender::default(),
                cancelled: watch::Sender::new(false),
                started: AtomicBool::new(false),
                queued: Mutex::new(SystemTime::now()),
            });
            if cacheable {
                s.joinable.insert(key, Arc::clone(&run));
            }
            (Scheduler::add(s, run, request), false)
        });
        let run = Arc::clone(&operation.run);
        if joined {
            self.counters.update(|s| s.merged.push(action));
            if run.stage() == Stage::Queued {
                self.scheduler.enqueue(&run, priority);
            }
        } else {
            run.enter(Stage::CacheCheck);
            self.prepare(&run, priority);
        }
        operation
    }

    /// Everything before the queue. Synchronous, so that a client that goes away leaves nothing half done.
    fn prepare(&self, run: &Arc<Run>, priority: i32) {
        match self.answer_without_running(run) {
            Ok(None) => {
                *run.queued.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
                run.enter(Stage::Queued);
                self.scheduler.enqueue(run, priority);
            }
            Ok(Some(response)) => self.complete(run, response),
            Err(status) => self.complete(run, failure(to_rpc(&status))),
        }
    }

    fn answer_without_running(&self, run: &Run) -> Result<Option<v2::ExecuteResponse>, Status> {
        let instance = self.instance(&run.instance)?;
        if !run.skip_cache_lookup && !run.message.do_not_cache {
            // The in-memory store never suspends, so the look-up is ready at once.
            let cached = action_cache::usable_result(self, instance, &run.action).now_or_never();
            let cached = cached.ok_or_else(|| Status::internal("the in-memory store suspended"))??;
            if let Some(result) = cached.filter(|r| r.exit_code == 0) {
                self.counters.update(|s| s.cached_executions.push(run.action));
                let status = Some(wire::ok());
                return Ok(Some(v2::ExecuteResponse {
                    result: Some(result),
                    cached_result: true,
                    status,
                    ..Default::default()
                }));
            }
        }
        let command =
            wire::required("Action.command_digest", run.message.command_digest.as_ref(), instance.function())?;
        let root =
            wire::required("Action.input_root_digest", run.message.input_root_digest.as_ref(), instance.function())?;
        let mut missing = inputs::missing_tree(instance, root)?;
        if inputs::command(instance, &command)?.is_none() {
            missing.insert(0, command);
        }
        if missing.is_empty() { Ok(None) } else { Ok(Some(failure(faults::missing_status(&missing)))) }
    }

    fn complete(&self, run: &Arc<Run>, response: v2::ExecuteResponse) {
        self.scheduler.close(run);
        run.finish(response);
    }

    /// One worker: runs what is queued until the server stops.
    pub(super) async fn work(&self) {
        while let Some(run) = self.scheduler.next().await {
            let mut cancelled = run.cancelled.subscribe();
            let response = tokio::select! {
                biased;
                _ = cancelled.wait_for(|c| *c) => None,
                response = self.execute_run(&run) => Some(response),
            };
            let response = response.unwrap_or_else(|| failure(wire::rpc_status(Code::Cancelled, "cancelled")));
            self.complete(&run, response);
        }
    }

    async fn execute_run(&self, run: &Run) -> v2::ExecuteResponse {
        run.enter(Stage::Executing);
        match self.try_execute(run).await {
            Ok(response) => response,
            Err(status) => failure(to_rpc(&status)),
        }
    }

    async fn try_execute(&self, run: &Run) -> Result<v2::ExecuteResponse, Status> {
        let instance = self.instance(&run.instance)?;
        let command =
            wire::required("Action.command_digest", run.message.command_digest.as_ref(), instance.function())?;
        let Some(command) = inputs::command(instance, &command)? else {
            return Ok(failure(faults::missing_status(&[command])));
        };
        let job = runner::Job {
            store: Arc::new(instance.store.clone()),
            digest: run.action,
            action: run.message.clone(),
            command,
            queued: *run.queued.lock().unwrap_or_else(PoisonError::into_inner),
        };
        self.counters.update(|s| s.executed.push(run.action));
        let outcome = AssertUnwindSafe(self.config.runner.run(&job)).catch_unwind().await;
        let outcome = outcome.map_err(|_| Status::internal("the runner panicked"))?;
        let response = match outcome {
            Ok(result) => {
                let mut message = String::new();
                if result.exit_code == 0 && !run.message.do_not_cache {
                    // A result that cannot be cached, say because its Action was evicted meanwhile, is a result.
                    let stored = instance.store.store_action_result(&run.action, &result).await;
                    message = stored.err().map(|e| format!("not cached: {e}")).unwrap_or_default();
                }
                let status = Some(wire::ok());
                v2::ExecuteResponse { result: Some(result), status, message, ..Default::default() }
            }
            Err(error) => v2::ExecuteResponse {
                result: error.result.map(|r| *r),
                status: Some(error.status),
                ..Default::default()
            },
        };
        Ok(response)
    }

    /// Cancels one operation, and its run if nobody else wants it.
    pub(super) fn cancel(&self, operation: &Operation) {
        if !operation.is_open() {
            return;
        }
        operation.cancelled.send_replace(true);
        self.counters.update(|s| s.cancelled.push(operation.run.action));
        let run = &operation.run;
        if self.scheduler.abandon(run) {
            run.cancelled.send_replace(true);
            if !run.started.load(Ordering::Acquire) {
                run.finish(failure(wire::rpc_status(Code::Cancelled, "cancelled before it started")));
            }
        }
    }
}

fn failure(status: rpc::Status) -> v2::ExecuteResponse {
    v2::ExecuteResponse { status: Some(status), ..Default::default() }
}

/// A gRPC status as a message. Its details, if any, are such a message already.
fn to_rpc(status: &Status) -> rpc::Status {
    prost::Message::decode(status.details())
        .ok()
        .filter(|decoded: &rpc::Status| decoded.code != 0)
        .unwrap_or_else(|| wire::rpc_status(status.code(), status.message()))
}
