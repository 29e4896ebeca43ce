//! What is submitted first, and how much at a time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cas_client::{
    ActionCacheWriter, Error, ErrorKind, ExecuteRequest, Execution, ExecutionOutcome, ExecutionStage, ExecutionUpdate,
    InMemory, Result,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use instantiate::{Engine, Event, ExecutionReport, Options, Report, Services, SkipKind};
use overlay::graph::{Element, Graph};
use overlay::{ElementId, Record, RecordedAction, RecordedElement, layout};
use reapi_proto::Digest;
use reapi_proto::v2::{self, ActionResult};
use support::SHA;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep, sleep_until};

/// A service in virtual time.
#[derive(Clone, Debug)]
struct Cluster {
    store: InMemory,
    state: Arc<Mutex<State>>,
    /// How long an action waits for a worker, and how long it takes then.
    queue: Duration,
    run: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// When what was submitted, and how many were in flight then.
    log: Vec<(Instant, Digest, usize)>,
    in_flight: usize,
    /// Refusals to come, with the rest that each asks for.
    refusals: VecDeque<Option<Duration>>,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

#[async_trait]
impl Execution for Cluster {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let refusal = {
            let mut state = self.state.lock().unwrap();
            state.in_flight += 1;
            let in_flight = state.in_flight;
            state.log.push((Instant::now(), request.action, in_flight));
            let refusal = state.refusals.pop_front();
            state.in_flight -= usize::from(refusal.is_some());
            refusal
        };
        if let Some(rest) = refusal {
            let error = Error::new(ErrorKind::Exhausted, "Execute", "no room");
            return Err(match rest {
                Some(rest) => error.with_retry_after(rest),
                None => error,
            });
        }
        let (cluster, action) = (self.clone(), request.action);
        let at_once = ExecutionUpdate::Stage(ExecutionStage::Queued);
        let started = async move {
            sleep(cluster.queue).await;
            Ok(ExecutionUpdate::Stage(ExecutionStage::Executing))
        };
        let cluster = self.clone();
        let done = async move {
            sleep(cluster.run).await;
            cluster.state.lock().unwrap().in_flight -= 1;
            let result = ActionResult::default();
            cluster.store.store_action_result(&action, &result).await?;
            let outcome = ExecutionOutcome { result, cached: false, message: String::new() };
            Ok(ExecutionUpdate::Done(Box::new(outcome)))
        };
        Ok(stream::iter([Ok(at_once)]).chain(stream::once(started)).chain(stream::once(done)).boxed())
    }

    async fn cancel(&self, _operation: &str) -> Result<()> {
        Ok(())
    }
}

/// Elements whose actions depend on nothing, and whose results are gone.
struct Evicted {
    cluster: Cluster,
    elements: Vec<Element>,
    names: BTreeMap<Digest, String>,
}

impl Evicted {
    fn new(queue: Duration, run: Duration) -> Self {
        let cluster = Cluster { store: InMemory::new(), state: Arc::default(), queue, run };
        Self { cluster, elements: Vec::new(), names: BTreeMap::new() }
    }

    /// An element with an action of each of these durations, called `NAME N`.
    fn element(mut self, name: &str, deps: &[&str], seconds: &[u64]) -> Self {
        let store = &self.cluster.store;
        let recorded = RecordedElement { name: name.to_owned(), sources: None, artifact: None };
        let mut record = Record::new(SHA, recorded);
        for (number, seconds) in seconds.iter().enumerate() {
            let call = format!("{name} {number}");
            let action = v2::Action {
                command_digest: Some(SHA.digest(b"").into()),
                input_root_digest: Some(SHA.digest(b"").into()),
                salt: call.clone().into(),
                ..v2::Action::default()
            };
            let base = store.put_message(&action);
            self.names.insert(base, call);
            record.actions.push(RecordedAction {
                element: ElementId::SELF,
                base,
                root: None,
                properties: Vec::new(),
                conditions: Vec::new(),
                duration: Some(Duration::from_secs(*seconds)),
                output_bytes: None,
            });
        }
        let build_deps = Some(deps.iter().map(|dep| (*dep).to_owned()).collect());
        let message = store.put(layout::encode(&record));
        self.elements.push(Element { build_deps, speculative_actions: Some(message), ..Element::new(name) });
        self
    }

