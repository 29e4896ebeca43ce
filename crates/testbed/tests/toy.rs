//! The toy orchestrator on the server, with this machine's C compiler.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cas_client::grpc::{GrpcClient, GrpcConfig};
use cas_client::{Blob, BlobStoreExt, ExecuteRequest, Execution, ExecutionUpdate};
use futures_util::StreamExt;
use prost::Message;
use reapi_proto::raw::{Directory, Node};
use reapi_proto::{Digest, DigestFunction, v2};
use testbed::toy::{self, BuildReport, FileTree, Outcome, Project, Services, State, Toolchain};
use testbed::{Rpc, Server};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

fn services(server: &Server) -> Services {
    let client = Arc::new(GrpcClient::new(GrpcConfig::new(server.url().parse().unwrap())).unwrap());
    Services { store: client.clone(), action_cache: client.clone(), execution: client, jobs: 2 }
}

fn demo() -> Project {
    Project::demo(Toolchain::find().unwrap()).unwrap()
}

async fn build(server: &Server, project: &Project, state: &State) -> BuildReport {
    toy::run(project, &services(server), state).await.unwrap()
}

/// Executed and hit actions of an element, by what they make.
fn by_outcome(report: &BuildReport, element: &str, outcome: Outcome) -> Vec<String> {
    let actions = &report.element(element).unwrap().actions;
    actions.iter().filter(|a| a.outcome == outcome).map(|a| a.output.clone()).collect()
}

/// Runs the built program in a root of all artifacts and returns its output.
async fn run_app(server: &Server, report: &BuildReport) -> String {
    let services = services(server);
    let mut root = FileTree::default();
    report.elements.iter().for_each(|e| root.merge(&e.built.files));
    let (root, mut blobs) = root.encode(FUNCTION).unwrap();
    let command = v2::Command { arguments: vec!["usr/bin/app".to_owned()], ..Default::default() };
    let command = Blob::new(FUNCTION, command.encode_to_vec());
    let action = v2::Action {
        command_digest: Some(command.digest().into()),
        input_root_digest: Some(root.into()),
        ..Default::default()
    };
    let action = Blob::new(FUNCTION, action.encode_to_vec());
    let digest = action.digest();
    blobs.extend([command, action]);
    services.store.upload_missing(&blobs).await.unwrap();
    let mut updates = services.execution.execute(ExecuteRequest::new(digest)).await.unwrap();
    while let Some(update) = updates.next().await {
        if let ExecutionUpdate::Done(outcome) = update.unwrap() {
            let stdout = Digest::try_from(&outcome.result.stdout_digest).unwrap();
            let text = services.store.read_blob(&stdout).await.unwrap();
            assert_eq!(outcome.result.exit_code, 0);
            return String::from_utf8(text.to_vec()).unwrap();
        }
    }
    panic!("no outcome")
}

/// Every file below a Directory, by path.
fn files(server: &Server, root: Digest) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), root)];
    while let Some((prefix, digest)) = open.pop() {
        let directory = Directory::parse(server.store().peek(&digest).unwrap()).unwrap();
        for entry in directory.entries() {
            let path = format!("{prefix}{}", std::str::from_utf8(entry.name).unwrap());
            match entry.node {
                Node::File { digest, .. } => drop(found.insert(path, digest)),
                Node::Directory { digest } => open.push((format!("{path}/"), digest)),
                Node::Symlink { .. } => panic!("{path} is a symlink"),
            }
        }
    }
    found
}

