//! What happens to an action: joined, answered, queued, run, cancelled.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cas_client::ActionCacheWriter;
use futures_util::FutureExt;
use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{Digest, rpc, v2};
use tonic::{Code, Status};

use super::scheduler::{Operation, Run, Scheduler};
use super::shared::Shared;
use super::{action_cache, inputs, wire};
use crate::faults;
use crate::runner;

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
            let run = Arc::new(Run::new(request, action, message));
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
                run.enter_queue();
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
            queued: run.queued(),
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