    fn refusing(self, refusals: impl IntoIterator<Item = Option<Duration>>) -> Self {
        self.cluster.state.lock().unwrap().refusals.extend(refusals);
        self
    }

    fn engine(&self, jobs: usize) -> Engine {
        let store = Arc::new(self.cluster.store.clone());
        let services = Services { blobs: store.clone(), cache: store, execution: Some(Arc::new(self.cluster.clone())) };
        let graph = Arc::new(Graph::new(SHA, self.elements.clone()).unwrap());
        Engine::new(services, graph).with_options(Options { jobs, ..Options::default() })
    }

    async fn prime(&self, jobs: usize) -> Report {
        self.engine(jobs).run_static().await.unwrap()
    }

    fn order(&self) -> Vec<&str> {
        let state = self.cluster.state.lock().unwrap();
        state.log.iter().map(|(_, action, _)| self.names[action].as_str()).collect()
    }

    /// How many were in flight at each submission.
    fn in_flight(&self) -> Vec<usize> {
        self.cluster.state.lock().unwrap().log.iter().map(|(_, _, in_flight)| *in_flight).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.cluster.state.lock().unwrap().log.iter().map(|(when, ..)| *when).collect()
    }
}

/// Primes one action a second while a build goes on: it has begun with the first element, and tells the rest later.
async fn prime_beside(project: &Evicted, first: &str, later: &[(u64, Event)]) -> Report {
    let (events, receiver) = unbounded_channel();
    events.send(Event::BuildStarted { element: first.to_owned() }).unwrap();
    let script = async {
        let began = Instant::now();
        for (milliseconds, event) in later {
            sleep_until(began + Duration::from_millis(*milliseconds)).await;
            events.send(event.clone()).unwrap();
        }
        sleep(Duration::from_secs(60)).await;
        events.send(Event::Cancel).unwrap();
    };
    let (report, ()) = tokio::join!(project.engine(1).run(receiver), script);
    report.unwrap()
}

fn started(element: &str) -> Event {
    Event::BuildStarted { element: element.to_owned() }
}

