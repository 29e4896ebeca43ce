//! Elements that will not be built: their records are read only if something needs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use instantiate::{ExecutionReport, Outcome, RecordReport, Report};
use overlay::{ElementId, Origin, Record};
use reapi_proto::Digest;
use support::{APP, LIB, Scene, State, action};

fn record_of<'r>(report: &'r Report, element: &str) -> &'r RecordReport {
    &report.elements.iter().find(|e| e.name == element).unwrap().record
}

/// One file of the application was edited; everything below it is current.
async fn edited() -> Scene {
    let mut new = State::default();
    new.app_sources.insert("main.c".to_owned(), "edited\n".to_owned());
    Scene::new(State::default(), new).await
}

/// The library was edited and has been built since, somewhere else; the application was not.
async fn library_built() -> Scene {
    let mut new = State::default();
    new.lib_sources.insert("lib.c".to_owned(), "edited\n".to_owned());
    let mut scene = Scene::new(State::default(), new.clone()).await;
    scene.world.build(&new).await;
    let artifact = scene.new["lib.bst"].artifact;
    let lib = scene.element("lib.bst");
    (lib.cached, lib.artifact) = (Some(true), Some(artifact));
    scene
}

/// The application's record, in which the library's archive is known only from the action that made it.
fn only_by_action(scene: &Scene) -> Record {
    let mut record = Record::clone(&scene.world.records(&scene.old)["app.bst"]);
    let archive = record.paths.find(b"usr/lib/lib.a").unwrap();
    let origins = record.origins.clone();
    let is_artifact = |origin: &Origin| matches!(origin, Origin::Artifact { path, .. } if *path == archive);
    let mut changed = 0;
    for input in &mut record.inputs {
        let before = input.origins.len();
        input.origins.retain(|origin| !is_artifact(&origins[origin.index()]));
        changed += before - input.origins.len();
    }
    assert_eq!(changed, 1);
    record
}

fn use_record(scene: &mut Scene, element: &str, record: &Record) {
    let message = scene.world.put_record(record);
    scene.element(element).speculative_actions = Some(message);
}

fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn where_nothing_is_built_nothing_is_asked() {
    let scene = Scene::new(State::default(), State::default()).await;
    scene.world.store.take_stats();
    let report = scene.prime().await;
    assert!(report.elements.iter().all(|e| e.record == RecordReport::Current && e.actions.is_empty()), "{report:?}");
    assert_eq!((report.totals.elements, report.totals.current), (4, 4));
    assert_eq!((report.totals.records, report.totals.actions), (0, 0));
    assert!(report.totals.skips.is_empty());
    assert_eq!(scene.world.store.take_stats(), cas_client::Stats::default());
}

#[tokio::test]
async fn the_record_of_a_current_element_is_not_read() {
    for lost in [false, true] {
        let scene = edited().await;
        if lost {
            let record = scene.elements.iter().find(|e| e.name == "lib.bst").unwrap().speculative_actions.unwrap();
            assert!(scene.world.store.forget(&record));
        }
        let report = scene.prime().await;
        assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Current);
        assert_eq!(record_of(&report, "app.bst"), &RecordReport::Exact);
        assert_eq!(sorted(scene.toy.submitted()), scene.expected());
        assert_eq!((report.totals.current, report.totals.actions, report.totals.executed), (3, 3, 2));
    }
}

#[tokio::test]
async fn outputs_of_a_current_element_are_as_recorded() {
    let mut scene = edited().await;
    let record = only_by_action(&scene);
    use_record(&mut scene, "app.bst", &record);
    let report = scene.prime().await;
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Current);
    let link = action(&report, "app");
    assert_eq!((link.outcome, &link.execution), (Outcome::Adapted, &ExecutionReport::Executed), "{link:?}");
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
}

