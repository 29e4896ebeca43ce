//! Whatever the order of events and answers, the same is done: ten thousand
//! orders, each decided by a seed, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use instantiate::{Engine, Event, ExecutionReport, Options, Outcome, Report, Services, SkipKind};
use overlay::graph::{Element, Graph};
use reapi_proto::Digest;
use support::seeded::Seeded;
use support::toy::Toy;
use support::weather::{Sky, Weather};
use support::{APP, LIB, SHA, Scene, State, action};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

/// Schedules per test, ten thousand in all: fewer for tests that take more time for each.
const TO_THE_END: u64 = 1800;
const CUT_SHORT: u64 = 3000;
const REPEATED: u64 = 400;

/// A clock that stands still while anybody has something to do.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// A project before a rebuild. What there is to know can be told by events only.
struct Stage {
    scene: Scene,
    graph: Arc<Graph>,
    news: Vec<Event>,
    /// What is stored before anything is primed.
    stored: BTreeSet<Digest>,
    expected: Vec<Digest>,
}

impl Stage {
    /// The header's source is what gets installed: what is guessed from it is right.
    async fn with_right_guesses() -> Self {
        Self::new(State::default().with_header("int changed;\n")).await
    }

    /// It is not: what is guessed from it must be corrected.
    async fn with_wrong_guesses() -> Self {
        Self::new(State::default().with_header("int source;\n").with_installed_header("int installed;\n")).await
    }

    async fn new(new: State) -> Self {
        let mut scene = Scene::new(State::default(), new.clone()).await;
        // The artifacts of the rebuild, but nothing of what is to be primed.
        scene.world.build(&new).await;
        let expected = scene.expected();
        for action in &expected {
            scene.world.store.forget_action_result(action);
            scene.world.store.forget(action);
        }
        let mut news = Vec::new();
        let elements: Vec<Element> = std::mem::take(&mut scene.elements)
            .into_iter()
            .map(|element| {
                let name = element.name.clone();
                if let Some(root) = element.sources {
                    news.push(Event::SourcesAvailable { element: name.clone(), root });
                }
                news.push(Event::ArtifactAvailable { root: scene.new[name.as_str()].artifact, element: name });
                Element { sources: None, cached: None, ..element }
            })
            .collect();
        let graph = Arc::new(Graph::new(SHA, elements).unwrap());
        let stored = scene.world.store.digests().into_iter().collect();
        Self { scene, graph, news, stored, expected }
    }

    /// Takes back whatever priming has stored.
    fn reset(&self) {
        let store = &self.scene.world.store;
        let recorded: BTreeSet<Digest> = self.scene.old.values().flat_map(|built| built.actions.clone()).collect();
        for (action, _) in store.action_results() {
            if !recorded.contains(&action) {
                store.forget_action_result(&action);
            }
        }
        for digest in store.digests() {
            if !self.stored.contains(&digest) {
                store.forget(&digest);
            }
        }
    }

    fn engine(&self, seeded: &Seeded, weather: &Weather) -> Engine {
        let store = Arc::new(weather.over(self.scene.world.store.clone()));
        let toy = weather.over(Toy::new(self.scene.world.store.clone()));
        let services = Services { blobs: store.clone(), cache: store, execution: Some(Arc::new(toy)) };
        let jobs = 1 + usize::try_from(seeded.below(4)).unwrap();
        Engine::new(services, Arc::clone(&self.graph)).with_options(Options { jobs, ..Options::default() })
    }

    /// Everything there is to know, in any order, some of it repeatedly.
    fn shuffled(&self, seeded: &Seeded) -> Vec<Event> {
        let mut events = self.news.clone();
        let any = |limit: usize| usize::try_from(seeded.below(limit as u64)).unwrap();
        for _ in 0..any(4) {
            events.push(self.news[any(self.news.len())].clone());
        }
        for _ in 0..any(3) {
            events.push(Event::Requested { action: self.expected[any(self.expected.len())] });
        }
        for i in (1..events.len()).rev() {
            events.swap(i, any(i + 1));
        }
        events
    }

    /// Runs the engine while `script` sends events.
    async fn run<F: Future<Output = ()>>(
        &self,
        seeded: &Seeded,
        weather: &Weather,
        script: impl FnOnce(UnboundedSender<Event>) -> F,
    ) -> Report {
        let (sender, receiver) = unbounded_channel();
        let (report, ()) = tokio::join!(self.engine(seeded, weather).run(receiver), script(sender));
        report.unwrap()
    }