fn reached(element: &str) -> Event {
    Event::BuildReached { element: element.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn what_takes_longer_than_setting_up_is_left_to_the_build() {
    let project = Evicted::new(NO_TIME, Duration::from_secs(1))
        .element("first.bst", &[], &[0, 5])
        .element("second.bst", &[], &[2, 9])
        .element("far.bst", &[], &[20, 19, 18, 17, 16]);
    // While the last of the far ones runs: setting up takes 4.7 seconds.
    let report =
        prime_beside(&project, "first.bst", &[(4700, reached("first.bst")), (4700, started("second.bst"))]).await;
    let expected = ["far.bst 0", "far.bst 1", "far.bst 2", "far.bst 3", "far.bst 4", "second.bst 0"];
    assert_eq!(project.order(), expected);
    assert_eq!(report.totals.executed, 6);
}

#[tokio::test(start_paused = true)]
async fn what_the_build_comes_to_before_it_is_done_is_left_to_it() {
    let project = Evicted::new(NO_TIME, Duration::from_secs(1))
        .element("base.bst", &[], &[3])
        .element("top.bst", &["base.bst"], &[0, 8])
        .element("aside.bst", &["base.bst", "slow.bst"], &[7])
        .element("slow.bst", &[], &[2])
        .element("far.bst", &[], &[20, 19, 18, 17, 16]);
    // Setting up takes 2.7 seconds, and what is below `top.bst` is built 3 seconds later.
    prime_beside(&project, "base.bst", &[(2700, reached("base.bst"))]).await;
    let order = project.order();
    assert!(!order.contains(&"base.bst 0") && !order.contains(&"top.bst 1"), "{order:?}");
    assert!(order.contains(&"top.bst 0"), "{order:?}");
    // Nobody knows when the build begins with what is also below it.
    assert!(order.contains(&"aside.bst 0") && order.contains(&"slow.bst 0"), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_done_before_an_element_is_set_up_is_primed() {
    let project = Evicted::new(NO_TIME, NO_TIME).element("app.bst", &[], &[0, 2, 5]);
    let (events, receiver) = unbounded_channel();
    events.send(Event::BuildStarted { element: "app.bst".to_owned() }).unwrap();
    drop(events);
    project.engine(1).run(receiver).await.unwrap();
    // As long as it is not known better, setting up takes a second.
    assert_eq!(project.order(), ["app.bst 0"]);
}

const NO_TIME: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_longest_path_comes_first() {
    let project = Evicted::new(NO_TIME, NO_TIME)
        .element("aside.bst", &[], &[3, 14])
        .element("leaf.bst", &[], &[1, 2])
        // Nothing is recorded of it, but it lies in between.
        .element("stack.bst", &["leaf.bst"], &[])
        .element("wide.bst", &["leaf.bst"], &[6])
        .element("top.bst", &["stack.bst", "wide.bst"], &[10, 2]);
    project.prime(1).await;
    // 14; 10; 6 and a second for an element above; 2 and 1 with two of them; 3 and 2 alone.
    let expected = ["aside.bst 1", "top.bst 0", "wide.bst 0", "leaf.bst 1", "aside.bst 0", "leaf.bst 0", "top.bst 1"];
    assert_eq!(project.order(), expected);
}

#[tokio::test(start_paused = true)]
async fn more_is_requested_as_long_as_it_starts_soon() {
    let project = Evicted::new(NO_TIME, Duration::from_secs(60)).element("app.bst", &[], &[1; 300]);
    let report = project.prime(64).await;
    assert_eq!((report.totals.executed, report.totals.executions), (300, 300));
    let in_flight = project.in_flight();
    let first = project.times().iter().filter(|when| **when == project.times()[0]).count();
    assert_eq!(first, 16);
    assert_eq!(in_flight.iter().max(), Some(&64));
    // Sixteen end at a time, as they began.
    assert!(in_flight[64..].iter().all(|count| *count > 48), "{in_flight:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_service_only_queues_is_not_requested() {
    let project = Evicted::new(Duration::from_secs(20), NO_TIME).element("app.bst", &[], &[1; 100]);
    let report = project.prime(64).await;
    assert_eq!(report.totals.executed, 100);
    let in_flight = project.in_flight();
    assert_eq!(in_flight.iter().max(), Some(&16));
    assert!(in_flight[90..].iter().all(|count| *count <= 2), "{in_flight:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_without_room_is_left_alone_for_as_long_as_it_asks() {
    let rest = Duration::from_secs(7);
    let project = Evicted::new(NO_TIME, NO_TIME).element("app.bst", &[], &[1; 40]).refusing([None, Some(rest)]);
    let report = project.prime(64).await;
    assert_eq!((report.totals.executed, report.totals.executions), (40, 40));
    assert_eq!(report.totals.refused, 2);
    let times = project.times();
    assert_eq!(times.len(), 42);
    let early = times.iter().filter(|when| **when < times[0] + rest).count();
    assert_eq!(early, 16, "those that were requested together with what was refused");
    assert_eq!(project.in_flight()[16..].iter().take(8).max(), Some(&8), "half of them at a time then");
}

#[tokio::test(start_paused = true)]
async fn being_refused_has_an_end() {
    let began = Instant::now();
    let project = Evicted::new(NO_TIME, NO_TIME).element("app.bst", &[], &[1]).refusing([None; 20]);
    let report = project.prime(64).await;
    assert_eq!(project.times().len(), 9);
    let ExecutionReport::Failed(reason) = &report.elements[0].actions[0].execution else { panic!("{report:?}") };
    assert!(reason.contains("exhausted: Execute: no room"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
    assert_eq!(report.totals.skips.get(&SkipKind::Service), None, "it stays what the build will ask for");

    let hour = Some(Duration::from_secs(3600));
    let project = Evicted::new(NO_TIME, NO_TIME).element("app.bst", &[], &[1, 1]).refusing([hour]);
    let began = Instant::now();
    let report = project.prime(1).await;
    assert_eq!((report.totals.failed, report.totals.executed), (1, 1));
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(300) && waited < Duration::from_secs(310), "{waited:?}");
}
