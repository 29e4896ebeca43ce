//! What a server lists when inputs of an action are absent from storage.
//!
//! `Execute` then fails with FAILED_PRECONDITION and a `PreconditionFailure`,
//! one violation per blob, of the type [`MISSING`] and with a subject that
//! names the blob. Any other type means something that uploading cannot cure.

use crate::resource::{ResourceError, form, parse_digest};
use crate::rpc::precondition_failure::Violation;
use crate::{Digest, rpc::PreconditionFailure};

/// The `type` of a violation that reports an absent blob.
pub const MISSING: &str = "MISSING";

/// The blob that the subject of a [`MISSING`] violation names:
/// `blobs/HASH/SIZE`, with a segment for the digest function in front of the
/// hash if need be.
///
/// # Errors
/// [`ResourceError`].
pub fn parse_subject(subject: &str) -> Result<Digest, ResourceError> {
    let form = || form(subject, "the subject of a violation: blobs/HASH/SIZE");
    let part = subject.strip_prefix("blobs/").ok_or_else(form)?;
    match parse_digest(subject, part)? {
        (digest, None) => Ok(digest),
        (_, Some(_)) => Err(form()),
    }
}

/// The subject that names `digest`.
#[must_use]
pub fn subject(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

/// The failure that reports these blobs as absent.
#[must_use]
pub fn missing(digests: &[Digest]) -> PreconditionFailure {
    let violation =
        |digest| Violation { r#type: MISSING.to_owned(), subject: subject(digest), description: String::new() };
    PreconditionFailure { violations: digests.iter().map(violation).collect() }
}