#[tokio::test]
async fn the_whole_loop() {
    let server = Server::start_default().await.unwrap();
    let mut project = demo();
    let first = build(&server, &project, &State::default()).await;
    assert_eq!((first.executed(), first.hits()), (16, 0));
    assert_eq!(server.take_stats().executed.len(), 16);
    let output = run_app(&server, &first).await;
    assert!(output.starts_with("app 1.0\n16 of 16 samples\n"), "{output}");

    // With its artifacts a build does nothing; without, everything hits.
    server.take_stats();
    let again = build(&server, &project, &first.state).await;
    assert_eq!((again.executed(), again.hits()), (0, 0));
    assert_eq!(server.stats().calls(Rpc::GetActionResult), 0);
    let cached = build(&server, &project, &State::default()).await;
    assert_eq!((cached.executed(), cached.hits()), (0, 16));
    assert_eq!(cached.state, first.state);
    assert_eq!(server.take_stats().hits.len(), 16);

    project.apply_demo_change().unwrap();
    let fork = server.fork().await.unwrap();
    let unprimed = build(&fork, &project, &first.state).await;
    let executed = |element| by_outcome(&unprimed, element, Outcome::Executed);
    assert_eq!(executed("liba.bst"), ["obj/checksum.o", "obj/sort.o", "obj/vector.o", "liba.so"]);
    assert_eq!(executed("libb.bst"), ["obj/histogram.o", "obj/table.o", "libb.so"]);
    assert_eq!(executed("app.bst"), ["obj/report.o", "app"]);
    assert_eq!(unprimed.hits(), 7);
    assert_eq!(fork.stats().executed.len(), 9);
    assert_eq!(fork.stats().hits.len(), 7);
    let output = run_app(&fork, &unprimed).await;
    assert!(output.starts_with("app 1.0\n24 of 24 samples\n"), "{output}");

    // The server that was forked saw nothing of it.
    assert_eq!(server.stats().executed, []);
    // Whoever executes these very actions ahead makes the build execute nothing.
    let primed = build(&fork, &project, &first.state).await;
    assert_eq!((primed.executed(), primed.hits()), (0, 16));
    assert_eq!(primed.state, unprimed.state);
}

#[tokio::test]
async fn actions_and_outputs_are_reproducible() {
    let mut reports = Vec::new();
    for _ in 0..2 {
        let server = Server::start_default().await.unwrap();
        reports.push(build(&server, &demo(), &State::default()).await.state);
    }
    assert_eq!(reports[0], reports[1]);
}

#[tokio::test]
async fn an_action_has_the_files_that_it_includes_and_recc_s_shape() {
    let server = Server::start_default().await.unwrap();
    let report = build(&server, &demo(), &State::default()).await;
    let store = server.store();
    let app = report.element("app.bst").unwrap();
    let compile = app.actions.iter().find(|a| a.output == "obj/report.o").unwrap();
    let action = v2::Action::decode(store.peek(&compile.digest).unwrap()).unwrap();
    let command = Digest::try_from(&action.command_digest).unwrap();
    let command = v2::Command::decode(store.peek(&command).unwrap()).unwrap();
    assert_eq!(command.working_directory, "buildstream/demo/app.bst");
    assert_eq!(command.output_paths, ["obj/report.o"]);
    let names: Vec<_> = command.environment_variables.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["LC_ALL", "PATH", "SOURCE_DATE_EPOCH"]);
    assert!(action.timeout.is_none() && action.salt.is_empty() && !action.do_not_cache);
    assert!(action.platform.is_some());

    let root = |digest: &Option<v2::Digest>| files(&server, Digest::try_from(digest).unwrap());
    let inputs = root(&action.input_root_digest);
    let expected = [
        "buildstream/demo/app.bst/src/app.h",
        "buildstream/demo/app.bst/src/report.c",
        "usr/include/liba/config.h",
        "usr/include/liba/vector.h",
        "usr/include/libb/histogram.h",
        "usr/include/libb/table.h",
    ];
    assert_eq!(inputs.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());

    let link = app.actions.last().unwrap();
    let action = v2::Action::decode(store.peek(&link.digest).unwrap()).unwrap();
    let inputs: BTreeSet<String> = root(&action.input_root_digest).into_keys().collect();
    assert!(inputs.contains("usr/lib/liba.so") && inputs.contains("usr/lib/libb.so"), "{inputs:?}");
    assert!(inputs.contains("buildstream/demo/app.bst/obj/main.o"), "{inputs:?}");

    // Files with equal contents at two paths are part of the project on purpose.
    let fingerprint = &report.element("libb.bst").unwrap().actions[0];
    assert_eq!(fingerprint.output, "obj/fingerprint.o");
    let artifact = files(&server, app.built.artifact);
    assert_eq!(artifact.keys().collect::<Vec<_>>(), ["usr/bin/app"]);
    let artifact = files(&server, report.element("libb.bst").unwrap().built.artifact);
    assert_eq!(
        artifact["usr/include/libb/export.h"],
        files(&server, report.element("liba.bst").unwrap().sources)["include/liba/export.h"]
    );
}