    /// Runs the engine and tells it these events.
    async fn run_told(&self, seeded: &Seeded, weather: &Weather, events: Vec<Event>) -> Report {
        self.run(seeded, weather, |sender| async move { tell(weather, &sender, events).await }).await
    }
}

/// Sends events with pauses in between.
async fn tell(weather: &Weather, sender: &UnboundedSender<Event>, events: Vec<Event>) {
    for event in events {
        weather.pause().await;
        // An engine that was cancelled listens no more.
        let _ = sender.send(event);
    }
}

fn sorted(digests: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
    let mut digests: Vec<Digest> = digests.into_iter().collect();
    digests.sort_unstable();
    digests
}

fn adapted(report: &Report) -> Vec<Digest> {
    sorted(LIB.iter().chain(&APP).filter_map(|name| action(report, name).adapted))
}

/// How often each action was submitted, apart from when there was no room for it.
fn accepted(weather: &Weather) -> BTreeMap<Digest, u32> {
    let mut accepted = BTreeMap::new();
    for (_, action) in weather.submissions() {
        *accepted.entry(action).or_insert(0) += 1;
    }
    for (action, count) in &mut accepted {
        *count -= weather.refusals(action);
    }
    accepted
}

/// Nothing waits any more once everything was told.
fn nobody_is_forgotten(report: &Report, seed: u64) {
    for element in &report.elements {
        for action in &element.actions {
            assert_ne!(action.outcome, Outcome::Deferred, "seed {seed}: {action:?}");
        }
    }
}

/// Guesses that are right: exactly the actions of the build, each once, however long there is no room for them.
#[test]
fn every_schedule_submits_the_same() {
    runtime().block_on(async {
        let stage = Stage::with_right_guesses().await;
        for seed in 0..TO_THE_END {
            let seeded = Seeded::new(seed);
            let weather = Weather::new(seeded.clone(), if seed % 2 == 0 { Sky::Clear } else { Sky::Busy });
            let events = stage.shuffled(&seeded);
            let report = stage.run_told(&seeded, &weather, events).await;
            let accepted = accepted(&weather);
            assert!(accepted.values().all(|count| *count == 1), "seed {seed}: {accepted:?}");
            assert_eq!(sorted(accepted.into_keys()), stage.expected, "seed {seed}");
            assert_eq!(report.totals.executions, 5, "seed {seed}");
            for name in LIB.iter().chain(&APP) {
                let action = action(&report, name);
                let became = (action.outcome, &action.execution, action.guess);
                assert_eq!(became, (Outcome::Adapted, &ExecutionReport::Executed, false), "seed {seed}: {name}");
            }
            stage.reset();
        }
    });
}

/// Guesses that are wrong: whatever was tried before, the end is right, and
/// only what was taken back while it was queued is submitted twice.
#[test]
fn every_schedule_ends_with_the_truth() {
    runtime().block_on(async {
        let stage = Stage::with_wrong_guesses().await;
        for seed in 0..TO_THE_END {
            let seeded = Seeded::new(seed);
            let weather = Weather::new(seeded.clone(), if seed % 2 == 0 { Sky::Clear } else { Sky::Busy });
            let events = stage.shuffled(&seeded);
            let report = stage.run_told(&seeded, &weather, events).await;
            assert_eq!((adapted(&report), report.totals.executed), (stage.expected.clone(), 5), "seed {seed}");
            let twice: u32 = accepted(&weather).values().map(|count| count.saturating_sub(1)).sum();
            assert!(u64::from(twice) <= report.totals.cancelled, "seed {seed}: {twice} submitted twice");
            stage.reset();
        }
    });
}

/// Services that fail: what they fail is named, nothing waits for it, and nothing else is submitted.
#[test]
fn failures_cost_what_they_fail_and_nothing_waits_for_it() {
    runtime().block_on(async {
        let stage = Stage::with_right_guesses().await;
        let mut executed = 0;
        for seed in 0..CUT_SHORT {
            let seeded = Seeded::new(seed);
            let weather = Weather::new(seeded.clone(), Sky::Stormy);
            let events = stage.shuffled(&seeded);
            let report = stage.run_told(&seeded, &weather, events).await;
            nobody_is_forgotten(&report, seed);
            let accepted = accepted(&weather);
            let twice: u32 = accepted.values().map(|count| count.saturating_sub(1)).sum();
            assert!(u64::from(twice) <= report.totals.cancelled, "seed {seed}: {accepted:?}");
            for action in accepted.keys() {
                assert!(stage.expected.contains(action), "seed {seed}: {action} is of no use");
            }
            for action in report.elements.iter().flat_map(|element| &element.actions) {
                let lost = action.outcome == Outcome::Dropped || matches!(action.execution, ExecutionReport::Failed(_));
                assert_eq!(action.reason.is_some(), lost, "seed {seed}: {action:?}");
            }
            executed += report.totals.executed;
            stage.reset();
        }
        assert!(executed > CUT_SHORT, "the weather is too bad to tell anything: {executed} were executed");
    });
}

