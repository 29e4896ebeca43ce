//! The scenarios. A new one is one entry and one function.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::build::build_optimized;
use super::casd::Casd;
use super::figures::{self, Figure};
use super::process::{run_logged, tail, tied};
use super::project;
use super::{Context, Scenario};
use crate::{Failure, Outcome};

/// The one that needs a cluster.
pub(super) const GRID: &str = "grid";

pub(super) const ALL: &[Scenario] = &[
    // The longest comes first, so that nothing waits for it alone.
    Scenario {
        name: GRID,
        about: "elements and their actions are executed by a cluster, which fails now and then",
        alone: false,
        measures: false,
        limit: Duration::from_secs(900),
        tests: &[project::TEST],
        run: sample_project,
    },
    Scenario {
        name: "conformance",
        about: "the conformance suite of cas-client over gRPC to casd",
        alone: false,
        measures: false,
        limit: Duration::from_secs(180),
        tests: &["conformance_url"],
        run: conformance,
    },
    Scenario {
        name: "loop",
        about: "compile, link, change a header, prime, find every action of the rebuild",
        alone: false,
        measures: false,
        limit: Duration::from_secs(180),
        tests: &["casd_loop"],
        run: closed_loop,
    },
    Scenario {
        name: "buildstream",
        about: "what the released BuildStream says of a project, and does with refs that name a record",
        alone: false,
        measures: false,
        limit: Duration::from_secs(300),
        tests: &["installed"],
        run: buildstream,
    },
    on_project("generation", "a first build of app records its actions; the artifact runs"),
    on_project("chain", "chains of elements build, one of them through bst-sa exec"),
    on_project("own-source", "one own source changes: the rest hits, the changed compile is primed"),
    on_project("priming", "a header changes: every action of the rebuild is found"),
    on_project("chaining", "a link is primed while a slow dependency builds"),
    on_project("remote-pull", "a second machine primes from records on an artifact server"),
    Scenario {
        alone: true,
        ..on_project("overhead", "an unchanged project: what bst-sa build costs beside bst build")
    },
    Scenario {
        alone: true,
        measures: true,
        limit: Duration::from_secs(1200),
        ..on_project("beside", "what priming beside a local build costs and gains, by shape and by options")
    },
    on_project("nothing-breaks", "whatever fails beside the build, the build does not"),
    Scenario {
        name: "by-hand",
        about: "tests/project/verify.sh, as a person would run it",
        alone: false,
        measures: false,
        limit: Duration::from_secs(240),
        tests: &[],
        run: by_hand,
    },
];

/// For a scenario on the sample project.
const LIMIT: Duration = Duration::from_secs(400);

/// One scenario on the sample project; its test has the same name, with underscores.
const fn on_project(name: &'static str, about: &'static str) -> Scenario {
    Scenario { name, about, alone: false, measures: false, limit: LIMIT, tests: &[project::TEST], run: sample_project }
}

/// The suite has more than forty checks; so few that it hardly ran would be no result.
const CHECKS: &str = ">= 40";

fn conformance(context: &Context<'_>, figures: &mut Vec<Figure>) -> Outcome {
    let output = run_test_with_casd(context, "conformance_url", figures, |_| Ok(()))?;
    let checks = output.lines().filter(|line| line.contains("passed: ")).count();
    figures.push(Figure { name: "checks passed".into(), expected: CHECKS.into(), found: checks.to_string() });
    Ok(())
}

fn closed_loop(context: &Context<'_>, figures: &mut Vec<Figure>) -> Outcome {
    run_test_with_casd(context, "casd_loop", figures, |command| {
        command.env("BST_SA_TEST_ROOT", &context.stack.sandbox_root);
        command.env("BST_SA_TEST_BIN", context.programs.tool()?);
        Ok(())
    })
    .map(drop)
}

fn buildstream(context: &Context<'_>, figures: &mut Vec<Figure>) -> Outcome {
    let mut command = tied("KILL", context.programs.find("installed")?);
    command.env("BST_SA_TEST_BST", context.stack.bin.join("bst"));
    run_test(context, command, figures, |_| Ok(())).map(drop)
}