/// Also where elements are chosen by name: that is how they are found as far as they are needed.
#[tokio::test]
async fn outputs_of_a_current_element_that_is_left_out_are_as_recorded() {
    let mut scene = edited().await;
    let record = only_by_action(&scene);
    use_record(&mut scene, "app.bst", &record);
    let report = scene.engine().with_elements(["app.bst"]).run_static().await.unwrap();
    assert_eq!(report.elements.len(), 1);
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
}

#[tokio::test]
async fn another_artifact_speaks_for_what_is_in_it() {
    let scene = library_built().await;
    let report = scene.prime().await;
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Current);
    let link = action(&report, "app");
    assert_eq!(link.adapted, Some(scene.new["app.bst"].actions[2]), "{link:?}");
    assert!(!link.guess);
}

#[tokio::test]
async fn what_another_artifact_does_not_tell_is_found_in_the_record() {
    let mut scene = library_built().await;
    let record = only_by_action(&scene);
    use_record(&mut scene, "app.bst", &record);
    let report = scene.prime().await;
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Exact);
    assert_eq!((report.totals.current, report.totals.records), (2, 2));
    assert_eq!(action(&report, "lib.a").adapted, Some(scene.new["lib.bst"].actions[1]));
    let link = action(&report, "app");
    assert_eq!(link.adapted, Some(scene.new["app.bst"].actions[2]), "{link:?}");

    // Elements that were not chosen are not primed for the sake of others.
    let report = scene.engine().with_elements(["app.bst"]).run_static().await.unwrap();
    let link = report.elements[0].actions.iter().find(|a| a.base == scene.old["app.bst"].actions[2]).unwrap();
    assert_eq!(link.outcome, Outcome::Dropped, "{link:?}");
}

/// The record as it is where the library has none: its actions stand in front.
fn with_copies(scene: &Scene, app: &Record) -> Record {
    let mut record = app.clone();
    let lib = &scene.world.records(&scene.old)["lib.bst"];
    let actions: Vec<_> = lib.action_ids().collect();
    record.copy_actions(lib, &actions);
    assert!(record.actions.len() == 5 && record.actions[0].element != ElementId::SELF);
    record
}

#[tokio::test]
async fn nobody_asks_for_copies_of_actions_of_a_current_element() {
    let mut scene = edited().await;
    let record = with_copies(&scene, &only_by_action(&scene));
    use_record(&mut scene, "app.bst", &record);
    scene.element("lib.bst").speculative_actions = None;
    let report = scene.prime().await;
    assert_eq!(report.elements.iter().find(|e| e.name == "app.bst").unwrap().actions.len(), 3);
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());

    // Where only they tell what was made, they are needed.
    let mut scene = library_built().await;
    let record = with_copies(&scene, &only_by_action(&scene));
    use_record(&mut scene, "app.bst", &record);
    scene.element("lib.bst").speculative_actions = None;
    let report = scene.prime().await;
    let app = report.elements.iter().find(|e| e.name == "app.bst").unwrap();
    assert_eq!(app.actions.len(), 5);
    assert_eq!(app.actions[4].adapted, Some(scene.new["app.bst"].actions[2]), "{:?}", app.actions[4]);
}

#[tokio::test]
async fn named_elements_are_primed_what_they_build_against_only_if_it_will_be_built() {
    let scene = edited().await;
    let report = scene.engine().with_elements(["app.bst"]).with_dependencies().run_static().await.unwrap();
    assert_eq!(report.elements.len(), 4);
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Current);
    assert_eq!(report.totals.actions, APP.len() as u64);

    let report = scene.engine().with_elements(["lib.bst"]).with_dependencies().run_static().await.unwrap();
    assert_eq!(report.elements.len(), 3);
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Exact);
    assert!(LIB.iter().all(|name| action(&report, name).execution == ExecutionReport::Cached), "{report:?}");

    // One that has changed is built on the way.
    let scene = Scene::header_changed().await;
    let report = scene.engine().with_elements(["app.bst"]).with_dependencies().run_static().await.unwrap();
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Exact);
    assert_eq!(sorted(scene.toy.submitted()), scene.expected());
}
