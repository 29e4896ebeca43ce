//! What a gRPC status means to a caller: which kind of error, and whether to try again.

use std::error::Error as StdError;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use reapi_proto::precondition::{MISSING, parse_subject};
use reapi_proto::{Digest, rpc};
use tokio_rustls::rustls;
use tonic::{Code, Status};

use super::operation::METHOD as EXECUTE;
use crate::retry::{Failure, Verdict};
use crate::{Error, ErrorKind};

/// Longest text of a service that an error repeats, in characters.
const MAX_MESSAGE_CHARS: usize = 400;

/// How prost's complaint about a message begins, which tonic turns into INTERNAL.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// The failure that the status of a call to `method` stands for.
///
/// A status with a source was made on this side, out of a transport error: its
/// code is a guess (a closed connection shows as CANCELLED), so it counts as
/// UNAVAILABLE whatever it says. Nobody sees the status of a call that this
/// client cancelled: cancelling is dropping.
pub(super) fn call_failure(method: &'static str, status: &Status) -> Failure {
    if let Some(source) = status.source() {
        let reason = transport_reason(source);
        return match handshake_verdict(source) {
            Some((kind, what)) => Failure::fatal(Error::new(kind, method, format!("{what}: {reason}"))),
            None => Failure::retry(Error::new(ErrorKind::Unavailable, method, reason)),
        };
    }
    let details = rpc::Status::decode(status.details()).map(|s| s.details).unwrap_or_default();
    failure(method, status.code(), status.message(), &details)
}

/// The failure that a status inside a reply stands for.
pub(super) fn inner_failure(method: &'static str, status: &rpc::Status) -> Failure {
    failure(method, Code::from_i32(status.code), &status.message, &status.details)
}

/// Whether a status inside a reply says that all is well.
pub(super) fn is_ok(status: Option<&rpc::Status>) -> bool {
    status.is_none_or(|s| s.code == 0)
}

fn failure(method: &'static str, code: Code, message: &str, details: &[Any]) -> Failure {
    let (kind, retry) = classify(code, message, details);
    let mut error = Error::new(kind, method, format!("{}: {}", code_name(code), printable(message)));
    if code == Code::FailedPrecondition {
        match precondition(details) {
            Precondition::Missing(digests) => {
                error = Error::new(ErrorKind::MissingInputs, method, "the service lacks blobs that the action needs")
                    .with_digests(digests);
            }
            Precondition::Other(what) => {
                error = Error::new(ErrorKind::Invalid, method, format!("{}: {what}", code_name(code)));
            }
            // By the specification something is missing; nobody says what.
            Precondition::Unstated if method == EXECUTE => {
                error = Error::new(ErrorKind::MissingInputs, method, error.reason());
            }
            Precondition::Unstated => {}
        }
    }
    let at_least = retry_delay(details).filter(|_| retry);
    if let Some(wait) = at_least {
        error = error.with_retry_after(wait);
    }
    let verdict = if retry { Verdict::Retry { at_least } } else { Verdict::Fatal };
    Failure { error, verdict }
}

/// The kind of error, and whether the same call may succeed later.
fn classify(code: Code, message: &str, details: &[Any]) -> (ErrorKind, bool) {
    match code {
        Code::Ok => (ErrorKind::Protocol, false),
        // From either side: the same bytes would be no more legible next time.
        Code::Internal if message.starts_with(UNDECODABLE) => (ErrorKind::Protocol, false),
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => (ErrorKind::Unavailable, true),
        Code::ResourceExhausted if speaks_of_size(message) || has_quota_failure(details) => {
            (ErrorKind::LimitExceeded, false)
        }
        Code::ResourceExhausted => (ErrorKind::Exhausted, true),
        Code::OutOfRange => (ErrorKind::LimitExceeded, false),
        Code::NotFound => (ErrorKind::NotFound, false),
        Code::PermissionDenied | Code::Unauthenticated => (ErrorKind::Denied, false),
        Code::Unimplemented => (ErrorKind::Unsupported, false),
        Code::DataLoss => (ErrorKind::Corrupt, false),
        Code::InvalidArgument if speaks_of_size(message) => (ErrorKind::LimitExceeded, false),
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => (ErrorKind::Invalid, false),
    }
}

