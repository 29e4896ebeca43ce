//! Adapting the recorded actions to a next state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::instantiate::{Engine, Outcome, Report, Services};
use cas_client::InMemory;
use cas_client::grpc::GrpcClient;
use overlay::graph::Graph;
use reapi_proto::Digest;
use testbed::workload::{NextState, Results, Workload};
use tokio::runtime::Runtime;

use crate::measure::best;
use crate::replay::Replay;

/// The time of a dry run over `store`, which has the record, the dependencies of the next state, and the
/// outputs of results that can be looked up, but none of what is needed. Panics unless every prediction is right.
pub(crate) fn dry_run(
    runtime: &Runtime,
    workload: &Workload,
    next: &NextState,
    store: &InMemory,
    message: &Digest,
) -> Duration {
    let graph = graph(next, message);
    let results = workload.action_results().iter().chain(next.action_results());
    let services = Services::dry_run(Arc::new(store.clone()), Arc::new(Results::new(results)));
    let mut last = None;
    let time = best(|| last = Some(run(runtime, services.clone(), &graph)));
    if let Some(report) = last {
        check(next, &report);
    }
    time
}

/// Blobs stored when everything is executed, by a service that answers at once.
pub(crate) fn prime(runtime: &Runtime, next: &NextState, store: &InMemory, message: &Digest) -> usize {
    let before = store.digests().len();
    let services = Services {
        blobs: Arc::new(store.clone()),
        cache: Arc::new(store.clone()),
        execution: Some(Arc::new(Replay::new(Arc::new(store.clone()), next.action_results()))),
    };
    check(next, &run(runtime, services, &graph(next, message)));
    store.digests().len() - before
}

/// The time of priming through a service (casd): what is needed is uploaded there, and executions are answered
/// at once. The service must have the old state and the dependencies of the next one.
pub(crate) fn prime_through(runtime: &Runtime, next: &NextState, client: &GrpcClient, message: &Digest) -> Duration {
    let client = Arc::new(client.clone());
    let services = Services {
        blobs: Arc::clone(&client) as _,
        cache: Arc::clone(&client) as _,
        execution: Some(Arc::new(Replay::new(client, next.action_results()))),
    };
    let graph = graph(next, message);
    let start = Instant::now();
    let report = run(runtime, services, &graph);
    let time = start.elapsed();
    check(next, &report);
    time
}

/// What is to come of a run.
pub(crate) struct Prediction<'a> {
    pub(crate) next: &'a NextState,
    /// The record.
    pub(crate) message: &'a Digest,
}

/// Primes with these services. Panics unless every prediction is right.
pub(crate) fn run_checked(runtime: &Runtime, services: Services, prediction: &Prediction<'_>) {
    let report = run(runtime, services, &graph(prediction.next, prediction.message));
    check(prediction.next, &report);
}

fn graph(next: &NextState, message: &Digest) -> Arc<Graph> {
    let document = next.graph_with_record(message).to_string();
    Arc::new(Graph::from_json(document.as_bytes()).unwrap_or_else(|error| panic!("{error}")))
}

/// Not inlined, to be [counted](crate::instructions) by its name.
#[inline(never)]
fn run(runtime: &Runtime, services: Services, graph: &Arc<Graph>) -> Report {
    let engine = Engine::new(services, Arc::clone(graph));
    runtime.block_on(engine.run_static()).unwrap_or_else(|error| panic!("{error}"))
}

/// Every action must have become exactly what the next build runs.
fn check(next: &NextState, report: &Report) {
    let element = report.elements.iter().find(|element| element.name == "app.bst");
    let element = element.unwrap_or_else(|| panic!("no report on app.bst"));
    let found: HashMap<Digest, _> = element.actions.iter().map(|action| (action.base, action)).collect();
    assert_eq!(found.len(), next.expected().len(), "{:?}", element.record);
    for expected in next.expected() {
        let action = found.get(&expected.base).unwrap_or_else(|| panic!("{expected:?} is not reported"));
        let right = if expected.is_changed() {
            action.outcome == Outcome::Adapted && action.adapted == Some(expected.next)
        } else {
            action.outcome == Outcome::Unchanged
        };
        assert!(right, "{}: expected {expected:?}, found {action:?}", next.variant());
    }
}
