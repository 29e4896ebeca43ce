//! One state of a project with a cache of its own, and the programs to work on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use reapi_proto::Digest;
use record::{CasdLogScanner, LoggedOutcome};
use serde_json::Value;

use super::{Outcome, because, fail};

/// The programs: `bst`, and the tool.
pub(crate) struct Programs {
    pub(crate) bst: PathBuf,
    pub(crate) tool: PathBuf,
}

/// A copy of a project with its cache.
pub(crate) struct Machine<'a> {
    programs: &'a Programs,
    home: PathBuf,
    /// What the programs say goes here.
    log: PathBuf,
    deadline: Instant,
    builds: usize,
}

/// What was asked for, and what of it was executed.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) requested: BTreeSet<Digest>,
    pub(crate) executed: BTreeSet<Digest>,
}

/// An element as `bst show` has it.
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) cached: bool,
}

impl<'a> Machine<'a> {
    /// Works in `home`, which has `project` and perhaps `cache` and `logs`; says what happens in `log`.
    pub(crate) fn new(programs: &'a Programs, home: PathBuf, log: PathBuf, deadline: Instant) -> Outcome<Self> {
        fs::write(&log, "").map_err(because(log.display()))?;
        Ok(Self { programs, home, log, deadline, builds: 0 })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Builds elements, and tells what was asked for meanwhile.
    pub(crate) fn build(&mut self, elements: &[String]) -> Outcome<Asked> {
        self.builds += 1;
        let logs = self.path(&format!("build-{}", self.builds));
        self.build_with_logs(elements, &logs)
    }

    /// Builds an element with priming beside it, and tells what was asked for meanwhile and what the tool says of it.
    pub(crate) fn build_beside_priming(&mut self, element: &str) -> Outcome<(Asked, Value)> {
        let logs = self.path("logs");
        let before = names(&logs.join("_casd"))?;
        let json = self.tool(&["build", "--json", element, "--", "--no-interactive"], &[0])?;
        let logs = logs.join("_casd");
        let mut new = Asked::default();
        for name in names(&logs)?.difference(&before) {
            asked_in(&logs.join(name), &mut new)?;
        }
        Ok((new, json))
    }

    /// The first build, whose logs are kept with the cache.
    pub(crate) fn first_build(&mut self, elements: &[String]) -> Outcome<Asked> {
        let logs = self.path("logs");
        self.build_with_logs(elements, &logs)
    }

    fn build_with_logs(&self, elements: &[String], logs: &Path) -> Outcome<Asked> {
        let mut command = self.command(&self.programs.bst, logs)?;
        self.run(command.args(["--no-interactive", "build"]).args(elements), &[0])?;
        asked(&logs.join("_casd"))
    }

    /// The elements that `element` needs, with it, in build order.
    pub(crate) fn show(&self, element: &str) -> Outcome<Vec<Shown>> {
        let mut command = self.command(&self.programs.bst, &self.path("show"))?;
        command.args(["--no-interactive", "show", "--deps", "all", "--format", "%{name} %{state}", element]);
        let text = self.run(&mut command, &[0])?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(lines.map(|(name, state)| Shown { name: name.into(), cached: state.trim() == "cached" }).collect())
    }

    /// Has the tool record what was built. Returns how many actions each element has.
    pub(crate) fn generate(&self) -> Outcome<BTreeMap<String, u64>> {
        let json = self.tool(&["generate", "--json"], &[0])?;
        let elements = json["elements"].as_array().cloned().unwrap_or_default();
        let count = |e: &Value| Some((e["name"].as_str()?.to_owned(), e["actions"].as_u64()?));
        Ok(elements.iter().filter_map(count).collect())
    }

    pub(crate) fn prime(&self, element: &str) -> Outcome<Value> {
        // Where it executed in vain only it says so, and ends like that.
        self.tool(&["prime", "--json", element], &[0, 1])
    }

    fn tool(&self, arguments: &[&str], ends: &[i32]) -> Outcome<Value> {
        let mut command = self.command(&self.programs.tool, &self.path("logs"))?;
        let bin = self.programs.bst.parent().unwrap_or(Path::new("."));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [bin.to_owned()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).map_err(because("PATH"))?).env("BST_SA_LOG", "info");
        let text = self.run(command.args(arguments), ends)?;
        serde_json::from_str(&text).map_err(because(text))
    }

