//! Real commands.

use std::path::Path;

use futures_util::StreamExt;
use reapi_proto::longrunning::CancelOperationRequest;
use reapi_proto::raw::Tree;
use reapi_proto::{Digest, DigestFunction, v2};
use tonic::Code;

use crate::rig::{Rig, finish, shell, text};

#[tokio::test]
async fn a_command_reads_inputs_and_leaves_outputs() {
    let rig = Rig::new().await;
    let script = "tr a-z A-Z < in > deep/out && echo said && echo warned >&2 && ln -s out deep/link && mkdir -p d/e && cp in d/e/f";
    let action = rig.action(&shell(script, &["deep/out", "deep/link", "d", "absent"]), &[("in", "text")]);
    let result = rig.run(action).await.result.unwrap();
    assert_eq!(result.exit_code, 0);
    assert_eq!(result.output_files.len(), 1);
    assert_eq!(text(&rig, &result.output_files[0].digest), "TEXT");
    assert_eq!(text(&rig, &result.stdout_digest), "said\n");
    assert_eq!(text(&rig, &result.stderr_digest), "warned\n");
    assert_eq!(
        (result.output_symlinks[0].path.as_str(), result.output_symlinks[0].target.as_str()),
        ("deep/link", "out")
    );
    let tree = Digest::try_from(&result.output_directories[0].tree_digest).unwrap();
    let tree = Tree::parse(rig.server.store().peek(&tree).unwrap()).unwrap();
    assert_eq!(tree.children().len(), 1);
    let times = result.execution_metadata.unwrap();
    assert_eq!(times.worker, "testbed");
    let order = [
        times.queued_timestamp,
        times.worker_start_timestamp,
        times.execution_start_timestamp,
        times.execution_completed_timestamp,
        times.worker_completed_timestamp,
    ]
    .map(|t| t.map(|t| (t.seconds, t.nanos)).unwrap());
    assert!(order.is_sorted(), "{order:?}");
    assert!(times.virtual_execution_duration.is_some());
}

#[tokio::test]
async fn the_environment_and_directory_are_the_command_s_own() {
    let rig = Rig::new().await;
    let mut command = shell("env > out; pwd >> out", &["out"]);
    command.working_directory = "build/sub".to_owned();
    let result = rig.run(rig.action(&command, &[])).await.result.unwrap();
    let out = text(&rig, &result.output_files[0].digest);
    assert_eq!(result.output_files[0].path, "out");
    assert!(out.trim_end().ends_with("/root/build/sub"), "{out}");
    assert!(out.contains("PATH=/usr/local/bin:/usr/bin:/bin\n") && !out.contains("CARGO"), "{out}");
}

#[tokio::test]
async fn programs_are_found_in_the_command_s_path_only() {
    let rig = Rig::new().await;
    let mut command = shell("true", &[]);
    command.arguments[0] = "sh".to_owned();
    assert_eq!(rig.run(rig.action(&command, &[])).await.result.unwrap().exit_code, 0);
    command.environment_variables.clear();
    let response = rig.run(rig.action(&command, &[])).await;
    assert_eq!(Code::from_i32(response.status.unwrap().code), Code::InvalidArgument);
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    let rig = Rig::new().await;
    let run = async |script| rig.run(rig.action(&shell(script, &[]), &[])).await.result.unwrap().exit_code;
    assert_eq!(run("exit 7").await, 7);
    assert_eq!(run("kill -TERM $$").await, 128 + 15);
}

#[tokio::test]
async fn output_paths_must_be_clean() {
    let rig = Rig::new().await;
    let response = rig.run(rig.action(&shell("true", &["../out"]), &[])).await;
    assert_eq!(Code::from_i32(response.status.unwrap().code), Code::InvalidArgument);
}

#[tokio::test]
async fn a_time_limit_ends_the_command_and_keeps_its_output() {
    let rig = Rig::new().await;
    let like =
        v2::Action { timeout: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }), ..Default::default() };
    // Blocks for ever on a pipe that nobody writes to.
    let script = "echo started; mkfifo pipe; cat pipe";
    let response = rig.run(rig.action_like(&shell(script, &[]), &[], like)).await;
    assert_eq!(Code::from_i32(response.status.unwrap().code), Code::DeadlineExceeded);
    assert_eq!(text(&rig, &response.result.unwrap().stdout_digest), "started\n");
}

#[tokio::test]
async fn cancelling_kills_the_command_with_its_children() {
    let rig = Rig::new().await;
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let ended = folder.path().join("ended");
    for pipe in [&started, &ended] {
        let made = tokio::process::Command::new("mkfifo").arg(pipe).status().await.unwrap();
        assert!(made.success());
    }
    // The child holds `ended` open for writing for as long as it lives.
    let script = format!("(echo go > {}; mkfifo pipe; cat pipe) > {} & wait", started.display(), ended.display());
    let action = rig.action(&shell(&script, &[]), &[]);
    let mut stream = rig.execute(action).await.unwrap();
    let name = stream.next().await.unwrap().unwrap().name;
    let reader = open_to_end(&ended);
    assert_eq!(tokio::fs::read_to_string(&started).await.unwrap(), "go\n");
    rig.operations().cancel_operation(CancelOperationRequest { name }).await.unwrap();
    // Reading to the end returns only when no process holds the pipe any more.
    reader.await.unwrap();
    let status = finish(stream).await.1.status.unwrap();
    assert_eq!(Code::from_i32(status.code), Code::Cancelled);
}

fn open_to_end(path: &Path) -> tokio::task::JoinHandle<Vec<u8>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || std::fs::read(path).unwrap())
}

#[tokio::test]
async fn equal_actions_on_equal_inputs_give_equal_results() {
    let first = Rig::new().await;
    let second = Rig::new().await;
    let mut outputs = Vec::new();
    for rig in [&first, &second] {
        let action = rig.action(&shell("cat a b > c", &["c"]), &[("a", "1"), ("b", "2")]);
        let result = rig.run(action).await.result.unwrap();
        outputs.push((action, result.output_files));
    }
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0].1[0].digest, Some(DigestFunction::Sha256.digest(b"12").into()));
}
