//! What is adapted, looked up and executed on a graph that does not change.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::time::Duration;

use cas_client::{ActionCache, ExecuteRequest};
use instantiate::{Budget, Completion, ExecutionReport, Options, Outcome, PRIORITY_STEPS, RecordReport, SkipKind};
use overlay::graph::Element;
use reapi_proto::Digest;
use support::{APP, LIB, Scene, State, action, message};

fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn a_changed_header_is_followed_to_the_last_link() {
    let scene = Scene::header_changed().await;
    let report = scene.prime().await;
    for name in LIB.iter().chain(&APP) {
        let action = action(&report, name);
        assert_eq!((action.outcome, &action.execution), (Outcome::Adapted, &ExecutionReport::Executed), "{action:?}");
    }
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
    let totals = &report.totals;
    assert_eq!((totals.actions, totals.adapted, totals.executed, totals.executions), (5, 5, 5, 5));
    assert_eq!(totals.primed, Duration::from_millis(100 + 200 + 100 + 200 + 300));
    assert!(action(&report, "main.o").guess, "the header's source need not be what is installed");
    for digest in scene.expected() {
        assert!(scene.world.store.fetch_action_result(&digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn nothing_changed_and_nothing_is_done() {
    let scene = Scene::new(State::default(), State::default()).await;
    let report = scene.prime_all().await;
    assert_eq!((report.totals.unchanged, report.totals.cached), (5, 5));
    assert!(scene.toy.submitted().is_empty());
    let stats = scene.world.store.stats();
    assert_eq!((stats.write_blobs.calls, stats.find_missing.calls), (0, 1));
    assert_eq!(stats.read_blobs.calls, 1, "the records");
}

#[tokio::test]
async fn an_evicted_result_is_made_again() {
    let scene = Scene::new(State::default(), State::default()).await;
    let lib_a = scene.old["lib.bst"].actions[1];
    scene.world.store.forget_action_result(&lib_a);
    let report = scene.prime_all().await;
    assert_eq!(scene.toy.submitted(), [lib_a]);
    assert_eq!(action(&report, "lib.a").outcome, Outcome::Unchanged);
    assert_eq!(action(&report, "lib.a").execution, ExecutionReport::Executed);
    assert_eq!(action(&report, "app").execution, ExecutionReport::Cached);

    // The output is gone, the result is not.
    let result = scene.world.store.fetch_action_result(&lib_a).await.unwrap().unwrap();
    let archive = Digest::try_from(&result.output_files[0].digest).unwrap();
    scene.world.store.forget(&archive);
    let report = scene.prime_all().await;
    assert_eq!(scene.toy.submitted(), [lib_a, lib_a]);
    assert_eq!(action(&report, "lib.a").execution, ExecutionReport::Executed);
}

#[tokio::test]
async fn equal_objects_leave_links_unchanged() {
    let scene = Scene::new(State::default(), State::default().with_header("int dep;\n// says more\n")).await;
    let report = scene.prime().await;
    for name in ["lib.o", "main.o", "util.o"] {
        assert_eq!(action(&report, name).execution, ExecutionReport::Executed, "{name}");
    }
    for name in ["lib.a", "app"] {
        let link = action(&report, name);
        assert_eq!((link.outcome, &link.execution), (Outcome::Unchanged, &ExecutionReport::Cached), "{name}");
    }
    assert_eq!(scene.toy.submitted().len(), 3);
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
}

#[tokio::test]
async fn the_base_is_replaced_in_action_and_command() {
    let mut state = State::default();
    state.base.insert("bin/cc".to_owned(), "compiler 2\n".to_owned());
    let scene = Scene::new(State::default(), state).await;
    let report = scene.prime().await;
    assert_eq!(report.totals.adapted, 5);
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
    let adapted: reapi_proto::v2::Action = message(&scene.world.store, &action(&report, "app").adapted.unwrap());
    let base = scene.new["base.bst"].artifact.to_string();
    assert_eq!(adapted.platform.unwrap().properties[0].value, base);
}

#[tokio::test]
async fn the_dry_run_writes_nothing() {
    let scene = Scene::header_changed().await;
    let before = scene.world.store.digests();
    scene.world.store.take_stats();
    let report = scene.dry_engine().run_static().await.unwrap();
    for name in ["lib.o", "main.o", "util.o"] {
        let action = action(&report, name);
        assert_eq!((action.outcome, &action.execution), (Outcome::Adapted, &ExecutionReport::NotRun), "{name}");
        assert!(scene.expected().contains(&action.adapted.unwrap()));
    }
    let link = action(&report, "lib.a");
    assert_eq!((link.outcome, link.adapted), (Outcome::Deferred, None));
    let reason = link.reason.as_deref().unwrap();
    assert!(reason.starts_with("waits for output lib.o of action "), "{reason}");
    assert!(scene.toy.submitted().is_empty());
    let stats = scene.world.store.take_stats();
    assert_eq!((stats.write_blobs.calls, stats.write_chunks.calls, stats.store_action_result.calls), (0, 0, 0));
    assert_eq!(scene.world.store.digests(), before);

    // With results in the action cache it sees as far as priming does.
    scene.prime().await;
    let submitted = scene.toy.submitted().len();
    let report = scene.dry_engine().run_static().await.unwrap();
    assert_eq!((report.totals.adapted, report.totals.cached), (5, 5));
    let adapted: Vec<Digest> = LIB.iter().chain(&APP).map(|name| action(&report, name).adapted.unwrap()).collect();
    assert_eq!(sorted(adapted), scene.expected());
    assert_eq!(scene.toy.submitted().len(), submitted);
}

#[tokio::test]
async fn priming_twice_executes_once() {
    let scene = Scene::header_changed().await;
    scene.prime().await;
    let report = scene.prime().await;
    assert_eq!((report.totals.cached, report.totals.executed), (5, 0));
    assert_eq!(scene.toy.submitted().len(), 5);
    assert_eq!(report.totals.upload.uploaded, 0);
}

#[tokio::test]
async fn equal_actions_of_two_elements_are_executed_once() {
    let mut scene = Scene::header_changed().await;
    let twin = Element { name: "twin.bst".to_owned(), weak_key: None, ..scene.element("app.bst").clone() };
    scene.elements.push(twin);
    let report = scene.prime().await;
    assert_eq!((report.totals.adapted, report.totals.executed, report.totals.executions), (8, 8, 5));
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
}

#[tokio::test]
async fn only_what_is_missing_is_uploaded() {
    let scene = Scene::header_changed().await;
    let before = scene.world.store.digests();
    let report = scene.prime().await;
    let after = scene.world.store.digests();
    // The toy's outputs are the service's.
    let outputs = 5;
    assert_eq!(report.totals.upload.uploaded, (after.len() - before.len() - outputs) as u64);
    // A directory with nothing but the new header is part of the sources already.
    assert_eq!(report.totals.upload.asked, report.totals.upload.uploaded + 1);
}

#[tokio::test]
async fn dependencies_and_long_chains_go_first() {
    let scene = Scene::header_changed().await;
    scene.prime_with(Options { jobs: 1, priority: 7, ..Options::default() }).await;
    let lib = &scene.new["lib.bst"].actions;
    let app = &scene.new["app.bst"].actions;
    let submitted = scene.toy.submitted();
    let turn = |action: &Digest| submitted.iter().position(|s| s == action).unwrap();
    assert_eq!(turn(&lib[0]), 0);
    assert!(turn(&app[1]) < turn(&app[0]), "util.o took longer than main.o");
    assert_eq!(turn(&app[2]), 4);
    let requests = scene.toy.requests();
    // What the longest chain waits for is executed first by services that have more to do.
    assert_eq!(requests[0].priority, 7, "{requests:?}");
    let last = requests.iter().max_by_key(|r| r.priority).unwrap();
    assert_eq!(last.action, app[2], "nothing waits for the program");
    assert!(requests.iter().all(|r| r.priority <= 7 + PRIORITY_STEPS));
    let plain = |r: &ExecuteRequest| *r == ExecuteRequest { priority: r.priority, ..ExecuteRequest::new(r.action) };
    assert!(requests.iter().all(plain));
}

#[tokio::test]
async fn elements_can_be_chosen() {
    let scene = Scene::header_changed().await;
    let report = scene.engine().with_elements(["lib.bst"]).run_static().await.unwrap();
    assert_eq!(report.elements.len(), 1);
    assert_eq!(report.elements[0].record, RecordReport::Exact);
    assert_eq!(sorted(scene.toy.submitted()), sorted(scene.new["lib.bst"].actions.clone()));
}

#[tokio::test]
async fn detached_executions_are_left_alone() {
    let scene = Scene::header_changed().await;
    scene.toy.hold(support::toy::Hold::Executing);
    let report = scene.prime_with(Options { completion: Completion::Detach, ..Options::default() }).await;
    assert_eq!((report.totals.submitted, report.totals.deferred), (3, 2));
    assert_eq!(action(&report, "main.o").execution, ExecutionReport::Submitted);
    assert_eq!(scene.toy.cancelled(), 0);
}

#[tokio::test]
async fn budgets_are_kept() {
    let of =
        |report: &instantiate::Report| (report.totals.executions, report.totals.skips.get(&SkipKind::Budget).copied());
    for (budget, executions, skipped) in [
        (Budget { actions: Some(2), ..Budget::default() }, 2, 2),
        // lib.o and lib.a took 100 ms and 200 ms, main.o and util.o as long.
        (Budget { work: Some(Duration::from_millis(400)), ..Budget::default() }, 3, 1),
        (Budget { upload_bytes: Some(0), ..Budget::default() }, 0, 3),
    ] {
        let scene = Scene::header_changed().await;
        let report = scene.prime_with(Options { jobs: 1, budget, ..Options::default() }).await;
        assert_eq!(of(&report), (executions, Some(skipped)), "{budget:?} {report:#?}");
    }
}

#[tokio::test]
async fn cheap_actions_are_left_to_the_build_unless_others_need_them() {
    let scene = Scene::header_changed().await;
    let minimum_duration = Duration::from_secs(60);
    let report = scene.prime_with(Options { minimum_duration, ..Options::default() }).await;
    // Everything feeds the last link, which nothing needs.
    let link = action(&report, "app");
    assert_eq!(
        (link.outcome, link.skip, &link.execution),
        (Outcome::Dropped, Some(SkipKind::TooCheap), &ExecutionReport::NotRun)
    );
    assert_eq!(link.adapted, Some(scene.new["app.bst"].actions[2]));
    assert_eq!(report.totals.executed, 4);
}

#[tokio::test]
async fn progress_is_told_and_adds_up() {
    use std::sync::{Arc, Mutex};
    let scene = Scene::header_changed().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let observer = move |progress: &instantiate::Progress| sink.lock().unwrap().push(*progress);
    let report = scene.engine().with_observer(Arc::new(observer)).run_static().await.unwrap();
    let seen = seen.lock().unwrap();
    for p in seen.iter() {
        assert_eq!(p.waiting + p.preparing + p.unchanged + p.adapted + p.dropped, p.actions, "{p:?}");
    }
    let last = seen.last().unwrap();
    assert_eq!((last.adapted, last.running, last.finished), (5, 0, 5));
    assert_eq!(last.uploaded_bytes, report.totals.upload.bytes);
    assert!(seen.iter().any(|p| p.running > 0));
}
