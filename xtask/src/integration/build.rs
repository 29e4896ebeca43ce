//! The programs of this workspace that the scenarios run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Interrupts, Process};
use crate::{Failure, cargo, root};

const TOOL: &str = "bst-sa";
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Executables by the name of their target.
pub(crate) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    pub(crate) fn tool(&self) -> Result<&Path, Failure> {
        self.find(TOOL)
    }

    pub(crate) fn find(&self, target: &str) -> Result<&Path, Failure> {
        self.0.get(target).map(PathBuf::as_path).ok_or_else(|| Failure::new(format!("cargo built no {target}")))
    }
}

/// Builds the tool and some test targets in one go, with the features that
/// `cargo test --workspace` gives them: nothing is compiled a second time.
pub(crate) fn build(tests: &[&str], logs: &Path, interrupts: &Interrupts) -> Result<Programs, Failure> {
    let start = Instant::now();
    let messages = logs.join("build.json");
    let mut command = cargo(&root());
    command.args(["build", "--workspace", "--message-format=json-render-diagnostics", "--bin", TOOL]);
    command.args(tests.iter().flat_map(|test| ["--test", *test]));
    command.stdout(File::create(&messages)?);
    let status = Process::start("cargo build", command, interrupts)?.finish(LIMIT)?;
    if !status.success() {
        return Err(Failure::new("the workspace does not build"));
    }
    eprintln!("integration: built in {:.1} s", start.elapsed().as_secs_f64());
    Ok(Programs(executables(&fs::read_to_string(messages)?)))
}

/// The target that static programs can be built for everywhere: no other C library is needed.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// A test among what is built, whichever it is, gives everything the features of the tests.
const SOME_TEST: &str = "conformance_url";

/// Builds the tool as a program that runs in any sandbox.
pub(crate) fn build_static(logs: &Path, interrupts: &Interrupts) -> Result<PathBuf, Failure> {
    let start = Instant::now();
    let messages = logs.join("build-static.json");
    let mut command = cargo(&root());
    // As the other programs are built: where those are static already, nothing is compiled a second time.
    command.args(["build", "--workspace", "--bin", TOOL, "--test", SOME_TEST, "--target", STATIC_TARGET]);
    command.arg("--message-format=json-render-diagnostics");
    command.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    command.stdout(File::create(&messages)?);
    let status = Process::start("cargo build", command, interrupts)?.finish(LIMIT)?;
    if !status.success() {
        return Err(Failure::new("the tool cannot be built as a static program"));
    }
    eprintln!("integration: a static {TOOL} was built in {:.1} s", start.elapsed().as_secs_f64());
    Programs(executables(&fs::read_to_string(messages)?)).tool().map(Path::to_owned)
}

/// Builds the tool as its users have it.
pub(crate) fn build_optimized() -> Result<PathBuf, Failure> {
    let mut command = cargo(&root());
    command.args(["build", "--release", "--package", TOOL, "--bin", TOOL]);
    let output = command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Failure::new("the tool does not build"));
    }
    Programs(executables(&String::from_utf8_lossy(&output.stdout))).tool().map(Path::to_owned)
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let file = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(file)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lib\"},\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"tool\"},\"executable\":\"dir/tool\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        let programs = Programs(executables(messages));
        assert_eq!(programs.find("tool").unwrap(), Path::new("dir/tool"));
        assert!(programs.find("lib").is_err());
    }
}
