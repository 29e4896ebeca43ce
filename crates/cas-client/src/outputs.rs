//! A typed view of what an action result says an action made.

use reapi_proto::v2::{self, ActionResult};
use reapi_proto::{Digest, DigestError};

use crate::{Error, ErrorKind, Result};

/// One output of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Where it is, relative to the action's working directory, as the
    /// service spelled it; empty for the working directory itself.
    pub path: String,
    /// What it is.
    pub kind: OutputKind,
}

/// What an output is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutputKind {
    /// A regular file.
    File {
        /// Its contents.
        digest: Digest,
        /// Whether it is executable.
        is_executable: bool,
    },
    /// A directory, described by at least one of two digests.
    Directory {
        /// A `Tree` message: the whole directory in one blob.
        tree: Option<Digest>,
        /// The root `Directory` message.
        root: Option<Digest>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: String,
    },
}

/// The outputs of an action, sorted by path.
///
/// Services list outputs in no particular order, and symbolic links in up to
/// three lists, the same link in several of them for the sake of old clients;
/// here each is one entry.
///
/// # Errors
/// `Protocol` for an output without a well-formed digest, for an absolute
/// path, and for two different outputs at one path.
pub fn outputs(result: &ActionResult) -> Result<Vec<Output>> {
    let mut found = Vec::with_capacity(result.output_files.len());
    let mut add = |path: &str, kind| {
        found.push(Output { path: path.to_owned(), kind });
        let is_relative = !path.starts_with('/') && !path.contains('\0');
        if is_relative { Ok(()) } else { Err(protocol(format!("{path:?} is not a relative path"))) }
    };
    for file in &result.output_files {
        let digest = required(file.digest.as_ref(), &file.path)?;
        add(&file.path, OutputKind::File { digest, is_executable: file.is_executable })?;
    }
    for directory in &result.output_directories {
        let tree = optional(directory.tree_digest.as_ref(), &directory.path)?;
        let root = optional(directory.root_directory_digest.as_ref(), &directory.path)?;
        if tree.is_none() && root.is_none() {
            return Err(protocol(format!("the directory {:?} has no digest", directory.path)));
        }
        add(&directory.path, OutputKind::Directory { tree, root })?;
    }
    #[allow(deprecated, reason = "servers of API 2.0 fill only these lists")]
    let old = result.output_file_symlinks.iter().chain(&result.output_directory_symlinks);
    for symlink in result.output_symlinks.iter().chain(old) {
        add(&symlink.path, OutputKind::Symlink { target: symlink.target.clone() })?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup();
    if let Some(pair) = found.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(protocol(format!("two different outputs at {:?}", pair[1].path)));
    }
    Ok(found)
}

/// A wire digest that must be there.
pub(crate) fn required(digest: Option<&v2::Digest>, what: &str) -> Result<Digest> {
    Digest::try_from(digest).map_err(|e| malformed(what, e))
}

/// A wire digest that may be absent, but not malformed. A message whose fields
/// all have their defaults counts as absent: some servers send it for "none".
pub(crate) fn optional(digest: Option<&v2::Digest>, what: &str) -> Result<Option<Digest>> {
    let given = digest.filter(|d| !(d.hash.is_empty() && d.size_bytes == 0));
    given.map(Digest::try_from).transpose().map_err(|e| malformed(what, e))
}

fn malformed(what: &str, error: DigestError) -> Error {
    protocol(format!("the digest of {what:?} is malformed")).caused_by(error)
}

fn protocol(reason: String) -> Error {
    Error::new(ErrorKind::Protocol, "ActionResult", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use reapi_proto::DigestFunction;
    use reapi_proto::v2::{OutputDirectory, OutputFile, OutputSymlink};

    fn wire(data: &str) -> Option<v2::Digest> {
        Some(DigestFunction::Sha256.digest(data.as_bytes()).into())
    }

    fn file(path: &str) -> OutputFile {
        OutputFile { path: path.into(), digest: wire(path), is_executable: true, ..OutputFile::default() }
    }

    fn symlink(path: &str, target: &str) -> OutputSymlink {
        OutputSymlink { path: path.into(), target: target.into(), ..OutputSymlink::default() }
    }

    #[test]
    #[allow(deprecated, reason = "the old lists are what is tested")]
    fn all_lists_become_one_sorted_list() {
        let result = ActionResult {
            output_files: vec![file("z.o"), file("a.o")],
            output_directories: vec![OutputDirectory {
                path: String::new(),
                tree_digest: wire("tree"),
                root_directory_digest: Some(v2::Digest::default()),
                ..OutputDirectory::default()
            }],
            output_symlinks: vec![symlink("l", "z.o")],
            output_file_symlinks: vec![symlink("l", "z.o")],
            output_directory_symlinks: vec![symlink("d", ".")],
            ..ActionResult::default()
        };
        let found = outputs(&result).unwrap();
        let paths: Vec<_> = found.iter().map(|o| o.path.as_str()).collect();
        assert_eq!(paths, ["", "a.o", "d", "l", "z.o"]);
        let tree = Some(DigestFunction::Sha256.digest(b"tree"));
        assert_eq!(found[0].kind, OutputKind::Directory { tree, root: None });
        assert_eq!(found[3].kind, OutputKind::Symlink { target: "z.o".into() });
    }

    #[test]
    fn what_no_client_can_use_is_refused() {
        let check = |result: ActionResult, text: &str| {
            let error = outputs(&result).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.to_string().contains(text), "{error}");
        };
        let files = |output_files| ActionResult { output_files, ..ActionResult::default() };
        check(files(vec![OutputFile { digest: None, ..file("a") }]), "malformed");
        let upper = Some(v2::Digest { hash: "A".repeat(64), size_bytes: 1 });
        check(files(vec![OutputFile { digest: upper, ..file("a") }]), "malformed");
        check(files(vec![file("/etc/passwd")]), "relative");
        check(files(vec![file("a\0b")]), "relative");
        check(files(vec![file("a"), OutputFile { is_executable: false, ..file("a") }]), "two different");
        let bare = OutputDirectory { path: "d".into(), ..OutputDirectory::default() };
        check(ActionResult { output_directories: vec![bare], ..ActionResult::default() }, "no digest");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Ok(result) = ActionResult::decode(&*bytes) {
                let _ = outputs(&result);
            }
        }
    }
}
