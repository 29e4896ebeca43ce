//! A machine: a copy of the project with a cache of its own, and the programs to work on it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use record::{CasdLogScanner, LoggedOutcome};
use serde_json::Value;
use tempfile::TempDir;

use super::daemon::{PATIENCE, wait_until};

/// The complete project.
const PROJECT: &str = "BST_SA_TEST_PROJECT";
/// A folder for what a run leaves while it lasts.
const RUNS: &str = "BST_SA_TEST_RUNS";
/// A folder for what is kept.
const LOGS: &str = "BST_SA_TEST_LOGS";
/// The programs: `bst`, the tool, the folder of buildbox.
const BST: &str = "BST_SA_TEST_BST";
const TOOL: &str = "BST_SA_TEST_BIN";
const BUILDBOX: &str = "BST_SA_TEST_BUILDBOX";

/// Reports a figure to whoever runs this test, and holds it to what is expected.
#[track_caller]
pub(crate) fn figure(name: &str, expected: impl Display, found: impl Display) {
    let (expected, found) = (expected.to_string(), found.to_string());
    println!("figure: {name} | {expected} | {found}");
    assert_eq!(found, expected, "{name}");
}

/// Reports a figure that must be so large at least.
#[track_caller]
pub(crate) fn figure_at_least(name: &str, least: f64, found: f64) {
    println!("figure: {name} | >= {least} | {found:.2}");
    assert!(found >= least, "{name}: {found}");
}

pub(crate) struct World {
    variables: BTreeMap<&'static str, PathBuf>,
    home: TempDir,
    builds: Cell<usize>,
}

/// A finished `bst-sa build`.
pub(crate) struct Build {
    pub(crate) json: Value,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

/// A `bst-sa build` that runs. Ends with this value.
pub(crate) struct Running {
    child: Child,
    stderr: PathBuf,
}

/// What recc asked for in the last command of `bst`.
pub(crate) struct Asked {
    pub(crate) hits: usize,
    pub(crate) executed: usize,
}

impl World {
    /// `None`, loudly, where there is nothing to work with.
    pub(crate) fn new() -> Option<Self> {
        let world = Self::without_project()?;
        world.copy(&world.variables[PROJECT], "project");
        Some(world)
    }

    /// Another machine: the project of a world as it is now, and what is cached on a third one.
    pub(crate) fn with(project: &Self, cached: &Self) -> Self {
        let world = Self::without_project().unwrap();
        world.copy(&project.path("project"), "project");
        if cached.path("cache").exists() {
            world.copy(&cached.path("cache"), "cache");
        }
        world
    }

    fn copy(&self, from: &Path, name: &str) {
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link", "--"]).arg(from).arg(self.path(name));
        assert!(copy.status().unwrap().success());
    }

    fn without_project() -> Option<Self> {
        let mut variables = BTreeMap::new();
        for name in [PROJECT, RUNS, LOGS, BST, TOOL, BUILDBOX] {
            let Some(value) = std::env::var_os(name) else {
                // Past the capture of the test harness: a skip must be seen.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is not set; run `cargo xtask integration`");
                return None;
            };
            variables.insert(name, PathBuf::from(value));
        }
        let home = tempfile::Builder::new().prefix("world-").tempdir_in(&variables[RUNS]).unwrap();
        let world = Self { variables, home, builds: Cell::new(0) };
        world.configure("");
        Some(world)
    }

    /// The folder of the released programs.
    pub(crate) fn buildbox(&self) -> &Path {
        &self.variables[BUILDBOX]
    }

    /// The root file system of sandboxes.
    pub(crate) fn sandbox_root(&self) -> PathBuf {
        self.variables[PROJECT].join("files/root")
    }

    /// A folder of one's own that lasts as long as its value.
    pub(crate) fn folder_beside(&self) -> TempDir {
        TempDir::new_in(&self.variables[RUNS]).unwrap()
    }

