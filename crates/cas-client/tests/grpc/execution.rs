//! Execution through the gRPC client against a scripted server.

use std::time::Duration;

use cas_client::grpc::{FailedExecution, GrpcClient};
use cas_client::{CacheLookup, ErrorKind, ExecuteRequest, Execution as _, ExecutionStage, ExecutionUpdate, Result};
use futures_util::TryStreamExt as _;
use prost_types::Any;
use reapi_proto::longrunning::{Operation, operation};
use reapi_proto::v2::{self, ActionResult, ExecuteResponse};
use reapi_proto::{precondition, rpc};
use tonic::{Code, Status};

use crate::support::{Answer, Scripted, any, detailed, digest, replies, replies_then_hang};

fn at(name: &str, stage: v2::execution_stage::Value) -> Answer<Operation> {
    let metadata = v2::ExecuteOperationMetadata { stage: stage.into(), ..Default::default() };
    Ok(Operation { name: name.into(), metadata: Some(any(&metadata)), ..Default::default() })
}

fn queued(name: &str) -> Answer<Operation> {
    at(name, v2::execution_stage::Value::Queued)
}

fn finished(name: &str, response: &ExecuteResponse) -> Answer<Operation> {
    let result = Some(operation::Result::Response(any(response)));
    Ok(Operation { name: name.into(), done: true, result, ..Default::default() })
}

fn succeeded(name: &str) -> Answer<Operation> {
    finished(name, &ExecuteResponse { result: Some(ActionResult::default()), ..Default::default() })
}

fn failed(name: &str, code: Code, details: Vec<Any>) -> Answer<Operation> {
    let status = Some(rpc::Status { code: code as i32, message: "scripted".into(), details });
    finished(name, &ExecuteResponse { status, ..Default::default() })
}

fn broken() -> Answer<Operation> {
    Err(Status::unavailable("broken"))
}

fn request() -> ExecuteRequest {
    ExecuteRequest::new(digest(b"action"))
}

async fn run(client: &GrpcClient) -> Result<Vec<ExecutionUpdate>> {
    client.execute(request()).await?.try_collect().await
}

/// The updates, each in one word.
fn words(updates: &[ExecutionUpdate]) -> Vec<String> {
    updates
        .iter()
        .map(|update| match update {
            ExecutionUpdate::Accepted { operation } => operation.clone(),
            ExecutionUpdate::Delayed { retry_after } => format!("delayed {retry_after:?}"),
            ExecutionUpdate::Stage(stage) => format!("{stage:?}"),
            ExecutionUpdate::Done(outcome) => format!("exit {}", outcome.result.exit_code),
        })
        .collect()
}

#[tokio::test]
async fn an_execution_is_followed_to_its_end() {
    use v2::execution_stage::Value::{CacheCheck, Executing, Queued};
    let server = Scripted::start().await;
    let result = ActionResult { exit_code: 2, ..Default::default() };
    let response = ExecuteResponse { result: Some(result), message: "hello".into(), ..Default::default() };
    server.script.execute.then_ok(replies(vec![
        at("op", CacheCheck),
        at("op", Queued),
        at("op", Queued),
        at("op", Executing),
        // A worker was lost.
        at("op", Queued),
        finished("op", &response),
        queued("never read"),
    ]));
    let client = server.client_with(|config| config.instance_name = "main".into());
    let request = ExecuteRequest { cache_lookup: CacheLookup::Skip, priority: 7, ..request() };
    let updates: Vec<_> = client.execute(request).await.unwrap().try_collect().await.unwrap();
    assert_eq!(words(&updates), ["op", "CacheCheck", "Queued", "Executing", "Queued", "exit 2"]);
    let Some(ExecutionUpdate::Done(outcome)) = updates.last() else { panic!("{updates:?}") };
    assert_eq!((outcome.cached, outcome.message.as_str()), (false, "hello"));
    let sent = &server.script.execute.calls()[0];
    assert_eq!(sent.instance_name, "main");
    assert_eq!(sent.digest_function, v2::digest_function::Value::Sha256 as i32);
    assert_eq!(sent.execution_policy, Some(v2::ExecutionPolicy { priority: 7 }));
    assert!(sent.skip_cache_lookup);
    assert_eq!(server.script.execute.metadata()[0].action_id, digest(b"action").to_string());
}

