//! How exactly does the tool predict? `cargo xtask fidelity` runs this on the projects in `tests/fidelity`.
//!
//! For each kind of change: the actions that a rebuild executes without us
//! are held against those that priming had executed when the rebuild asked
//! for them, digest by digest. What counts is read from casd's own log; that
//! the rebuild executes the others and no more is checked. The figures are
//! floors: they may rise, and must not fall.
//!
//! Reads the variables below; without them it says loudly that it is skipped.
#![allow(clippy::panic, reason = "a test fails like a test")]

mod actions;
mod corpus;
mod machine;
mod measure;
mod predictions;

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use corpus::Kind;
use machine::Programs;
use measure::{Lab, Places};

/// The folder with the kinds of change, a file per project.
const CORPUS: &str = "BST_SA_FIDELITY_CORPUS";
/// The folder with the complete projects.
const PROJECTS: &str = "BST_SA_FIDELITY_PROJECTS";
/// What to measure: names of projects and of kinds, separated by commas; all if empty. `quick` or not.
const CHOSEN_PROJECTS: &str = "BST_SA_FIDELITY_CHOSEN_PROJECTS";
const CHOSEN_KINDS: &str = "BST_SA_FIDELITY_CHOSEN_KINDS";
const EXTENT: &str = "BST_SA_FIDELITY_EXTENT";
/// Seconds for everything.
const SECONDS: &str = "BST_SA_FIDELITY_SECONDS";
/// A folder for what is worth keeping, one for what a run leaves while it lasts, one for logs.
const KEPT: &str = "BST_SA_FIDELITY_KEPT";
const RUNS: &str = "BST_SA_TEST_RUNS";
const LOGS: &str = "BST_SA_TEST_LOGS";
/// The programs: `bst`, the tool.
const BST: &str = "BST_SA_TEST_BST";
const TOOL: &str = "BST_SA_TEST_BIN";
/// The file for the measurements.
const OUT: &str = "BST_SA_FIDELITY_OUT";

const VARIABLES: [&str; 12] =
    [CORPUS, PROJECTS, CHOSEN_PROJECTS, CHOSEN_KINDS, EXTENT, SECONDS, KEPT, RUNS, LOGS, BST, TOOL, OUT];

/// For one kind, and for building a project for the first time.
const KIND_LIMIT: Duration = Duration::from_secs(300);
const BASE_LIMIT: Duration = Duration::from_secs(400);
/// How many kinds are measured at once: `bst` spends most of its time on one processor.
const AT_ONCE: usize = 2;

/// What went wrong, in words: of one kind, while the others go on.
type Outcome<T> = Result<T, String>;

fn fail<T>(why: impl Into<String>) -> Outcome<T> {
    Err(why.into())
}

/// Says what an error is about.
fn because<E: Display>(what: impl Display) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

