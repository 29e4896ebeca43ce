//! What is adapted, executed and looked up, on a graph that does not change.

mod support;

use instantiate::{ExecutionReport, Outcome, RecordReport, SkipKind};
use support::{APP, LIB, Scene, State, action};

#[tokio::test]
async fn a_changed_header_is_followed_to_the_last_link() {
    let scene = Scene::header_changed().await;
    let report = scene.prime().await;
    for name in LIB.iter().chain(&APP) {
        let action = action(&report, name);
        assert_eq!(
            (action.outcome, &action.execution),
            (Outcome::Adapted, &ExecutionReport::Executed),
            "{name} {action:?}"
        );
    }
    let mut submitted = scene.toy.submitted();
    submitted.sort_unstable();
    assert_eq!(submitted, scene.expected());
    assert_eq!(submitted.len(), 5);
    assert_eq!((report.totals.adapted, report.totals.executed, report.totals.executions), (5, 5, 5));
    assert!(action(&report, "main.o").guess, "the header's source is not what is installed");
}