    /// A command in the project, which finds its configuration by place, and is ended when its time is over.
    fn command(&self, program: &Path, logs: &Path) -> Outcome<Command> {
        let home = self.home.display();
        let config = self.path("config");
        fs::create_dir_all(&config).map_err(because(config.display()))?;
        let text = format!(
            "cachedir: {home}/cache\nsourcedir: {home}/sources\nlogdir: {}\ncache: {{cache-buildtrees: always}}\n\
             scheduler: {{builders: 2}}\n",
            logs.display()
        );
        fs::write(config.join("buildstream2.conf"), text).map_err(because("buildstream2.conf"))?;
        let left = self.deadline.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            return fail("its time is over");
        }
        // The kernel ends it with this program, too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "timeout", "--kill-after=20", &left.to_string()]);
        command.arg(program).current_dir(self.path("project"));
        command.env("XDG_CONFIG_HOME", config).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs to the end, which must be one of `ends`, and returns the standard output.
    fn run(&self, command: &mut Command, ends: &[i32]) -> Outcome<String> {
        let mut log = File::options().append(true).open(&self.log).map_err(because(self.log.display()))?;
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let words = words[6..].join(" ");
        let mut write = |text: &str| log.write_all(text.as_bytes()).map_err(because(self.log.display()));
        write(&format!("\n=== {words}\n"))?;
        let stderr = File::options().append(true).open(&self.log).map_err(because(self.log.display()))?;
        let output = command.stderr(stderr).output().map_err(because(&words))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        write(&text)?;
        match output.status.code() {
            Some(status) if ends.contains(&status) => Ok(text),
            Some(124 | 137) => fail(format!("took too long: {words}")),
            _ => fail(format!("{}: {words}; see {}", output.status, self.log.display())),
        }
    }
}

/// What the logs of one build's casd say.
fn asked(logs: &Path) -> Outcome<Asked> {
    let mut asked = Asked::default();
    for name in names(logs)? {
        asked_in(&logs.join(name), &mut asked)?;
    }
    Ok(asked)
}

fn names(folder: &Path) -> Outcome<BTreeSet<OsString>> {
    let entries = fs::read_dir(folder).map_err(because(folder.display()))?;
    entries.map(|entry| Ok(entry.map_err(because(folder.display()))?.file_name())).collect()
}

/// Adds what one log says.
fn asked_in(log: &Path, asked: &mut Asked) -> Outcome<()> {
    let mut scanner = CasdLogScanner::new();
    scanner.advance(&fs::read(log).map_err(because(log.display()))?);
    scanner.finish();
    for action in scanner.actions() {
        asked.requested.insert(action.action);
        match action.outcome {
            LoggedOutcome::Executed => _ = asked.executed.insert(action.action),
            LoggedOutcome::Hit => {}
            other => return fail(format!("{}: {other:?}, which is neither a hit nor executed", action.action)),
        }
    }
    Ok(())
}

/// Copies by hard links what the programs only ever replace, and really what else there is.
pub(crate) fn copy(from: &Path, to: &Path, how: Copy) -> Outcome<()> {
    let mut command = Command::new("cp");
    command.arg("--archive");
    if how == Copy::Links {
        command.arg("--link");
    }
    match command.arg("--").arg(from).arg(to).status() {
        Ok(status) if status.success() => Ok(()),
        other => fail(format!("cannot copy {}: {other:?}", from.display())),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    Links,
    Bytes,
}
