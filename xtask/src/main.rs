//! Repository tasks. `cargo xtask --help` lists them.

#![allow(clippy::print_stderr, clippy::print_stdout)]

mod bench;
mod ci;
mod codegen;
#[cfg(target_os = "linux")]
mod fidelity;
#[cfg(target_os = "linux")]
mod integration;
mod tidy;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Repository tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generate Rust types from the .proto files.
    Codegen {
        /// Fail if the committed files differ instead of writing them.
        #[arg(long)]
        check: bool,
    },
    /// Check what the compiler cannot: layers, file sizes, prose, manifests.
    Tidy,
    /// Run everything that a change must pass.
    Ci,
    /// Complete the sample project in tests/project: BuildStream, sandbox roots, a static bst-sa.
    Project,
    /// Fetch and install what `integration` and `fidelity` need, unless it is there; they do that by themselves, too.
    Setup,
    /// Try the released programs: buildbox-casd, gcc in a sandbox, BuildStream.
    Integration {
        /// Only print the names of the scenarios.
        #[arg(long)]
        list: bool,
        /// The scenarios to run; all of them if none is named.
        names: Vec<String>,
    },
    /// Measure speed and size, and hold them against the targets; fails if one is missed.
    Bench {
        /// Only what does not depend on the machine.
        #[arg(long)]
        quick: bool,
        /// The profile to build with; counts other than of instructions are the same in all of them.
        #[arg(long, value_name = "NAME", default_value = "bench", requires = "quick")]
        profile: String,
        /// Workloads: small, medium, large, scale; all of them if none is named.
        sizes: Vec<String>,
    },
    /// Measure how exactly the tool predicts, over many kinds of change of real projects.
    Fidelity {
        /// The kinds of change to measure; all of them if none is named.
        kinds: Vec<String>,
        /// Only a few kinds, in minutes.
        #[arg(long, conflicts_with = "kinds")]
        quick: bool,
        /// Only this project; may be given more than once.
        #[arg(long, value_name = "NAME")]
        project: Vec<String>,
        /// Write the measurements here, too.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Codegen { check } => codegen::run(if check { codegen::Mode::Check } else { codegen::Mode::Write }),
        Task::Tidy => tidy::run(),
        Task::Ci => ci::run_all(),
        Task::Bench { quick, profile, sizes } => bench::run(quick, &profile, &sizes),
        Task::Project => project(),
        Task::Setup => set_up(),
        Task::Integration { list, names } => integration(list, &names),
        Task::Fidelity { kinds, quick, project, json } => fidelity(&Wanted { kinds, quick, projects: project, json }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn integration(list: bool, names: &[String]) -> Outcome {
    if list {
        integration::list();
        return Ok(());
    }
    integration::run(names)
}

#[cfg(target_os = "linux")]
fn set_up() -> Outcome {
    integration::set_up()
}

#[cfg(not(target_os = "linux"))]
fn set_up() -> Outcome {
    Err(Failure::new("the released programs are there for Linux only"))
}

#[cfg(target_os = "linux")]
fn project() -> Outcome {
    integration::prepare_project()
}

#[cfg(target_os = "linux")]
fn fidelity(wanted: &Wanted) -> Outcome {
    fidelity::run(wanted)
}

#[cfg(not(target_os = "linux"))]
fn fidelity(_: &Wanted) -> Outcome {
    Err(Failure::new("measuring predictions needs Linux: sandboxes, FUSE, buildbox"))
}

#[cfg(not(target_os = "linux"))]
fn project() -> Outcome {
    Err(Failure::new("the sample project needs Linux: sandboxes, FUSE, buildbox"))
}

#[cfg(not(target_os = "linux"))]
fn integration(_: bool, _: &[String]) -> Outcome {
    Err(Failure::new("the integration scenarios need Linux: sandboxes, FUSE, buildbox"))
}

/// What to measure, and what to do with it.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is measured here"))]
struct Wanted {
    kinds: Vec<String>,
    quick: bool,
    projects: Vec<String>,
    json: Option<PathBuf>,
}

/// What a task comes to.
type Outcome = Result<(), Failure>;

/// Why a task failed, for people.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The cargo that runs this program, in the workspace.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The workspace root.
fn root() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir
}
