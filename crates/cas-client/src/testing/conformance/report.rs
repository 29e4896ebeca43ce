//! What a run of the suite found.

use std::fmt;
use std::future::Future;

use crate::Error;

/// Why a check failed.
pub(super) struct Failed(String);

pub(super) type Checked = Result<(), Failed>;

impl Failed {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// With all causes: whoever reads it has nothing else.
impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }
}

macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::testing::conformance::report::Failed::new(format!($($reason)+)));
        }
    };
}

macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {{
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            let what = format!($($what)+);
            return Err($crate::testing::conformance::report::Failed::new(format!(
                "{what}: found {found:?}, expected {expected:?}"
            )));
        }
    }};
}

pub(super) use {ensure, ensure_eq};

/// Which checks ran and what they found.
#[derive(Clone, Debug)]
pub struct Report {
    subject: String,
    passed: Vec<&'static str>,
    failed: Vec<(&'static str, String)>,
}

impl Report {
    pub(super) fn new(subject: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), passed: Vec::new(), failed: Vec::new() }
    }

    /// Runs one check.
    pub(super) async fn check(&mut self, name: &'static str, work: impl Future<Output = Checked> + Send) {
        match work.await {
            Ok(()) => self.passed.push(name),
            Err(Failed(reason)) => self.failed.push((name, reason)),
        }
    }

    /// The checks that passed, in the order in which they ran.
    #[must_use]
    pub fn passed(&self) -> &[&'static str] {
        &self.passed
    }

    /// The checks that failed, with the reason.
    #[must_use]
    pub fn failed(&self) -> &[(&'static str, String)] {
        &self.failed
    }

    /// The names of all checks.
    ///
    /// # Errors
    /// When a check failed.
    pub fn require_all_passed(self) -> Result<Vec<&'static str>, Failures> {
        if self.failed.is_empty() { Ok(self.passed) } else { Err(Failures(self)) }
    }
}

/// One line per check.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} passed, {} failed", self.subject, self.passed.len(), self.failed.len())?;
        for name in &self.passed {
            writeln!(f, "  ok      {name}")?;
        }
        for (name, reason) in &self.failed {
            writeln!(f, "  FAILED  {name}: {reason}")?;
        }
        Ok(())
    }
}

/// A report with failed checks, as an error.
#[derive(Clone)]
pub struct Failures(Report);

impl Failures {
    /// Everything that ran.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As [`Display`](fmt::Display), so that an `unwrap` in a test shows the list.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failures {}
