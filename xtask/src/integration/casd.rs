//! A real buildbox-casd with local execution, for as long as a scenario lasts.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{Event, Interrupts, Process, tail, tied};
use super::setup;
use crate::{Failure, Outcome};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server on a fresh cache. Dropping it stops it and removes the cache.
pub(super) struct Casd<'a> {
    process: Option<Process<'a>>,
    url: String,
    log: PathBuf,
    cache: Option<TempDir>,
    /// Holds the socket: its path must stay below the 108 bytes that a socket address has.
    _socket_dir: TempDir,
}

impl<'a> Casd<'a> {
    /// Starts the server of this folder, with a cache below `runs`, and waits until it accepts connections.
    pub(super) fn start(buildbox: &Path, runs: &Path, log: &Path, interrupts: &'a Interrupts) -> Result<Self, Failure> {
        let cache = tempfile::Builder::new().prefix("casd-").tempdir_in(runs)?;
        let socket_dir = tempfile::Builder::new().prefix("bst-sa-").tempdir()?;
        let socket = socket_dir.path().join("casd.sock");
        let url = format!("unix:{}", socket.display());

        let mut command = tied("TERM", buildbox.join("buildbox-casd"));
        command.arg(format!("--bind={url}"));
        command.arg(format!("--buildbox-run={}", buildbox.join("buildbox-run").display()));
        command.args(["--jobs=2", "--cache-failures=false", "--log-level=info"]).arg(cache.path());
        // The staging helper is looked up in PATH; without it trees are staged by copying.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(buildbox.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).map_err(|e| Failure::new(e.to_string()))?);
        let file = File::create(log)?;
        command.stdout(file.try_clone()?).stderr(file);

        let process = Process::start("buildbox-casd", command, interrupts)?;
        await_socket(&process, &socket).map_err(|failure| Failure::new(format!("{failure}\n{}", tail(log))))?;
        Ok(Self { process: Some(process), url, log: log.to_owned(), cache: Some(cache), _socket_dir: socket_dir })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it is still there: a scenario during which the server died has not passed.
    pub(super) fn check_alive(&self) -> Outcome {
        match &self.process {
            Some(process) if process.event_within(Duration::ZERO)? == Event::Exited => {
                Err(Failure::new("buildbox-casd ended by itself"))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Casd<'_> {
    fn drop(&mut self) {
        drop(self.process.take());
        if let Some(cache) = self.cache.take()
            && let Err(failure) = setup::remove_tree(&cache.keep())
        {
            eprintln!("integration: {failure}");
        }
    }
}

/// Connects until it works. Between two tries it waits for the process, so an early death is seen at once.
fn await_socket(process: &Process<'_>, socket: &Path) -> Outcome {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let Err(refused) = UnixStream::connect(socket) else { return Ok(()) };
        match process.event_within(pause)? {
            Event::Exited => return Err(Failure::new("buildbox-casd ended during its start")),
            Event::Interrupted => return Err(Failure::new("interrupted")),
            Event::TimedOut if start.elapsed() > START_LIMIT => {
                return Err(Failure::new(format!("buildbox-casd does not accept connections: {refused}")));
            }
            Event::TimedOut => pause = (pause * 2).min(Duration::from_millis(200)),
        }
    }
}
