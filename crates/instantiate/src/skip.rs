//! Why something was not predicted: data, not failure.

use std::fmt;

/// The kinds of reason for which an action is dropped, or an element has no record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum SkipKind {
    /// Nothing is recorded for the element.
    NoRecord,
    /// Only a record under another weak key is there, and the sources do not explain the difference.
    OtherKey,
    /// The recorded action or a part of its input tree is no longer in CAS.
    BaseMissing,
    /// A message cannot be read.
    Malformed,
    /// The action must not be cached, so there is nothing to prime.
    DoNotCache,
    /// The record does not fit the recorded action.
    Mismatch,
    /// What it takes as input will not become known.
    InputLost,
    /// An input is made by the element's build without an action, of something that has changed.
    LocalInput,
    /// The command line may be another one: what decides on it has changed.
    Commands,
    /// Which files it reads now is not known.
    InputSet,
    /// It would fail: something that it needs is gone.
    WouldFail,
    /// Inputs of the adapted action are not in CAS.
    MissingInputs,
    /// Too cheap to be worth an execution.
    TooCheap,
    /// The budget does not allow it.
    Budget,
    /// The build reached the element first.
    BuildReached,
    /// Priming was cancelled.
    Cancelled,
    /// A service failed.
    Service,
}

impl SkipKind {
    /// Every kind, in order.
    pub const ALL: [Self; 17] = [
        Self::NoRecord,
        Self::OtherKey,
        Self::BaseMissing,
        Self::Malformed,
        Self::DoNotCache,
        Self::Mismatch,
        Self::InputLost,
        Self::LocalInput,
        Self::Commands,
        Self::InputSet,
        Self::WouldFail,
        Self::MissingInputs,
        Self::TooCheap,
        Self::Budget,
        Self::BuildReached,
        Self::Cancelled,
        Self::Service,
    ];

    /// A short name for tables and machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRecord => "no-record",
            Self::OtherKey => "other-key",
            Self::BaseMissing => "base-missing",
            Self::Malformed => "malformed",
            Self::DoNotCache => "do-not-cache",
            Self::Mismatch => "mismatch",
            Self::InputLost => "input-lost",
            Self::LocalInput => "local-input",
            Self::Commands => "commands",
            Self::InputSet => "input-set",
            Self::WouldFail => "would-fail",
            Self::MissingInputs => "missing-inputs",
            Self::TooCheap => "too-cheap",
            Self::Budget => "budget",
            Self::BuildReached => "build-reached",
            Self::Cancelled => "cancelled",
            Self::Service => "service",
        }
    }

    /// Whether new facts about its inputs give an action another chance.
    pub(crate) fn is_revocable(self) -> bool {
        matches!(
            self,
            Self::InputLost
                | Self::LocalInput
                | Self::Commands
                | Self::InputSet
                | Self::WouldFail
                | Self::MissingInputs
                | Self::Mismatch
        )
    }
}

impl fmt::Display for SkipKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something was not predicted, for machines and for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skip {
    /// What kind of reason.
    pub kind: SkipKind,
    /// The reason in words.
    pub reason: String,
}

impl Skip {
    pub(crate) fn new(kind: SkipKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// A blob that could not be read: gone, or kept back by a failing service.
    pub(crate) fn unreadable(what: &str, error: &cas_client::Error) -> Self {
        match error.kind() {
            cas_client::ErrorKind::NotFound => Self::new(SkipKind::BaseMissing, format!("{what} is not in the store")),
            _ => Self::new(SkipKind::Service, format!("{what} cannot be read: {error}")),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
