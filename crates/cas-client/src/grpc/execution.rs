//! Executing actions and following them to their end (`Execution`).
//!
//! A stream that breaks or ends early is taken up again with `WaitExecution`
//! as long as the service remembers the operation; otherwise the action is
//! submitted again, which services join with a run in progress or serve from
//! their cache.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, try_unfold};
use reapi_proto::longrunning::CancelOperationRequest;
use reapi_proto::longrunning::Operation;
use reapi_proto::longrunning::operations_client::OperationsClient;
use reapi_proto::v2::execution_client::ExecutionClient;
use reapi_proto::{Digest, v2};
use tokio::time::Instant;
use tonic::{Code, Response, Status, Streaming};

use super::GrpcClient;
use super::channel::{Lease, Place};
use super::client::Rpc;
use super::operation::{self, Event, METHOD};
use crate::retry::{Attempts, Failure};
use crate::{CacheLookup, Error, ErrorKind, ExecuteRequest, Execution, ExecutionStage, ExecutionUpdate, Result};

/// How often an action is submitted at most, where its executions fail for
/// reasons that may pass or are forgotten by the service.
const MAX_SUBMISSIONS: u32 = 4;

/// A stream that lasted this long was no failed attempt, even if nothing
/// changed: proxies cut long streams, and actions may queue for hours.
const SOLID_STREAM: Duration = Duration::from_secs(10);

