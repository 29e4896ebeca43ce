//! `bst-sa instantiate` and `bst-sa prime`: the same engine, without and with execution.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use buildstream::introspect::SourcePolicy;
use instantiate::{
    Budget, Completion, Confidence, Engine, ExecutionReport, Lookup, Options, Outcome, RecordIndex, RecordReport,
    Report, Services,
};
use serde_json::{Map, Value, json};

use crate::cli::{InstantiateArgs, LookupChoice, PrimeArgs};
use crate::failure::Failure;
use crate::journal;
use crate::observe::{Observation, ObserveOptions};
use crate::output;
use crate::progress::{self, Progress};
use crate::project::Elements;
use crate::services::{self, Prepared};

/// What is reported besides outcomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Outcomes,
    Executions,
}

/// Why the record of an element was not looked at.
const CURRENT: &str = "the artifact is current, so nothing of it will be built";

pub(crate) async fn instantiate(args: InstantiateArgs) -> Result<ExitCode, Failure> {
    let elements =
        args.project.elements(&args.elements, SourcePolicy::Stage, &Progress::new("looking at the elements")).await?;
    let services = Services::dry_run(elements.blobs(&args.connect)?, elements.action_cache(&args.connect)?);
    let options = Options { lookup: lookup(args.lookup), ..Options::default() };
    let records = elements.own_records();
    let report = run(services, elements, records, &args.elements, options, &ObserveOptions::default()).await?;
    finish(&report, args.json.json, Detail::Outcomes)
}

pub(crate) async fn prime(args: PrimeArgs) -> Result<ExitCode, Failure> {
    let elements =
        args.project.elements(&args.elements, SourcePolicy::Stage, &Progress::new("looking at the elements")).await?;
    let usual = services::options(elements.project.as_ref(), &args.connect);
    let jobs = args.jobs.unwrap_or(usual.jobs);
    let Prepared { services, daemon } = elements.priming(&args.connect, jobs).await?;
    let options = Options {
        jobs,
        priority: args.priority.unwrap_or(usual.priority),
        lookup: lookup(args.lookup),
        budget: Budget {
            actions: args.max_actions,
            work: args.max_seconds.map(Duration::from_secs),
            upload_bytes: args.max_bytes,
        },
        minimum_duration: args.skip_below.unwrap_or(usual.minimum_duration),
        completion: if args.detach { Completion::Detach } else { Completion::Await },
        ..usual
    };
    let (services, records) = elements.with_records(services, &args.connect);
    let cachedir = elements.project.as_ref().map(|project| project.configuration.cachedir.clone());
    let report = run(services, elements, records, &args.elements, options, &args.observe).await;
    if let (Ok(report), Some(cachedir)) = (&report, cachedir) {
        journal::keep(&cachedir, json_of_priming(report));
    }
    if let Some(daemon) = daemon {
        daemon.stop().await;
    }
    finish(&report?, args.json.json, Detail::Executions)
}

pub(crate) fn lookup(choice: LookupChoice) -> Lookup {
    match choice {
        LookupChoice::Nearest => Lookup::Nearest,
        LookupChoice::Weak => Lookup::Weak,
    }
}

async fn run(
    services: Services,
    elements: Elements,
    records: Arc<dyn RecordIndex>,
    named: &[String],
    options: Options,
    observe: &ObserveOptions,
) -> Result<Report, Failure> {
    let bar = Arc::new(Mutex::new(Progress::new("loading records")));
    let shown = Arc::clone(&bar);
    let names: Vec<String> =
        named.iter().map(|name| Ok(elements.get(name)?.name.clone())).collect::<Result<_, Failure>>()?;
    let observation = Observation::start(observe, move |p| {
        let bar = shown.lock().unwrap_or_else(PoisonError::into_inner);
        bar.say(progress::line(p));
        bar.count(p.actions.saturating_sub(p.waiting + p.preparing + p.ready + p.running), p.actions);
    })?;
    let mut engine = Engine::new(services, Arc::new(elements.graph))
        .with_options(options)
        .with_records(records)
        .with_observer(observation.observer());
    if !names.is_empty() {
        engine = engine.with_elements(names).with_dependencies();
    }
    engine.run_static().await.map_err(|e| Failure::usage("nothing was done").because(&e))
}