fn sample_project(context: &Context<'_>, figures: &mut Vec<Figure>) -> Outcome {
    let mut command = tied("KILL", context.programs.find(project::TEST)?);
    let project = context.project.ok_or_else(|| Failure::new("the sample project was not made"))?;
    command.arg("--exact").arg(context.scenario.name.replace('-', "_"));
    command.env("BST_SA_TEST_PROJECT", project).env("BST_SA_TEST_RUNS", context.runs);
    command.env("BST_SA_TEST_LOGS", &context.logs);
    command.env("BST_SA_TEST_BST", context.stack.bin.join("bst"));
    let optimized = if context.scenario.measures { Some(build_optimized()?) } else { None };
    command.env("BST_SA_TEST_BIN", optimized.as_deref().map_or_else(|| context.programs.tool(), Ok)?);
    command.env("BST_SA_TEST_BUILDBOX", &context.stack.buildbox);
    if let Some(cluster) = context.cluster {
        // They take minutes, and show times on a machine that does other things beside.
        command.env("BST_SA_TEST_PAIRS", if context.thorough { "5" } else { "0" });
        command.env("BST_SA_TEST_BUILDGRID", &cluster.buildgrid).env("BST_SA_TEST_POSTGRES", &cluster.postgres);
    }
    run_test(context, command, figures, |_| Ok(())).map(drop)
}

fn by_hand(context: &Context<'_>, figures: &mut Vec<Figure>) -> Outcome {
    let project = context.project.ok_or_else(|| Failure::new("the sample project was not made"))?;
    let tools = context.programs.tool()?.parent().map(Path::to_owned).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = [context.stack.bin.clone(), tools].into_iter().chain(std::env::split_paths(&path));
    let mut command = tied("KILL", project.join("verify.sh"));
    command.env("PATH", std::env::join_paths(path).map_err(|e| Failure::new(e.to_string()))?);
    let log = context.logs.join("verify.log");
    let ended = run_logged("verify.sh", command, &log, context.remaining(), context.interrupts);
    let said = fs::read_to_string(&log)?;
    let last = said.trim().lines().last().unwrap_or_default().trim_start_matches("=== ").to_owned();
    figures.push(Figure { name: "what it says".into(), expected: "everything is as it should be".into(), found: last });
    ended
}

/// Runs one test program against a fresh casd.
fn run_test_with_casd(
    context: &Context<'_>,
    target: &str,
    figures: &mut Vec<Figure>,
    prepare: impl FnOnce(&mut Command) -> Outcome,
) -> Result<String, Failure> {
    let casd = Casd::start(&context.stack.buildbox, context.runs, &context.logs.join("casd.log"), context.interrupts)?;
    let mut command = tied("KILL", context.programs.find(target)?);
    command.env("BST_SA_TEST_URL", casd.url());
    prepare(&mut command)?;
    run_test(context, command, figures, |outcome| match outcome {
        Ok(()) => casd.check_alive(),
        Err(_) => Err(Failure::new(tail(casd.log()))),
    })
}

/// Runs one test program. All of its tests must run and pass, and what it
/// reports becomes the scenario's figures. Returns its output.
///
/// `examine` looks at the surroundings afterwards: it is told how the tests
/// ended, and its failure is added to theirs.
fn run_test(
    context: &Context<'_>,
    mut command: Command,
    figures: &mut Vec<Figure>,
    examine: impl FnOnce(&Outcome) -> Outcome,
) -> Result<String, Failure> {
    command.args(["--nocapture", "--test-threads=1"]);
    // What failed and where is enough; the backtraces of async tests bury it.
    command.env("RUST_BACKTRACE", "0");
    let log = context.logs.join("test.log");
    let name = format!("scenario {}", context.scenario.name);
    let ended = run_logged(&name, command, &log, context.remaining(), context.interrupts);
    let output = fs::read_to_string(&log)?;
    figures.extend(figures::read(&output)?);
    let passed = ended.and_then(|()| figures::passed_tests(&output));
    let outcome = passed.as_ref().map(drop).map_err(|failure| Failure::new(failure.to_string()));
    let passed = match (passed, examine(&outcome)) {
        (Ok(passed), Ok(())) => passed,
        (Err(failure), Ok(())) | (Ok(_), Err(failure)) => return Err(failure),
        (Err(failure), Err(further)) => return Err(Failure::new(format!("{failure}\n{further}"))),
    };
    let tests = output.lines().find_map(|line| line.strip_prefix("running ")?.split(' ').next());
    let expected = tests.unwrap_or("some").to_owned();
    figures.push(Figure { name: "tests passed".into(), expected, found: passed.to_string() });
    eprintln!("{}", output.trim());
    Ok(output)
}
