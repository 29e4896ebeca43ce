//! The one error type of this crate, sorted by what a caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reapi_proto::Digest;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A blob, an action result's closure or an asset is not there: recompute or skip it.
    NotFound,
    /// The service could not be reached or kept failing after all retries: try again later.
    Unavailable,
    /// The service has more to do than it can: ask for less, and after [`Error::retry_after`].
    Exhausted,
    /// Bytes did not match their digest: do not use them, ask elsewhere.
    Corrupt,
    /// The other side broke the protocol: report it, do not retry.
    Protocol,
    /// A size or count is above a limit of ours or of the service: split or refuse.
    LimitExceeded,
    /// The service refuses this caller (credentials, read-only), or is not the one that this caller trusts: change the
    /// configuration.
    Denied,
    /// The request itself is wrong: fix the caller.
    Invalid,
    /// The service does not offer this operation: do without.
    Unsupported,
    /// An action cannot run because inputs are absent and could not be supplied.
    MissingInputs,
    /// The operation was cancelled by us.
    Cancelled,
    /// The local file system failed.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::Unavailable => "unavailable",
            Self::Exhausted => "exhausted",
            Self::Corrupt => "corrupt data",
            Self::Protocol => "protocol error",
            Self::LimitExceeded => "limit exceeded",
            Self::Denied => "denied",
            Self::Invalid => "invalid request",
            Self::Unsupported => "unsupported",
            Self::MissingInputs => "missing inputs",
            Self::Cancelled => "cancelled",
            Self::Io => "input/output error",
        })
    }
}

/// A failed storage or execution operation: what failed, where, on which blob, and why.
///
/// Prints as `KIND: OPERATION of DIGEST at ENDPOINT: REASON`, leaving out
/// what is unknown. The [`source`](StdError::source) is not repeated in the text.
#[derive(Debug)]
pub struct Error(Box<Context>);

#[derive(Debug)]
struct Context {
    kind: ErrorKind,
    operation: &'static str,
    endpoint: Option<String>,
    digests: Vec<Digest>,
    attempts: u32,
    retry_after: Option<Duration>,
    reason: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of a storage or execution operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` in `operation` (the method's name in the specification, or the trait's).
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, reason: impl Into<String>) -> Self {
        Self(Box::new(Context {
            kind,
            operation,
            endpoint: None,
            digests: Vec::new(),
            attempts: 1,
            retry_after: None,
            reason: reason.into(),
            source: None,
        }))
    }

    /// The blob is not in the store.
    #[must_use]
    pub fn not_found(operation: &'static str, digest: Digest) -> Self {
        Self::new(ErrorKind::NotFound, operation, "the blob is not in the store").with_digest(digest)
    }

    /// The bytes received for `digest` hash to something else.
    #[must_use]
    pub fn corrupt(operation: &'static str, digest: Digest, reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, operation, reason).with_digest(digest)
    }

    /// Names a blob that the error is about.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.0.digests.push(digest);
        self
    }

    /// Names all blobs that the error is about.
    #[must_use]
    pub fn with_digests(mut self, digests: impl IntoIterator<Item = Digest>) -> Self {
        self.0.digests.extend(digests);
        self
    }

    /// Names the store or service, as its `Display` shows it.
    #[must_use]
    pub fn at(mut self, endpoint: impl fmt::Display) -> Self {
        self.0.endpoint = Some(endpoint.to_string());
        self
    }

    /// Says how often it was tried.
    #[must_use]
    pub fn after(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// Says when the service wants to be asked again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps the underlying error.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The blobs that it is about; may be empty.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.0.digests
    }

    /// How long the service asked to be left alone (`RetryInfo`), counted from its answer.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The explanation alone.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Context { kind, operation, endpoint, digests, attempts, reason, .. } = &*self.0;
        write!(f, "{kind}: {operation}")?;
        if let Some(first) = digests.first() {
            write!(f, " of {first}")?;
            if digests.len() > 1 {
                write!(f, " and {} more", digests.len() - 1)?;
            }
        }
        if let Some(endpoint) = endpoint {
            write!(f, " at {endpoint}")?;
        }
        write!(f, ": {reason}")?;
        if *attempts > 1 {
            write!(f, " (after {attempts} attempts)")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}
