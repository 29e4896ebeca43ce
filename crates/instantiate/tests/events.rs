//! What the engine makes of news while it runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use instantiate::{Engine, Event, ExecutionReport, Options, Outcome, RecordReport, Report, SkipKind};
use support::toy::Hold;
use support::{APP, LIB, Scene, State, action, until};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Runs an engine and, beside it, whatever tells it things.
async fn drive<F: Future<Output = ()>>(engine: Engine, script: impl FnOnce(UnboundedSender<Event>) -> F) -> Report {
    let (sender, receiver) = unbounded_channel();
    let (report, ()) = tokio::join!(engine.run(receiver), script(sender));
    report.unwrap()
}

fn artifact(scene: &Scene, element: &str) -> Event {
    Event::ArtifactAvailable { element: element.to_owned(), root: scene.new[element].artifact }
}

fn sources(scene: &Scene, element: &str) -> Event {
    Event::SourcesAvailable { element: element.to_owned(), root: scene.new[element].sources }
}

/// The header is installed with another text than its source has: what the source suggests is wrong.
async fn misleading() -> Scene {
    let new = State::default().with_header("int source;\n").with_installed_header("int installed;\n");
    let mut scene = Scene::new(State::default(), new.clone()).await;
    scene.world.files(&new.dep_installed);
    scene
}

#[tokio::test]
async fn the_authority_corrects_a_guess() {
    let scene = misleading().await;
    let report = drive(scene.engine(), |events| {
        let (scene, toy) = (&scene, &scene.toy);
        async move {
            until(|| toy.submitted().len() == 5).await;
            events.send(artifact(scene, "dep.bst")).unwrap();
        }
    })
    .await;
    for (name, expected) in [("lib.o", &scene.new["lib.bst"].actions[0]), ("app", &scene.new["app.bst"].actions[2])] {
        let action = action(&report, name);
        assert_eq!(action.adapted.as_ref(), Some(expected), "{name}");
        assert_eq!(action.execution, ExecutionReport::Executed);
    }
    assert!(!action(&report, "lib.o").guess);
    assert_eq!(report.totals.superseded, 5);
    assert_eq!(report.totals.executions, 10);
}

#[tokio::test]
async fn a_guess_that_is_only_queued_is_taken_back() {
    let scene = misleading().await;
    scene.toy.hold(Hold::Queued);
    let report = drive(scene.engine(), |events| {
        let (scene, toy) = (&scene, &scene.toy);
        async move {
            until(|| toy.submitted().len() == 3).await;
            events.send(artifact(scene, "dep.bst")).unwrap();
            until(|| toy.cancelled() == 3).await;
            toy.release();
        }
    })
    .await;
    assert_eq!((report.totals.cancelled, report.totals.superseded), (3, 3));
    assert_eq!((report.totals.executions, report.totals.executed), (8, 5));
}

#[tokio::test]
async fn an_artifact_that_confirms_a_guess_changes_nothing() {
    let mut scene = Scene::header_changed().await;
    scene.world.files(&State::default().with_header("int changed;\n").dep_installed);
    let report = drive(scene.engine(), |events| {
        let (scene, toy) = (&scene, &scene.toy);
        async move {
            until(|| toy.submitted().len() == 5).await;
            events.send(artifact(scene, "dep.bst")).unwrap();
        }
    })
    .await;
    assert_eq!((report.totals.executions, report.totals.superseded, report.totals.executed), (5, 0, 5));
    assert!(!action(&report, "lib.o").guess);
    assert!(action(&report, "main.o").guess, "the library's header is not confirmed");
}

#[tokio::test]
async fn sources_set_off_exactly_what_waits_for_them() {
    let mut scene = Scene::header_changed().await;
    scene.element("dep.bst").sources = None;
    let report = scene.prime().await;
    assert_eq!(report.totals.deferred, 5);
    assert_eq!(
        action(&report, "main.o").reason.as_deref(),
        Some("waits for usr/include/dep.h in the artifact of dep.bst, source include/dep.h of dep.bst")
    );
    let report = drive(scene.engine(), |events| {
        let scene = &scene;
        async move { events.send(sources(scene, "dep.bst")).unwrap() }
    })
    .await;
    assert_eq!(report.totals.executed, 5);
}

#[tokio::test]
async fn repeated_events_are_no_news() {
    let mut scene = Scene::header_changed().await;
    scene.element("dep.bst").sources = None;
    let report = drive(scene.engine(), |events| {
        let (scene, toy) = (&scene, &scene.toy);
        async move {
            for _ in 0..3 {
                events.send(sources(scene, "dep.bst")).unwrap();
                events.send(Event::BuildReached { element: "dep.bst".to_owned() }).unwrap();
                events.send(sources(scene, "app.bst")).unwrap();
            }
            until(|| toy.submitted().len() == 5).await;
            events.send(sources(scene, "dep.bst")).unwrap();
        }
    })
    .await;
    assert_eq!((report.totals.executed, report.totals.executions), (5, 5));
}

