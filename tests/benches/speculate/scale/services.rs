//! Priming from end to end: records and trees are read from a service, what is new is uploaded, everything is executed
//! there, and results are looked up before and after.
//!
//! Through the server of `testbed` in this process, whose executions are answered at once, by a process of its own, so
//! that its memory can be told; and through casd, which executes nothing, with executions answered here.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::instantiate::{Engine, Report, Services};
use cas_client::grpc::GrpcClient;
use cas_client::{Blob, BlobStoreExt as _, InMemory};
use overlay::graph::Graph;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;
use testbed::runner::{FnRunner, RunError};
use testbed::{Server, ServerConfig};
use tokio::runtime::{Builder, Runtime};
use tonic::Code;

use super::project::{Change, Dimensions, Keep, Project};
use super::{DISTRIBUTION, GROWTH, START, check, number};
use crate::figures::{Kind, figure};
use crate::measure::ratio;
use crate::replay::Replay;
use crate::{Effort, client, connect, count};

/// As the only argument but a URL and the file of a graph: [`alone`].
pub(crate) const ALONE: &str = "--prime";

/// Every action of every element sees the change.
const EVERYTHING: Dimensions =
    Dimensions { seeing: DISTRIBUTION.seeing + DISTRIBUTION.blind, blind: 0, ..DISTRIBUTION };

/// What priming took.
struct Measured {
    time: Duration,
    /// The most memory of the process that primes, in kB, if it can be told.
    memory: Option<u64>,
    calls: u64,
    uploaded_bytes: u64,
}

/// Measures projects that grow, and one of 1,000 elements with 200 actions each.
pub(crate) fn run(runtime: &Runtime, effort: Effort) {
    println!("from end to end, one header at the bottom of {} elements, {} actions", START.elements, START.actions());
    let sizes = GROWTH.map(|factor| (factor, Dimensions { elements: START.elements * factor, ..START }));
    let mut first: Option<Measured> = None;
    for (factor, dimensions) in sizes {
        let measured = through_server(&Project::new(dimensions, Change::Header, Keep::Everything));
        println!("  ×{factor} through the server: {}", measured.describe());
        match &first {
            None => first = Some(measured),
            Some(first) => compare(factor, first, &measured, effort),
        }
    }
    if effort == Effort::Counts {
        return;
    }
    match client() {
        None => println!("  SKIPPED: no service's URL is given, so nothing is primed through casd"),
        Some(client) => {
            let mut first: Option<Duration> = None;
            for (factor, dimensions) in sizes {
                let project = Project::new(dimensions, Change::Header, Keep::Everything);
                let time = through_casd(runtime, &project, &client);
                let first = *first.get_or_insert(time);
                let growth = ratio(time, first) / count(factor);
                println!("  ×{factor} through {client}: {time:.2?}, growth ÷ size {growth:.2}");
                if factor == GROWTH[GROWTH.len() - 1] {
                    figure(Kind::Timed, &format!("×{factor} elements through casd, time ÷ size"), growth, 1.5);
                }
            }
        }
    }
    println!("{} elements, {} actions, all of which change", EVERYTHING.elements, EVERYTHING.actions());
    let measured = through_server(&Project::new(EVERYTHING, Change::Header, Keep::Everything));
    println!("  through the server: {}", measured.describe());
}

impl Measured {
    fn describe(&self) -> String {
        let memory = self.memory.map_or_else(|| "unknown".to_owned(), |kilobytes| format!("{} MB", kilobytes >> 10));
        format!("{:.2?}, {memory} of memory, {} calls, {} bytes uploaded", self.time, self.calls, self.uploaded_bytes)
    }
}

fn compare(factor: usize, first: &Measured, now: &Measured, effort: Effort) {
    let size = count(factor);
    let grown = |now: u64, then: u64| number(now) / number(then) / size;
    let time = ratio(now.time, first.time) / size;
    let (calls, bytes) = (grown(now.calls, first.calls), grown(now.uploaded_bytes, first.uploaded_bytes));
    let memory = now.memory.zip(first.memory).map(|(now, then)| grown(now, then));
    println!("    growth ÷ size: time {time:.2}, memory {memory:.2?}, calls {calls:.2}, bytes {bytes:.2}");
    if factor != GROWTH[GROWTH.len() - 1] {
        return;
    }
    let name = |what: &str| format!("×{factor} elements from end to end, {what} ÷ size");
    if effort == Effort::Everything {
        figure(Kind::Timed, &name("time"), time, 1.5);
        if let Some(memory) = memory {
            figure(Kind::Timed, &name("memory"), memory, 1.1);
        }
    }
    figure(Kind::Counted, &name("calls"), calls, 1.1);
    figure(Kind::Counted, &name("bytes uploaded"), bytes, 1.1);
}

