use futures_util::StreamExt;
use reapi_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
};
use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{DigestFunction, v2};
use testbed::runner::{FnRunner, Gated, RunError};
use testbed::{Gate, MissingInputs, Rpc, ServerConfig};
use tonic::Code;

use crate::rig::{Rig, finish, missing, missing_of, request, response, shell, stage};

/// A server that runs one action at a time, each when the gate opens.
async fn gated(gate: &Gate) -> Rig {
    let config = ServerConfig { jobs: 1.try_into().unwrap(), ..Default::default() };
    Rig::with(config.with_runner(Gated::new(gate.clone(), FnRunner::succeeding()))).await
}

fn code(response: &v2::ExecuteResponse) -> Code {
    Code::from_i32(response.status.as_ref().unwrap().code)
}

#[tokio::test]
async fn an_execution_goes_through_its_stages_and_is_cached() {
    let rig = Rig::with(ServerConfig::default().with_runner(FnRunner::succeeding())).await;
    let action = rig.action(&shell("true", &[]), &[("in", "put")]);
    let (stages, response) = finish(rig.execute(action).await.unwrap()).await;
    assert_eq!(stages, [Stage::CacheCheck, Stage::Queued, Stage::Executing, Stage::Completed]);
    assert!(!response.cached_result);
    let (stages, response) = finish(rig.execute(action).await.unwrap()).await;
    assert_eq!(stages, [Stage::CacheCheck, Stage::Completed]);
    assert!(response.cached_result);
    let stats = rig.server.stats();
    assert_eq!((stats.executed, stats.cached_executions), (vec![action], vec![action]));
    assert!(rig.lookup(action).await.is_ok());
}

