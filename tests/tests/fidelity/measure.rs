//! Measures one kind of change: a rebuild without us, and one after priming.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use reapi_proto::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::actions::{Actions, Unfolded};
use super::corpus::{Kind, Project};
use super::machine::{Asked, Copy, Machine, Programs, copy};
use super::predictions::Predictions;
use super::{Outcome, because, fail};

/// Where things are.
pub(crate) struct Places {
    /// The projects, complete.
    pub(crate) projects: PathBuf,
    /// For what is worth keeping from one run to the next.
    pub(crate) kept: PathBuf,
    /// For what a run leaves while it lasts.
    pub(crate) runs: PathBuf,
    pub(crate) logs: PathBuf,
}

/// A project that is built and recorded, for its kinds to start from.
pub(crate) struct Lab<'a> {
    programs: &'a Programs,
    places: &'a Places,
    project: &'a str,
    /// Built, and its logs kept: before anything of ours saw it.
    base: PathBuf,
    /// The same, recorded by the tool that is measured.
    recorded: PathBuf,
    /// How many actions each element has.
    actions: BTreeMap<String, u64>,
}

/// What a rebuild does without us.
#[derive(Serialize, Deserialize)]
struct Truth {
    executed: Vec<String>,
    requested: usize,
    /// Executed actions with names that are new in every build, which are not among the others.
    random: usize,
}

/// One kind, measured.
pub(crate) struct Measured {
    pub(crate) json: Value,
    pub(crate) failures: Vec<String>,
}

impl<'a> Lab<'a> {
    /// Builds the project, unless that is kept from an earlier run, and records it.
    pub(crate) fn open(
        programs: &'a Programs,
        places: &'a Places,
        project: &'a Project,
        deadline: Instant,
    ) -> Outcome<Self> {
        let name = project.name.as_str();
        let complete = places.projects.join(name);
        let base = places.kept.join(format!("{name}-{}", content_of(&complete)?));
        if !base.join("done").exists() {
            forget_other_states(&places.kept, name)?;
            fs::create_dir_all(&base).map_err(because(base.display()))?;
            copy(&complete, &base.join("project"), Copy::Bytes)?;
            let log = places.logs.join(format!("{name}-base.log"));
            let mut machine = Machine::new(programs, base.clone(), log, deadline)?;
            machine.first_build(&project.tops)?;
            // What is in the cache is not fetched again.
            remove(&base.join("sources"))?;
            fs::write(base.join("done"), "").map_err(because("done"))?;
        }
        let recorded = places.runs.join(format!("{name}-recorded"));
        begin_from(&base, &recorded)?;
        let log = places.logs.join(format!("{name}-generate.log"));
        let actions = Machine::new(programs, recorded.clone(), log, deadline)?.generate()?;
        if actions.values().all(|count| *count == 0) {
            return fail("nothing was recorded");
        }
        Ok(Self { programs, places, project: name, base, recorded, actions })
    }