    /// Where what is kept goes.
    pub(crate) fn logs(&self) -> &Path {
        &self.variables[LOGS]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes the user configuration: a cache of its own, and what else is given.
    pub(crate) fn configure(&self, more: &str) {
        self.write_configuration(&self.path("cache"), more);
    }

    pub(crate) fn configure_cache(&self, cachedir: &Path) {
        self.write_configuration(cachedir, "");
    }

    fn write_configuration(&self, cachedir: &Path, more: &str) {
        let (home, cachedir) = (self.home.path().display(), cachedir.display());
        let text = format!(
            "cachedir: {cachedir}\nsourcedir: {home}/sources\nlogdir: {home}/logs\n\
             cache: {{cache-buildtrees: always}}\n{more}"
        );
        fs::write(self.path("bst.conf"), text).unwrap();
    }

    /// Replaces text in a file of the project. A new file takes the place: the old one is linked elsewhere.
    pub(crate) fn edit(&self, name: &str, old: &str, new: &str) {
        let path = self.path("project").join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{old} in {text}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, text.replace(old, new)).unwrap();
    }

    /// Adds a file to the project.
    pub(crate) fn add(&self, name: &str, text: &str) {
        fs::write(self.path("project").join(name), text).unwrap();
    }

    /// Makes the base an archive that is known by its checksum, as bases are: the
    /// files of a local one are read anew, all of them, whenever a project is loaded.
    pub(crate) fn archive_base(&self) {
        let archive = self.path("base.tar");
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(self.path("project/files/root"))
            .arg(".");
        assert!(tar.status().unwrap().success());
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
        let element = self.path("project/elements/base.bst");
        fs::remove_file(&element).unwrap();
        let url = archive.display();
        let text =
            format!("kind: import\nsources:\n- kind: tar\n  url: \"file://{url}\"\n  ref: {sum}\n  base-dir: \"\"\n");
        fs::write(element, text).unwrap();
    }

    /// Runs `bst-sa build`, which must succeed.
    pub(crate) fn build(&self, element: &str, options: &[&str]) -> Build {
        let running = self.start_build(element, options);
        self.finish_build(running)
    }

    pub(crate) fn start_build(&self, element: &str, options: &[&str]) -> Running {
        // The machine may be slow, and other things are to be shown than who is faster.
        let options: Vec<&str> = ["--head-start", "60"].iter().chain(options).copied().collect();
        self.start_build_with(element, &options, &[])
    }

    pub(crate) fn start_build_with(&self, element: &str, options: &[&str], variables: &[(&str, &str)]) -> Running {
        let arguments = [&["build", "--json"], options, &[element, "--", "--no-interactive"]].concat();
        self.start_tool(&arguments, variables)
    }

    /// Primes an element beside whatever else happens. What it prints is that of a build.
    pub(crate) fn start_prime(&self, element: &str) -> Running {
        self.start_tool(&["prime", "--json", element], &[])
    }

    fn start_tool(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.builds.set(self.builds.get() + 1);
        let name = self.home.path().file_name().unwrap().to_str().unwrap();
        let stderr = self.variables[LOGS].join(format!("{name}-build-{}.log", self.builds.get()));
        let mut command = self.tool();
        command.args(arguments).envs(variables.iter().copied());
        command.stdout(Stdio::piped()).stderr(File::create(&stderr).unwrap());
        Running { child: command.spawn().unwrap(), stderr }
    }

    pub(crate) fn finish_build(&self, running: Running) -> Build {
        let build = self.finish_any_build(running);
        assert_eq!(build.status, 0, "{}", build.stderr);
        build
    }

    pub(crate) fn finish_any_build(&self, mut running: Running) -> Build {
        let mut stdout = String::new();
        running.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let status = running.child.wait().unwrap();
        let stderr = fs::read_to_string(&running.stderr).unwrap();
        let json = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}\n{stderr}"));
        println!("{stdout}");
        Build { json, stderr, status: status.code().unwrap() }
    }