/// The build arrives, or everything is cancelled: from then on, nothing is submitted.
#[test]
fn nothing_is_submitted_after_its_end() {
    runtime().block_on(async {
        let stage = Stage::with_wrong_guesses().await;
        for seed in 0..CUT_SHORT {
            let seeded = Seeded::new(seed);
            let weather = Weather::new(seeded.clone(), if seed % 2 == 0 { Sky::Busy } else { Sky::Stormy });
            let mut events = stage.shuffled(&seeded);
            let last = match seeded.below(3) {
                0 => Event::Cancel,
                1 => Event::BuildReached { element: "lib.bst".to_owned() },
                _ => Event::BuildReached { element: "app.bst".to_owned() },
            };
            let at = usize::try_from(seeded.below(events.len() as u64 + 1)).unwrap();
            let rest = events.split_off(at);
            let mut ended = None;
            let report = stage
                .run(&seeded, &weather, |sender| {
                    let (weather, ended, last) = (&weather, &mut ended, last.clone());
                    async move {
                        tell(weather, &sender, events).await;
                        weather.pause().await;
                        let _ = sender.send(last);
                        // The clock goes on only when the engine has heard it.
                        sleep(Duration::from_millis(1)).await;
                        *ended = Some(Instant::now());
                        tell(weather, &sender, rest).await;
                    }
                })
                .await;
            let ended = ended.unwrap();
            let of: BTreeSet<Digest> = match &last {
                Event::BuildReached { element } => {
                    let reached = report.elements.iter().find(|e| e.name == *element).unwrap();
                    reached.actions.iter().filter_map(|action| action.adapted).collect()
                }
                _ => weather.submissions().into_iter().map(|(_, action)| action).collect(),
            };
            for (when, action) in weather.submissions() {
                assert!(when < ended || !of.contains(&action), "seed {seed}: {action} after {last:?}");
            }
            if last == Event::Cancel {
                assert!(report.elements.iter().flat_map(|e| &e.actions).all(|a| a.outcome != Outcome::Deferred));
            } else {
                nobody_is_forgotten(&report, seed);
            }
            let reasons = report.totals.skips.get(&SkipKind::Cancelled).copied().unwrap_or(0);
            assert!(last == Event::Cancel || reasons == 0, "seed {seed}");
            stage.reset();
        }
    });
}

/// A run that is dropped anywhere leaves nothing that the next one minds, and after that there is nothing to do.
#[test]
fn a_run_that_is_dropped_can_be_repeated() {
    runtime().block_on(async {
        let stage = Stage::with_right_guesses().await;
        let mut dropped = 0;
        for seed in 0..REPEATED {
            let seeded = Seeded::new(seed);
            let weather = Weather::new(seeded.clone(), Sky::Busy);
            let limit = Duration::from_millis(seeded.below(240_000));
            let run = stage.run_told(&seeded, &weather, stage.shuffled(&seeded));
            dropped += u64::from(tokio::time::timeout(limit, run).await.is_err());
            for (turn, executes) in [(1, true), (2, false)] {
                let weather = Weather::new(seeded.clone(), Sky::Clear);
                let report = stage.run_told(&seeded, &weather, stage.shuffled(&seeded)).await;
                let totals = &report.totals;
                assert_eq!((adapted(&report), totals.failed), (stage.expected.clone(), 0), "seed {seed}, turn {turn}");
                assert_eq!(totals.executed + totals.cached, 5, "seed {seed}, turn {turn}: {totals:?}");
                assert!(executes || weather.submissions().is_empty(), "seed {seed}: executed again");
                assert!(executes || totals.upload.uploaded == 0, "seed {seed}: uploaded again");
            }
            stage.reset();
        }
        assert!(dropped > REPEATED / 4 && dropped < REPEATED, "{dropped} were dropped before their end");
    });
}
