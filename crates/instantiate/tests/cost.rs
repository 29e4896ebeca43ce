//! Round trips go with the depth of trees, not with the number of actions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use cas_client::Stats;
use instantiate::Report;
use support::{Scene, State};

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