    /// The tool in the project, with this world's `bst`.
    fn tool(&self) -> Command {
        let mut command = Command::new(&self.variables[TOOL]);
        let bin = self.variables[BST].parent().unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([bin.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
        command.env("PATH", path).env("BST_SA_LOG", "info").current_dir(self.path("project")).stdin(Stdio::null());
        // The configuration is found by its place: what comes after the command differs from one to the other.
        command.env("XDG_CONFIG_HOME", self.config_home()).env("XDG_CACHE_HOME", self.path("cache-home"));
        command
    }

    /// A folder in which `bst` looks for its configuration.
    fn config_home(&self) -> PathBuf {
        let folder = self.path("config");
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (fs::read(self.path("bst.conf")).unwrap(), folder.join("buildstream2.conf"));
        // One that is written again is another one.
        if fs::read(&to).ok().is_none_or(|there| there != from) {
            fs::write(to, from).unwrap();
        }
        folder
    }

    fn tool_json(&self, arguments: &[&str]) -> Value {
        let Output { status, stdout, stderr } = self.tool().args(arguments).output().unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        serde_json::from_slice(&stdout).unwrap()
    }

    fn bst(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.variables[BST]);
        command.env("XDG_CONFIG_HOME", self.config_home()).current_dir(self.path("project")).stdin(Stdio::null());
        command.arg("--no-interactive").args(arguments).output().unwrap()
    }

    /// Runs a command of `bst`, which must succeed.
    pub(crate) fn must_bst(&self, arguments: &[&str]) {
        let Output { status, stderr, .. } = self.bst(arguments);
        assert!(status.success(), "bst {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    }

    /// How a command of `bst` ends.
    pub(crate) fn bst_status(&self, arguments: &[&str]) -> i32 {
        self.bst(arguments).status.code().unwrap()
    }

    /// The strong key that an element has now.
    pub(crate) fn key(&self, element: &str) -> String {
        let Output { status, stdout, stderr } =
            self.bst(&["show", "--deps", "none", "--format", "%{full-key}", element]);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// What the artifact of an element consists of.
    pub(crate) fn artifact_digest(&self, element: &str) -> String {
        let Output { status, stdout, stderr } =
            self.bst(&["show", "--deps", "none", "--format", "%{artifact-cas-digest}", element]);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// The artifact of an element, checked out.
    pub(crate) fn checkout(&self, element: &str) -> PathBuf {
        let folder = self.path("checkout");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let folder_name = folder.to_str().unwrap();
        let Output { status, stderr, .. } =
            self.bst(&["artifact", "checkout", "--deps", "none", "--directory", folder_name, element]);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        folder
    }

    /// What a program of an artifact prints. It is run by the loader and on the libraries that it was linked for.
    pub(crate) fn run(&self, element: &str, program: &str) -> String {
        let root = self.sandbox_root();
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
        let Output { status, stdout, .. } = command.arg(self.checkout(element).join(program)).output().unwrap();
        assert!(status.success());
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// What was asked for in the last command of `bst` that asked for something, as casd logged it.
    pub(crate) fn asked(&self) -> Asked {
        let mut logs: Vec<PathBuf> =
            fs::read_dir(self.path("logs/_casd")).unwrap().map(|entry| entry.unwrap().path()).collect();
        logs.sort();
        for log in logs.iter().rev() {
            let mut scanner = CasdLogScanner::new();
            scanner.advance(&fs::read(log).unwrap());
            scanner.finish();
            if !scanner.actions().is_empty() {
                let count =
                    |hit: bool| scanner.actions().iter().filter(|a| (a.outcome <= LoggedOutcome::Hit) == hit).count();
                return Asked { hits: count(true), executed: count(false) };
            }
        }
        panic!("no log names an action");
    }

    /// Primes an element, with a casd that the tool starts itself.
    pub(crate) fn prime(&self, element: &str) -> Value {
        self.tool_json(&["prime", "--json", element])
    }

    /// What became of the predictions for an element.
    pub(crate) fn explain(&self, element: &str) -> Value {
        self.tool_json(&["explain", "--json", element])
    }

    /// Records an element from what was logged, and returns the record.
    pub(crate) fn generate(&self, element: &str) -> String {
        let generated = self.tool_json(&["generate", "--json", element]);
        generated["elements"][0]["speculative_actions"].as_str().unwrap().to_owned()
    }

    /// How many actions an element's record has.
    pub(crate) fn recorded(&self, element: &str) -> usize {
        self.recorded_actions(element).len()
    }

    /// The actions in an element's record.
    pub(crate) fn recorded_actions(&self, element: &str) -> Vec<String> {
        let shown = self.tool_json(&["show", "--json", element]);
        let base = |action: &Value| action["base"].as_str().unwrap().to_owned();
        shown["actions"].as_array().unwrap().iter().map(base).collect()
    }

    /// The file of a blob, `HASH/SIZE`.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hash = digest.split('/').next().unwrap();
        self.path("cache/cas/objects").join(&hash[..2]).join(&hash[2..])
    }

    /// The command lines of running processes that name this world, or "none".
    pub(crate) fn processes(&self) -> String {
        let home = self.home.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            // Processes come and go, and not all that is there is one.
            let Ok(line) = fs::read(entry.unwrap().path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(home) {
                found.push(line);
            }
        }
        if found.is_empty() { "none".to_owned() } else { found.join("; ") }
    }

    fn refs(&self, element: &str) -> PathBuf {
        self.path("cache/artifacts/refs/sample").join(element.strip_suffix(".bst").unwrap())
    }

    pub(crate) fn has_artifact(&self, element: &str, key: &str) -> bool {
        self.refs(element).join(key).exists()
    }

    /// When an element's artifact of now was stored.
    pub(crate) fn built_at(&self, element: &str) -> SystemTime {
        modified(&self.refs(element).join(self.key(element)))
    }

    /// When the results were stored that the action cache got since then.
    pub(crate) fn results_since(&self, start: SystemTime) -> Vec<SystemTime> {
        let folders = fs::read_dir(self.path("cache/actioncache/objects")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| modified(&file.unwrap().path())).filter(|stored| *stored >= start).collect()
    }
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).modified().unwrap()
}

impl Build {
    fn element(&self, name: &str) -> &Value {
        let elements = self.json["elements"].as_array().unwrap();
        elements.iter().find(|element| element["name"] == name).unwrap_or_else(|| panic!("no {name} in {}", self.json))
    }

    /// One count of an element.
    pub(crate) fn of(&self, element: &str, count: &str) -> u64 {
        self.element(element)[count].as_u64().unwrap()
    }

    pub(crate) fn text(&self, element: &str, member: &str) -> String {
        self.element(element)[member].as_str().unwrap_or_default().to_owned()
    }

    /// The record that was made of an element.
    pub(crate) fn record(&self, element: &str) -> String {
        let record = self.text(element, "recorded");
        assert!(!record.is_empty(), "{}", self.json);
        record
    }

    /// The reasons for which recorded actions were skipped.
    pub(crate) fn skipped(&self, element: &str) -> Vec<String> {
        let skipped = self.element(element)["skipped"].as_array().unwrap();
        skipped.iter().map(|skipped| skipped["reason"].as_str().unwrap().to_owned()).collect()
    }
}

impl Running {
    /// Waits until the build has printed this.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let stderr = self.stderr.clone();
        self.wait(&format!("it says {text:?}"), || fs::read_to_string(&stderr).is_ok_and(|said| said.contains(text)));
    }

    /// Waits until something is true, which the build must last to see.
    pub(crate) fn wait(&mut self, what: &str, mut happened: impl FnMut() -> bool) {
        let mut ended = false;
        let outcome = wait_until(PATIENCE, || {
            ended = self.child.try_wait().unwrap().is_some();
            ended || happened()
        });
        let said = || fs::read_to_string(&self.stderr).unwrap_or_default();
        assert!(!ended, "the build ended before {what}\n{}", said());
        assert!(outcome.is_ok(), "the build: waited in vain until {what}\n{}", said());
    }

    /// As from a terminal that is none: to the tool alone.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already over, in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