    /// Measures one kind. An error says that there is no measurement.
    pub(crate) fn measure(&self, kind: &Kind, deadline: Instant) -> Outcome<Measured> {
        let truth = self.truth(kind, deadline)?;
        let mut machine = self.machine(&self.recorded, kind, "primed", deadline)?;
        let mut predictions = Predictions::default();
        predictions.add(&machine.prime(&kind.top)?)?;
        let early = predictions.executed().clone();
        let mut asked = Asked::default();
        // What has no actions is built with the next element that has some: there is nothing to prime in between.
        let mut waiting: Vec<String> = Vec::new();
        let mut build = |machine: &mut Machine<'_>, predictions: &mut Predictions, elements: &mut Vec<String>| {
            let built = machine.build(elements)?;
            asked.requested.extend(built.requested);
            asked.executed.extend(built.executed);
            elements.drain(..).for_each(|element| predictions.is_built(&element));
            Ok::<_, String>(())
        };
        for element in machine.show(&kind.top)?.into_iter().filter(|element| !element.cached) {
            if self.actions.get(&element.name).is_none_or(|count| *count == 0) {
                waiting.push(element.name);
                continue;
            }
            if !waiting.is_empty() {
                build(&mut machine, &mut predictions, &mut waiting)?;
            }
            predictions.add(&machine.prime(&element.name)?)?;
            build(&mut machine, &mut predictions, &mut vec![element.name])?;
        }
        // Only what the record does not know can have actions that nobody counted.
        if waiting.iter().any(|element| !self.actions.contains_key(element)) {
            build(&mut machine, &mut predictions, &mut waiting)?;
        }
        let measured = compare(kind, &truth, &predictions, &early, &asked, &machine.path("cache"));
        remove(&self.run(kind, "primed"))?;
        let mut measured = measured?;
        if kind.live {
            self.measure_live(kind, &truth, &mut measured, deadline)?;
        }
        Ok(measured)
    }

    /// The same with priming beside the build: how many executions the build was spared, whether
    /// predicted before or learned from what the element asked for first.
    fn measure_live(&self, kind: &Kind, truth: &Truth, measured: &mut Measured, deadline: Instant) -> Outcome<()> {
        let mut machine = self.machine(&self.recorded, kind, "live", deadline)?;
        let (asked, summary) = machine.build_beside_priming(&kind.top)?;
        let (executed, _) = without_random_names(&asked.executed, &Actions::of(&machine.path("cache")))?;
        measured.json["spared"] = truth.executed.len().saturating_sub(executed.len()).into();
        measured.json["live"] = summary["totals"].clone();
        remove(&self.run(kind, "live"))
    }

    fn run(&self, kind: &Kind, half: &str) -> PathBuf {
        self.places.runs.join(format!("{}-{}-{half}", self.project, kind.name))
    }

    /// A machine in the state `from`, with the edits of the kind.
    fn machine(&self, from: &Path, kind: &Kind, half: &str, deadline: Instant) -> Outcome<Machine<'a>> {
        let home = self.run(kind, half);
        begin_from(from, &home)?;
        kind.apply(&home.join("project"))?;
        let log = self.places.logs.join(format!("{}-{}-{half}.log", self.project, kind.name));
        Machine::new(self.programs, home, log, deadline)
    }

    /// What a rebuild does without us, from an earlier run if nothing is different.
    fn truth(&self, kind: &Kind, deadline: Instant) -> Outcome<Truth> {
        let edits = serde_json::to_string(&(&kind.top, &kind.edits)).map_err(because("edits"))?;
        let name = format!("truth-{}-{}.json", kind.name, short(edits.as_bytes()));
        let file = self.base.join(name);
        if let Ok(text) = fs::read_to_string(&file) {
            return serde_json::from_str(&text).map_err(because(file.display()));
        }
        let mut machine = self.machine(&self.base, kind, "unprimed", deadline)?;
        let asked = machine.build(std::slice::from_ref(&kind.top))?;
        let (executed, random) = without_random_names(&asked.executed, &Actions::of(&machine.path("cache")))?;
        let executed = executed.iter().map(Digest::to_string).collect();
        let truth = Truth { executed, requested: asked.requested.len(), random };
        let text = serde_json::to_string_pretty(&truth).map_err(because("truth"))?;
        fs::write(&file, text).map_err(because(file.display()))?;
        remove(&self.run(kind, "unprimed"))?;
        Ok(truth)
    }
}

