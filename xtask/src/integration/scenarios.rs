//! The scenarios. A new one is one entry and one function.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::casd::Casd;
use super::figures::{self, Figure};
use super::process::{run_logged, tail};
use super::{Context, Scenario};
use crate::Failure;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "conformance",
        about: "the conformance suite of cas-client over gRPC to casd",
        limit: Duration::from_secs(180),
        tests: &["conformance_url"],
        run: conformance,
    },
    Scenario {
        name: "loop",
        about: "compile, link, change a header, prime, find every action of the rebuild",
        limit: Duration::from_secs(180),
        tests: &["casd_loop"],
        run: closed_loop,
    },
];

fn conformance(context: &Context<'_>) -> Result<Vec<Figure>, Failure> {
    run_test_with_casd(context, "conformance_url", |_| Ok(()))
}

fn closed_loop(context: &Context<'_>) -> Result<Vec<Figure>, Failure> {
    run_test_with_casd(context, "casd_loop", |command| {
        command.env("BST_SA_TEST_ROOT", &context.stack.sandbox_root);
        command.env("BST_SA_TEST_BIN", context.programs.tool()?);
        Ok(())
    })
}

/// Runs one test program against a fresh casd. All of its tests must run and
/// pass, and what it reports becomes the scenario's figures.
fn run_test_with_casd(
    context: &Context<'_>,
    target: &str,
    prepare: impl FnOnce(&mut Command) -> Result<(), Failure>,
) -> Result<Vec<Figure>, Failure> {
    let casd = Casd::start(context.stack, context.runs, &context.logs.join("casd.log"), context.interrupts)?;
    let mut command = Command::new(context.programs.find(target)?);
    command.args(["--nocapture", "--test-threads=1"]).env("BST_SA_TEST_URL", casd.url());
    prepare(&mut command)?;
    let log = context.logs.join("test.log");
    let name = format!("scenario {}", context.scenario.name);
    let outcome = run_logged(&name, command, &log, context.remaining(), context.interrupts);
    outcome
        .and_then(|()| casd.check_alive())
        .and_then(|()| figures_of(&log))
        .map_err(|failure| Failure::new(format!("{failure}\n{}", tail(casd.log()))))
}

fn figures_of(log: &Path) -> Result<Vec<Figure>, Failure> {
    let output = fs::read_to_string(log)?;
    eprintln!("{}", output.trim());
    let passed = figures::passed_tests(&output)?;
    let mut figures = figures::read(&output)?;
    let tests = output.lines().find_map(|line| line.strip_prefix("running ")?.split(' ').next()).unwrap_or("?");
    figures.push(Figure { name: "tests passed".into(), expected: tests.to_owned(), found: passed.to_string() });
    Ok(figures)
}
