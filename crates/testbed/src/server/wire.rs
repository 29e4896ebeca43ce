//! Between wire messages and checked values: digests, instance names, errors.

use cas_client::ErrorKind;
use reapi_proto::{Digest, DigestFunction, rpc, v2};
use tonic::{Code, Status};

/// The digest of a required field.
pub(super) fn required(
    field: &'static str,
    digest: Option<&v2::Digest>,
    function: DigestFunction,
) -> Result<Digest, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument(format!("{field} is absent")))?;
    let digest = Digest::from_hex(digest.hash.as_bytes(), digest.size_bytes)
        .map_err(|e| Status::invalid_argument(format!("{field}: {e}")))?;
    if digest.function() != function {
        return Err(Status::invalid_argument(format!(
            "{field}: a {} digest; this instance uses {function}",
            digest.function()
        )));
    }
    Ok(digest)
}

/// All digests of a repeated field.
pub(super) fn all(
    field: &'static str,
    digests: &[v2::Digest],
    function: DigestFunction,
) -> Result<Vec<Digest>, Status> {
    digests.iter().map(|d| required(field, Some(d), function)).collect()
}

/// Refuses a `digest_function` field that names another function; 0 leaves it to the digests' length.
pub(super) fn check_function(value: i32, function: DigestFunction) -> Result<(), Status> {
    if value == 0 || value == function.wire_value() {
        Ok(())
    } else {
        Err(Status::invalid_argument(format!(
            "digest_function {value} is not supported; this instance uses {function}"
        )))
    }
}

/// The status code for a failure of the store.
pub(super) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::LimitExceeded | ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::MissingInputs => Code::FailedPrecondition,
        ErrorKind::Cancelled => Code::Cancelled,
        _ => Code::Internal,
    }
}

/// A failure of the store as a gRPC status.
pub(super) fn status(error: &cas_client::Error) -> Status {
    Status::new(code(error.kind()), error.to_string())
}

/// A failure of the store as a message, for one entry of a batch.
pub(super) fn entry_status(error: &cas_client::Error) -> rpc::Status {
    rpc_status(code(error.kind()), error.to_string())
}

/// A status message without details.
pub(crate) fn rpc_status(code: Code, message: impl Into<String>) -> rpc::Status {
    rpc::Status { code: code as i32, message: message.into(), details: Vec::new() }
}

/// OK for one entry of a batch.
pub(super) fn ok() -> rpc::Status {
    rpc_status(Code::Ok, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_digests_are_invalid_arguments() {
        let check = |hash: &str, size_bytes: i64| {
            let wire = v2::Digest { hash: hash.to_owned(), size_bytes };
            required("d", Some(&wire), DigestFunction::Sha256).map_err(|s| s.code())
        };
        let good = DigestFunction::Sha256.digest(b"x");
        assert_eq!(check(&good.to_hex(), 1).unwrap(), good);
        assert_eq!(check(&good.to_hex(), -1), Err(Code::InvalidArgument));
        assert_eq!(check(&good.to_hex().to_uppercase(), 1), Err(Code::InvalidArgument));
        assert_eq!(check("", 0), Err(Code::InvalidArgument));
        assert_eq!(check(&DigestFunction::Sha512.digest(b"x").to_hex(), 1), Err(Code::InvalidArgument));
        assert_eq!(required("d", None, DigestFunction::Sha256).unwrap_err().code(), Code::InvalidArgument);
    }
}
