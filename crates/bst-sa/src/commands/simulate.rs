//! `bst-sa simulate`: would priming help?

use std::collections::BTreeSet;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildstream::introspect::SourcePolicy;
use instantiate::{Lookup, Services};
use overlay::Record;
use overlay::graph::{Element, Graph};
use overlay::layout::{Stored, decode};
use rustc_hash::FxHashMap;
use serde::Serialize;
use simulate::{Conditions, Mode, Parameters, Project, Shape, SimulationError};
use tokio::sync::{mpsc, oneshot};

use crate::cli::{ConditionOptions, GenerateOptions, SimulateArgs};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use crate::project::Elements;

/// The rebuild with one number of workers; seconds.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
struct Row {
    workers: usize,
    none: f64,
    blocking: f64,
    primed: f64,
    lower_bound: f64,
}

pub(crate) async fn run(args: Box<SimulateArgs>) -> Result<ExitCode, Failure> {
    let workers = args.workers.clone();
    for count in &workers {
        conditions(&args.conditions, *count).check().map_err(|e| wrong(&e))?;
    }
    let progress = Progress::new("looking at the project");
    let shape = match args.generate.elements {
        Some(elements) => parameters(elements, &args.generate).generate().map_err(|e| wrong(&e))?,
        None => recorded(&args, &progress).await?,
    };
    let (said, mut news) = mpsc::unbounded_channel();
    let (done, mut result) = oneshot::channel();
    let options = args.conditions;
    // A thread of its own: virtual time needs a runtime of its own, and whoever interrupts does not wait for it.
    let thread = std::thread::Builder::new().name("simulation".to_owned());
    let thread = thread.spawn(move || {
        // Nobody listens any more after an interrupt.
        let _ = done.send(rows(shape, &workers, &options, |news| drop(said.send(news))));
    });
    thread.map_err(|e| Failure::new("no thread can be started").because(&e))?;
    let rows = loop {
        tokio::select! {
            biased;
            Some(news) = news.recv() => progress.say(news),
            rows = &mut result => break rows,
        }
    };
    drop(progress);
    let rows = rows.map_err(|_| Failure::new("the simulation ended without a result"))?.map_err(|e| wrong(&e))?;
    if args.json.json {
        output::print_json(&rows)?;
    } else {
        print_table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What cannot be simulated is wrong usage; a simulation that goes wrong is a failure.
fn wrong(error: &SimulationError) -> Failure {
    match error {
        SimulationError::Shape(_) => Failure::usage("there is no such project to simulate").because(error),
        SimulationError::Conditions(_) => Failure::usage("nothing can be built like that").because(error),
        SimulationError::Mispredicted { .. } | SimulationError::Internal(_) => {
            Failure::new("the simulation went wrong").because(error)
        }
    }
}

fn conditions(options: &ConditionOptions, workers: usize) -> Conditions {
    Conditions {
        workers,
        latency: options.latency,
        builders: options.builders,
        max_jobs: options.max_jobs,
        element_overhead: options.element_overhead,
        action_overhead: options.action_overhead,
        jobs: options.jobs,
    }
}

fn parameters(elements: usize, options: &GenerateOptions) -> Parameters {
    let defaults = Parameters::default();
    Parameters {
        elements,
        actions: options.actions.unwrap_or(defaults.actions),
        // A small project is not as deep as a large one, unless it is told to be.
        depth: options.depth.unwrap_or(defaults.depth.min(elements)),
        fan_out: options.fan_out.unwrap_or(defaults.fan_out),
        duration: options.duration.unwrap_or(defaults.duration),
        link: options.link.unwrap_or(defaults.link),
        tree_size: options.tree_size.unwrap_or(defaults.tree_size),
        changed: options.changed.unwrap_or(defaults.changed),
        seed: options.seed.unwrap_or(defaults.seed),
    }
}

/// The shape of what the records of the graph's elements tell.
async fn recorded(args: &SimulateArgs, progress: &Progress) -> Result<Shape, Failure> {
    let elements = args.project.elements(&args.targets, SourcePolicy::Stage, progress).await?;
    progress.say("loading records");
    let graph = chosen(&elements, &args.targets)?;
    let services = Services::dry_run(elements.blobs(&args.connect)?, elements.action_cache(&args.connect)?);
    let (services, records) = elements.with_records(services, &args.connect);
    let rows: Vec<&Element> = graph.elements().collect();
    let candidates = records.find_records(&rows, Lookup::Nearest).await?;
    let messages: Vec<_> = candidates.iter().flatten().map(|candidate| candidate.message).collect();
    let messages: FxHashMap<_, _> = services.blobs.read_blobs(&messages).await?.into_iter().collect();
    let mut found: FxHashMap<String, Arc<Record>> = FxHashMap::default();
    for (element, candidates) in rows.iter().zip(&candidates) {
        for candidate in candidates {
            let name = &element.name;
            match messages.get(&candidate.message).map(|bytes| bytes.as_ref().map(|bytes| decode(bytes))) {
                Some(Ok(Ok(Stored::Compact(record)))) => {
                    found.insert(name.clone(), Arc::from(record));
                    break;
                }
                Some(Ok(Ok(Stored::Reference(_)))) => {
                    tracing::warn!("{name}: its record is in the reference layout, which says nothing of durations");
                }
                Some(Ok(Err(error))) => tracing::warn!("{name}: its record cannot be used: {error}"),
                Some(Err(error)) => tracing::warn!("{name}: its record cannot be read: {error}"),
                None => tracing::warn!("{name}: the store did not answer for its record"),
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::new(format!("nothing is recorded for the elements of {}", elements.place))
            .hint("build and `bst-sa generate` first, or make a project up with --elements N"));
    }
    simulate::shape_of(&graph, &found).map_err(|e| wrong(&e))
}

/// The part of the graph that the named elements need.
fn chosen(elements: &Elements, named: &[String]) -> Result<Graph, Failure> {
    if named.is_empty() {
        return Ok(elements.graph.clone());
    }
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for name in named {
        names.insert(&elements.get(name)?.name);
        names.extend(elements.graph.closure(name).iter().map(|element| element.name.as_str()));
        names.extend(elements.graph.staged(name).iter().map(|element| element.name.as_str()));
    }
    let kept = |element: &&Element| names.contains(element.name.as_str());
    let kept = elements.graph.elements().filter(kept).map(|element| Element {
        // Only what is built against matters here.
        staged: None,
        platforms: None,
        ..element.clone()
    });
    let graph = Graph::new(elements.graph.digest_function(), kept.collect());
    graph.map_err(|e| Failure::new("a part of the graph is no usable graph").because(&e))
}

fn rows(
    shape: Shape,
    workers: &[usize],
    options: &ConditionOptions,
    say: impl Fn(String) + Sync,
) -> Result<Vec<Row>, SimulationError> {
    say(format!("building and recording {} actions of {} elements", shape.action_count(), shape.elements.len()));
    let project = Project::new(shape)?;
    let bounds = project.bounds();
    // More workers than a build asks for at once are as many for the build alone.
    let asks = options.builders.saturating_mul(options.max_jobs);
    let alone = |workers: usize| (workers.min(asks), Mode::None);
    // Those that take longest to compute come first, so that no processor is left with one of them at the end.
    let with_engine = [Mode::Blocking, Mode::Primed];
    let with_engine = with_engine.into_iter().flat_map(|mode| workers.iter().map(move |workers| (*workers, mode)));
    let mut rebuilds: Vec<(usize, Mode)> = Vec::new();
    for rebuild in with_engine.chain(workers.iter().map(|workers| alone(*workers))) {
        if !rebuilds.contains(&rebuild) {
            rebuilds.push(rebuild);
        }
    }
    let makespans = side_by_side(&rebuilds, |(workers, mode)| {
        let what = match mode {
            Mode::None => "without priming",
            Mode::Blocking => "primed before the build",
            Mode::Primed => "primed beside the build",
        };
        say(format!("rebuilding with {workers} workers, {what}"));
        let outcome = simulate::simulate(&project, &conditions(options, *workers), *mode)?;
        tracing::debug!(workers, ?mode, ?outcome);
        Ok(((*workers, *mode), outcome.makespan.as_secs_f64()))
    });
    let makespans: FxHashMap<(usize, Mode), f64> = makespans.into_iter().collect::<Result<_, SimulationError>>()?;
    let row = |workers: &usize| {
        Some(Row {
            workers: *workers,
            none: *makespans.get(&alone(*workers))?,
            blocking: *makespans.get(&(*workers, Mode::Blocking))?,
            primed: *makespans.get(&(*workers, Mode::Primed))?,
            lower_bound: bounds.with_workers(*workers).as_secs_f64(),
        })
    };
    Ok(workers.iter().filter_map(row).collect())
}

/// Does something with each, on as many threads as there are processors; results in the given order.
fn side_by_side<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(all.len()));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(all.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(turn) else { break };
                    let result = work(one);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((turn, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(turn, _)| *turn);
    results.into_iter().map(|(_, result)| result).collect()
}

fn print_table(rows: &[Row]) -> Result<(), Failure> {
    let heads = [
        "workers",
        "none",
        "blocking",
        "primed",
        "lower bound",
        "none / primed",
        "blocking / primed",
        "primed / bound",
    ];
    let mut table = output::table(&heads, 0);
    for row in rows {
        table.add_row([
            row.workers.to_string(),
            time(row.none),
            time(row.blocking),
            time(row.primed),
            time(row.lower_bound),
            ratio(row.none, row.primed),
            ratio(row.blocking, row.primed),
            ratio(row.primed, row.lower_bound),
        ]);
    }
    output::print(&format!("{}\n\n{}", table.trim_fmt(), answer(rows)))
}

/// Would this help? In one sentence, by the number of workers for which it helps most.
fn answer(rows: &[Row]) -> String {
    let gain = |row: &Row| row.none / row.primed;
    let Some(best) = rows.iter().max_by(|a, b| gain(a).total_cmp(&gain(b))) else { return String::new() };
    let Row { workers, none, primed, lower_bound, .. } = *best;
    if none == 0.0 {
        return "There is nothing to execute: whatever is rebuilt asks for actions as they were recorded.".to_owned();
    }
    if gain(best) < 1.1 {
        let why = if none <= lower_bound * 1.15 {
            "the build alone keeps the workers busy, or waits for one long chain of actions"
        } else {
            "most of its time is spent outside of actions"
        };
        return format!(
            "Priming would not help this project: with {workers} workers it takes {} instead of {}, as {why}.",
            time(primed),
            time(none)
        );
    }
    format!(
        "Priming would help this project: with {workers} workers a rebuild takes {} instead of {}, {} times as fast.",
        time(primed),
        time(none),
        ratio(none, primed),
    )
}

fn ratio(a: f64, b: f64) -> String {
    if b > 0.0 { format!("{:.2}", a / b) } else { "-".to_owned() }
}

/// Seconds for people.
fn time(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    match duration.as_secs() {
        0..100 => format!("{:.1} s", duration.as_secs_f64()),
        100..6000 => format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(none: f64, primed: f64, lower_bound: f64) -> Row {
        Row { workers: 10, none, blocking: none, primed, lower_bound }
    }

    #[test]
    fn the_answer_is_one_sentence() {
        let check = |rows: &[Row], expected: &str| {
            let answer = answer(rows);
            assert!(answer.contains(expected), "{answer}");
            assert_eq!(answer.matches(". ").count(), 0, "{answer}");
        };
        check(&[row(100.0, 99.0, 98.0), row(7300.0, 650.0, 600.0)], "takes 10 min 50 s instead of 2 h 01 min, 11.23");
        check(&[row(100.0, 99.0, 98.0)], "keeps the workers busy");
        check(&[row(100.0, 99.0, 10.0)], "outside of actions");
        check(&[row(0.0, 0.0, 0.0)], "nothing to execute");
    }

    #[test]
    fn times_are_short() {
        for (seconds, expected) in [(0.0, "0.0 s"), (99.94, "99.9 s"), (100.0, "1 min 40 s"), (6000.0, "1 h 40 min")] {
            assert_eq!(time(seconds), expected);
        }
    }
}
