//! Round trips go with the depth of trees, not with the number of actions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use cas_client::Stats;
use instantiate::{Event, Report};
use support::toy::Fault;
use support::{Scene, State, World, until};
use tokio::sync::mpsc::unbounded_channel;

async fn cost(units: usize, dry: bool) -> (Report, Stats) {
    let state = State::default().with_units(units);
    let scene = Scene::new(state.clone(), state.with_header("int changed;\n")).await;
    scene.world.store.take_stats();
    let engine = if dry { scene.dry_engine() } else { scene.engine() };
    let report = engine.run_static().await.unwrap();
    (report, scene.world.store.take_stats())
}

#[tokio::test]
async fn reads_do_not_grow_with_actions() {
    for dry in [true, false] {
        let (few_report, few) = cost(2, dry).await;
        let (many_report, many) = cost(400, dry).await;
        assert_eq!((few_report.totals.actions, many_report.totals.actions), (7, 405));
        assert_eq!(few.read_blobs.calls, many.read_blobs.calls, "dry: {dry}");
        // Records; current trees: usr/include of the sources is two levels deep; actions; input trees, which are six
        // levels deep; and, unless nothing is known of the objects, the same for archives and links.
        let limit = if dry { 12 } else { 30 };
        assert!(few.read_blobs.calls <= limit, "{} reads", few.read_blobs.calls);
        // Every look-up is a call of its own; questions about outputs and uploads go together.
        assert_eq!(many.fetch_action_result.calls, if dry { 403 } else { 2 * 405 });
        assert!(many.find_missing.calls <= if dry { 1 } else { 16 }, "{}", many.find_missing.calls);
        assert!(many.write_blobs.calls <= if dry { 0 } else { 5 }, "{}", many.write_blobs.calls);
    }
}

/// A service that has kept a thousand results is taken at its word about most of the others.
#[tokio::test]
async fn of_many_results_most_are_not_looked_up_again() {
    const UNITS: usize = 1500;
    let (report, stats) = cost(UNITS, false).await;
    let executed = UNITS as u64 + 5;
    assert_eq!((report.totals.executed, report.totals.failed), (executed, 0));
    let sampled = executed / 64 - 1024 / 64;
    assert_eq!(stats.fetch_action_result.calls, executed + 1024 + sampled);
    assert_eq!(report.totals.lookups, stats.fetch_action_result.calls);
}

/// One that keeps none is never taken at its word, however many it executes.
#[tokio::test]
async fn a_service_that_keeps_nothing_is_found_out_for_every_action() {
    const UNITS: usize = 1500;
    let state = State::default().with_units(UNITS);
    let scene = Scene::new(state.clone(), state.with_header("int changed;\n")).await;
    for action in scene.expected() {
        scene.toy.fault(action, Fault::Forgets);
    }
    let report = scene.prime().await;
    assert_eq!((report.totals.failed, report.totals.executed), (UNITS as u64 + 5, 0));
}

/// Calls, and blobs that they were about, of every kind.
fn work(stats: &Stats) -> (u64, u64) {
    let all = [&stats.find_missing, &stats.read_blobs, &stats.write_blobs, &stats.fetch_action_result];
    (all.iter().map(|method| method.calls).sum(), all.iter().map(|method| method.blobs).sum())
}

/// Nothing will be built: no service is asked for anything, however large the project is.
#[tokio::test]
async fn nothing_is_asked_where_nothing_changed() {
    for units in [2, 400] {
        let state = State::default().with_units(units);
        let scene = Scene::new(state.clone(), state).await;
        scene.world.store.take_stats();
        let report = scene.prime().await;
        assert_eq!((report.totals.elements, report.totals.current), (4, 4));
        assert_eq!(scene.world.store.take_stats(), Stats::default(), "{units}");

        // Where they are asked for all the same: the records in one go, and no more than the results themselves.
        let report = scene.prime_all().await;
        assert_eq!(report.totals.unchanged, 5 + units as u64);
        let stats = scene.world.store.take_stats();
        assert_eq!((stats.read_blobs.calls, stats.read_blobs.blobs), (1, 2));
        assert_eq!((stats.find_missing.calls, stats.write_blobs.calls), (1, 0));
        assert_eq!(stats.fetch_action_result.calls, 5 + units as u64);
    }
}