#[tokio::test]
async fn a_stream_that_ends_early_is_taken_up_by_waiting() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies(vec![queued("op")]));
    server.script.wait.then_fail(Status::unavailable("broken")).then_ok(replies(vec![queued("op"), broken()]));
    server.script.wait.then_ok(replies(vec![succeeded("op")]));
    let client = server.client_with(|config| config.retry.max_attempts = 4);
    assert_eq!(words(&run(&client).await.unwrap()), ["op", "Queued", "exit 0"], "nothing is said twice");
    assert_eq!(server.script.execute.calls().len(), 1);
    assert!(server.script.wait.calls().iter().all(|call| call.name == "op"));
    assert_eq!(server.script.wait.left(), 0);
}

#[tokio::test]
async fn a_forgotten_operation_is_submitted_again() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies(vec![queued("one"), broken()]));
    server.script.wait.then_fail(Status::not_found("restarted"));
    server.script.execute.then_ok(replies(vec![queued("two"), broken()]));
    // Not found in the middle of the stream, too.
    server.script.wait.then_ok(replies(vec![queued("two"), Err(Status::not_found("restarted"))]));
    server.script.execute.then_ok(replies(vec![succeeded("three")]));
    assert_eq!(words(&run(&server.client()).await.unwrap()), ["one", "Queued", "two", "three", "exit 0"]);
}

#[tokio::test]
async fn that_there_is_no_room_is_said_before_it_is_tried_again() {
    let server = Scripted::start().await;
    let soon = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 }) };
    server.script.execute.then_fail(Status::resource_exhausted("the queue is full"));
    server.script.execute.then_fail(detailed(Code::ResourceExhausted, vec![any(&soon)]));
    server.script.execute.then_ok(replies(vec![queued("op"), failed("op", Code::ResourceExhausted, vec![])]));
    server.script.execute.then_ok(replies(vec![succeeded("op")]));
    let updates = run(&server.client_with(|config| config.retry.max_attempts = 5)).await.unwrap();
    let expected = ["delayed None", "delayed Some(20ms)", "op", "Queued", "delayed None", "op", "exit 0"];
    assert_eq!(words(&updates), expected);
    for _ in 0..10 {
        server.script.execute.then_fail(detailed(Code::ResourceExhausted, vec![any(&soon)]));
    }
    let error = run(&server.client()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Exhausted, Some(Duration::from_millis(20))));
}

#[tokio::test]
async fn without_wait_execution_the_action_is_submitted_again() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies(vec![queued("one"), broken()]));
    server.script.wait.then_fail(Status::unimplemented("no"));
    server.script.execute.then_ok(replies(vec![queued("two"), broken()]));
    server.script.execute.then_ok(replies(vec![succeeded("three")]));
    assert_eq!(words(&run(&server.client()).await.unwrap()), ["one", "Queued", "two", "three", "exit 0"]);
    assert_eq!(server.script.wait.calls().len(), 1, "asked once, and remembered");
}

#[tokio::test]
async fn without_a_name_the_action_is_submitted_again() {
    let server = Scripted::start().await;
    server.script.execute.then_fail(Status::unavailable("broken")).then_ok(replies(vec![broken()]));
    server.script.execute.then_ok(replies(vec![succeeded("op")]));
    assert_eq!(words(&run(&server.client()).await.unwrap()), ["op", "exit 0"]);
    assert_eq!(server.script.wait.calls().len(), 0);
}

