//! What cannot be predicted, and why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::sync::Arc;

use cas_client::ErrorKind;
use instantiate::{ActionReport, Engine, ExecutionReport, Outcome, Services, SetupError, SkipKind};
use overlay::graph::{Element, Graph};
use overlay::{ElementId, Origin, Record};
use reapi_proto::raw::Action;
use reapi_proto::{Digest, DigestFunction};
use support::lying::Lying;
use support::toy::Fault;
use support::{APP, LIB, SHA, Scene, State, action};

fn check(action: &ActionReport, kind: SkipKind, reason: &str) {
    assert_eq!((action.outcome, action.skip), (Outcome::Dropped, Some(kind)), "{action:?}");
    let text = action.reason.as_deref().unwrap();
    assert!(text.contains(reason), "{text:?} should say {reason:?}");
}

fn input_root(scene: &Scene, action: &Digest) -> Digest {
    Action::parse(scene.world.store.peek(action).unwrap()).unwrap().input_root_digest()
}

#[tokio::test]
async fn a_base_action_that_is_gone() {
    let scene = Scene::header_changed().await;
    let lib_o = scene.old["lib.bst"].actions[0];
    scene.world.store.forget(&lib_o);
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::BaseMissing, "base action");
    check(action(&report, "lib.a"), SkipKind::InputLost, "output lib.o of action");
    // The archive may still come from the artifact.
    assert_eq!(action(&report, "app").outcome, Outcome::Deferred);
    assert_eq!((report.totals.executed, report.totals.dropped), (2, 2));
    assert_eq!(report.totals.skips[&SkipKind::BaseMissing], 1);
}

#[tokio::test]
async fn a_base_action_or_directory_that_is_damaged() {
    let scene = Scene::header_changed().await;
    let lib_o = scene.old["lib.bst"].actions[0];
    scene.world.store.corrupt(&lib_o, "damaged");
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::Service, "cannot be read");

    let scene = Scene::header_changed().await;
    let root = input_root(&scene, &scene.old["lib.bst"].actions[0]);
    scene.world.store.corrupt(&root, "damaged");
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::Service, "input tree");
    assert_eq!(action(&report, "main.o").execution, ExecutionReport::Executed);
}

#[tokio::test]
async fn a_directory_on_the_way_that_is_gone() {
    let scene = Scene::header_changed().await;
    let root = input_root(&scene, &scene.old["app.bst"].actions[0]);
    assert!(scene.world.store.forget(&root));
    let report = scene.prime().await;
    check(action(&report, "main.o"), SkipKind::BaseMissing, "input tree");
    assert_eq!(action(&report, "util.o").execution, ExecutionReport::Executed);
}

#[tokio::test]
async fn actions_that_must_not_be_cached() {
    let old = State { do_not_cache: true, ..State::default() };
    let new = State { do_not_cache: true, ..State::default().with_header("int changed;\n") };
    let scene = Scene::new(old.clone(), new).await;
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::DoNotCache, "must not be cached");
    assert!(scene.toy.submitted().is_empty());

    // As recorded they are what the build will ask for, and are not executed either.
    let scene = Scene::new(old.clone(), old).await;
    for built in scene.old.values() {
        for action in &built.actions {
            scene.world.store.forget_action_result(action);
        }
    }
    let report = scene.prime_all().await;
    assert_eq!((report.totals.unchanged, report.totals.executions), (5, 0));
    let unchanged = action(&report, "main.o");
    assert_eq!(unchanged.execution, ExecutionReport::NotRun);
    assert!(unchanged.reason.as_deref().unwrap().contains("must not be cached"));
}

#[tokio::test]
async fn a_record_that_does_not_fit_its_action() {
    let mut scene = Scene::header_changed().await;
    let records = scene.world.records(&scene.old);
    let mut record = Record::clone(&records["app.bst"]);
    // What is said of main.o is about lib.a now, which has no such files.
    record.actions[0].base = scene.old["lib.bst"].actions[1];
    let message = scene.world.put_record(&record);
    scene.element("app.bst").speculative_actions = Some(message);
    let report = scene.prime().await;
    check(action(&report, "main.o"), SkipKind::Mismatch, "does not fit");
    assert_eq!(action(&report, "util.o").execution, ExecutionReport::Executed);
}

#[tokio::test]
async fn a_record_whose_actions_need_each_other_comes_to_an_end() {
    let mut scene = Scene::header_changed().await;
    let records = scene.world.records(&scene.old);
    let mut record = Record::clone(&records["app.bst"]);
    // The header is said to be what the link makes.
    let path = record.paths.intern(b"app");
    let base = scene.old["app.bst"].actions[2];
    let header = record.paths.find(b"usr/include/dep.h").unwrap();
    let authority = |origin: &&mut Origin| matches!(origin, Origin::Artifact { path, .. } if *path == header);
    *record.origins.iter_mut().find(authority).unwrap() = Origin::Action { element: ElementId::SELF, base, path };
    let message = scene.world.put_record(&record);
    scene.element("app.bst").speculative_actions = Some(message);
    let report = scene.prime().await;
    assert!(report.totals.executions < 30, "{}", report.totals.executions);
    check(action(&report, "main.o"), SkipKind::Mismatch, "its inputs changed 8 times");
}

#[tokio::test]
async fn a_command_that_fails_makes_nothing() {
    let scene = Scene::new(State::default(), State::default().with_header("#error\n")).await;
    let report = scene.prime().await;
    let compile = action(&report, "lib.o");
    assert_eq!(compile.outcome, Outcome::Adapted);
    assert_eq!(compile.execution, ExecutionReport::Failed("exit code 1 when executed".to_owned()));
    check(action(&report, "lib.a"), SkipKind::InputLost, "will not become known");
    assert_eq!((report.totals.failed, report.totals.executed), (3, 0));
}

