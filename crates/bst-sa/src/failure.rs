//! Why a command failed, for people.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// A message, what is behind it, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    usage: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, usage: false }
    }

    /// The arguments are wrong: exit status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// Adds an error and everything behind it.
    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong, on one line.
    pub(crate) fn summary(&self) -> String {
        [&self.message].into_iter().chain(&self.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bst-sa: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  because: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<cas_client::Error> for Failure {
    fn from(error: cas_client::Error) -> Self {
        use cas_client::ErrorKind;
        let hint = match error.kind() {
            ErrorKind::Unavailable => Some("is the service running? `bst-sa doctor` with the same options tells more"),
            ErrorKind::Exhausted => Some("the service has too much to do; try again later, or with fewer --jobs"),
            ErrorKind::NotFound => Some("it may have expired there, or be elsewhere; check --server and --cas"),
            ErrorKind::Corrupt => {
                Some("what is stored or was sent under this digest is something else; ask another store")
            }
            ErrorKind::Unsupported => Some("`bst-sa doctor` with the same options lists what the service offers"),
            ErrorKind::Denied => Some("check permissions, and for services --token-file, --tls-ca and --tls-cert"),
            _ => None,
        };
        let mut failure = Self::new(error.to_string());
        if let Some(source) = error.source() {
            failure = failure.because(source);
        }
        failure.hint = hint.map(str::to_owned);
        failure
    }
}