#[async_trait]
impl Execution for GrpcClient {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        self.check_function(METHOD, [&request.action])?;
        let capabilities = self.capabilities().await?;
        if capabilities.execution == Some(false) {
            let reason = "the service does not execute actions";
            return Err(self.error(ErrorKind::Unsupported, METHOD, reason).with_digest(request.action));
        }
        let functions = &capabilities.execution_digest_functions;
        if !functions.is_empty() && !functions.contains(&self.function().wire_value()) {
            let reason = format!("the service executes no actions with {} digests", self.function());
            return Err(self.error(ErrorKind::Unsupported, METHOD, reason).with_digest(request.action));
        }
        let mut watch = Watch {
            client: self.clone(),
            action: request.action,
            message: v2::ExecuteRequest {
                instance_name: self.instance(),
                skip_cache_lookup: request.cache_lookup == CacheLookup::Skip,
                action_digest: Some(request.action.into()),
                execution_policy: Some(v2::ExecutionPolicy { priority: capabilities.clamp_priority(request.priority) }),
                digest_function: self.function().wire_value(),
                ..v2::ExecuteRequest::default()
            },
            deadline: self.config().timeouts.execution.and_then(|limit| Instant::now().checked_add(limit)),
            operation: None,
            can_wait: true,
            source: None,
            setback: None,
            attempts: self.retrier().attempts(),
            submissions: 0,
            stage: None,
            updates: VecDeque::new(),
            finished: false,
        };
        // Not left to the stream: who drops it unread still wants the action to run, if there is room for it.
        watch.connect().await?;
        Ok(try_unfold(watch, |mut watch| async move { Ok(watch.next().await?.map(|update| (update, watch))) }).boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        let rpc = Rpc { method: "CancelOperation", deadline: self.config().timeouts.call, action: None };
        let request = CancelOperationRequest { name: operation.to_owned() };
        let answer = self
            .call(rpc, request, |channel, request| async move {
                OperationsClient::new(channel).cancel_operation(request).await
            })
            .await;
        match answer {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::NotFound) => {
                tracing::debug!(operation, error = %e, "not cancelled");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

/// An execution being followed.
struct Watch {
    client: GrpcClient,
    action: Digest,
    message: v2::ExecuteRequest,
    deadline: Option<Instant>,
    /// The operation's name, as long as the service can be expected to know it.
    operation: Option<String>,
    /// Whether the service has `WaitExecution`.
    can_wait: bool,
    source: Option<Source>,
    /// To be recovered from, once its delay was said.
    setback: Option<Setback>,
    attempts: Attempts,
    submissions: u32,
    stage: Option<ExecutionStage>,
    updates: VecDeque<ExecutionUpdate>,
    finished: bool,
}

/// One stream of operations.
struct Source {
    messages: Streaming<Operation>,
    lease: Lease,
    _place: Place,
    since: Instant,
    waiting: bool,
}

/// A failure, and whether the operation is lost with it.
struct Setback {
    failure: Failure,
    operation_lost: bool,
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self { failure, operation_lost: false }
    }
}

impl Watch {
    async fn next(&mut self) -> Result<Option<ExecutionUpdate>> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(Some(update));
            }
            if self.finished {
                return Ok(None);
            }
            if let Some(setback) = self.setback.take() {
                self.recover(setback).await?;
            }
            self.connect().await?;
            if let Err(setback) = self.receive().await {
                self.take_setback(setback).await?;
            }
        }
    }

    /// Opens a stream if there is none, unless the service has no room for it now.
    async fn connect(&mut self) -> Result<()> {
        while self.source.is_none() && self.setback.is_none() {
            match self.open().await {
                Ok(source) => self.source = Some(source),
                Err(setback) => self.take_setback(setback).await?,
            }
        }
        Ok(())
    }

    /// Recovers from a failure. That the service has too much to do is said first, so that others can be held back.
    async fn take_setback(&mut self, setback: Setback) -> Result<()> {
        if setback.failure.error.kind() != ErrorKind::Exhausted || setback.failure.is_fatal() {
            return self.recover(setback).await;
        }
        let retry_after = setback.failure.error.retry_after();
        self.updates.push_back(ExecutionUpdate::Delayed { retry_after });
        self.setback = Some(setback);
        Ok(())
    }

    async fn open(&mut self) -> Result<Source, Setback> {
        let client = &self.client;
        let (place, lease) = client.enter(client.watches()).await.map_err(Failure::from)?;
        let mut stub =
            ExecutionClient::new(lease.channel.clone()).max_decoding_message_size(client.config().limits.receive_bytes);
        let name = self.operation.clone().filter(|_| self.can_wait);
        let waiting = name.is_some();
        let reply: Result<Response<Streaming<Operation>>, Status> = match name {
            Some(name) => {
                let request = client.signed(v2::WaitExecutionRequest { name }, Some(&self.action));
                self.in_time(stub.wait_execution(request)).await?
            }
            None => {
                let request = client.signed(self.message.clone(), Some(&self.action));
                self.in_time(stub.execute(request)).await?
            }
        };
        match reply {
            Ok(response) => {
                if !waiting {
                    self.submissions += 1;
                }
                let messages = response.into_inner();
                Ok(Source { messages, lease, _place: place, since: Instant::now(), waiting })
            }
            Err(status) => Err(self.setback(&lease, waiting, &status)),
        }
    }

    /// Takes the next message.
    async fn receive(&mut self) -> Result<(), Setback> {
        let Some(mut source) = self.source.take() else { return Ok(()) };
        match self.in_time(source.messages.message()).await? {
            Ok(Some(operation)) => {
                self.client.retrier().succeeded();
                self.source = Some(source);
                self.take_in(operation::read(operation))
            }
            Ok(None) => {
                self.count_stream(&source);
                let reason = "the stream ended before the operation was done";
                Err(Failure::retry(self.client.error(ErrorKind::Unavailable, METHOD, reason)).into())
            }
            Err(status) => {
                self.count_stream(&source);
                Err(self.setback(&source.lease, source.waiting, &status))
            }
        }
    }

    fn count_stream(&mut self, source: &Source) {
        if source.since.elapsed() >= SOLID_STREAM {
            self.attempts.progressed();
        }
    }

    fn take_in(&mut self, event: Event) -> Result<(), Setback> {
        let Event { name, stage, end } = event;
        if !name.is_empty() && self.operation.as_ref() != Some(&name) {
            self.operation = Some(name.clone());
            self.attempts.progressed();
            self.updates.push_back(ExecutionUpdate::Accepted { operation: name });
        }
        if let Some(stage) = stage.filter(|s| self.stage != Some(*s)) {
            self.stage = Some(stage);
            self.attempts.progressed();
            self.updates.push_back(ExecutionUpdate::Stage(stage));
        }
        match end {
            None => {}
            Some(Ok(outcome)) => {
                self.source = None;
                self.finished = true;
                self.updates.push_back(ExecutionUpdate::Done(Box::new(outcome)));
            }
            Some(Err(failure)) => {
                // The operation is over, so there is nothing to wait for any more.
                let failure = failure.map(|e| e.at(&self.client.config().endpoint));
                return Err(Setback { failure, operation_lost: true });
            }
        }
        Ok(())
    }

    fn setback(&mut self, lease: &Lease, waiting: bool, status: &Status) -> Setback {
        let failure = self.client.judge(self.client.watches(), lease, METHOD, status);
        match status.code() {
            Code::NotFound if waiting => Setback { failure: Failure::retry(failure.error), operation_lost: true },
            // Some services say so of an absent Action or Command.
            Code::NotFound => operation::absent(failure).map(|e| e.at(&self.client.config().endpoint)).into(),
            Code::Unimplemented if waiting => {
                self.can_wait = false;
                Setback { failure: Failure::retry(failure.error), operation_lost: true }
            }
            _ => failure.into(),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn recover(&mut self, setback: Setback) -> Result<()> {
        self.source = None;
        if setback.operation_lost {
            self.operation = None;
        }
        let action = self.action;
        let failure = setback.failure.map(|e| e.with_digest(action));
        let submit = self.operation.is_none() || !self.can_wait;
        if submit && self.submissions >= MAX_SUBMISSIONS {
            return Err(failure.error.after(self.submissions));
        }
        self.attempts.again(failure).await
    }

    /// Bounds `step` by the limit for the whole execution, where there is one.
    async fn in_time<T>(&self, step: impl Future<Output = T>) -> Result<T, Setback> {
        let Some(deadline) = self.deadline else { return Ok(step.await) };
        tokio::time::timeout_at(deadline, step).await.map_err(|_| {
            let limit = self.client.config().timeouts.execution.unwrap_or_default();
            let error = Error::new(ErrorKind::Unavailable, METHOD, format!("not finished within {limit:?}"));
            Failure::fatal(error.at(&self.client.config().endpoint)).into()
        })
    }
}