#[tokio::test]
async fn a_cached_failure_is_no_hit() {
    let failing = State::default().with_header("#error\n");
    let mut scene = Scene::new(State::default(), failing.clone()).await;
    // As some services do, the failure was cached.
    scene.world.build(&failing).await;
    let report = scene.prime().await;
    let compile = action(&report, "lib.o");
    assert_eq!(compile.execution, ExecutionReport::Failed("exit code 1 in the action cache".to_owned()));
    check(action(&report, "lib.a"), SkipKind::InputLost, "will not become known");

    let scene = Scene::new(failing.clone(), failing).await;
    let report = scene.prime_all().await;
    assert_eq!((report.totals.unchanged, report.totals.cached), (5, 2), "the archive and the link of nothing");
    assert!(scene.toy.submitted().is_empty());
}

#[tokio::test]
async fn a_failing_service_costs_only_what_it_fails() {
    let scene = Scene::header_changed().await;
    let [lib_o, main_o, util_o] =
        [scene.new["lib.bst"].actions[0], scene.new["app.bst"].actions[0], scene.new["app.bst"].actions[1]];
    scene.toy.fault(lib_o, Fault::Error(ErrorKind::Unavailable));
    scene.toy.fault(main_o, Fault::Ends);
    scene.toy.fault(util_o, Fault::Forgets);
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::Service, "unavailable");
    assert_eq!(action(&report, "lib.o").adapted, Some(lib_o));
    check(action(&report, "main.o"), SkipKind::Service, "without a result");
    assert_eq!(
        action(&report, "util.o").execution,
        ExecutionReport::Failed("the service did not keep the result".to_owned())
    );
    assert_eq!((report.totals.failed, report.totals.executed), (3, 0));
}

#[tokio::test]
async fn inputs_that_the_service_lacks_are_supplied_again() {
    let scene = Scene::header_changed().await;
    let services = Services { blobs: Arc::new(Lying(scene.world.store.clone())), ..scene.services() };
    let report = Engine::new(services, scene.graph()).run_static().await.unwrap();
    assert_eq!((report.totals.executed, report.totals.executions), (5, 5), "{report:#?}");
    // The service finds out about the Action, then about its input root; what is below comes along.
    assert_eq!(scene.toy.submitted().len(), 10);
}

#[tokio::test]
async fn inputs_that_nobody_has_are_named() {
    let scene = Scene::header_changed().await;
    // The new header was never stored.
    let header = SHA.digest(b"int changed;\n");
    assert!(scene.world.store.forget(&header));
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::MissingInputs, &header.to_string());
    assert!(matches!(action(&report, "lib.o").execution, ExecutionReport::Failed(_)));
    assert_eq!(scene.toy.submitted().len(), 3, "nothing to supply, so nothing to try again");
}

#[tokio::test]
async fn supplying_inputs_ends_some_time() {
    let scene = Scene::header_changed().await;
    let lib_o = scene.new["lib.bst"].actions[0];
    for missing in [vec![lib_o], vec![], vec![lib_o], vec![lib_o], vec![lib_o]] {
        scene.toy.fault(lib_o, Fault::Missing(missing));
    }
    let report = scene.prime().await;
    check(action(&report, "lib.o"), SkipKind::MissingInputs, &lib_o.to_string());
    assert_eq!(scene.toy.submitted().iter().filter(|d| **d == lib_o).count(), 4);
    assert_eq!(report.totals.executions, 3);
}

#[tokio::test]
async fn an_evicted_result_whose_inputs_are_gone() {
    let scene = Scene::new(State::default(), State::default()).await;
    let lib_o = scene.old["lib.bst"].actions[0];
    scene.world.store.forget_action_result(&lib_o);
    scene.world.store.forget(&input_root(&scene, &lib_o));
    let report = scene.prime_all().await;
    let compile = action(&report, "lib.o");
    assert_eq!(compile.outcome, Outcome::Unchanged);
    assert!(matches!(&compile.execution, ExecutionReport::Failed(reason) if reason.contains("missing")), "{compile:?}");
    scene.world.store.forget(&lib_o);
    let report = scene.prime_all().await;
    assert!(matches!(&action(&report, "lib.o").execution, ExecutionReport::Failed(reason) if reason.contains("gone")));
    assert_eq!(report.totals.unchanged, 5);
}

#[tokio::test]
async fn a_path_that_is_gone_is_removed() {
    let mut new = State::default();
    new.dep_sources.remove("include/dep.h");
    new.dep_installed.clear();
    let scene = Scene::new(State::default(), new).await;
    let report = scene.prime().await;
    let adapted: Vec<Digest> = LIB.iter().chain(&APP).map(|name| action(&report, name).adapted.unwrap()).collect();
    for action in scene.expected() {
        assert!(adapted.contains(&action));
    }
}

#[tokio::test]
async fn set_up_that_cannot_work() {
    let scene = Scene::header_changed().await;
    let options = instantiate::Options { jobs: 0, ..Default::default() };
    let error = scene.engine().with_options(options).run_static().await.unwrap_err();
    assert_eq!(error, SetupError::NoJobs);
    let error = scene.engine().with_elements(["nobody.bst"]).run_static().await.unwrap_err();
    assert_eq!(error, SetupError::UnknownElement("nobody.bst".to_owned()));
    let graph = Graph::new(DigestFunction::Sha512, vec![Element::new("a")]).unwrap();
    let error = Engine::new(scene.services(), Arc::new(graph)).run_static().await.unwrap_err();
    assert_eq!(error, SetupError::DigestFunction { graph: DigestFunction::Sha512, store: SHA });
}