#[tokio::test]
async fn submitting_again_has_an_end() {
    let server = Scripted::start().await;
    for _ in 0..10 {
        // Progress each time, so the count of attempts alone would never run out.
        server.script.execute.then_ok(replies(vec![
            queued("op"),
            at("op", v2::execution_stage::Value::Executing),
            failed("op", Code::Internal, vec![]),
        ]));
    }
    let error = run(&server.client()).await.unwrap_err();
    assert_eq!((error.kind(), error.digests()), (ErrorKind::Unavailable, &[digest(b"action")][..]));
    assert_eq!(server.script.execute.calls().len(), 4);
}

#[tokio::test]
async fn missing_inputs_are_listed_wherever_they_are_reported() {
    let missing = [digest(b"x"), digest(b"y")];
    let details = || vec![any(&precondition::missing(&missing))];
    for place in ["call", "stream", "response", "operation"] {
        let server = Scripted::start().await;
        let script = &server.script.execute;
        match place {
            "call" => script.then_fail(detailed(Code::FailedPrecondition, details())),
            "stream" => script.then_ok(replies(vec![Err(detailed(Code::FailedPrecondition, details()))])),
            "response" => script.then_ok(replies(vec![failed("op", Code::FailedPrecondition, details())])),
            _ => {
                let status =
                    rpc::Status { code: Code::FailedPrecondition as i32, details: details(), ..Default::default() };
                let result = Some(operation::Result::Error(status));
                script.then_ok(replies(vec![Ok(Operation { done: true, result, ..Default::default() })]))
            }
        };
        let error = run(&server.client()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingInputs, "{place}");
        assert_eq!(error.digests()[..2], missing, "{place}");
        assert_eq!(server.script.execute.calls().len(), 1, "{place}");
    }
}

#[tokio::test]
async fn a_precondition_that_uploading_cannot_cure_is_no_missing_input() {
    let server = Scripted::start().await;
    let mut failure = precondition::missing(&[digest(b"x")]);
    failure.violations[0].r#type = "DISALLOWED".into();
    server.script.execute.then_fail(detailed(Code::FailedPrecondition, vec![any(&failure)]));
    let error = run(&server.client()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.reason().contains("DISALLOWED"), "{error}");
}

#[tokio::test]
async fn a_precondition_without_details_is_a_missing_input_nobody_names() {
    let server = Scripted::start().await;
    server.script.execute.then_fail(Status::failed_precondition("something is missing"));
    let error = run(&server.client()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingInputs);
    assert!(error.reason().contains("something is missing"), "{error}");
}

#[tokio::test]
async fn failures_of_the_action_are_not_failures_of_the_call() {
    for (code, kind) in [
        (Code::DeadlineExceeded, ErrorKind::LimitExceeded),
        (Code::Cancelled, ErrorKind::Cancelled),
        (Code::InvalidArgument, ErrorKind::Invalid),
    ] {
        let server = Scripted::start().await;
        server.script.execute.then_ok(replies(vec![failed("op", code, vec![])]));
        assert_eq!(run(&server.client()).await.unwrap_err().kind(), kind, "{code:?}");
        assert_eq!(server.script.execute.calls().len(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn a_worker_failure_is_tried_again_and_a_partial_result_kept() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies(vec![failed("one", Code::Unavailable, vec![])]));
    let partial = ActionResult { stderr_raw: "killed".into(), ..Default::default() };
    let status = Some(rpc::Status { code: Code::DeadlineExceeded as i32, ..Default::default() });
    let response = ExecuteResponse { result: Some(partial.clone()), status, ..Default::default() };
    server.script.execute.then_ok(replies(vec![finished("two", &response)]));
    let error = run(&server.client()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let source = std::error::Error::source(&error).and_then(|s| s.downcast_ref::<FailedExecution>()).unwrap();
    assert_eq!(source.result, partial);
    assert_eq!(server.script.wait.calls().len(), 0, "a finished operation is not waited for");
}

#[tokio::test]
async fn nonsense_is_a_protocol_error() {
    let response =
        |any| Ok(Operation { done: true, result: Some(operation::Result::Response(any)), ..Default::default() });
    for operation in [
        Ok(Operation { done: true, ..Default::default() }),
        response(any(&ActionResult::default())),
        response(Any { value: vec![0xff], ..any(&ExecuteResponse::default()) }),
        response(any(&ExecuteResponse::default())),
    ] {
        let server = Scripted::start().await;
        server.script.execute.then_ok(replies(vec![operation]));
        assert_eq!(run(&server.client()).await.unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(server.script.execute.calls().len(), 1);
    }
}

#[tokio::test]
async fn the_action_is_submitted_even_if_nobody_reads_the_stream() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies_then_hang(vec![]));
    drop(server.client().execute(request()).await.unwrap());
    assert_eq!(server.script.execute.calls().len(), 1);
}

#[tokio::test]
async fn the_limit_for_executions_is_kept() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies_then_hang(vec![queued("op")]));
    let client = server.client_with(|config| config.timeouts.execution = Some(Duration::from_millis(50)));
    let error = run(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "not finished within 50ms"));
}