#[test]
fn fidelity() {
    if let Some(name) = VARIABLES.iter().find(|name| std::env::var_os(name).is_none()) {
        // Past the capture of the test harness: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not set; run `cargo xtask fidelity`");
        return;
    }
    if let Err(failure) = run() {
        panic!("{failure}");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn list(name: &str) -> Vec<String> {
    variable(name).split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The measurements, written down after each.
struct Results {
    file: PathBuf,
    rows: Vec<Map<String, Value>>,
}

impl Results {
    fn plan(&mut self, project: &str, kind: &Kind) {
        let row = json!({"project": project, "kind": kind.name, "failures": ["it was not come to"]});
        self.rows.extend(row.as_object().cloned());
    }

    /// Replaces what is known of a kind.
    fn set(&mut self, project: &str, kind: &Kind, found: Value) -> Outcome<()> {
        let row = self.rows.iter_mut().find(|row| row["project"] == project && row["kind"] == kind.name.as_str());
        if let (Some(row), Value::Object(found)) = (row, found) {
            row.extend(found);
            // Past the capture of the test harness: it takes a while.
            let _ = writeln!(std::io::stderr(), "fidelity: {}", brief(row));
        }
        self.write()
    }

    fn write(&self) -> Outcome<()> {
        let text = json!({ "kinds": self.rows }).to_string();
        let part = self.file.with_extension("part");
        fs::write(&part, text).and_then(|()| fs::rename(&part, &self.file)).map_err(because(self.file.display()))
    }
}

/// A row in a line.
fn brief(row: &Map<String, Value>) -> String {
    let text = |name: &str| row.get(name).map_or_else(|| "?".to_owned(), |value| value.to_string().replace('"', ""));
    let failures = row["failures"].as_array().filter(|failures| !failures.is_empty());
    format!(
        "{} {}: predicted {} of {}, wasted {} ({:.0} s){}",
        text("project"),
        text("kind"),
        text("predicted"),
        text("executed"),
        text("wasted"),
        row["seconds"].as_f64().unwrap_or_default(),
        failures.map_or(String::new(), |failures| format!("; FAILED: {}", json!(failures)))
    )
}

fn run() -> Outcome<()> {
    let start = Instant::now();
    let corpus = PathBuf::from(variable(CORPUS));
    let seconds = variable(SECONDS).parse().map_err(because(SECONDS))?;
    let deadline = start + Duration::from_secs(seconds);
    let programs = Programs { bst: variable(BST).into(), tool: variable(TOOL).into() };
    let places = Places {
        projects: variable(PROJECTS).into(),
        kept: variable(KEPT).into(),
        runs: variable(RUNS).into(),
        logs: variable(LOGS).into(),
    };
    let (names, quick) = (list(CHOSEN_KINDS), variable(EXTENT) == "quick");

    let mut results = Results { file: variable(OUT).into(), rows: Vec::new() };
    let mut projects = Vec::new();
    for name in projects_of(&corpus)? {
        let mut project = corpus::load(&corpus, &name)?;
        if !names.is_empty() {
            project.kinds.retain(|kind| names.contains(&kind.name));
        } else if quick {
            project.kinds.retain(|kind| kind.quick);
        }
        project.kinds.iter().for_each(|kind| results.plan(&project.name, kind));
        projects.push(project);
    }
    if let Some(unknown) = names.iter().find(|name| !results.rows.iter().any(|row| row["kind"] == name.as_str())) {
        return fail(format!("no kind is called {unknown:?}"));
    }
    results.write()?;

    let results = Mutex::new(results);
    let mut failed = 0;
    for project in projects.iter().filter(|project| !project.kinds.is_empty()) {
        let lab = Lab::open(&programs, &places, project, deadline.min(Instant::now() + BASE_LIMIT));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut failed = 0;
            while let Some(kind) = project.kinds.get(next.fetch_add(1, Ordering::Relaxed)) {
                let row = measure(&lab, kind, deadline);
                failed += usize::from(row["failures"] != json!([]));
                results.lock().map_err(because("results"))?.set(&project.name, kind, row)?;
            }
            Ok(failed)
        };
        failed += std::thread::scope(|scope| -> Outcome<usize> {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| fail("a panic"))).sum()
        })?;
    }
    if failed == 0 { Ok(()) } else { fail(format!("{failed} kinds failed")) }
}

/// Measures one kind; what goes wrong is in the row.
fn measure(lab: &Outcome<Lab<'_>>, kind: &Kind, deadline: Instant) -> Value {
    let begun = Instant::now();
    let measured = match lab {
        Ok(lab) => lab.measure(kind, deadline.min(begun + KIND_LIMIT)),
        Err(failure) => fail(format!("the project was not built: {failure}")),
    };
    let (mut row, failures) = match measured {
        Ok(measured) => (measured.json, measured.failures),
        Err(failure) => (json!({}), vec![failure]),
    };
    row["failures"] = failures.into();
    row["seconds"] = begun.elapsed().as_secs_f64().into();
    row
}

/// The chosen projects, or all that there are.
fn projects_of(corpus: &Path) -> Outcome<Vec<String>> {
    let mut known = Vec::new();
    for entry in fs::read_dir(corpus).map_err(because(corpus.display()))? {
        let path = entry.map_err(because(corpus.display()))?.path();
        if path.is_dir() {
            known.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    known.sort();
    let chosen = list(CHOSEN_PROJECTS);
    if let Some(unknown) = chosen.iter().find(|name| !known.contains(name)) {
        return fail(format!("no project is called {unknown:?}; there are: {}", known.join(", ")));
    }
    Ok(if chosen.is_empty() { known } else { chosen })
}