/// Whether a refusal is about a size. gRPC libraries say "received message
/// larger than max", and the specification has servers answer a batch above
/// their limit with INVALID_ARGUMENT; both are cured by asking for less.
fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    const HINTS: [&str; 6] = ["larger than", "too large", "too big", "maximum of", "exceeds max", "size limit"];
    HINTS.iter().any(|hint| message.contains(hint))
}

fn has_quota_failure(details: &[Any]) -> bool {
    details.iter().any(|any| type_name(any) == "google.rpc.QuotaFailure")
}

/// What `RetryInfo` asks for.
fn retry_delay(details: &[Any]) -> Option<Duration> {
    let info: rpc::RetryInfo = find(details)?;
    Duration::try_from(info.retry_delay?).ok()
}

/// What a `PreconditionFailure` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Precondition {
    /// There is none, or it is empty.
    Unstated,
    /// Every violation names a blob that the service lacks.
    Missing(Vec<Digest>),
    /// At least one violation is something else, which uploading cannot cure.
    Other(String),
}

/// Reads the `PreconditionFailure` among the details of a FAILED_PRECONDITION
/// status (Remote Execution API, `Execution.Execute`).
pub(super) fn precondition(details: &[Any]) -> Precondition {
    let Some(failure) = find::<rpc::PreconditionFailure>(details) else { return Precondition::Unstated };
    let mut missing = Vec::new();
    for violation in &failure.violations {
        match Some(&violation.subject).filter(|_| violation.r#type == MISSING).and_then(|s| parse_subject(s).ok()) {
            Some(digest) => missing.push(digest),
            None => {
                let rpc::precondition_failure::Violation { r#type, subject, description } = violation;
                return Precondition::Other(printable(&format!("{type} {subject} {description}")));
            }
        }
    }
    if missing.is_empty() { Precondition::Unstated } else { Precondition::Missing(missing) }
}

/// The first detail of type `T` that decodes.
fn find<T: prost::Message + prost::Name + Default>(details: &[Any]) -> Option<T> {
    details.iter().find(|any| type_name(any) == T::full_name()).and_then(|any| T::decode(&any.value[..]).ok())
}

/// The message type inside `any`, without the URL in front of it.
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Where a status was made of a transport error: the whole chain of reasons, each once.
fn transport_reason(source: &(dyn StdError + 'static)) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut next = Some(source);
    while let Some(error) = next {
        let text = error.to_string();
        if !reasons.iter().any(|earlier| earlier.contains(&text)) {
            reasons.push(text);
        }
        next = error.source();
    }
    printable(&reasons.join(": "))
}

/// What a failed TLS handshake means, where trying again would not help: certificates stay what they are.
/// What the service finds wrong with ours is known to `route::Tls`.
fn handshake_verdict(source: &(dyn StdError + 'static)) -> Option<(ErrorKind, &'static str)> {
    let error = std::iter::successors(Some(source), |&error| error.source()).find_map(|error| {
        // The source of an input/output error is that of the error inside it, which has to be asked for itself.
        error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()
    })?;
    match error {
        rustls::Error::InvalidCertificate(_) => {
            Some((ErrorKind::Denied, "the service's certificate is not one that this client trusts"))
        }
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            Some((ErrorKind::Protocol, "the service does not speak TLS"))
        }
        _ => None,
    }
}

/// `message` fit for one line of a log.
pub(super) fn printable(message: &str) -> String {
    message.chars().take(MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;
    use reapi_proto::rpc::precondition_failure::Violation;
    use std::sync::Arc;

    fn detail<T: prost::Name>(message: &T) -> Any {
        Any { type_url: format!("type.googleapis.com/{}", T::full_name()), value: message.encode_to_vec() }
    }

    fn violations(list: &[(&str, &str)]) -> Any {
        let violations = list
            .iter()
            .map(|(kind, subject)| Violation {
                r#type: (*kind).into(),
                subject: (*subject).into(),
                description: String::new(),
            })
            .collect();
        detail(&rpc::PreconditionFailure { violations })
    }

    fn inner(code: Code, message: &str, details: Vec<Any>) -> Failure {
        inner_failure("Test", &rpc::Status { code: code as i32, message: message.into(), details })
    }

    #[test]
    fn codes_have_kinds_and_verdicts() {
        let check = |code, message, kind, fatal| {
            let failure = inner(code, message, vec![]);
            assert_eq!((failure.error.kind(), failure.is_fatal()), (kind, fatal), "{code:?} {message}");
        };
        check(Code::Unavailable, "", ErrorKind::Unavailable, false);
        check(Code::Cancelled, "", ErrorKind::Unavailable, false);
        check(Code::ResourceExhausted, "busy", ErrorKind::Exhausted, false);
        check(Code::ResourceExhausted, "Received message larger than max (5 vs. 4)", ErrorKind::LimitExceeded, true);
        check(Code::OutOfRange, "", ErrorKind::LimitExceeded, true);
        check(Code::InvalidArgument, "digest mismatch", ErrorKind::Invalid, true);
        check(Code::InvalidArgument, "a maximum of 4 bytes is permitted", ErrorKind::LimitExceeded, true);
        check(Code::PermissionDenied, "", ErrorKind::Denied, true);
        check(Code::Unimplemented, "", ErrorKind::Unsupported, true);
        check(Code::NotFound, "", ErrorKind::NotFound, true);
        let complaint = rpc::Status::decode(&[0xff][..]).unwrap_err().to_string();
        check(Code::Internal, &complaint, ErrorKind::Protocol, true);
        check(Code::Internal, "out of luck", ErrorKind::Unavailable, false);
    }

    #[test]
    fn a_local_status_is_a_transport_error_whatever_its_code() {
        let mut status = Status::cancelled("operation was canceled");
        assert!(matches!(call_failure("Test", &status).verdict, Verdict::Retry { .. }));
        status.set_source(Arc::new(std::io::Error::other("connection closed")));
        let failure = call_failure("Test", &status);
        assert_eq!(failure.error.kind(), ErrorKind::Unavailable);
        assert_eq!(failure.error.reason(), "connection closed");
    }

    #[test]
    fn retry_info_is_read() {
        let info = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 5 }) };
        let failure = inner(Code::Unavailable, "", vec![detail(&info)]);
        assert_eq!(failure.verdict, Verdict::Retry { at_least: Some(Duration::new(2, 5)) });
        assert_eq!(failure.error.retry_after(), Some(Duration::new(2, 5)));
        let negative = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: -2, nanos: 0 }) };
        let failure = inner(Code::Unavailable, "", vec![detail(&negative)]);
        assert_eq!(failure.verdict, Verdict::Retry { at_least: None });
    }

    #[test]
    fn missing_blobs_are_read_in_both_forms() {
        let digest = DigestFunction::Sha256.digest(b"x");
        let plain = format!("blobs/{digest}");
        let named = format!("blobs/sha256/{digest}");
        let failure =
            inner(Code::FailedPrecondition, "", vec![violations(&[("MISSING", &plain), ("MISSING", &named)])]);
        assert_eq!(failure.error.kind(), ErrorKind::MissingInputs);
        assert_eq!(failure.error.digests(), [digest, digest]);
        assert!(failure.is_fatal());
    }

    #[test]
    fn other_violations_are_no_missing_blobs() {
        let digest = DigestFunction::Sha256.digest(b"x");
        for (kind, subject) in [
            ("MISSING", "blobs/x".to_owned()),
            ("INVALID", format!("blobs/{digest}")),
            ("MISSING", format!("blobs/sha512/{digest}")),
        ] {
            let missing = ("MISSING", format!("blobs/{digest}"));
            let details = vec![violations(&[(missing.0, &missing.1), (kind, &subject)])];
            let failure = inner(Code::FailedPrecondition, "", details);
            assert_eq!(failure.error.kind(), ErrorKind::Invalid, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn no_violation_panics(kind in "(MISSING|\\PC*)", subject in "(blobs/)?\\PC*") {
            let _ = precondition(&[violations(&[(&kind, &subject)])]);
        }

        #[test]
        fn no_detail_panics(code in -3..20_i32, message: String, url in "(type.googleapis.com/google.rpc.(PreconditionFailure|RetryInfo)|\\PC*)", value: Vec<u8>) {
            let status = rpc::Status { code, message, details: vec![Any { type_url: url, value: value.clone() }] };
            let _ = inner_failure("Test", &status);
            let encoded = status.encode_to_vec();
            let _ = call_failure("Test", &Status::with_details(Code::from_i32(code), "", encoded.into()));
            let _ = call_failure("Test", &Status::with_details(Code::FailedPrecondition, "", value.into()));
        }
    }
}