/// Primes in a process of its own. Panics unless exactly what the next build asks for was executed.
fn through_server(project: &Project) -> Measured {
    let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let threads = threads.unwrap_or_else(|error| panic!("{error}"));
    let config = ServerConfig::default().with_store(project.store.clone()).with_runner(answers(project));
    let server = threads.block_on(Server::start(config)).unwrap_or_else(|error| panic!("{error}"));
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let graph = directory.path().join("graph.json");
    std::fs::write(&graph, &project.graph).unwrap_or_else(|error| panic!("{error}"));
    let program = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
    let output = Command::new(program).args([ALONE, server.url()]).arg(&graph).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "priming alone: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(micros)), memory) = (numbers.next(), numbers.next()) else { panic!("priming alone said {text:?}") };
    let stats = server.take_stats();
    threads.block_on(server.shutdown());
    let mut executed = stats.executed.clone();
    executed.sort_unstable();
    let mut expected: Vec<Digest> = project.results.iter().map(|(action, _)| *action).collect();
    expected.sort_unstable();
    assert!(executed == expected, "{} executed, {} expected", executed.len(), expected.len());
    Measured {
        time: Duration::from_micros(micros),
        memory: memory.and_then(Result::ok),
        calls: stats.calls.values().sum(),
        uploaded_bytes: stats.uploaded_bytes(),
    }
}

/// Primes, and prints the microseconds that it took and the most memory of this process in kB.
pub(crate) fn alone(runtime: &Runtime) {
    let mut arguments = std::env::args().skip_while(|argument| argument != ALONE).skip(1);
    let (Some(url), Some(graph)) = (arguments.next(), arguments.next()) else {
        panic!("{ALONE} needs a URL and the file of a graph");
    };
    let graph = std::fs::read(&graph).unwrap_or_else(|error| panic!("{graph}: {error}"));
    let client = Arc::new(connect(&url));
    let start = Instant::now();
    let services =
        Services { blobs: Arc::clone(&client) as _, cache: Arc::clone(&client) as _, execution: Some(client) };
    prime(runtime, services, &graph);
    let micros = start.elapsed().as_micros();
    println!("{micros} {}", most_memory().map(|kilobytes| kilobytes.to_string()).unwrap_or_default());
}

/// The most memory that this process has had, in kB.
fn most_memory() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
}

fn prime(runtime: &Runtime, services: Services, graph: &[u8]) -> Report {
    let graph = Arc::new(Graph::from_json(graph).unwrap_or_else(|error| panic!("{error}")));
    let engine = Engine::new(services, graph);
    runtime.block_on(engine.run_static()).unwrap_or_else(|error| panic!("{error}"))
}

/// Primes through a service that has the recorded state. Panics unless every prediction is right.
fn through_casd(runtime: &Runtime, project: &Project, client: &GrpcClient) -> Duration {
    runtime.block_on(fill(&project.store, client)).unwrap_or_else(|error| panic!("{error}"));
    let client = Arc::new(client.clone());
    let start = Instant::now();
    let services = Services {
        blobs: Arc::clone(&client) as _,
        cache: Arc::clone(&client) as _,
        execution: Some(Arc::new(Replay::new(client, &project.results))),
    };
    let report = prime(runtime, services, project.graph.as_bytes());
    let time = start.elapsed();
    check(project, &report);
    assert_eq!(report.totals.executed, project.results.len() as u64, "some results were there before");
    time
}

async fn fill(from: &InMemory, to: &GrpcClient) -> cas_client::Result<()> {
    let blobs = from.digests().into_iter().filter_map(|digest| Blob::verified(digest, from.peek(&digest)?));
    to.upload_missing(&blobs.collect::<Vec<_>>()).await.map(drop)
}

/// Runs nothing: the results of the next build are known.
fn answers(project: &Project) -> FnRunner {
    let results: HashMap<Digest, ActionResult> = project.results.iter().cloned().collect();
    FnRunner::new(move |job| {
        let unexpected = || RunError::new(Code::InvalidArgument, format!("no build runs {}", job.digest));
        results.get(&job.digest).cloned().ok_or_else(unexpected)
    })
}
