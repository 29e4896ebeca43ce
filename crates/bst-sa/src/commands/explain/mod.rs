//! `bst-sa explain`: what was predicted, held against what the build asked for.

mod compare;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use buildstream::Introspection;
use buildstream::introspect::SourcePolicy;
use cas_client::BlobStore;
use reapi_proto::Digest;
use record::{Attributor, LoggedAction, LoggedOutcome, Placement, ReccLogs};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::cli::ExplainArgs;
use crate::failure::Failure;
use crate::journal::{self, Journal};
use crate::output;
use crate::progress::Progress;
use crate::project::{Elements, scan};
use compare::Reader;

/// An action of the build.
struct Asked {
    action: Digest,
    /// `None` where nobody has said.
    hit: Option<bool>,
}

/// How an action of the build was predicted.
enum Prediction {
    /// Exactly, and found.
    Exact,
    /// Exactly, and not in time, or without a result that could be used.
    Late,
    /// As another action.
    Different { base: Digest, predicted: Digest, difference: Option<Shown> },
    /// Not at all.
    None { base: Option<Digest> },
}

/// The first difference, for people and machines.
struct Shown {
    kind: &'static str,
    place: String,
    old: Option<String>,
    predicted: Option<String>,
    actual: Option<String>,
}

struct Explained {
    asked: Asked,
    prediction: Prediction,
    /// What the prediction rested on, where it was exact.
    confidence: Option<String>,
    reason: Option<String>,
}

struct ElementExplained {
    name: String,
    actions: Vec<Explained>,
    wasted: Vec<Digest>,
}

