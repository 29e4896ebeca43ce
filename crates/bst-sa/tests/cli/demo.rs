//! `bst-sa demo`: the figures that it promises.

use serde_json::Value;

use crate::support::Program;

fn count(figures: &Value, build: &str, what: &str) -> u64 {
    figures[build][what].as_u64().unwrap_or_else(|| panic!("no {build}.{what} in {figures:#}"))
}

#[tokio::test]
async fn the_primed_rebuild_executes_nothing() {
    let figures = Program::new(["demo", "--json"]).json().await;
    let first = count(&figures, "first", "executed");
    assert!(first >= 12, "{figures:#}");
    assert_eq!(count(&figures, "first", "hits"), 0);
    let unprimed = count(&figures, "unprimed", "executed");
    assert!(unprimed > 0, "{figures:#}");
    assert_eq!(count(&figures, "unprimed", "hits") + unprimed, first);
    assert_eq!((count(&figures, "primed", "executed"), count(&figures, "primed", "hits")), (0, first), "{figures:#}");
    assert_eq!(figures["predicted"], unprimed);
    assert_eq!(figures["wasted"], 0);
}

#[tokio::test]
async fn a_weak_look_up_predicts_less_and_wastes_nothing() {
    let figures = Program::new(["demo", "--json", "--lookup", "weak", "--jobs", "1"]).json().await;
    let unprimed = count(&figures, "unprimed", "hits");
    let primed = count(&figures, "primed", "hits");
    assert!(unprimed < primed && primed < count(&figures, "first", "executed"), "{figures:#}");
    assert_eq!(figures["wasted"], 0);
}

#[tokio::test]
async fn the_table_says_the_same() {
    let table = Program::new(["demo"]).done().await.stdout;
    for line in ["first build", "rebuild, unprimed", "rebuild, primed", "0 of these executions were wasted"] {
        assert!(table.contains(line), "{table}");
    }
}

#[tokio::test]
async fn a_missing_compiler_is_named() {
    let ran = Program::new(["demo", "--compiler", "/nowhere/cc"]).run().await;
    ran.expect_failure(1, &["the build failed", "/nowhere/cc", "hint: ", "--compiler"]);
    let ran = Program::new(["demo", "--jobs", "0"]).run().await;
    ran.expect_failure(2, &["--jobs", "at least one"]);
}
