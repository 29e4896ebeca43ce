//! Whatever the order of events and answers, the same is done.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::sync::Arc;

use instantiate::{Engine, Event, ExecutionReport, Options, Outcome, Report, Services};
use proptest::prelude::*;
use reapi_proto::Digest;
use support::jitter::{Jittery, Seeded};
use support::{APP, LIB, Scene, State, action};
use tokio::sync::mpsc::unbounded_channel;

fn jittery(scene: &Scene, seeded: &Seeded, jobs: usize) -> Engine {
    let store = Arc::new(Jittery { inner: scene.world.store.clone(), seeded: seeded.clone() });
    let toy = Jittery { inner: scene.toy.clone(), seeded: seeded.clone() };
    let services = Services { blobs: store.clone(), cache: store, execution: Some(Arc::new(toy)) };
    Engine::new(services, scene.graph()).with_options(Options { jobs, ..Options::default() })
}

/// Holds back everything that events can tell, and tells it in an order, with
/// repetitions and pauses, that the seed decides.
async fn run(scene: &mut Scene, seed: u64) -> Report {
    let seeded = Seeded::new(seed);
    let mut events = Vec::new();
    for element in &mut scene.elements {
        let name = element.name.clone();
        if let Some(root) = element.sources.take() {
            events.push(Event::SourcesAvailable { element: name.clone(), root });
        }
        element.cached = None;
        events.push(Event::ArtifactAvailable { element: name.clone(), root: scene.new[name.as_str()].artifact });
    }
    for _ in 0..seeded.below(4) {
        events.push(events[usize::try_from(seeded.below(events.len() as u64)).unwrap()].clone());
    }
    for i in (1..events.len()).rev() {
        events.swap(i, usize::try_from(seeded.below(i as u64 + 1)).unwrap());
    }
    let jobs = 1 + usize::try_from(seeded.below(4)).unwrap();
    let (sender, receiver) = unbounded_channel();
    let script = async {
        let sender = sender;
        for event in events {
            seeded.turns(60).await;
            sender.send(event).unwrap();
        }
    };
    let (report, ()) = tokio::join!(jittery(scene, &seeded, jobs).run(receiver), script);
    report.unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn adapted(report: &Report) -> Vec<Digest> {
    let mut adapted: Vec<Digest> = LIB.iter().chain(&APP).filter_map(|name| action(report, name).adapted).collect();
    adapted.sort_unstable();
    adapted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Guesses that are right: exactly the actions of the build, each once.
    #[test]
    fn every_schedule_submits_the_same(seed: u64) {
        block_on(async {
            let new = State::default().with_header("int changed;\n");
            let mut scene = Scene::new(State::default(), new.clone()).await;
            scene.world.build(&new).await;
            for action in scene.expected() {
                scene.world.store.forget_action_result(&action);
            }
            let report = run(&mut scene, seed).await;
            let mut submitted = scene.toy.submitted();
            submitted.sort_unstable();
            prop_assert_eq!(submitted, scene.expected());
            for name in LIB.iter().chain(&APP) {
                let action = action(&report, name);
                prop_assert_eq!((action.outcome, &action.execution), (Outcome::Adapted, &ExecutionReport::Executed));
                prop_assert!(!action.guess);
            }
            Ok(())
        })?;
    }

    /// Guesses that are wrong: whatever was tried before, the end is right, and nothing is submitted twice.
    #[test]
    fn every_schedule_ends_with_the_truth(seed: u64) {
        block_on(async {
            let new = State::default().with_header("int source;\n").with_installed_header("int installed;\n");
            let mut scene = Scene::new(State::default(), new.clone()).await;
            scene.world.build(&new).await;
            for action in scene.expected() {
                scene.world.store.forget_action_result(&action);
            }
            let report = run(&mut scene, seed).await;
            prop_assert_eq!(adapted(&report), scene.expected());
            prop_assert_eq!(report.totals.executed, 5);
            let mut submitted = scene.toy.submitted();
            submitted.sort_unstable();
            let all = submitted.len();
            submitted.dedup();
            // What was taken back while it was queued may be asked for again.
            prop_assert!(all as u64 <= submitted.len() as u64 + report.totals.cancelled);
            Ok(())
        })?;
    }
}
