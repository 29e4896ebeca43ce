//! Running the helper: one request, some events, one answer.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::answer::Answer;
use super::{IntrospectError, KNOWN_VERSIONS, VersionPolicy};
use crate::installation::Installation;

/// The program that asks. Its first version of the conversation is the only one.
const HELPER: &str = include_str!("helper.py");
const PROTOCOL: u32 = 1;

/// Bytes of the whole conversation: a thousand times what a project of a thousand elements takes.
const MAX_BYTES: u64 = 1 << 30;

/// How much of what the helper prints beside the conversation is repeated in an error.
const SHOWN_OUTPUT_BYTES: usize = 4096;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until the answer.
    pub(super) timeout: Duration,
    /// From the answer, or from giving up, until the helper has ended. casd
    /// gets 15 s from BuildStream before it is killed; it takes 0.2 s.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: super::Request::TIMEOUT, grace: Duration::from_secs(20) }
    }
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Hello { protocol: u32, buildstream: String, python: String },
    Daemon { pid: i32 },
    Answer(Box<Answer>),
    Error { kind: ErrorKind, message: String, detail: Option<String> },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ErrorKind {
    Absent,
    Refused,
    Incompatible,
}

/// Puts the question and waits for the answer, then for the end of the helper.
pub(super) async fn converse(
    installation: &Installation,
    asked: &str,
    versions: VersionPolicy,
    limits: Limits,
) -> Result<Answer, IntrospectError> {
    let interpreter = installation.interpreter().to_string_lossy().into_owned();
    let mut child = Command::new(installation.interpreter())
        .args(installation.arguments())
        .args(["-c", HELPER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| IntrospectError::Start { interpreter: interpreter.clone(), source })?;
    let mut talk = Talk { interpreter, versions, version: String::new(), python: String::new(), daemon: None };
    let mut output = Output { stream: child.stderr.take(), tail: Vec::new() };
    let outcome = match timeout(limits.timeout, talk.answer(&mut child, asked, &mut output)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Stop::Because(IntrospectError::TimedOut(limits.timeout))),
    };
    let status = finish(child, talk.daemon, &mut output, limits.grace).await;
    match outcome {
        Ok(mut answer) => {
            if !output.text().is_empty() {
                tracing::debug!(output = output.text(), "beside its answer, BuildStream printed");
            }
            answer.set_versions(talk.version, talk.python, versions_known);
            Ok(*answer)
        }
        Err(Stop::Because(error)) => Err(error),
        Err(Stop::Broken(reason)) => Err(IntrospectError::Broken { reason, output: output.text() }),
        Err(Stop::Silent) => {
            let reason = match status {
                Some(status) => format!("the interpreter ended with {status}"),
                None => "the interpreter had to be killed".to_owned(),
            };
            Err(IntrospectError::Broken { reason, output: output.text() })
        }
    }
}

/// Why a conversation ends without an answer.
enum Stop {
    Because(IntrospectError),
    /// It is not the conversation that it should be.
    Broken(String),
    /// The other side ended it.
    Silent,
}

struct Talk {
    interpreter: String,
    versions: VersionPolicy,
    version: String,
    python: String,
    daemon: Option<i32>,
}

