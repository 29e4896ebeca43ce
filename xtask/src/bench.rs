//! Speed and size, held against their targets.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

#[cfg(target_os = "linux")]
use crate::integration::{beside_casd, build::build_optimized};
use crate::{Failure, Outcome, cargo, root};

/// A line that the benchmark has printed for us.
#[derive(Debug, PartialEq)]
struct Figure {
    kind: String,
    name: String,
    value: f64,
    target: f64,
}

impl Figure {
    /// `figure`, kind, name, value and target, with tabs between.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        (fields.next()? == "figure").then_some(())?;
        let (kind, name) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(Self { kind, name, value: fields.next()?.parse().ok()?, target: fields.next()?.parse().ok()? })
    }

    fn is_reached(&self) -> bool {
        self.value <= self.target
    }
}

/// Runs the benchmark and prints a table of its figures.
pub(crate) fn run(quick: bool, profile: &str, sizes: &[String]) -> Outcome {
    let mut command = cargo(&root());
    // With the features of the whole workspace, as its tests are built.
    command.args(["bench", "--workspace", "--bench", "speculate", "--profile", profile, "--"]).args(sizes);
    if quick {
        command.arg("--quick");
        return measure(&mut command);
    }
    with_programs(command)
}

/// With the tool as its users have it, and beside the released casd.
#[cfg(target_os = "linux")]
fn with_programs(mut command: Command) -> Outcome {
    command.env("BST_SA_TEST_BIN", build_optimized()?);
    beside_casd(|url| measure(command.env("BST_SA_TEST_URL", url)))
}

#[cfg(not(target_os = "linux"))]
fn with_programs(mut command: Command) -> Outcome {
    eprintln!("SKIPPED: what needs casd or a limit of memory is measured on Linux only");
    measure(&mut command)
}

fn measure(command: &mut Command) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| Failure::new("the benchmark has no output"))?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match Figure::parse(&line) {
            Some(figure) => figures.push(figure),
            None => eprintln!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(Failure::new(format!("the benchmark failed: {status}")));
    }
    if figures.is_empty() {
        return Err(Failure::new("the benchmark printed no figure"));
    }
    print(&figures);
    match figures.iter().filter(|figure| !figure.is_reached()).count() {
        0 => Ok(()),
        missed => Err(Failure::new(format!("{missed} of {} targets are missed", figures.len()))),
    }
}

fn print(figures: &[Figure]) {
    println!("| figure | measured | target | reached |");
    println!("|---|---|---|---|");
    for figure in figures {
        let Figure { kind, name, value, target } = figure;
        let reached = if figure.is_reached() { "yes" } else { "no" };
        println!("| {name} ({kind}) | {value} | ≤ {target} | {reached} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_from_what_else_is_printed() {
        let figure = Figure::parse("figure\ttimed\tgenerate, large\t4.100\t4").unwrap();
        assert_eq!((figure.name.as_str(), figure.value, figure.target), ("generate, large", 4.1, 4.0));
        assert!(!figure.is_reached());
        assert!(Figure::parse("figure\tcounted\tblobs\t0.000\t0").unwrap().is_reached());
        for other in ["", "  generate: 3 ms", "figure", "figure\ttimed\tx\ty\t1"] {
            assert_eq!(Figure::parse(other), None);
        }
    }
}
