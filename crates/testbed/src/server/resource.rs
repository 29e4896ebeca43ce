//! `ByteStream` resource names (Remote Execution API, `ContentAddressableStorage`).
//!
//! Read: `[INSTANCE/]blobs/[FUNCTION/]HASH/SIZE`; write:
//! `[INSTANCE/]uploads/UUID/blobs/[FUNCTION/]HASH/SIZE[/ANYTHING]`. For the
//! functions whose hash length identifies them, which are all that we have,
//! the FUNCTION segment must be left out.

use reapi_proto::Digest;
use tonic::Status;

/// Segments that end an instance name; an instance name cannot contain them.
const RESERVED: [&str; 6] = ["blobs", "uploads", "actions", "actionResults", "operations", "capabilities"];

/// A parsed resource name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Resource {
    pub(super) instance: String,
    /// The upload's UUID; `None` for reading.
    pub(super) upload: Option<String>,
    pub(super) digest: Digest,
}

/// Parses a name for `Read`.
pub(super) fn parse_read(name: &str) -> Result<Resource, Status> {
    let (instance, rest) = split_instance(name)?;
    match rest.as_slice() {
        ["blobs", blob @ ..] => Ok(Resource { instance, upload: None, digest: exact(name, blob)? }),
        _ => Err(invalid(name, "expected [INSTANCE/]blobs/HASH/SIZE")),
    }
}

/// Parses a name for `Write` and `QueryWriteStatus`.
pub(super) fn parse_write(name: &str) -> Result<Resource, Status> {
    let (instance, rest) = split_instance(name)?;
    match rest.as_slice() {
        ["uploads", id, "blobs", hash, size, ..] => {
            let upload = uuid::Uuid::parse_str(id).map_err(|_| invalid(name, "the upload id is not a UUID"))?;
            Ok(Resource { instance, upload: Some(upload.to_string()), digest: digest(name, hash, size)? })
        }
        _ => Err(invalid(name, "expected [INSTANCE/]uploads/UUID/blobs/HASH/SIZE")),
    }
}

fn split_instance(name: &str) -> Result<(String, Vec<&str>), Status> {
    let segments: Vec<&str> = name.split('/').collect();
    let at = segments
        .iter()
        .position(|s| RESERVED.contains(s) || *s == "compressed-blobs")
        .ok_or_else(|| invalid(name, "neither a blob nor an upload"))?;
    let (instance, rest) = segments.split_at(at);
    if instance.iter().any(|s| s.is_empty()) {
        return Err(invalid(name, "an empty segment"));
    }
    if rest.contains(&"compressed-blobs") {
        return Err(invalid(name, "compression is not supported"));
    }
    Ok((instance.join("/"), rest.to_vec()))
}

fn exact(name: &str, segments: &[&str]) -> Result<Digest, Status> {
    match segments {
        [hash, size] => digest(name, hash, size),
        _ => Err(invalid(name, "expected HASH/SIZE after blobs/")),
    }
}

fn digest(name: &str, hash: &str, size: &str) -> Result<Digest, Status> {
    format!("{hash}/{size}").parse().map_err(|e| invalid(name, &format!("{e}")))
}

fn invalid(name: &str, why: &str) -> Status {
    let shown: String = name.chars().take(200).collect();
    Status::invalid_argument(format!("resource name {shown:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;

    const ID: &str = "3f5b0c44-298f-4c14-9afb-f4c8996fb924";

    #[test]
    fn names_with_and_without_instance() {
        let d = DigestFunction::Sha256.digest(b"x");
        let read = |instance: &str, name: String| {
            let expected = Resource { instance: instance.to_owned(), upload: None, digest: d };
            assert_eq!(parse_read(&name).unwrap(), expected, "{name}");
        };
        read("", format!("blobs/{d}"));
        read("a/b", format!("a/b/blobs/{d}"));
        let write = |instance: &str, name: String| {
            let expected = Resource { instance: instance.to_owned(), upload: Some(ID.to_owned()), digest: d };
            assert_eq!(parse_write(&name).unwrap(), expected, "{name}");
        };
        write("", format!("uploads/{ID}/blobs/{d}"));
        write("i", format!("i/uploads/{ID}/blobs/{d}/some/file.txt"));
    }

    #[test]
    fn malformed_names_are_refused() {
        let d = DigestFunction::Sha256.digest(b"x");
        for name in [
            String::new(),
            "/".to_owned(),
            format!("/blobs/{d}"),
            format!("blobs/sha256/{d}"),
            format!("blobs/{d}/more"),
            format!("compressed-blobs/zstd/{d}"),
            format!("uploads/{ID}/blobs/{d}"),
        ] {
            assert_eq!(parse_read(&name).unwrap_err().code(), tonic::Code::InvalidArgument, "{name}");
        }
        for name in [
            format!("uploads/not-a-uuid/blobs/{d}"),
            format!("blobs/{d}"),
            format!("uploads/{ID}/compressed-blobs/zstd/{d}"),
        ] {
            assert_eq!(parse_write(&name).unwrap_err().code(), tonic::Code::InvalidArgument, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_name_panics(name in "\\PC*") {
            let _ = (parse_read(&name), parse_write(&name));
        }
    }
}
