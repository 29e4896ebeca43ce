//! `bst-sa doctor`: what it finds, and what it advises.

use serde_json::Value;
use testbed::{Fault, Rpc, Server};
use tonic::{Code, Status};

use crate::support::Program;

#[track_caller]
fn verdict<'a>(report: &'a Value, what: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|c| c["what"] == what).unwrap_or_else(|| panic!("no {what} in {report:#}"));
    assert_eq!(check["advice"].is_null(), check["verdict"] == "ok", "{check}");
    (check["verdict"].as_str().unwrap(), check["found"].as_str().unwrap())
}

#[tokio::test]
async fn a_complete_service_is_well() {
    let server = Server::start_default().await.unwrap();
    let report = Program::new(["doctor", "--json", "--server", server.url()]).json().await;
    assert_eq!(report["ok"], true);
    for what in ["storage", "digest functions", "largest batch", "action cache", "execution", "asset index"] {
        assert_eq!(verdict(&report, what).0, "ok", "{report:#}");
    }
    assert!(verdict(&report, "storage").1.contains(server.url()));
    let table = Program::new(["doctor", "--server", server.url()]).done().await.stdout;
    assert!(table.contains("asset index") && !table.contains("FAILED"), "{table}");
    assert_eq!(server.stats().uploaded, [], "looking changes nothing");
}

#[tokio::test]
async fn a_directory_stores_and_does_not_execute() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file:{}", directory.path().display());
    let report = Program::new(["doctor", "--json", "--server", &url]).json().await;
    assert_eq!((verdict(&report, "storage").0, verdict(&report, "action cache").0), ("ok", "ok"));
    assert_eq!((verdict(&report, "execution").0, verdict(&report, "asset index").0), ("warning", "warning"));
    assert_eq!(report["ok"], true);
}

#[tokio::test]
async fn an_unreachable_service_is_said_to_be() {
    // A port that was free a moment ago may be another test's by now; a path is not.
    let directory = tempfile::tempdir().unwrap();
    let url = format!("unix:{}/casd.sock", directory.path().display());
    let ran = Program::new(["doctor", "--json", "--server", &url]).run().await;
    ran.expect_code(1);
    let report = ran.json();
    assert_eq!(report["ok"], false);
    for what in ["storage", "action cache", "execution"] {
        let (verdict, found) = verdict(&report, what);
        assert!(verdict == "failed" && found.contains(&url) && found.starts_with("unavailable"), "{report:#}");
    }
    let ran = Program::new(["doctor", "--server", &url]).run().await;
    ran.expect_code(1);
    assert!(ran.stdout.contains("FAILED") && ran.stdout.contains("buildbox-casd --bind=unix:PATH"), "{ran:#?}");
}

#[tokio::test]
async fn a_directory_that_is_absent_is_said_to_be() {
    let ran = Program::new(["doctor", "--json", "--server", "file:/nowhere"]).run().await;
    ran.expect_code(1);
    let report = ran.json();
    let (verdict, found) = verdict(&report, "storage");
    assert!(verdict == "failed" && found.contains("file:/nowhere"), "{report:#}");
}

#[tokio::test]
async fn services_that_were_not_named_are_not_needed() {
    let server = Server::start_default().await.unwrap();
    let report = Program::new(["doctor", "--json", "--cas", server.url()]).json().await;
    assert_eq!((verdict(&report, "storage").0, report["ok"].as_bool()), ("ok", Some(true)));
    for what in ["action cache", "execution", "asset index"] {
        assert_eq!(verdict(&report, what), ("warning", "not given"));
    }
    let report = Program::new(["doctor", "--json"]).json().await;
    assert_eq!(verdict(&report, "services"), ("warning", "none given"));
}

#[tokio::test]
async fn a_service_that_lacks_something_says_which() {
    let server = Server::start_default().await.unwrap();
    for rpc in [Rpc::GetActionResult, Rpc::FetchBlob] {
        server.faults().arm(rpc, Fault::Status(Status::new(Code::Unimplemented, "no such method")));
    }
    let ran = Program::new(["doctor", "--json", "--server", server.url()]).run().await;
    let report = ran.json();
    assert_eq!(verdict(&report, "asset index"), ("warning", "not offered"));
    assert_eq!((verdict(&report, "storage").0, verdict(&report, "execution").0), ("ok", "ok"));
    assert_eq!((verdict(&report, "action cache").0, ran.code), ("failed", Some(1)));
}

#[tokio::test]
async fn a_compiler_that_is_absent_is_only_the_demos_concern() {
    let report = Program::new(["doctor", "--json"]).env("CC", "/nowhere/cc").json().await;
    let (verdict, found) = verdict(&report, "C compiler");
    assert!(verdict == "warning" && found.contains("/nowhere/cc"), "{report:#}");
}
