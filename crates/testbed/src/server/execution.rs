//! `Execution`: runs as streams of operations.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use prost::Message;
use reapi_proto::longrunning::{self, operation};
use reapi_proto::v2::execution_server::Execution;
use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{rpc, v2};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, async_trait};

use super::scheduler::{Operation, Progress};
use super::shared::{Call, Replies, Shared};
use super::{MissingInputs, Service, action_cache, inputs, wire};
use crate::faults::{self, Fault};
use crate::stats::Rpc;

#[async_trait]
impl Execution for Service {
    type ExecuteStream = Replies<longrunning::Operation>;

    async fn execute(&self, request: Request<v2::ExecuteRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let mut call = self.0.arrive(Rpc::Execute, &request).proceed(&self.0).await?;
        let request = request.into_inner();
        let instance = self.0.instance(&request.instance_name)?;
        wire::check_function(request.digest_function, instance.function())?;
        let digest = wire::required("action_digest", request.action_digest.as_ref(), instance.function())?;
        let Some(action) = inputs::action(instance, &digest)? else {
            return match self.0.config.missing_inputs {
                MissingInputs::CallStatus => Err(faults::missing_blobs(&[digest])),
                MissingInputs::ResponseStatus => Ok(Response::new(refused(digest, faults::missing_status(&[digest])))),
            };
        };
        let operation = self.0.submit(&request, digest, action);
        if self.0.config.missing_inputs == MissingInputs::CallStatus {
            // Whatever keeps an action from being queued is known by now.
            let response = operation.run.progress.borrow().response.clone();
            let refused = response.and_then(|r| r.status.clone()).filter(|s| s.code != 0);
            if let Some(status) = refused {
                self.0.scheduler.forget(&operation.name);
                return Err(Status::with_details(
                    Code::from_i32(status.code),
                    status.message.clone(),
                    status.encode_to_vec().into(),
                ));
            }
        }
        if matches!(call.fault, Some(Fault::ForgetOperation)) {
            self.0.scheduler.forget(&operation.name);
            call.fault = None;
        }
        self.follow(call, operation, From::Start)
    }

    type WaitExecutionStream = Replies<longrunning::Operation>;

    async fn wait_execution(
        &self,
        request: Request<v2::WaitExecutionRequest>,
    ) -> Result<Response<Self::WaitExecutionStream>, Status> {
        let call = self.0.arrive(Rpc::WaitExecution, &request).proceed(&self.0).await?;
        let name = request.into_inner().name;
        let operation = self.0.scheduler.operation(&name);
        let operation = operation.ok_or_else(|| Status::not_found(format!("there is no operation {name:?}")))?;
        self.follow(call, operation, From::Now)
    }
}

/// Where a stream of updates starts.
#[derive(Clone, Copy)]
enum From {
    /// With the first stage.
    Start,
    /// With the present stage.
    Now,
}

impl Service {
    fn follow(
        &self,
        mut call: Call,
        operation: Operation,
        from: From,
    ) -> Result<Response<Replies<longrunning::Operation>>, Status> {
        let ending = match call.fault.take() {
            Some(Fault::OperationError(status)) => Some(Ending::Error(status)),
            Some(Fault::ResponseStatus(status)) => Some(Ending::Status(status)),
            Some(Fault::NoResponse) => Some(Ending::Nothing),
            Some(Fault::ForeignResponse) => Some(Ending::Foreign),
            other => {
                call.fault = other;
                None
            }
        };
        let updates = updates(Arc::clone(&self.0), operation, from).map(move |update| match &ending {
            Some(ending) if update.done => Ok(ending.apply(update)),
            _ => Ok(update),
        });
        Ok(Response::new(call.script(updates.boxed())?))
    }
}

/// A scripted end of an operation.
enum Ending {
    Error(rpc::Status),
    Status(rpc::Status),
    Nothing,
    Foreign,
}