pub(crate) async fn run(args: ExplainArgs) -> Result<ExitCode, Failure> {
    let progress = Progress::new("looking at the elements");
    let elements = args.project.elements(&args.elements, SourcePolicy::AsTheyAre, &progress).await?;
    let predictions = match (&args.predictions, &elements.project) {
        (Some(file), _) => journal::read(file)?,
        (None, Some(project)) => journal::read(&journal::path(&project.configuration.cachedir))?,
        (None, None) => {
            return Err(Failure::usage("no predictions are named")
                .hint("with --graph, give what `bst-sa prime --json` printed with --predictions FILE"));
        }
    };
    let blobs = elements.blobs(&args.connect)?;
    progress.say("finding what the build asked for");
    let asked = asked(&args, &elements, &blobs).await?;
    progress.say("comparing");
    let mut explained = Vec::new();
    for name in names(&args.elements, &predictions, &asked, &elements)? {
        let actions = asked.get(&name).map_or(&[][..], Vec::as_slice);
        explained.push(explain(&name, actions, &predictions, &blobs).await?);
    }
    drop(progress);
    if args.json.json {
        output::print_json(&table::json(&explained))?;
    } else {
        table::print(&explained)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The named elements, or all that something is known of.
fn names(
    named: &[String],
    predictions: &Journal,
    asked: &BTreeMap<String, Vec<Asked>>,
    elements: &Elements,
) -> Result<Vec<String>, Failure> {
    if !named.is_empty() {
        return named.iter().map(|name| Ok(elements.get(name)?.name.clone())).collect();
    }
    let primed = predictions.elements.iter().filter(|element| !element.actions.is_empty()).map(|element| &element.name);
    let known: BTreeSet<&String> = primed.chain(asked.keys()).collect();
    Ok(known.into_iter().cloned().collect())
}

/// What the last build asked for, by element.
async fn asked(
    args: &ExplainArgs,
    elements: &Elements,
    blobs: &Arc<dyn BlobStore>,
) -> Result<BTreeMap<String, Vec<Asked>>, Failure> {
    let Some(project) = &elements.project else {
        let listed = |element: &overlay::graph::Element| {
            let actions = element.subactions.iter().flatten();
            (element.name.clone(), actions.map(|action| Asked { action: *action, hit: None }).collect())
        };
        return Ok(elements.graph.elements().map(listed).collect());
    };
    if args.log.is_none() && project.configuration.execution.is_some() {
        return asked_elsewhere(project, blobs).await;
    }
    let logged = match &args.log {
        Some(log) => scan(log)?.into_actions(),
        None => last_build(&project.configuration.logdir)?,
    };
    let mut attributor = Attributor::new(Arc::new(elements.graph.clone()), Arc::clone(blobs))
        .with_action_cache(elements.action_cache(&args.connect)?);
    let digests: Vec<Digest> = logged.iter().map(|logged| logged.action).collect();
    let placed: FxHashMap<Digest, Placement> = attributor.place(&digests).await?.into_iter().collect();
    let mut asked: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
    for LoggedAction { action, outcome } in logged {
        let Some(Placement::Elements(names, _)) = placed.get(&action) else { continue };
        for name in names {
            let hit = Some(outcome <= LoggedOutcome::Hit);
            asked.entry(name.clone()).or_default().push(Asked { action, hit });
        }
    }
    Ok(asked)
}

/// What elements asked for that were built elsewhere, as recc has logged it in their buildtrees.
async fn asked_elsewhere(
    project: &Introspection,
    blobs: &Arc<dyn BlobStore>,
) -> Result<BTreeMap<String, Vec<Asked>>, Failure> {
    let recc = ReccLogs::new(Arc::clone(blobs), []);
    let mut asked = BTreeMap::new();
    for element in &project.elements {
        let Some(buildtree) = &element.buildtree else { continue };
        let Some(logged) = recc.read(buildtree).await? else { continue };
        let of = |LoggedAction { action, outcome }| Asked { action, hit: Some(outcome <= LoggedOutcome::Hit) };
        asked.insert(element.name.clone(), logged.into_iter().map(of).collect());
    }
    Ok(asked)
}

/// The actions in the newest log of casd that has any: the last `bst` command that built something.
fn last_build(logdir: &std::path::Path) -> Result<Vec<LoggedAction>, Failure> {
    let unreadable = |e| Failure::new(format!("the logs in {} cannot be read", logdir.display())).because(&e);
    for log in buildstream::daemon::logs(logdir).map_err(unreadable)?.iter().rev() {
        let actions = scan(&log.path)?.into_actions();
        if !actions.is_empty() {
            return Ok(actions);
        }
    }
    Err(Failure::new(format!("no log of casd in {} names an action", logdir.display()))
        .hint("build first; `bst --no-verbose` leaves these logs empty"))
}

async fn explain(
    name: &str,
    asked: &[Asked],
    predictions: &Journal,
    blobs: &Arc<dyn BlobStore>,
) -> Result<ElementExplained, Failure> {
    let element = predictions.elements.iter().find(|element| element.name == name);
    let rows = element.map_or(&[][..], |element| element.actions.as_slice());
    let predicted: FxHashSet<Digest> = rows.iter().filter_map(journal::Action::predicted).collect();
    let actual: FxHashSet<Digest> = asked.iter().map(|asked| asked.action).collect();
    // Predictions that came true explain nothing else.
    let open: Vec<&journal::Action> =
        rows.iter().filter(|row| row.predicted().is_none_or(|digest| !actual.contains(&digest))).collect();
    let unexplained = || asked.iter().filter(|asked| !predicted.contains(&asked.action));
    let mut reader = Reader::new(blobs);
    let wanted = open.iter().flat_map(|row| [Some(row.base), row.adapted]).flatten();
    reader.read_actions(wanted.chain(unexplained().map(|asked| asked.action)).collect()).await?;

    let mut actions = Vec::new();
    for Asked { action, hit } in asked {
        let asked = Asked { action: *action, hit: *hit };
        let (prediction, reason) = if predicted.contains(action) {
            let in_time = *hit != Some(false);
            let late = || "it was not in the action cache when the build asked".to_owned();
            (if in_time { Prediction::Exact } else { Prediction::Late }, (!in_time).then(late))
        } else {
            let no_record = element.and_then(|element| element.reason.clone());
            reader.compare(action, &open, no_record).await?
        };
        let confidence =
            rows.iter().find(|row| row.predicted() == Some(*action)).and_then(|row| row.confidence.clone());
        actions.push(Explained { asked, prediction, confidence, reason });
    }
    let found: FxHashSet<Digest> =
        asked.iter().filter(|asked| asked.hit != Some(false)).map(|asked| asked.action).collect();
    let executed = rows.iter().filter(|row| row.executed).filter_map(journal::Action::predicted);
    let wasted = executed.filter(|digest| !asked.is_empty() && !found.contains(digest)).collect();
    Ok(ElementExplained { name: name.to_owned(), actions, wasted })
}