#[tokio::test]
async fn skipping_the_cache_and_uncacheable_actions_run_again() {
    let rig = Rig::with(ServerConfig::default().with_runner(FnRunner::succeeding())).await;
    let action = rig.action(&shell("true", &[]), &[]);
    rig.run(action).await;
    let again = v2::ExecuteRequest { skip_cache_lookup: true, ..request(action) };
    let (_, response) = finish(rig.execution().execute(again).await.unwrap().into_inner()).await;
    assert!(!response.cached_result);
    let like = v2::Action { do_not_cache: true, ..Default::default() };
    let uncacheable = rig.action_like(&shell("true", &[]), &[], like);
    rig.run(uncacheable).await;
    rig.run(uncacheable).await;
    assert_eq!(rig.server.stats().executed, [action, action, uncacheable, uncacheable]);
    assert_eq!(rig.lookup(uncacheable).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn failed_commands_are_results_but_not_cached() {
    let fail = FnRunner::new(|_| Ok(v2::ActionResult { exit_code: 3, ..Default::default() }));
    let rig = Rig::with(ServerConfig::default().with_runner(fail)).await;
    let action = rig.action(&shell("false", &[]), &[]);
    let response = rig.run(action).await;
    assert_eq!((code(&response), response.result.unwrap().exit_code), (Code::Ok, 3));
    assert_eq!(rig.lookup(action).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn failures_of_the_runner_come_in_the_response() {
    let failing = FnRunner::new(|_| Err(RunError::new(Code::ResourceExhausted, "no space")));
    let rig = Rig::with(ServerConfig::default().with_runner(failing)).await;
    assert_eq!(code(&rig.run(rig.action(&shell("true", &[]), &[])).await), Code::ResourceExhausted);
    let panicking = FnRunner::new(|_| panic!("a bug in a runner"));
    let rig = Rig::with(ServerConfig::default().with_runner(panicking)).await;
    for _ in 0..3 {
        assert_eq!(code(&rig.run(rig.action(&shell("true", &[]), &[])).await), Code::Internal);
    }
}

#[tokio::test]
async fn missing_inputs_are_named_in_the_status_of_the_call() {
    let rig = Rig::new().await;
    let action = rig.action(&shell("true", &[]), &[("a", "one"), ("b", "two")]);
    let one = DigestFunction::Sha256.digest(b"one");
    assert!(rig.server.store().forget(&one));
    let status = rig.execute(action).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(missing_of(&status), [format!("blobs/{one}")]);
    let unknown = DigestFunction::Sha256.digest(b"unknown");
    let status = rig.execute(unknown).await.unwrap_err();
    assert_eq!(missing_of(&status), [format!("blobs/{unknown}")]);
    // Once the input is back, the action runs.
    rig.server.store().put("one");
    assert_eq!(code(&rig.run(action).await), Code::Ok);
}

#[tokio::test]
async fn or_in_the_response() {
    let config = ServerConfig { missing_inputs: MissingInputs::ResponseStatus, ..Default::default() };
    let rig = Rig::with(config).await;
    let action = rig.action(&shell("true", &[]), &[("a", "one")]);
    let one = DigestFunction::Sha256.digest(b"one");
    assert!(rig.server.store().forget(&one));
    let response = rig.run(action).await;
    assert_eq!(code(&response), Code::FailedPrecondition);
    assert_eq!(missing(&response.status.unwrap()), [format!("blobs/{one}")]);
    let unknown = DigestFunction::Sha256.digest(b"unknown");
    assert_eq!(missing(&rig.run(unknown).await.status.unwrap()), [format!("blobs/{unknown}")]);
}

#[tokio::test]
async fn malformed_actions_are_refused() {
    let rig = Rig::new().await;
    let garbage = rig.server.store().put("not an Action");
    assert_eq!(rig.execute(garbage).await.unwrap_err().code(), Code::InvalidArgument);
    let empty = rig.server.store().put_message(&v2::Action { do_not_cache: true, ..Default::default() });
    assert_eq!(rig.execute(empty).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn equal_actions_in_flight_run_once() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let first = rig.execute(action).await.unwrap();
    gate.reached(1).await;
    let second = rig.execute(action).await.unwrap();
    gate.open();
    let ((_, first), (stages, second)) = tokio::join!(finish(first), finish(second));
    assert_eq!(first, second);
    assert_eq!(stages.last(), Some(&Stage::Completed));
    let stats = rig.server.stats();
    assert_eq!((stats.executed, stats.merged), (vec![action], vec![action]));
}

#[tokio::test]
async fn the_queue_is_ordered_by_priority_and_joining_can_raise_it() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let submit = |name: &'static str, priority| {
        let action = rig.action(&shell(name, &[]), &[]);
        let policy = v2::ExecutionPolicy { priority };
        let request = v2::ExecuteRequest { execution_policy: Some(policy), ..request(action) };
        let mut execution = rig.execution();
        async move { (action, execution.execute(request).await.unwrap().into_inner()) }
    };
    let (running, a) = submit("running", 0).await;
    gate.reached(1).await;
    let (low, b) = submit("low", 10).await;
    let (later, c) = submit("later", 20).await;
    let (normal, d) = submit("normal", 0).await;
    let (raised, e) = submit("later", -5).await;
    assert_eq!(raised, later);
    gate.open();
    futures_util::future::join_all([a, b, c, d, e].map(finish)).await;
    assert_eq!(rig.server.stats().executed, [running, later, normal, low]);
}

#[tokio::test]
async fn wait_execution_picks_up_an_operation() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let mut stream = rig.execute(action).await.unwrap();
    let name = stream.next().await.unwrap().unwrap().name;
    drop(stream);
    gate.reached(1).await;
    let request = v2::WaitExecutionRequest { name: name.clone() };
    let waiting = rig.execution().wait_execution(request.clone()).await.unwrap().into_inner();
    gate.open();
    let (stages, _) = finish(waiting).await;
    assert_eq!(stages, [Stage::Executing, Stage::Completed]);
    let (stages, _) = finish(rig.execution().wait_execution(request).await.unwrap().into_inner()).await;
    assert_eq!(stages, [Stage::Completed]);
    let unknown = v2::WaitExecutionRequest { name: "unknown".to_owned() };
    assert_eq!(rig.execution().wait_execution(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn cancelling_ends_the_stream_and_frees_the_worker() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let running = rig.action(&shell("running", &[]), &[]);
    let queued = rig.action(&shell("queued", &[]), &[]);
    let mut first = rig.execute(running).await.unwrap();
    gate.reached(1).await;
    let mut second = rig.execute(queued).await.unwrap();
    for stream in [&mut second, &mut first] {
        let name = stream.next().await.unwrap().unwrap().name;
        rig.operations().cancel_operation(CancelOperationRequest { name }).await.unwrap();
    }
    assert_eq!(code(&finish(second).await.1), Code::Cancelled);
    assert_eq!(code(&finish(first).await.1), Code::Cancelled);
    gate.open();
    let third = rig.action(&shell("third", &[]), &[]);
    assert_eq!(code(&rig.run(third).await), Code::Ok);
    let stats = rig.server.stats();
    assert_eq!((stats.executed, stats.cancelled), (vec![running, third], vec![queued, running]));
}

#[tokio::test]
async fn cancelling_one_of_two_leaves_the_other() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let mut first = rig.execute(action).await.unwrap();
    let second = rig.execute(action).await.unwrap();
    let name = first.next().await.unwrap().unwrap().name;
    rig.operations().cancel_operation(CancelOperationRequest { name: name.clone() }).await.unwrap();
    assert_eq!(code(&finish(first).await.1), Code::Cancelled);
    gate.open();
    assert_eq!(code(&finish(second).await.1), Code::Ok);
    let known = rig.operations().get_operation(GetOperationRequest { name }).await.unwrap().into_inner();
    assert!(known.done);
}

#[tokio::test]
async fn operations_are_listed_looked_at_and_forgotten() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let mut names = Vec::new();
    for script in ["a", "b", "c"] {
        let mut stream = rig.execute(rig.action(&shell(script, &[]), &[])).await.unwrap();
        names.push(stream.next().await.unwrap().unwrap().name);
    }
    names.sort();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListOperationsRequest { page_size: 2, page_token, ..Default::default() };
        let page = rig.operations().list_operations(request).await.unwrap().into_inner();
        listed.extend(page.operations.into_iter().map(|o| o.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, names);

    let name = names[0].clone();
    let request = GetOperationRequest { name: name.clone() };
    let found = rig.operations().get_operation(request.clone()).await.unwrap().into_inner();
    assert!(!found.done && matches!(stage(&found), Stage::Queued | Stage::Executing));
    rig.operations().delete_operation(DeleteOperationRequest { name }).await.unwrap();
    assert_eq!(rig.operations().get_operation(request).await.unwrap_err().code(), Code::NotFound);

    gate.open();
    let request = v2::WaitExecutionRequest { name: names[1].clone() };
    finish(rig.execution().wait_execution(request).await.unwrap().into_inner()).await;
    let request = GetOperationRequest { name: names[1].clone() };
    let done = rig.operations().get_operation(request).await.unwrap().into_inner();
    assert!(done.done);
    assert_eq!(code(&response(&done)), Code::Ok);
    assert_eq!(rig.server.stats().calls(Rpc::Execute), 3);
}

#[tokio::test]
async fn a_result_that_cannot_be_cached_is_returned_all_the_same() {
    let gate = Gate::new();
    let rig = gated(&gate).await;
    let action = rig.action(&shell("true", &[]), &[]);
    let stream = rig.execute(action).await.unwrap();
    gate.reached(1).await;
    assert!(rig.server.store().forget(&action));
    gate.open();
    let response = finish(stream).await.1;
    assert_eq!(code(&response), Code::Ok);
    assert!(response.message.starts_with("not cached"), "{}", response.message);
}
