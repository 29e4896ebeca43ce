//! The `bst` process.

use std::io::{IsTerminal, stderr, stdin};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};

use buildstream::{Installation, Invocation};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use crate::failure::Failure;

/// A running `bst build`.
///
/// It has our terminal. What it prints goes to stderr, as stdout carries our results.
pub(super) struct Bst(Child);

impl Bst {
    pub(super) fn start(
        installation: &Installation,
        invocation: &Invocation,
        elements: &[String],
    ) -> Result<Self, Failure> {
        let bst = installation.bst();
        let failed = |e: std::io::Error| Failure::new(format!("{} cannot be run", bst.display())).because(&e);
        let output = stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let mut command = Command::new(bst);
        command.args(invocation.arguments()).arg("build").arg("--").args(elements).stdout(Stdio::from(output));
        Ok(Self(command.spawn().map_err(failed)?))
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.0.wait().await.map_err(|e| Failure::new("bst cannot be waited for").because(&e))
    }

    /// Hands a signal on. An interrupt from the terminal has reached `bst` by
    /// itself, and it may be about to ask what to do; a second one would be taken for an answer.
    pub(super) fn forward(&self, signal: Signal) {
        if signal == Signal::INT && stdin().is_terminal() {
            return;
        }
        let pid = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(error) = pid.and_then(|pid| kill_process(pid, signal).err()) {
            tracing::debug!(%error, "bst does not get the signal");
        }
    }
}

/// As a shell would say it: the status of a process, or 128 and the signal that ended it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The signals that ask us to end.
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |kind| unix::signal(kind).map_err(|e| Failure::new("signals cannot be received").because(&e));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }

    /// Any of them.
    pub(super) async fn end(&mut self) {
        self.next().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_bst() {
        let code = |raw| format!("{:?}", exit_code(ExitStatus::from_raw(raw)));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(0), expected(0));
        assert_eq!(code(255 << 8), expected(255));
        assert_eq!(code(libc_sigterm()), expected(143));
    }

    fn libc_sigterm() -> i32 {
        Signal::TERM.as_raw()
    }
}
