//! Child processes that cannot outlive their time: every one has a group of
//! its own, every wait has a limit, and a signal to us ends all of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{Failure, Outcome};

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How much of a log is shown when something failed.
const TAIL_BYTES: u64 = 6000;

/// Turns the signals that end a program into something to wait for, so that
/// what was started is stopped and reaped first.
pub(crate) struct Interrupts {
    /// Readable for ever from the first signal on.
    pipe: UnixStream,
}

impl Interrupts {
    pub(crate) fn catch() -> Result<Self, Failure> {
        let (pipe, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe })
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Exited,
    Interrupted,
    TimedOut,
}

/// A command that the kernel ends when this program is gone, however that came about.
pub(crate) fn tied(last_signal: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", last_signal, "--"]).arg(program);
    command
}

/// A running process and what it started. Dropping it ends and reaps it.
pub(crate) struct Process<'a> {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    interrupts: &'a Interrupts,
    reaped: bool,
}

impl<'a> Process<'a> {
    /// Starts `command` without standard input.
    pub(crate) fn start(name: &str, mut command: Command, interrupts: &'a Interrupts) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|e| Failure::new(format!("cannot start {name} ({command:?}): {e}")))?;
        let pidfd = pidfd_open(pid(&child), PidfdFlags::empty()).map_err(|e| Failure::new(e.to_string()))?;
        Ok(Self { name: name.to_owned(), child, pidfd, interrupts, reaped: false })
    }

    /// Waits for the end of the process, a signal to us, or the limit.
    pub(crate) fn event_within(&self, limit: Duration) -> Result<Event, Failure> {
        let mut fds = [
            PollFd::new(&self.interrupts.pipe, PollFlags::IN),
            PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN),
        ];
        poll_within(&mut fds, limit)?;
        let [interrupted, exited] = fds.map(|fd| !fd.revents().is_empty());
        Ok(match (interrupted, exited) {
            (true, _) => Event::Interrupted,
            (false, true) => Event::Exited,
            (false, false) => Event::TimedOut,
        })
    }

    /// How the process ended; it must within `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        match self.event_within(limit)? {
            Event::Exited => Ok(self.reap()?),
            Event::Interrupted => Err(Failure::new(format!("interrupted during {}", self.name))),
            Event::TimedOut => Err(Failure::new(format!("{} took longer than {} s", self.name, limit.as_secs()))),
        }
    }

    /// Ends whatever the process left running in its group, and reaps it.
    fn reap(&mut self) -> std::io::Result<ExitStatus> {
        // The group's number is ours until the wait: nobody else can be hit. An empty group is no error.
        let _ = kill_process_group(pid(&self.child), Signal::KILL);
        let status = self.child.wait();
        self.reaped = true;
        status
    }

    fn stop(&mut self) -> Outcome {
        let _ = kill_process_group(pid(&self.child), Signal::TERM);
        poll_within(&mut [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)], GRACE)?;
        self.reap()?;
        Ok(())
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if !self.reaped
            && let Err(failure) = self.stop()
        {
            eprintln!("integration: cannot stop {}: {failure}", self.name);
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn poll_within(fds: &mut [PollFd<'_>], limit: Duration) -> Outcome {
    let start = Instant::now();
    loop {
        let left =
            Timespec::try_from(limit.saturating_sub(start.elapsed())).map_err(|e| Failure::new(e.to_string()))?;
        match poll(fds, Some(&left)) {
            // A signal: by now its handler has made the pipe readable.
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.map(drop).map_err(|e| Failure::new(e.to_string())),
        }
    }
}

/// Runs a command to its end with both outputs in `log`. What it said last
/// becomes part of the failure if it fails.
pub(crate) fn run_logged(
    name: &str,
    mut command: Command,
    log: &Path,
    limit: Duration,
    interrupts: &Interrupts,
) -> Outcome {
    let file = File::create(log)?;
    command.stdout(file.try_clone()?).stderr(file);
    let outcome = Process::start(name, command, interrupts)?.finish(limit);
    match outcome {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("{name}: {status}\n{}", tail(log)))),
        Err(failure) => Err(Failure::new(format!("{failure}\n{}", tail(log)))),
    }
}

/// The end of a log, with its name.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => format!("--- end of {}\n{}\n---", log.display(), text.trim_end()),
        Err(e) => format!("(no log {}: {e})", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn never() -> (Interrupts, UnixStream) {
        let (pipe, other) = UnixStream::pair().unwrap();
        (Interrupts { pipe }, other)
    }

    #[test]
    fn an_exit_status_is_reported() {
        let (interrupts, _open) = never();
        let process = Process::start("x", shell("exit 3"), &interrupts).unwrap();
        assert_eq!(process.finish(Duration::from_secs(20)).unwrap().code(), Some(3));
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_started() {
        let (interrupts, _open) = never();
        let (mut read, write) = UnixStream::pair().unwrap();
        let mut command = shell("sleep 600 & sleep 600");
        command.stdout(OwnedFd::from(write));
        let process = Process::start("x", command, &interrupts).unwrap();
        let failure = process.finish(Duration::from_millis(20)).unwrap_err();
        assert!(failure.to_string().contains("longer than"), "{failure}");
        // The end of file comes when the last holder of the other end is gone.
        assert_eq!(read.read_to_end(&mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn an_interrupt_ends_a_wait() {
        let (interrupts, open) = never();
        let process = Process::start("x", shell("sleep 600"), &interrupts).unwrap();
        drop(open);
        assert_eq!(process.event_within(Duration::from_secs(20)).unwrap(), Event::Interrupted);
        assert!(process.finish(Duration::from_secs(20)).unwrap_err().to_string().contains("interrupted"));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let (interrupts, _open) = never();
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let limit = Duration::from_secs(20);
        let failure = run_logged("x", shell("echo out; echo err >&2; exit 1"), &log, limit, &interrupts).unwrap_err();
        assert!(failure.to_string().contains("out\nerr"), "{failure}");
        run_logged("x", shell("true"), &log, limit, &interrupts).unwrap();
    }
}
