//! Traces and metrics: what they say is what the report says, whatever ends the run.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testbed::runner::{Gated, LocalRunner};
use testbed::{Gate, ServerConfig};

use crate::prime::Primed;
use crate::support::{Ran, actions, patiently};

/// The slices of priming.
fn slices(path: &Path) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap().clone();
    let primed = |event: &Value| event["ph"] == "X" && event["pid"] == 1 && event["cat"] != "stage";
    events.into_iter().filter(primed).collect()
}

fn with_outcome<'t>(slices: &'t [Value], outcome: &str) -> Vec<&'t Value> {
    slices.iter().filter(|slice| slice["args"]["outcome"] == outcome).collect()
}

fn metric(path: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[tokio::test]
async fn the_trace_and_the_metrics_say_what_the_report_says() {
    let place = TempDir::new().unwrap();
    let (trace, metrics) = (place.path().join("trace.json"), place.path().join("bst_sa.prom"));
    let primed = Primed::new(ServerConfig::default()).await;
    let prime = primed.prime().args(["--json", "--trace"]).arg(&trace).arg("--metrics").arg(&metrics);
    let report = prime.json().await;
    let total = |name: &str| report["totals"][name].as_u64().unwrap();

    let slices = slices(&trace);
    let executed = with_outcome(&slices, "executed");
    assert!(!executed.is_empty());
    assert_eq!(executed.len() as u64, total("executed"), "{report:#}");
    assert_eq!(with_outcome(&slices, "cached").len() as u64, total("cached"), "{report:#}");
    assert_eq!(with_outcome(&slices, "unfinished").len(), 0);
    let traced: BTreeSet<String> =
        slices.iter().map(|slice| slice["args"]["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(traced, actions(&report).iter().map(ToString::to_string).collect());
    let names: BTreeSet<&str> = slices.iter().map(|slice| slice["name"].as_str().unwrap()).collect();
    let elements = report["elements"].as_array().unwrap().iter();
    let elements: BTreeSet<&str> = elements.map(|element| element["name"].as_str().unwrap()).collect();
    assert!(names.is_subset(&elements), "{names:?}");
    // What was offered is at least what was missing.
    let offered: u64 = executed.iter().map(|slice| slice["args"]["upload_bytes"].as_u64().unwrap()).sum();
    assert!(offered >= total("uploaded_bytes"), "{offered} of {report:#}");
    // A lane has one execution at a time.
    for a in &executed {
        let (from, to) = span(a);
        let overlaps = |b: &&&Value| b["tid"] == a["tid"] && span(b).0 < to && from < span(b).1;
        assert_eq!(executed.iter().filter(overlaps).count(), usize::from(from < to), "{a}");
    }

    let counted = |kind: &str, result: &str| {
        metric(&metrics, &format!("bst_sa_results_total{{kind=\"{kind}\",result=\"{result}\"}}")).unwrap_or(0.0)
    };
    let close = |found: f64, expected: u64| (found - expected as f64).abs() < 0.5;
    assert!(close(counted("adapted", "executed") + counted("recorded", "executed"), total("executed")));
    assert!(close(counted("adapted", "cached") + counted("recorded", "cached"), total("cached")));
    for (name, expected) in [
        ("bst_sa_active", 0),
        ("bst_sa_submissions_total", total("executed")),
        ("bst_sa_uploaded_bytes_total", total("uploaded_bytes")),
        ("bst_sa_uploaded_blobs_total", total("uploaded_blobs")),
        ("bst_sa_actions{outcome=\"adapted\"}", total("adapted")),
        ("bst_sa_execution_seconds_count", total("executed")),
    ] {
        let found = metric(&metrics, name).unwrap_or_else(|| panic!("no {name}"));
        assert!(close(found, expected), "{name} is {found} and should be {expected}");
    }
}

fn span(slice: &Value) -> (u64, u64) {
    let from = slice["ts"].as_u64().unwrap();
    (from, from + slice["dur"].as_u64().unwrap())
}

#[tokio::test]
async fn what_is_interrupted_can_be_looked_at() {
    for signal in [Signal::INT, Signal::KILL] {
        let gate = Gate::new();
        let runner = Gated::new(gate.clone(), LocalRunner::new("gated"));
        let primed = Primed::new(ServerConfig::default().with_runner(runner)).await;
        let place = TempDir::new().unwrap();
        let (trace, metrics) = (place.path().join("trace.json"), place.path().join("bst_sa.prom"));
        let prime = primed.prime().arg("--json").arg("--trace").arg(&trace).arg("--metrics").arg(&metrics);
        let child = prime.start();
        patiently("an execution", gate.reached(1)).await;
        kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        let ran = Ran::of(child, &["prime".to_owned()]).await;
        let slices = slices(&trace);
        assert!(with_outcome(&slices, "cached").iter().all(|slice| slice["tid"] == 0));
        assert!(metric(&metrics, "bst_sa_active").is_some());
        if signal == Signal::INT {
            ran.expect_failure(1, &["bst-sa: interrupted"]);
            assert!(!with_outcome(&slices, "unfinished").is_empty(), "{slices:#?}");
            assert!(metric(&metrics, "bst_sa_active").unwrap() < 0.5);
        }
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_refused_before_anything_is_sent() {
    let primed = Primed::new(ServerConfig::default()).await;
    for option in ["--trace", "--metrics"] {
        let ran = primed.prime().args([option, "/nowhere/at/all"]).run().await;
        ran.expect_failure(2, &["/nowhere/at/all", "cannot be written"]);
    }
    assert_eq!(primed.server.stats().uploaded, []);
    primed.prime().args(["--skip-below", "soon"]).run().await.expect_code(2);
    primed.prime().args(["--skip-below", "-1"]).run().await.expect_code(2);
}
