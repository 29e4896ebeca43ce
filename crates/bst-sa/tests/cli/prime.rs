//! `bst-sa prime` against a service, and the rebuild after it.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use testbed::runner::{Gated, LocalRunner};
use testbed::{Fault, Gate, Rpc, Server, ServerConfig};
use tonic::{Code, Status};

use crate::support::{Program, actions, build, client, find, with_records, world};

/// A server after the first build, with records, and the graph before the rebuild.
pub(crate) struct Primed {
    pub(crate) server: Server,
    temporary: TempDir,
}

impl Primed {
    pub(crate) async fn new(config: ServerConfig) -> Self {
        let world = world();
        let server = world.server(config).await;
        let primed = Self { server, temporary: tempfile::tempdir().unwrap() };
        std::fs::write(primed.path("after.json"), world.after.to_string()).unwrap();
        let generate = Program::new(["generate", "--json", "--server", primed.server.url(), "--graph"]);
        let generated = generate.arg(primed.path("after.json")).json().await;
        let graph = with_records(world.before(&*client(&primed.server)).await, &generated);
        std::fs::write(primed.path("next.json"), graph.to_string()).unwrap();
        primed.server.take_stats();
        primed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    pub(crate) fn simulate(&self) -> Program {
        Program::new(["simulate", "--server", self.server.url(), "--graph"]).arg(self.path("next.json"))
    }

    pub(crate) fn prime(&self) -> Program {
        Program::new(["prime", "--server", self.server.url(), "--graph"]).arg(self.path("next.json"))
    }
}

fn total(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap_or_else(|| panic!("no total {name} in {report:#}"))
}

#[tokio::test]
async fn a_primed_rebuild_executes_nothing() {
    let world = world();
    let primed = Primed::new(ServerConfig::default()).await;
    let report = primed.prime().arg("--json").json().await;

    for action in report["elements"].as_array().unwrap().iter().flat_map(|e| e["actions"].as_array().unwrap()) {
        assert!(action["base"].is_string() && action["executed"].is_boolean(), "{action}");
        assert!(action["cached"].is_boolean() && action["failed"] == false, "{action}");
    }
    let unprimed = world.rebuilt.executed() as u64;
    assert_eq!((total(&report, "actions"), total(&report, "executed")), (16, unprimed), "{report:#}");
    assert_eq!((total(&report, "failed"), total(&report, "deferred"), total(&report, "dropped")), (0, 0, 0));
    assert_eq!(actions(&report), world.truth().into_values().collect());
    assert!(total(&report, "uploaded_blobs") > 0 && total(&report, "uploaded_bytes") > 0);
    assert_eq!(primed.server.stats().executed.len() as u64, unprimed);

    primed.server.take_stats();
    let rebuilt = build(&primed.server, &world.project, &world.first.state).await;
    assert_eq!((rebuilt.executed(), rebuilt.hits()), (0, 16));

    let again = primed.prime().arg("--json").json().await;
    assert_eq!((total(&again, "executed"), total(&again, "cached")), (0, 16), "{again:#}");
}

#[tokio::test]
async fn the_table_counts_and_names() {
    let primed = Primed::new(ServerConfig::default()).await;
    let table = primed.prime().args(["--jobs", "2", "--priority", "7", "liba.bst"]).done().await.stdout;
    let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    let expected =
        ["element", "actions", "unchanged", "adapted", "deferred", "dropped", "executed", "cached", "failed"];
    assert_eq!(heads, expected);
    assert!(table.contains("liba.bst") && !table.contains("app.bst"), "{table}");
}

#[tokio::test]
async fn detached_priming_does_not_wait() {
    let gate = Gate::new();
    let runner = Gated::new(gate.clone(), LocalRunner::new("gated"));
    let primed = Primed::new(ServerConfig::default().with_runner(runner)).await;
    // It returns although nothing can be executed while the gate is closed.
    let report = primed.prime().args(["--json", "--detach"]).json().await;
    assert!(total(&report, "submitted") > 0, "{report:#}");
    assert_eq!((total(&report, "executed"), total(&report, "failed")), (0, 0), "{report:#}");
    gate.reached(1).await;
    gate.open();
    let rebuilt = build(&primed.server, &world().project, &world().first.state).await;
    assert!(rebuilt.hits() > world().rebuilt.hits(), "{} hits", rebuilt.hits());
}

#[tokio::test]
async fn budgets_hold() {
    let primed = Primed::new(ServerConfig::default()).await;
    let report = primed.prime().args(["--json", "--max-actions", "2"]).json().await;
    assert_eq!((primed.server.stats().executed.len(), total(&report, "executed")), (2, 2), "{report:#}");
    assert!(total(&report, "dropped") > 0);
    let reasons = report["elements"].as_array().unwrap().iter().flat_map(|e| e["actions"].as_array().unwrap());
    assert!(reasons.filter_map(|a| a["reason"].as_str()).any(|r| r.contains("budget")), "{report:#}");

    let primed = Primed::new(ServerConfig::default()).await;
    let report = primed.prime().args(["--json", "--max-bytes", "0"]).json().await;
    assert_eq!((primed.server.stats().executed.len(), total(&report, "executed")), (0, 0), "{report:#}");
}

#[tokio::test]
async fn wrong_options_are_refused_before_anything_is_sent() {
    let primed = Primed::new(ServerConfig::default()).await;
    primed.prime().args(["--jobs", "0"]).run().await.expect_failure(2, &["jobs", "at least 1"]);
    primed.prime().arg("nobody.bst").run().await.expect_failure(2, &["nobody.bst", "hint: "]);
    let directory = format!("file:{}", primed.temporary.path().display());
    let ran = primed.prime().args(["--execution", &directory]).run().await;
    ran.expect_failure(2, &["a directory cannot execute actions", "bst-sa instantiate"]);
    assert_eq!(primed.server.stats().uploaded, []);
}

/// Priming is best effort: what the cache had is there for the build, whatever became of the rest.
#[tokio::test]
async fn a_service_that_executes_nothing_is_reported_and_fails_the_command_if_nothing_else_worked() {
    let primed = Primed::new(ServerConfig::default()).await;
    for _ in 0..100 {
        let refusal = Fault::Status(Status::new(Code::PermissionDenied, "not for you"));
        primed.server.faults().arm(Rpc::Execute, refusal);
    }
    let report = primed.prime().arg("--json").json().await;
    assert!(total(&report, "failed") > 0 && total(&report, "executed") == 0, "{report:#}");
    assert_eq!(total(&report, "cached"), world().rebuilt.hits() as u64, "{report:#}");
    let liba = find(&report, "liba.bst")["actions"].as_array().unwrap();
    let failed = liba.iter().find(|a| a["failed"] == true).unwrap();
    let reason = failed["reason"].as_str().unwrap();
    for part in ["denied", "not for you", failed["adapted"].as_str().unwrap(), primed.server.url()] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }

    for (action, _) in primed.server.store().action_results() {
        assert!(primed.server.store().forget_action_result(&action));
    }
    let ran = primed.prime().run().await;
    ran.expect_code(1);
    assert!(ran.stdout.contains("not for you"), "{ran:#?}");
}