#[tokio::test]
async fn the_build_takes_over_what_it_reaches() {
    let scene = Scene::header_changed().await;
    scene.toy.hold(Hold::Executing);
    let engine = scene.engine().with_options(Options { jobs: 1, ..Options::default() });
    let report = drive(engine, |events| {
        let toy = &scene.toy;
        async move {
            until(|| toy.submitted().len() == 1).await;
            for _ in 0..2 {
                events.send(Event::BuildReached { element: "lib.bst".to_owned() }).unwrap();
            }
            drop(events);
            toy.release();
        }
    })
    .await;
    assert_eq!(action(&report, "lib.o").execution, ExecutionReport::Executed, "it was executing already");
    let dropped = action(&report, "lib.a");
    assert_eq!((dropped.outcome, dropped.skip), (Outcome::Dropped, Some(SkipKind::BuildReached)));
    assert_eq!(action(&report, "util.o").execution, ExecutionReport::Executed);
    // The archive will only be known from the artifact.
    let link = action(&report, "app");
    assert_eq!(
        (link.outcome, link.reason.as_deref()),
        (Outcome::Deferred, Some("waits for usr/lib/lib.a in the artifact of lib.bst"))
    );
    assert_eq!(report.totals.cancelled, 0);
}

#[tokio::test]
async fn an_artifact_replaces_what_the_build_took_over() {
    let mut scene = Scene::header_changed().await;
    // What the build itself will have made of the library.
    let new = State::default().with_header("int changed;\n");
    let toy_store = scene.world.store.clone();
    scene.world.build(&new).await;
    for action in scene.expected() {
        toy_store.forget_action_result(&action);
    }
    let report = drive(scene.engine(), |events| {
        let (scene, toy) = (&scene, &scene.toy);
        // Before the engine is polled.
        events.send(Event::BuildReached { element: "lib.bst".to_owned() }).unwrap();
        async move {
            until(|| toy.submitted().len() == 2).await;
            events.send(artifact(scene, "lib.bst")).unwrap();
        }
    })
    .await;
    assert_eq!(action(&report, "app").adapted, Some(scene.new["app.bst"].actions[2]));
    assert_eq!(action(&report, "app").execution, ExecutionReport::Executed);
    assert!(LIB.iter().all(|name| action(&report, name).skip == Some(SkipKind::BuildReached)));
}

#[tokio::test]
async fn what_is_queued_is_cancelled_when_the_build_arrives() {
    let scene = Scene::header_changed().await;
    scene.toy.hold(Hold::Queued);
    let report = drive(scene.engine(), |events| {
        let toy = &scene.toy;
        async move {
            until(|| toy.submitted().len() == 3).await;
            events.send(Event::BuildReached { element: "app.bst".to_owned() }).unwrap();
            until(|| toy.cancelled() == 2).await;
            toy.release();
        }
    })
    .await;
    for name in APP {
        assert_eq!(action(&report, name).skip, Some(SkipKind::BuildReached), "{name}");
    }
    assert_eq!((report.totals.executed, report.totals.cancelled), (2, 2));
}

#[tokio::test]
async fn cancelling_ends_the_run() {
    for hold in [Hold::Queued, Hold::Executing] {
        let scene = Scene::header_changed().await;
        scene.toy.hold(hold);
        // The sender stays open, and nothing is ever released.
        let (sender, receiver) = unbounded_channel();
        let script = async {
            until(|| scene.toy.submitted().len() == 3).await;
            sender.send(Event::Cancel).unwrap();
            sender.send(sources(&scene, "dep.bst")).unwrap();
        };
        let (report, ()) = tokio::join!(scene.engine().run(receiver), script);
        let report = report.unwrap();
        assert_eq!(report.totals.skips[&SkipKind::Cancelled], 5);
        assert_eq!((report.totals.cancelled, scene.toy.cancelled()), (3, 3));
    }
}

#[tokio::test]
async fn cancelling_before_the_records_are_read_reads_none() {
    let scene = Scene::header_changed().await;
    let (sender, receiver) = unbounded_channel();
    sender.send(Event::Cancel).unwrap();
    let report = scene.engine().run(receiver).await.unwrap();
    let skipped =
        |e: &instantiate::ElementReport| matches!(&e.record, RecordReport::None(s) if s.kind == SkipKind::Cancelled);
    assert!(report.elements.iter().all(skipped), "{report:?}");
    assert_eq!(scene.world.store.stats().read_blobs.calls, 0);
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing_behind() {
    let scene = Scene::header_changed().await;
    scene.toy.hold(Hold::Executing);
    let handles = scene.toy.handles();
    tokio::select! {
        report = scene.engine().run_static() => panic!("it cannot end: {report:?}"),
        () = until(|| scene.toy.submitted().len() == 3) => {}
    }
    assert_eq!(scene.toy.handles(), handles);
    scene.toy.release();
    assert_eq!(scene.toy.submitted().len(), 3);
}
