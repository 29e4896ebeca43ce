//! A machine: a copy of the project with a cache of its own, and the programs to work on it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use record::{CasdLogScanner, LoggedOutcome};
use serde_json::Value;
use tempfile::TempDir;

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

/// Longest time that anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reports a figure to whoever runs this test, and holds it to what is expected.
#[track_caller]
pub(crate) fn figure(name: &str, expected: impl Display, found: impl Display) {
    let (expected, found) = (expected.to_string(), found.to_string());
    println!("figure: {name} | {expected} | {found}");
    assert_eq!(found, expected, "{name}");
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
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link", "--"]).arg(&world.variables[PROJECT]).arg(world.path("project"));
        assert!(copy.status().unwrap().success());
        world.configure("");
        Some(world)
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
        self.builds.set(self.builds.get() + 1);
        let name = self.home.path().file_name().unwrap().to_str().unwrap();
        let stderr = self.variables[LOGS].join(format!("{name}-build-{}.log", self.builds.get()));
        let mut command = self.tool();
        command.args(["build", "--json"]).args(options).arg(element).args(["--", "--no-interactive"]);
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(File::create(&stderr).unwrap());
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
        command.env("XDG_CONFIG_HOME", self.config_home());
        command
    }

    /// A folder in which `bst` looks for its configuration.
    fn config_home(&self) -> PathBuf {
        let folder = self.path("config");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(self.path("bst.conf"), folder.join("buildstream2.conf")).unwrap();
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
        let root = self.variables[PROJECT].join("files/root");
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
        let start = Instant::now();
        while !fs::read_to_string(&self.stderr).is_ok_and(|said| said.contains(text)) {
            assert!(self.child.try_wait().unwrap().is_none(), "the build ended before it said {text:?}");
            assert!(start.elapsed() < PATIENCE, "the build does not say {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
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

/// A buildbox-casd of the test's own. Ends with this value.
pub(crate) struct Casd {
    child: Child,
    bind: String,
    log: PathBuf,
    _folder: TempDir,
}

impl Casd {
    /// One on the cache directory of a world.
    pub(crate) fn on_cache(world: &World) -> Self {
        let folder = TempDir::new().unwrap();
        let bind = format!("unix:{}", folder.path().join("casd.sock").display());
        Self::start(world, bind, &world.path("cache"), folder)
    }

    /// One that serves artifacts on loopback.
    pub(crate) fn on_tcp(world: &World) -> Self {
        let folder = TempDir::new_in(&world.variables[RUNS]).unwrap();
        // Free a moment ago; should somebody else take it, casd does not start and the test says so.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let storage = folder.path().join("storage");
        Self::start(world, format!("127.0.0.1:{port}"), &storage, folder)
    }

    fn start(world: &World, bind: String, storage: &Path, folder: TempDir) -> Self {
        let log = folder.path().join("casd.log");
        let buildbox = &world.variables[BUILDBOX];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([buildbox.clone()].into_iter().chain(std::env::split_paths(&path))).unwrap();
        let mut runner = std::ffi::OsString::from("--buildbox-run=");
        runner.push(buildbox.join("buildbox-run"));
        // Should this process be killed, the kernel ends casd.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(buildbox.join("buildbox-casd"));
        command
            .arg(format!("--bind={bind}"))
            .arg(runner)
            .args(["--jobs=2", "--cache-failures=false", "--log-level=info"])
            .arg(storage);
        let file = File::create(&log).unwrap();
        command.env("PATH", path).stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        let mut casd = Self { child: command.spawn().unwrap(), bind, log, _folder: folder };
        casd.wait_until_it_listens();
        casd
    }

    fn wait_until_it_listens(&mut self) {
        let listens = |bind: &str| match bind.strip_prefix("unix:") {
            Some(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            None => std::net::TcpStream::connect(bind).is_ok(),
        };
        let bind = self.bind.clone();
        self.wait(|| listens(&bind), "it listens");
    }

    /// Waits for what no event tells.
    fn wait(&mut self, mut happened: impl FnMut() -> bool, what: &str) {
        let start = Instant::now();
        while !happened() {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("casd ended before {what}: {status}\n{}", log());
            }
            assert!(start.elapsed() < PATIENCE, "casd: waited in vain until {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.bind.strip_prefix("unix:").unwrap().into()
    }

    /// Waits until its log says this.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let log = self.log.clone();
        self.wait(|| fs::read_to_string(&log).is_ok_and(|log| log.contains(text)), &format!("it logs {text:?}"));
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What names it in BuildStream's configuration.
    pub(crate) fn as_artifact_server(&self) -> String {
        format!("artifacts: {{servers: [{{url: 'http://{}', push: true}}]}}\n", self.bind)
    }
}

impl Drop for Casd {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = pid
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
