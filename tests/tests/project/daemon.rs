//! Programs that serve while a test lasts.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::world::World;

/// Longest time that anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What a program may take to end that was asked to.
const GRACE: Duration = Duration::from_secs(15);

/// Waits for what no event tells. `Err` if it does not come to pass in time.
pub(crate) fn wait_until(limit: Duration, mut happened: impl FnMut() -> bool) -> Result<(), &'static str> {
    let start = Instant::now();
    while !happened() {
        if start.elapsed() >= limit {
            return Err("waited in vain");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A port on loopback that was free a moment ago. Should somebody else take
/// it, the program that is to have it does not start, and the test says so.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A program that runs, with its log. Ends with this value.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program, both outputs going to `log`, in addition to what is there.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{name}: {command:?}: {e}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// A command that is sent `signal` by the kernel when this process is gone, however that came about.
    pub(crate) fn tied(signal: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal, "--"]).arg(program);
        command
    }

    /// Waits until something is true, which the program must live to see.
    pub(crate) fn wait(&mut self, what: &str, mut happened: impl FnMut() -> bool) {
        let mut ended = None;
        let outcome = wait_until(PATIENCE, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some() || happened()
        });
        if let Some(status) = ended {
            panic!("{} ended before {what}: {status}\n{}", self.name, self.said());
        }
        if let Err(error) = outcome {
            panic!("{}: {error} until {what}\n{}", self.name, self.said());
        }
    }

    /// Waits until something accepts connections at `address`: `unix:PATH` or `HOST:PORT`.
    pub(crate) fn wait_until_it_listens(&mut self, address: &str) {
        self.wait("it listens", || match address.strip_prefix("unix:") {
            Some(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            None => TcpStream::connect(address).is_ok(),
        });
    }

    /// Waits until its log says this.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let log = self.log.clone();
        self.wait(&format!("it logs {text:?}"), || fs::read_to_string(&log).is_ok_and(|log| log.contains(text)));
    }

    /// What it has logged.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and sees to it that it does.
    fn stop(&mut self, signal: Signal) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), signal)?;
        let mut ended = None;
        let asked = wait_until(GRACE, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        if asked.is_err() {
            println!("{} does not end when it is asked to", self.name);
            self.child.kill()?;
        }
        ended.map_or_else(|| self.child.wait(), Ok)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Signal::TERM) {
            println!("{} cannot be stopped: {error}", self.name);
        }
    }
}

/// A buildbox-casd of the test's own. Ends with this value.
pub(crate) struct Casd {
    daemon: Daemon,
    bind: String,
    _folder: Option<TempDir>,
}

impl Casd {
    /// One on the cache directory of a world.
    pub(crate) fn on_cache(world: &World) -> Self {
        let folder = TempDir::new().unwrap();
        let bind = format!("unix:{}", folder.path().join("casd.sock").display());
        let log = folder.path().join("casd.log");
        let mut casd = Self::start(world.buildbox(), &bind, &world.path("cache"), &log, &executing(world));
        casd._folder = Some(folder);
        casd
    }

    /// One that serves artifacts on loopback.
    pub(crate) fn on_tcp(world: &World) -> Self {
        let folder = world.folder_beside();
        let bind = format!("127.0.0.1:{}", free_port());
        let log = folder.path().join("casd.log");
        let mut casd = Self::start(world.buildbox(), &bind, &folder.path().join("storage"), &log, &executing(world));
        casd._folder = Some(folder);
        casd
    }

    /// One with options of its own.
    pub(crate) fn start(buildbox: &Path, bind: &str, storage: &Path, log: &Path, options: &[String]) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [buildbox.to_owned()].into_iter().chain(std::env::split_paths(&path));
        let mut command = Daemon::tied("TERM", buildbox.join("buildbox-casd"));
        command.arg(format!("--bind={bind}")).arg("--log-level=info");
        command.args(options).arg(storage).env("PATH", std::env::join_paths(path).unwrap());
        let mut daemon = Daemon::start("buildbox-casd", command, log);
        daemon.wait_until_it_listens(bind);
        Self { daemon, bind: bind.to_owned(), _folder: None }
    }

    /// `unix:PATH` or `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.bind
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.bind.strip_prefix("unix:").unwrap().into()
    }

    /// Waits until its log says this.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        self.daemon.wait_for_log(text);
    }

    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// What names it in BuildStream's configuration.
    pub(crate) fn as_artifact_server(&self) -> String {
        format!("artifacts: {{servers: [{{url: 'http://{}', push: true}}]}}\n", self.bind)
    }
}

/// Options of a casd that executes actions itself.
fn executing(world: &World) -> [String; 3] {
    let runner = format!("--buildbox-run={}", world.buildbox().join("buildbox-run").display());
    [runner, "--jobs=2".to_owned(), "--cache-failures=false".to_owned()]
}