fn finish(report: &Report, as_json: bool, detail: Detail) -> Result<ExitCode, Failure> {
    if as_json {
        output::print_json(&json_report(report, detail))?;
    } else {
        print_tables(report, detail)?;
    }
    // Priming is best effort: what could not be predicted or executed is in
    // the report. Only when nothing at all worked has the command failed.
    let totals = &report.totals;
    let useless = totals.failed > 0 && totals.executed + totals.cached + totals.submitted == 0;
    Ok(if useless { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What `prime --json` prints.
pub(crate) fn json_of_priming(report: &Report) -> Value {
    json_report(report, Detail::Executions)
}

fn json_report(report: &Report, detail: Detail) -> Value {
    let elements: Vec<Value> = report
        .elements
        .iter()
        .map(|element| {
            let actions: Vec<Value> = element
                .actions
                .iter()
                .map(|action| {
                    let mut value = json!({
                        "base": action.base.to_string(),
                        "outcome": action.outcome.name(),
                        "adapted": action.adapted.map(|d| d.to_string()),
                        "reason": action.reason,
                        "guess": action.guess,
                        "confidence": action.confidence.map(Confidence::name),
                    });
                    if detail == Detail::Executions {
                        value["executed"] = (action.execution == ExecutionReport::Executed).into();
                        value["cached"] = (action.execution == ExecutionReport::Cached).into();
                        value["failed"] = matches!(action.execution, ExecutionReport::Failed(_)).into();
                    }
                    value
                })
                .collect();
            let mut value = json!({ "name": element.name, "actions": actions });
            match &element.record {
                RecordReport::Exact | RecordReport::Nearest => {}
                RecordReport::Current => {
                    value["current"] = true.into();
                    value["reason"] = CURRENT.into();
                }
                RecordReport::None(skip) => value["reason"] = skip.to_string().into(),
            }
            value
        })
        .collect();
    let totals = &report.totals;
    let mut sums = Map::new();
    let mut sum = |name: &str, count: u64| sums.insert(name.to_owned(), count.into());
    sum("current", totals.current);
    sum("actions", totals.actions);
    sum("unchanged", totals.unchanged);
    sum("adapted", totals.adapted);
    sum("deferred", totals.deferred);
    sum("dropped", totals.dropped);
    sum("guesses", totals.guesses);
    if detail == Detail::Executions {
        sum("executed", totals.executed);
        sum("cached", totals.cached);
        sum("submitted", totals.submitted);
        sum("failed", totals.failed);
        sum("superseded", totals.superseded);
        sum("listings", totals.listings);
        sum("learned", totals.learned);
        sum("uploaded_blobs", totals.upload.uploaded);
        sum("uploaded_bytes", totals.upload.bytes);
    }
    json!({ "elements": elements, "totals": sums })
}

fn print_tables(report: &Report, detail: Detail) -> Result<(), Failure> {
    let mut heads = vec!["element", "actions", "unchanged", "adapted", "deferred", "dropped"];
    if detail == Detail::Executions {
        heads.extend(["executed", "cached", "failed"]);
    }
    let mut table = output::table(&heads, 1);
    for element in report.elements.iter().filter(|element| element.record != RecordReport::Current) {
        let outcome = |o: Outcome| element.actions.iter().filter(|a| a.outcome == o).count().to_string();
        let mut row = vec![
            element.name.clone(),
            element.actions.len().to_string(),
            outcome(Outcome::Unchanged),
            outcome(Outcome::Adapted),
            outcome(Outcome::Deferred),
            outcome(Outcome::Dropped),
        ];
        if detail == Detail::Executions {
            let count = |test: fn(&ExecutionReport) -> bool| {
                element.actions.iter().filter(|a| test(&a.execution)).count().to_string()
            };
            row.push(count(|e| *e == ExecutionReport::Executed));
            row.push(count(|e| *e == ExecutionReport::Cached));
            row.push(count(|e| matches!(e, ExecutionReport::Failed(_))));
        }
        table.add_row(row);
    }
    output::print(&table.trim_fmt())?;
    if report.totals.current > 0 {
        output::print(&format!("{} elements left alone: {CURRENT}", report.totals.current))?;
    }
    for element in &report.elements {
        if let RecordReport::None(skip) = &element.record {
            output::print(&format!("{}: no record used: {skip}", element.name))?;
        }
        for action in &element.actions {
            if let Some(reason) = &action.reason {
                output::print(&format!("{}: {} {}: {reason}", element.name, action.base, action.outcome.name()))?;
            }
            if let ExecutionReport::Failed(reason) = &action.execution {
                output::print(&format!("{}: {} failed: {reason}", element.name, action.base))?;
            }
        }
    }
    Ok(())
}