impl Ending {
    fn apply(&self, mut operation: longrunning::Operation) -> longrunning::Operation {
        operation.result = match self {
            Self::Error(status) => Some(operation::Result::Error(status.clone())),
            Self::Status(status) => Some(operation::Result::Response(faults::any(&v2::ExecuteResponse {
                status: Some(status.clone()),
                ..Default::default()
            }))),
            Self::Nothing => None,
            Self::Foreign => Some(operation::Result::Response(faults::any(&v2::Action::default()))),
        };
        operation
    }
}

/// The states of an operation from the present one to the last.
fn updates(
    shared: Arc<Shared>,
    operation: Operation,
    from: From,
) -> impl futures_util::Stream<Item = longrunning::Operation> + Send + 'static {
    let progress = operation.run.progress.subscribe();
    let cancelled = operation.cancelled.subscribe();
    let next = match from {
        From::Start => 0,
        From::Now => progress.borrow().stages.len().saturating_sub(1),
    };
    stream::unfold(Some((shared, operation, progress, cancelled, next)), |state| async move {
        let (shared, operation, mut progress, mut cancelled, next) = state?;
        let now = after(&mut progress, &mut cancelled, next).await;
        let update = state_of(&shared, &operation, &now, next);
        let rest = (!update.done).then_some((shared, operation, progress, cancelled, next + 1));
        Some((update, rest))
    })
}

/// Waits until there is a stage with this index or the operation is cancelled.
async fn after(
    progress: &mut watch::Receiver<Progress>,
    cancelled: &mut watch::Receiver<bool>,
    index: usize,
) -> Progress {
    tokio::select! {
        biased;
        reached = progress.wait_for(|p| p.stages.len() > index) => match reached {
            Ok(now) => now.clone(),
            // The run holds the sender as long as the operation is there.
            Err(_) => Progress::default(),
        },
        _ = cancelled.wait_for(|c| *c) => Progress::default(),
    }
}

/// An operation as a message, at the stage with this index. Cancelled if it has not got there.
fn state_of(shared: &Shared, operation: &Operation, progress: &Progress, index: usize) -> longrunning::Operation {
    let stage = progress.stages.get(index).copied();
    let response = match (stage, &progress.response) {
        (Some(Stage::Completed), Some(response)) => Some(v2::ExecuteResponse::clone(response)),
        (Some(_), _) => None,
        (None, _) => Some(v2::ExecuteResponse {
            status: Some(wire::rpc_status(Code::Cancelled, "the operation was cancelled")),
            ..Default::default()
        }),
    };
    let response = response.map(|mut response| {
        if let (Some(result), Ok(instance)) = (&mut response.result, shared.instance(&operation.run.instance)) {
            action_cache::inline(instance, result, operation.inline_stdout, operation.inline_stderr);
        }
        response
    });
    message(&operation.name, operation.run.action, stage.unwrap_or(Stage::Completed), response)
}

/// The present state of an operation.
pub(super) fn present(shared: &Shared, operation: &Operation) -> longrunning::Operation {
    let mut progress = operation.run.progress.borrow().clone();
    if *operation.cancelled.borrow() && progress.response.is_none() {
        progress = Progress::default();
    }
    let index = progress.stages.len().saturating_sub(1);
    state_of(shared, operation, &progress, index)
}

fn message(
    name: &str,
    action: reapi_proto::Digest,
    stage: Stage,
    response: Option<v2::ExecuteResponse>,
) -> longrunning::Operation {
    longrunning::Operation {
        name: name.to_owned(),
        metadata: Some(faults::any(&v2::ExecuteOperationMetadata {
            stage: stage.into(),
            action_digest: Some(action.into()),
            ..Default::default()
        })),
        done: response.is_some(),
        result: response.map(|r| operation::Result::Response(faults::any(&r))),
    }
}

/// An operation that ends at once with a status.
fn refused(action: reapi_proto::Digest, status: rpc::Status) -> Replies<longrunning::Operation> {
    let response = v2::ExecuteResponse { status: Some(status), ..Default::default() };
    let name = uuid::Uuid::new_v4().to_string();
    stream::iter([Ok(message(&name, action, Stage::Completed, Some(response)))]).boxed()
}