/// One file of the application is edited: one compile and the link see it.
async fn edited(units: usize, dry: bool) -> (Report, Stats) {
    let old = State::default().with_units(units);
    let mut new = old.clone();
    new.app_sources.insert("main.c".to_owned(), "edited\n".to_owned());
    let scene = Scene::new(old, new).await;
    scene.world.store.take_stats();
    let engine = if dry { scene.dry_engine() } else { scene.engine() };
    let report = engine.run_static().await.unwrap();
    (report, scene.world.store.take_stats())
}

#[tokio::test]
async fn actions_that_do_not_see_the_change_cost_no_reads() {
    for dry in [true, false] {
        let (few_report, few) = edited(38, dry).await;
        let (many_report, many) = edited(398, dry).await;
        assert_eq!((few_report.totals.actions, many_report.totals.actions), (41, 401));
        assert_eq!(few_report.totals.unchanged + 360, many_report.totals.unchanged);
        assert_eq!((few.read_blobs.calls, few.read_blobs.blobs), (many.read_blobs.calls, many.read_blobs.blobs));
        assert_eq!((few.write_blobs.calls, few.write_blobs.blobs), (many.write_blobs.calls, many.write_blobs.blobs));
        if dry {
            let ((calls, blobs), (more_calls, more_blobs)) = (work(&few), work(&many));
            assert!(calls > 0 && more_calls * 2 <= calls * 3, "{calls} calls became {more_calls}");
            assert!(blobs > 0 && more_blobs * 2 <= blobs * 3, "{blobs} blobs became {more_blobs}");
        } else {
            // The build will ask for each of them, so each result has to be there: the protocol has no question for several.
            let unseen = many_report.totals.unchanged - few_report.totals.unchanged;
            assert_eq!(many.fetch_action_result.calls - few.fetch_action_result.calls, unseen);
        }
    }
}

/// Of many actions, messages are kept only while they are being looked at: what changes once more is read once more.
#[tokio::test]
async fn messages_of_many_actions_are_read_again() {
    const UNITS: usize = 4200;
    let [old, first, second] = ["int dep;\n", "int first;\n", "int second;\n"]
        .map(|header| State::default().with_units(UNITS).with_header(header));
    let mut scene = Scene::new(old, first).await;
    let root = scene.world.files(&second.dep_sources);
    let again = World::default().build(&second).await;
    let expected = scene.expected();
    scene.world.store.take_stats();

    let (events, receiver) = unbounded_channel();
    let build = async {
        until(|| scene.toy.submitted().len() == expected.len()).await;
        let read = scene.world.store.take_stats().read_blobs.blobs;
        assert!(read > 2 * expected.len() as u64, "{read} blobs are no actions with their commands");
        events.send(Event::SourcesAvailable { element: "dep.bst".to_owned(), root }).unwrap();
        drop(events);
    };
    let (report, ()) = tokio::join!(scene.engine().run(receiver), build);
    let stats = scene.world.store.take_stats();
    assert!(stats.read_blobs.blobs > 2 * UNITS as u64, "only {} blobs were read again", stats.read_blobs.blobs);
    assert_eq!(report.unwrap().totals.superseded, expected.len() as u64);
    let mut submitted = scene.toy.submitted();
    submitted.sort_unstable();
    submitted.dedup();
    let mut both = expected;
    both.extend(again.values().flat_map(|built| built.actions.iter().copied()));
    both.sort_unstable();
    both.dedup();
    assert!(submitted == both, "{} submitted, {} expected", submitted.len(), both.len());
}