fn compare(
    kind: &Kind,
    truth: &Truth,
    predictions: &Predictions,
    early: &BTreeSet<Digest>,
    asked: &Asked,
    cache: &Path,
) -> Outcome<Measured> {
    let actions = Actions::of(cache);
    let parse = |text: &String| text.parse::<Digest>().map_err(because(text));
    let executed: BTreeSet<Digest> = truth.executed.iter().map(parse).collect::<Outcome<_>>()?;
    let (executed_primed, random_primed) = without_random_names(&asked.executed, &actions)?;
    let predicted: BTreeSet<Digest> = executed.intersection(predictions.executed()).copied().collect();
    let unpredicted: BTreeSet<Digest> = executed.difference(&predicted).copied().collect();
    let wasted = predictions.wasted(&asked.requested);

    let mut failures = Vec::new();
    let describe = |digest: &Digest| actions.read(digest).map_or_else(|e| e, |action| summary(&action));
    for digest in unpredicted.difference(&executed_primed) {
        failures.push(format!("neither predicted nor executed: {}", describe(digest)));
    }
    for digest in executed_primed.difference(&unpredicted) {
        let why = if predicted.contains(digest) { "predicted, yet executed" } else { "not executed without us" };
        failures.push(format!("{why}: {}", describe(digest)));
    }
    if truth.random != random_primed {
        failures.push(format!("{} actions with random names, {random_primed} after priming", truth.random));
    }
    if unpredicted.len() != kind.unreachable {
        failures.push(format!("{} not predicted, {} are out of reach", unpredicted.len(), kind.unreachable));
    }
    if !wasted.is_empty() {
        failures.push(format!("{} wasted", wasted.len()));
    }

    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut unpredicted_json = Vec::new();
    for digest in unpredicted.intersection(&executed_primed) {
        let actual = actions.read(digest)?;
        let why = predictions.explain(&actual, &asked.requested, &actions)?;
        *reasons.entry(why.reason.clone()).or_default() += 1;
        unpredicted_json.push(json!({
            "action": digest.to_string(), "element": why.element, "reason": why.reason,
            "differences": why.differences, "command": summary(&actual),
        }));
    }
    if truth.random > 0 {
        reasons.insert("random names".to_owned(), truth.random);
    }
    let wasted_json: Vec<Value> =
        wasted.iter().map(|digest| json!({"action": digest.to_string(), "command": describe(digest)})).collect();
    let json = json!({
        "about": kind.about, "out_of_reach": kind.out_of_reach, "requested": asked.requested.len(),
        "executed": executed.len() + truth.random, "predicted": predicted.len(),
        "early": executed.intersection(early).count(), "wasted": wasted.len(), "random": truth.random, "unreachable": kind.unreachable,
        "reasons": reasons, "unpredicted": unpredicted_json, "wasted_actions": wasted_json,
    });
    Ok(Measured { json, failures })
}

/// Leaves out actions that nobody can name before they run; returns how many there were.
fn without_random_names(digests: &BTreeSet<Digest>, actions: &Actions) -> Outcome<(BTreeSet<Digest>, usize)> {
    let mut named = BTreeSet::new();
    for digest in digests {
        if !actions.read(digest)?.has_random_names() {
            named.insert(*digest);
        }
    }
    let random = digests.len() - named.len();
    Ok((named, random))
}

/// A command line, where it runs.
fn summary(action: &Unfolded) -> String {
    let command = &action.command;
    let folder = command.working_directory.split('/').skip(2).collect::<Vec<_>>().join("/");
    format!("{folder}: {}", command.arguments.join(" "))
}

/// A copy of a state, whose project may be edited.
fn begin_from(state: &Path, home: &Path) -> Outcome<()> {
    remove(home)?;
    fs::create_dir_all(home).map_err(because(home.display()))?;
    copy(&state.join("project"), &home.join("project"), Copy::Bytes)?;
    copy(&state.join("logs"), &home.join("logs"), Copy::Bytes)?;
    copy(&state.join("cache"), &home.join("cache"), Copy::Links)
}

fn remove(folder: &Path) -> Outcome<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(because(folder.display())(error)),
        _ => Ok(()),
    }
}

fn forget_other_states(kept: &Path, project: &str) -> Outcome<()> {
    fs::create_dir_all(kept).map_err(because(kept.display()))?;
    for entry in fs::read_dir(kept).map_err(because(kept.display()))? {
        let path = entry.map_err(because(kept.display()))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.rsplit_once('-').is_some_and(|(of, _)| of == project) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// A name for all that is in a project: paths, modes, contents.
fn content_of(project: &Path) -> Outcome<String> {
    let mut listing = Vec::new();
    list(project, project, &mut listing)?;
    listing.sort();
    Ok(short(listing.join("\n").as_bytes()))
}

fn list(top: &Path, folder: &Path, listing: &mut Vec<String>) -> Outcome<()> {
    for entry in fs::read_dir(folder).map_err(because(folder.display()))? {
        let path = entry.map_err(because(folder.display()))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(because(path.display()))?;
        if metadata.is_dir() {
            list(top, &path, listing)?;
            continue;
        }
        let content = if metadata.is_symlink() {
            fs::read_link(&path).map_err(because(path.display()))?.to_string_lossy().into_owned().into_bytes()
        } else {
            fs::read(&path).map_err(because(path.display()))?
        };
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        let name = path.strip_prefix(top).unwrap_or(&path).display().to_string();
        listing.push(format!("{name} {mode:o} {}", short(&content)));
    }
    Ok(())
}

fn short(bytes: &[u8]) -> String {
    DigestFunction::Sha256.digest(bytes).to_string()[..12].to_owned()
}