impl Talk {
    async fn answer(&mut self, child: &mut Child, asked: &str, output: &mut Output) -> Result<Box<Answer>, Stop> {
        let broken = |e: std::io::Error| Stop::Broken(e.to_string());
        if let Some(stdin) = &mut child.stdin {
            // A helper that ended before it read the question says why on its side of the conversation.
            if let Err(error) = stdin.write_all(format!("{asked}\n").as_bytes()).await {
                tracing::debug!(%error, "the question was not read");
            }
        }
        let Some(stdout) = child.stdout.take() else { return Err(Stop::Silent) };
        let mut lines = BufReader::new(stdout.take(MAX_BYTES)).lines();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line.map_err(broken)?,
                () = output.listen() => continue,
            };
            let Some(line) = line else { return Err(Stop::Silent) };
            let event = serde_json::from_str(&line).map_err(|e| Stop::Broken(format!("{e} in {}", shown(&line))))?;
            if let Some(answer) = self.take(event)? {
                return Ok(answer);
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Option<Box<Answer>>, Stop> {
        match event {
            Event::Hello { protocol: PROTOCOL, buildstream, python } => {
                (self.version, self.python) = (buildstream, python);
                if self.versions == VersionPolicy::Refuse && !versions_known(&self.version) {
                    let version = self.version.clone();
                    return Err(Stop::Because(IntrospectError::UnknownVersion { version }));
                }
                Ok(None)
            }
            Event::Hello { protocol, .. } => Err(Stop::Broken(format!("version {protocol} of the conversation"))),
            Event::Daemon { pid } => {
                self.daemon = Some(pid);
                Ok(None)
            }
            Event::Answer(_) if self.version.is_empty() => Err(Stop::Broken("an answer without a version".to_owned())),
            Event::Answer(answer) => Ok(Some(answer)),
            Event::Error { kind, message, detail } => {
                let detail = detail.unwrap_or_default();
                Err(Stop::Because(match kind {
                    ErrorKind::Absent => IntrospectError::Absent { interpreter: self.interpreter.clone(), message },
                    ErrorKind::Refused => IntrospectError::Refused { message, detail },
                    ErrorKind::Incompatible => {
                        IntrospectError::Incompatible { version: self.version.clone(), message, detail }
                    }
                }))
            }
        }
    }
}

/// Whether a version such as "2.8.1" is among the known ones.
fn versions_known(version: &str) -> bool {
    let mut numbers = version.split(['.', '+', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => KNOWN_VERSIONS.contains(&(major, minor)),
        _ => false,
    }
}

/// Ends the helper: it notices that its stdin is closed, and stops its daemon.
/// `None` if it did not end within `grace`, and was killed.
async fn finish(mut child: Child, daemon: Option<i32>, output: &mut Output, grace: Duration) -> Option<ExitStatus> {
    drop(child.stdin.take());
    // Nobody reads any further; whoever goes on writing gets told.
    drop(child.stdout.take());
    let ended = timeout(grace, async {
        loop {
            tokio::select! {
                status = child.wait() => break status.ok(),
                () = output.listen() => {}
            }
        }
    });
    if let Ok(status) = ended.await {
        output.rest().await;
        return status;
    }
    tracing::warn!("the interpreter that runs BuildStream does not end, and is killed");
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "the interpreter cannot be killed");
    }
    // Nobody is left to stop it.
    if let Some(error) = daemon.and_then(Pid::from_raw).and_then(|pid| kill_process(pid, Signal::TERM).err()) {
        tracing::debug!(%error, "BuildStream's daemon cannot be stopped");
    }
    None
}

/// What the helper prints beside the conversation; its end is kept.
struct Output {
    stream: Option<ChildStderr>,
    tail: Vec<u8>,
}

impl Output {
    /// Reads some of it; never ready again after its end.
    async fn listen(&mut self) {
        let mut buffer = [0; SHOWN_OUTPUT_BYTES];
        match &mut self.stream {
            Some(stream) => match stream.read(&mut buffer).await {
                Ok(read) if read > 0 => self.keep(&buffer[..read]),
                _ => self.stream = None,
            },
            None => std::future::pending().await,
        }
    }

    /// Reads what is there already: the other end may be held by others than the helper.
    async fn rest(&mut self) {
        while self.stream.is_some() && timeout(Duration::from_millis(100), self.listen()).await.is_ok() {}
    }

    fn keep(&mut self, read: &[u8]) {
        self.tail.extend_from_slice(read);
        let excess = self.tail.len().saturating_sub(SHOWN_OUTPUT_BYTES);
        self.tail.drain(..excess);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail).trim().to_owned()
    }
}

/// The beginning of a line, fit for a message.
fn shown(line: &str) -> String {
    format!("{:?}", line.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_by_their_first_two_numbers() {
        for known in ["2.3.0", "2.8.1", "2.8", "2.5.0+12.gabcdef"] {
            assert!(versions_known(known), "{known}");
        }
        for unknown in ["2.2.1", "2.9.0", "2.80.0", "1.6.9", "3.0.0", "2", "", "two.eight", "2.8rc1"] {
            assert!(!versions_known(unknown), "{unknown}");
        }
    }
}
