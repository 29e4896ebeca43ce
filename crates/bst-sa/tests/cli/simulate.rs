//! `bst-sa simulate`: figures of made-up and recorded projects, and what cannot be simulated.

use serde_json::Value;

use testbed::ServerConfig;

use crate::prime::Primed;
use crate::support::Program;

const SMALL: [&str; 7] = ["simulate", "--elements", "6", "--actions", "10", "--workers", "1,100"];

fn seconds(row: &Value, what: &str) -> f64 {
    row[what].as_f64().unwrap_or_else(|| panic!("no {what} in {row:#}"))
}

#[tokio::test]
async fn every_number_of_workers_has_its_figures() {
    let rows = Program::new(SMALL).arg("--json").json().await;
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["workers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 100]);
    for row in rows {
        let mut members: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["blocking", "lower_bound", "none", "primed", "workers"]);
        let bound = seconds(row, "lower_bound");
        assert!(
            bound > 0.0 && ["none", "blocking", "primed"].iter().all(|mode| seconds(row, mode) >= bound),
            "{row:#}"
        );
    }
    assert!(seconds(&rows[1], "primed") < seconds(&rows[1], "none"), "{rows:#?}");
    assert_eq!(Value::Array(rows.clone()), Program::new(SMALL).arg("--json").json().await);
}

#[tokio::test]
async fn the_table_answers_the_question() {
    let table = Program::new(SMALL).done().await.stdout;
    for part in ["workers", "lower bound", "none / primed", "Priming would help this project: with 100 workers"] {
        assert!(table.contains(part), "{part:?} is not said: {table}");
    }
}

#[tokio::test]
async fn what_cannot_be_simulated_is_wrong_usage() {
    let check = async |arguments: &[&str], says: &[&str]| {
        let ran = Program::new(["simulate"]).args(arguments).run().await;
        ran.expect_failure(2, says);
    };
    check(&["--elements", "5", "--workers", "0"], &["0 workers", "from 1 to"]).await;
    check(&["--elements", "5", "--workers", "4,0,9"], &["0 workers"]).await;
    check(&["--elements", "5", "--builders", "0"], &["0 builders"]).await;
    check(&["--elements", "5", "--max-jobs", "0"], &["0 max-jobs"]).await;
    check(&["--elements", "5", "--jobs", "0"], &["0 jobs"]).await;
    check(&["--elements", "0"], &["0 elements"]).await;
    check(&["--elements", "5", "--actions", "0"], &["0 actions per element"]).await;
    check(&["--elements", "1000000000000"], &["1000000000000 elements", "100000 are possible"]).await;
    check(&["--elements", "100000", "--actions", "100000"], &["the limit is 2000000 actions"]).await;
    check(&["--elements", "5", "--depth", "6"], &["6 levels of depth"]).await;
    check(&["--elements", "5", "--depth", "1"], &["a depth of 2 or more"]).await;
    check(&["--elements", "5", "--changed", "6"], &["6 changed elements"]).await;
    check(&["--elements", "5", "--tree-size", "10000000"], &["10000000 files"]).await;
}

#[tokio::test]
async fn arguments_that_are_none_are_refused() {
    for arguments in [
        &["--elements", "5", "--workers", "many"][..],
        &["--elements", "5", "--workers", "-1"],
        &["--elements", "5", "--duration", "5..1"],
        &["--elements", "5", "--duration", "soon"],
        &["--elements", "5", "--duration", "3~x"],
        &["--elements", "5", "--duration", "inf"],
        &["--elements", "5", "--latency", "-1"],
        &["--elements", "5", "--latency", "1e300"],
        &["--elements", "5", "--graph", "graph.json"],
        &["--elements", "5", "app.bst"],
        &["--actions", "5"],
    ] {
        let ran = Program::new(["simulate"]).args(arguments).run().await;
        ran.expect_code(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("--help"), "{arguments:?}: {ran:#?}");
    }
}

/// The demo project as it was recorded: its elements, actions and chains, with the durations that were measured.
#[tokio::test]
async fn a_recorded_project_is_simulated() {
    let primed = Primed::new(ServerConfig::default()).await;
    let rows = primed.simulate().args(["--workers", "4", "--json"]).json().await;
    let row = &rows[0];
    assert_eq!(row["workers"], 4, "{rows:#}");
    assert!(seconds(row, "lower_bound") > 0.0 && seconds(row, "primed") >= seconds(row, "lower_bound"), "{rows:#}");
    primed.simulate().arg("nowhere.bst").run().await.expect_failure(2, &["has no element nowhere.bst"]);
}

#[tokio::test]
async fn without_records_there_is_nothing_to_simulate() {
    let directory = tempfile::tempdir().unwrap();
    let graph = directory.path().join("graph.json");
    std::fs::write(&graph, r#"{"version": 1, "elements": [{"name": "app.bst"}]}"#).unwrap();
    let store = format!("--server=file:{}", directory.path().display());
    let ran = Program::new(["simulate", &store, "--graph"]).arg(&graph).run().await;
    ran.expect_failure(1, &["nothing is recorded", "--elements"]);
}