#[tokio::test]
async fn graphs_of_both_states() {
    let server = Server::start_default().await.unwrap();
    let mut project = demo();
    let report = build(&server, &project, &State::default()).await;
    let after = toy::graph_after(&project, &report);
    let app = report.element("app.bst").unwrap();
    assert_eq!(after["version"], 1);
    assert_eq!(after["digest_function"], "SHA256");
    let member = &after["elements"][2];
    assert_eq!(member["name"], "app.bst");
    assert_eq!(member["cached"], true);
    assert_eq!(member["artifact"], app.built.artifact.to_string());
    assert_eq!(member["build_deps"][0], "libb.bst");
    assert_eq!(member["subactions"].as_array().unwrap().len(), 6);

    // A change of libb: liba stays, the others will be rebuilt; only libb's weak key moves.
    project.edit("libb.bst", "include/libb/histogram.h", "BINS 4", "BINS 5").unwrap();
    let store = server.store();
    let before = toy::graph_before(&project, &store, &report.state).await.unwrap();
    let weak = |graph: &serde_json::Value, i: usize| graph["elements"][i]["weak_key"].as_str().unwrap().to_owned();
    for (i, (cached, same_weak)) in [(true, true), (false, false), (false, true)].into_iter().enumerate() {
        let member = &before["elements"][i];
        assert_eq!(member["cached"], cached, "{member}");
        assert_eq!(member.get("artifact").is_some(), cached, "{member}");
        assert_eq!(weak(&before, i) == weak(&after, i), same_weak, "{member}");
        assert!(member.get("subactions").is_none());
        let sources: Digest = member["sources"].as_str().unwrap().parse().unwrap();
        assert!(!files(&server, sources).is_empty());
    }
}

#[tokio::test]
async fn a_compile_error_names_the_element_and_shows_the_message() {
    let server = Server::start_default().await.unwrap();
    let mut project = demo();
    project.write("liba.bst", "src/random.c", "this is not C\n").unwrap();
    let error = toy::run(&project, &services(&server), &State::default()).await.unwrap_err();
    let toy::Error::Command { element, exit_code, stderr, .. } = &error else { panic!("{error}") };
    assert_eq!((element.as_str(), *exit_code), ("liba.bst", 1));
    assert!(stderr.contains("random.c"), "{stderr}");
}

#[tokio::test]
async fn a_new_include_changes_the_set_of_inputs() {
    let server = Server::start_default().await.unwrap();
    let mut project = demo();
    let first = build(&server, &project, &State::default()).await;
    project
        .edit("app.bst", "src/version.c", "#include \"app.h\"", "#include \"app.h\"\n#include <libb/text.h>")
        .unwrap();
    let second = build(&server, &project, &first.state).await;
    let action = second.element("app.bst").unwrap().actions.iter().find(|a| a.output == "obj/version.o").unwrap();
    let message = v2::Action::decode(server.store().peek(&action.digest).unwrap()).unwrap();
    let inputs = files(&server, Digest::try_from(&message.input_root_digest).unwrap());
    assert!(inputs.contains_key("usr/include/libb/text.h") && inputs.contains_key("usr/include/libb/reserved.h"));
    // The object did not change, and neither did the link.
    assert_eq!(by_outcome(&second, "app.bst", Outcome::Executed), ["obj/version.o"]);
    assert_eq!(second.element("liba.bst").unwrap().actions, []);
}
