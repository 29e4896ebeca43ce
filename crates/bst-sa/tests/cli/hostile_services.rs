//! Services that lie, lose things or fail: the digest and the endpoint are named, and nothing is believed.

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Fault, Rpc, Server, ServerConfig};
use tonic::{Code, Status};

use crate::prime::Primed;
use crate::support::{ByHand, Program, find, world};

/// A server after the first build, and its graph as a file.
struct Built {
    server: Server,
    temporary: TempDir,
}

impl Built {
    async fn new() -> Self {
        let server = world().server(ServerConfig::default()).await;
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("graph.json"), world().after.to_string()).unwrap();
        Self { server, temporary }
    }

    fn generate(&self) -> Program {
        let program = Program::new(["generate", "--json", "--server", self.server.url(), "--graph"]);
        program.arg(self.temporary.path().join("graph.json")).with_memory(300)
    }
}

fn skipped(report: &Value) -> Vec<(String, String)> {
    let elements = report["elements"].as_array().unwrap().iter();
    let skipped = elements.flat_map(|e| e["skipped"].as_array().unwrap());
    skipped.map(|s| (s["action"].as_str().unwrap().into(), s["reason"].as_str().unwrap().into())).collect()
}

#[tokio::test]
async fn wrong_bytes_for_a_digest_are_not_used() {
    for fault in [Fault::CorruptBytes, Fault::ShortBytes, Fault::LongBytes] {
        let built = Built::new().await;
        // Whatever is asked for, however often, and whichever way.
        for _ in 0..200 {
            built.server.faults().arm(Rpc::BatchReadBlobs, fault.clone());
            built.server.faults().arm(Rpc::Read, fault.clone());
        }
        let report = built.generate().json().await;
        let skipped = skipped(&report);
        assert_eq!(skipped.len(), 16, "{report:#}");
        for (action, reason) in skipped {
            assert!(reason.contains(&action) && reason.contains("corrupt data"), "{reason}");
        }
        assert_eq!(find(&report, "app.bst")["speculative_actions"], Value::Null);
        assert_eq!(built.server.stats().uploaded, [], "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_holds_something_else_costs_the_actions_concerned() {
    let built = Built::new().await;
    let bad = world().first.element("libb.bst").unwrap().actions[0].digest;
    built.server.store().corrupt(&bad, "something else");
    let report = built.generate().json().await;
    let skipped = skipped(&report);
    assert_eq!(skipped.len(), 1, "{report:#}");
    assert_eq!(skipped[0].0, bad.to_string());
    assert!(skipped[0].1.contains(&bad.to_string()) && skipped[0].1.contains(built.server.url()), "{skipped:?}");
    assert_eq!(find(&report, "liba.bst")["actions"], world().first.element("liba.bst").unwrap().actions.len());
}

#[tokio::test]
async fn show_does_not_show_what_it_was_not_asked_for() {
    let server = Server::start_default().await.unwrap();
    let digest = server.store().put("a record");
    server.store().corrupt(&digest, "A RECORD");
    let ran = Program::new(["show", "--digest", &digest.to_string(), "--server", server.url()]).run().await;
    ran.expect_failure(1, &[&digest.to_string(), server.url(), "hint: "]);

    let bench = ByHand::new();
    let digest = bench.put("a record").await;
    bench.damage(&digest, "A RECORD");
    let ran = Program::new(["show", "--digest", &digest.to_string(), &bench.server()]).run().await;
    ran.expect_failure(1, &["corrupt data", &digest.to_string(), "contents do not match", "hint: "]);
}

#[tokio::test]
async fn an_action_cache_that_fails_is_not_asked_again_and_the_rest_is_recorded() {
    let built = Built::new().await;
    for _ in 0..100 {
        let refusal = Fault::Status(Status::new(Code::PermissionDenied, "not for you"));
        built.server.faults().arm(Rpc::GetActionResult, refusal);
    }
    let table = built.generate().json().await;
    assert_eq!(find(&table, "app.bst")["actions"], world().first.element("app.bst").unwrap().actions.len());
    assert!(built.server.faults().pending(Rpc::GetActionResult) > 50, "it was asked again and again");
}

#[tokio::test]
async fn a_service_that_is_away_fails_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let graph = directory.path().join("graph.json");
    std::fs::write(&graph, world().after.to_string()).unwrap();
    let url = format!("unix:{}/casd.sock", directory.path().display());
    let ran = Program::new(["generate", "--server", &url, "--graph"]).arg(&graph).run().await;
    ran.expect_code(1);
    ran.expect_message(&["unavailable", &url, "hint: is the service running?", "bst-sa doctor"]);
}

/// Messages of any length cost neither memory nor the rest.
#[tokio::test]
async fn replies_beyond_all_measure_are_refused() {
    let built = Built::new().await;
    for rpc in [Rpc::BatchReadBlobs, Rpc::GetActionResult] {
        for _ in 0..100 {
            built.server.faults().arm(rpc, Fault::Pad(100 << 20));
        }
    }
    let ran = built.generate().with_memory(200).run().await;
    ran.expect_message(&[]);
    let recorded: u64 = ran.json()["elements"].as_array().unwrap().iter().map(|e| e["actions"].as_u64().unwrap()).sum();
    assert_eq!(recorded, 0, "{ran:#?}");
}

#[tokio::test]
async fn what_is_lost_before_priming_is_dropped_with_a_reason() {
    let primed = Primed::new(ServerConfig::default()).await;
    // One that the change concerns; of others nothing but the result is needed.
    let truth = world().truth().into_values().collect::<Vec<_>>();
    let bases = &world().first.element("libb.bst").unwrap().built.subactions;
    let lost = *bases.iter().find(|base| !truth.contains(base)).unwrap();
    assert!(primed.server.store().forget(&lost));
    let report = primed.prime().arg("--json").json().await;
    let libb = find(&report, "libb.bst")["actions"].as_array().unwrap().clone();
    let action = libb.iter().find(|a| a["base"] == lost.to_string()).unwrap();
    assert_eq!(action["outcome"], "dropped", "{action}");
    assert!(action["reason"].as_str().unwrap().contains("not in the store"), "{action}");
    assert!(report["totals"]["executed"].as_u64() > Some(0), "{report:#}");
}

#[tokio::test]
async fn a_record_that_arrives_damaged_primes_nothing() {
    let primed = Primed::new(ServerConfig::default()).await;
    for _ in 0..200 {
        primed.server.faults().arm(Rpc::BatchReadBlobs, Fault::CorruptBytes);
        primed.server.faults().arm(Rpc::Read, Fault::CorruptBytes);
    }
    let ran = primed.prime().arg("--json").with_memory(300).run().await;
    ran.expect_code(0);
    let report = ran.json();
    for element in report["elements"].as_array().unwrap() {
        assert!(element["reason"].as_str().unwrap().contains("corrupt data"), "{element}");
        assert_eq!(element["actions"], json!([]));
    }
    let stats = primed.server.stats();
    assert_eq!((stats.executed, stats.uploaded), (Vec::new(), Vec::new()));
}
