//! The program itself, from a directory in casd's layout, where the kernel refuses it more memory than a limit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testbed::workload::{NextState, Workload};

use crate::figures::{Kind, figure};

/// Heap, stacks and whatever else is written to, in MB; what is mapped from files does not count.
const LIMIT_MEGABYTES: u64 = 200;

/// The built program; `cargo xtask bench` says where it is.
const PROGRAM: &str = "BST_SA_TEST_BIN";

/// Records the actions of `app.bst` and adapts them to a next state, each with no more memory than the limit.
pub(crate) fn run(workload: &Workload, next: &NextState) {
    let Ok(program) = std::env::var(PROGRAM) else {
        println!("    SKIPPED: {PROGRAM} is not set, so the program is not run under a memory limit");
        return;
    };
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let written = workload
        .write_directory(directory.path())
        .and_then(|()| next.write_directory(directory.path()))
        .and_then(|()| next.write_results_directory(directory.path()));
    written.unwrap_or_else(|error| panic!("{}: {error}", directory.path().display()));
    let limited = Limited { program: program.into(), directory: directory.path() };

    let generated = limited.run("generate", &directory.path().join("graph.json"));
    report("generate", generated.is_some());
    let Some(generated) = generated else { return };
    let record = generated["elements"][0]["speculative_actions"].as_str();
    let record = record.unwrap_or_else(|| panic!("nothing was recorded: {generated}"));
    let record = record.parse().unwrap_or_else(|error| panic!("{record}: {error}"));
    let graph = directory.path().join("next.json");
    std::fs::write(&graph, next.graph_with_record(&record).to_string()).unwrap_or_else(|error| panic!("{error}"));

    let predicted = limited.run("instantiate", &graph);
    report("instantiate one", predicted.is_some());
    if let Some(predicted) = predicted {
        check(next, &predicted);
    }
}

fn report(what: &str, succeeded: bool) {
    let failed = if succeeded { 0.0 } else { 1.0 };
    let name = format!("{what}, large, from file:, fails with {LIMIT_MEGABYTES} MB of memory");
    figure(Kind::Timed, &name, failed, 0.0);
}

struct Limited<'a> {
    program: PathBuf,
    directory: &'a Path,
}

impl Limited<'_> {
    /// What the command prints as JSON; `None` if it does not succeed, for which it says why itself.
    fn run(&self, command: &str, graph: &Path) -> Option<Value> {
        let mut process = Command::new("sh");
        let kilobytes = (LIMIT_MEGABYTES << 10).to_string();
        process.args(["-c", "ulimit -d \"$1\" && shift && exec \"$@\"", "sh", &kilobytes]).arg(&self.program);
        process.args([command, "app.bst", "--json", "--server"]).arg(format!("file:{}", self.directory.display()));
        // Every thread has a stack, and they must not depend on the machine's processors.
        process.arg("--graph").arg(graph).env("TOKIO_WORKER_THREADS", "2").stdin(Stdio::null());
        let output = process.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("sh: {error}"));
        println!("    {command} with {LIMIT_MEGABYTES} MB: {}", output.status);
        let parse = || serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command}: {error}"));
        output.status.success().then(parse)
    }
}

/// Every action must have become exactly what the next build runs.
fn check(next: &NextState, predicted: &Value) {
    let elements = predicted["elements"].as_array().map_or(&[][..], Vec::as_slice);
    let app = elements.iter().find(|element| element["name"] == "app.bst");
    let actions = app.and_then(|app| app["actions"].as_array()).unwrap_or_else(|| panic!("no report on app.bst"));
    let found: HashMap<&str, &Value> =
        actions.iter().filter_map(|action| Some((action["base"].as_str()?, action))).collect();
    assert_eq!(found.len(), next.expected().len());
    for expected in next.expected() {
        let action = found.get(expected.base.to_string().as_str()).map(|action| &action["adapted"]);
        let right = match action {
            Some(adapted) if expected.is_changed() => *adapted == expected.next.to_string(),
            Some(adapted) => adapted.is_null(),
            None => false,
        };
        assert!(right, "expected {expected:?}, found {action:?}");
    }
}
