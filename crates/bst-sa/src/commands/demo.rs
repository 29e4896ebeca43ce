//! `bst-sa demo`: the whole loop on an embedded server.
//!
//! The rebuilds are made by the toy orchestrator, which constructs its actions
//! from sources and artifacts and never sees an adapted one; what hit and what
//! ran is what the server counted.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use cas_client::grpc::{GrpcClient, GrpcConfig};
use instantiate::{Engine, ExecutionReport, Options, Outcome, Report};
use overlay::graph::Graph;
use reapi_proto::Digest;
use record::{ExplicitList, Generator};
use serde::Serialize;
use testbed::toy::{self, Project, State, Toolchain};
use testbed::{Server, ServerConfig};

use super::prime::lookup;
use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// What the server counted during one build.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    executed: usize,
    hits: usize,
}

#[derive(Serialize, Debug)]
struct Json {
    first: Counts,
    unprimed: Counts,
    primed: Counts,
    /// Actions of the rebuild that were adapted beforehand.
    predicted: usize,
    /// Executions by priming that the rebuild did not ask for.
    wasted: usize,
}

pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let jobs = match args.jobs {
        Some(jobs) => NonZeroUsize::new(jobs).ok_or_else(|| Failure::usage("--jobs must be at least one"))?,
        None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let toolchain = Toolchain::at(&args.compiler);
    let progress = Progress::new("first build");
    let mut project = Project::demo(toolchain).map_err(|e| failed("the project", &e))?;
    let config = ServerConfig { jobs, ..ServerConfig::default() };
    let server = Server::start(config).await.map_err(|e| failed("the embedded server", &e))?;
    let (first, report) = build(&server, &project, &State::default(), jobs).await?;

    progress.say("recording");
    let records = generate(&server, &project, &report).await?;
    project.apply_demo_change().map_err(|e| failed("the change", &e))?;

    progress.say("rebuilding without priming");
    let copy = server.fork().await.map_err(|e| failed("the embedded server", &e))?;
    let (unprimed, _) = build(&copy, &project, &report.state, jobs).await?;

    progress.say("priming");
    let copy = server.fork().await.map_err(|e| failed("the embedded server", &e))?;
    let priming = prime(&copy, &project, &report.state, &records, &args).await?;
    for element in &priming.elements {
        for action in element.actions.iter().filter(|a| a.reason.is_some()) {
            let reason = action.reason.as_deref().unwrap_or_default();
            tracing::info!("{}: {} {}: {reason}", element.name, action.base, action.outcome.name());
        }
    }
    let before = copy.stats();
    progress.say("rebuilding after priming");
    let (primed, _) = build(&copy, &project, &report.state, jobs).await?;
    drop(progress);

    let asked: BTreeSet<Digest> = copy.stats().hits.into_iter().skip(before.hits.len()).collect();
    let result = Json {
        first,
        unprimed,
        primed,
        predicted: predicted(&priming, &asked),
        wasted: before.executed.iter().filter(|digest| !asked.contains(digest)).count(),
    };
    if args.json.json {
        output::print_json(&result)?;
    } else {
        print_table(&result)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Adapted actions with a result, that the rebuild asked for.
fn predicted(priming: &Report, asked: &BTreeSet<Digest>) -> usize {
    let actions = priming.elements.iter().flat_map(|element| &element.actions);
    actions
        .filter(|a| a.outcome == Outcome::Adapted && !matches!(a.execution, ExecutionReport::Failed(_)))
        .filter(|a| a.adapted.is_some_and(|digest| asked.contains(&digest)))
        .count()
}

fn client(server: &Server) -> Result<Arc<GrpcClient>, Failure> {
    let endpoint = server.url().parse().map_err(|e| failed("the embedded server's address", &e))?;
    Ok(Arc::new(GrpcClient::new(GrpcConfig::new(endpoint))?))
}

/// Builds the project, and says what the server counted meanwhile.
async fn build(
    server: &Server,
    project: &Project,
    state: &State,
    jobs: NonZeroUsize,
) -> Result<(Counts, toy::BuildReport), Failure> {
    let client = client(server)?;
    let services = toy::Services {
        store: Arc::clone(&client) as _,
        action_cache: Arc::clone(&client) as _,
        execution: client,
        jobs: jobs.get(),
    };
    let before = server.stats();
    let report = toy::run(project, &services, state).await.map_err(|e| {
        failed("the build", &e).hint("the demo needs a C compiler that makes shared libraries; name it with --compiler")
    })?;
    let after = server.stats();
    let counts =
        Counts { executed: after.executed.len() - before.executed.len(), hits: after.hits.len() - before.hits.len() };
    Ok((counts, report))
}

/// Each element's record.
async fn generate(
    server: &Server,
    project: &Project,
    report: &toy::BuildReport,
) -> Result<Vec<(String, Digest)>, Failure> {
    let graph = parse(&toy::graph_after(project, report))?;
    let client = client(server)?;
    let names: Vec<String> = graph.elements().map(|e| e.name.clone()).collect();
    let generated = Generator::new(Arc::clone(&client) as _, client, Arc::new(ExplicitList))
        .generate(&graph, &names)
        .await
        .map_err(|e| failed("recording", &e))?;
    if let Some(error) = generated.stopped {
        return Err(error.into());
    }
    let records = generated.elements.into_iter().filter_map(|e| Some((e.name, e.speculative_actions?)));
    Ok(records.collect())
}

async fn prime(
    server: &Server,
    project: &Project,
    state: &State,
    records: &[(String, Digest)],
    args: &DemoArgs,
) -> Result<Report, Failure> {
    let client = client(server)?;
    let mut graph =
        toy::graph_before(project, &*client, state).await.map_err(|e| failed("the state before the rebuild", &e))?;
    if let Some(elements) = graph["elements"].as_array_mut() {
        for element in elements {
            let record = records.iter().find(|(name, _)| element["name"].as_str() == Some(name));
            if let Some((_, digest)) = record {
                element["speculative_actions"] = digest.to_string().into();
            }
        }
    }
    let services = instantiate::Services {
        blobs: Arc::clone(&client) as _,
        cache: Arc::clone(&client) as _,
        execution: Some(client),
    };
    let options = Options { lookup: lookup(args.lookup), ..Options::default() };
    let engine = Engine::new(services, Arc::new(parse(&graph)?)).with_options(options);
    engine.run_static().await.map_err(|e| failed("priming", &e))
}

fn parse(graph: &serde_json::Value) -> Result<Graph, Failure> {
    Graph::from_json(graph.to_string().as_bytes()).map_err(|e| failed("the project's graph", &e))
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(format!("{what} failed")).because(error)
}

fn print_table(result: &Json) -> Result<(), Failure> {
    let mut table = output::table(&["", "executed", "hits"], 1);
    for (name, counts) in
        [("first build", result.first), ("rebuild, unprimed", result.unprimed), ("rebuild, primed", result.primed)]
    {
        table.add_row([name.to_owned(), counts.executed.to_string(), counts.hits.to_string()]);
    }
    output::print(&table.trim_fmt())?;
    output::print(&format!(
        "\nBetween the builds, a header and a source of liba changed. {} actions were predicted and executed\n\
         before the rebuild asked for them; {} of these executions were wasted.",
        result.predicted, result.wasted
    ))
}