#[tokio::test]
async fn watched_executions_leave_the_places_of_other_calls_free() {
    let server = Scripted::start().await;
    server.script.execute.then_ok(replies_then_hang(vec![queued("op")]));
    server.script.cancel.then_ok(());
    let client = server.client_with(|config| config.limits.concurrent_calls = 1);
    let mut watch = client.execute(request()).await.unwrap();
    let Some(ExecutionUpdate::Accepted { operation }) = watch.try_next().await.unwrap() else { panic!() };
    assert_eq!(watch.try_next().await.unwrap(), Some(ExecutionUpdate::Stage(ExecutionStage::Queued)));
    client.cancel(&operation).await.unwrap();
    assert_eq!(server.script.cancel.calls()[0].name, "op");
}

#[tokio::test]
async fn who_cannot_cancel_is_forgiven() {
    for code in [Code::Unimplemented, Code::InvalidArgument, Code::NotFound] {
        let server = Scripted::start().await;
        server.script.cancel.then_fail(Status::new(code, "no"));
        server.client().cancel("op").await.unwrap();
    }
    let server = Scripted::start().await;
    server.script.cancel.fail_times(3, Code::Unavailable);
    assert_eq!(server.client().cancel("op").await.unwrap_err().kind(), ErrorKind::Unavailable);
}

fn executing(execution: v2::ExecutionCapabilities) -> v2::ServerCapabilities {
    v2::ServerCapabilities { execution_capabilities: Some(execution), ..Default::default() }
}

#[tokio::test]
async fn a_service_that_executes_nothing_is_not_asked_to() {
    let blake3 = v2::digest_function::Value::Blake3 as i32;
    for execution in [
        v2::ExecutionCapabilities::default(),
        v2::ExecutionCapabilities { exec_enabled: true, digest_function: blake3, ..Default::default() },
    ] {
        let server = Scripted::start().await;
        server.script.capabilities.then_ok(executing(execution));
        assert_eq!(run(&server.client()).await.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(server.script.execute.calls().len(), 0);
    }
}

#[tokio::test]
async fn priorities_are_clamped_to_what_the_service_takes() {
    let server = Scripted::start().await;
    let range = v2::priority_capabilities::PriorityRange { min_priority: -1, max_priority: 5 };
    let execution = v2::ExecutionCapabilities {
        exec_enabled: true,
        execution_priority_capabilities: Some(v2::PriorityCapabilities { priorities: vec![range] }),
        ..Default::default()
    };
    server.script.capabilities.then_ok(executing(execution));
    server.script.execute.then_ok(replies(vec![succeeded("op")]));
    let request = ExecuteRequest { priority: 1000, ..request() };
    let _: Vec<_> = server.client().execute(request).await.unwrap().try_collect().await.unwrap();
    assert_eq!(server.script.execute.calls()[0].execution_policy, Some(v2::ExecutionPolicy { priority: 5 }));
}
