//! Outputs of a command, as blobs and messages.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use cas_client::Blob;
use prost::Message;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::command::OutputDirectoryFormat;
use reapi_proto::{Digest, DigestFunction, v2};
use tonic::Code;

use super::RunError;

/// Directories nested deeper than this in an output are an error.
const MAX_DEPTH: usize = 256;

/// Outputs found so far, with the blobs that they consist of.
#[derive(Debug)]
pub(super) struct Capture {
    function: DigestFunction,
    format: OutputDirectoryFormat,
    result: v2::ActionResult,
    blobs: Vec<Blob>,
}

/// The output paths of a command, with the deprecated fields where those are used.
pub(super) fn output_paths(command: &v2::Command) -> Result<Vec<&str>, RunError> {
    #[allow(deprecated, reason = "clients of the older protocol version still send these")]
    let paths: Vec<&str> = if command.output_paths.is_empty() {
        command.output_files.iter().chain(&command.output_directories).map(String::as_str).collect()
    } else {
        command.output_paths.iter().map(String::as_str).collect()
    };
    for path in &paths {
        check_relative("output path", path)?;
    }
    Ok(paths)
}

/// Refuses paths that are absolute or that have segments other than names.
pub(super) fn check_relative(what: &str, path: &str) -> Result<(), RunError> {
    let clean = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if clean && !path.contains('\0') && !path.ends_with('/') {
        Ok(())
    } else {
        Err(RunError::new(Code::InvalidArgument, format!("{what} {path:?} is not a clean relative path")))
    }
}

impl Capture {
    pub(super) fn new(function: DigestFunction, format: OutputDirectoryFormat) -> Self {
        Self { function, format, result: v2::ActionResult::default(), blobs: Vec::new() }
    }

    pub(super) fn finish(self) -> (v2::ActionResult, Vec<Blob>) {
        (self.result, self.blobs)
    }

    pub(super) fn blob(&mut self, data: impl Into<Bytes>) -> Digest {
        let blob = Blob::new(self.function, data);
        let digest = blob.digest();
        self.blobs.push(blob);
        digest
    }

    /// Adds the output at `path` below `base`. One that does not exist, or is
    /// reached only through a symlink, is no output.
    pub(super) fn add(&mut self, base: &Path, path: &str) -> io::Result<()> {
        let Some(full) = resolve(base, path)? else { return Ok(()) };
        let kind = match std::fs::symlink_metadata(&full) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if kind.is_symlink() {
            let target = utf8(std::fs::read_link(&full)?.as_os_str().as_bytes())?.to_owned();
            let symlink = v2::OutputSymlink { path: path.to_owned(), target, ..Default::default() };
            self.result.output_symlinks.push(symlink);
        } else if kind.is_dir() {
            let directory = self.output_directory(&full, path)?;
            self.result.output_directories.push(directory);
        } else if kind.is_file() {
            let digest = self.blob(std::fs::read(&full)?);
            self.result.output_files.push(v2::OutputFile {
                path: path.to_owned(),
                digest: Some(digest.into()),
                is_executable: is_executable(&kind),
                ..Default::default()
            });
        }
        Ok(())
    }

    fn output_directory(&mut self, full: &Path, path: &str) -> io::Result<v2::OutputDirectory> {
        let mut found = Found::default();
        let root = self.directory(full, 0, &mut found)?;
        let mut output = v2::OutputDirectory { path: path.to_owned(), ..Default::default() };
        if self.format != OutputDirectoryFormat::TreeOnly {
            output.root_directory_digest = Some(self.function.digest(&root).into());
            self.blob(root.clone());
            for child in &found.children {
                self.blob(child.clone());
            }
        }
        if self.format != OutputDirectoryFormat::DirectoryOnly {
            // Children were found before their parents; a topologically sorted Tree has parents first.
            let directories = found.children.iter().rev();
            let decode = |bytes: &Bytes| v2::Directory::decode(bytes.clone()).map_err(io::Error::other);
            let children = directories.map(decode).collect::<io::Result<_>>()?;
            let tree = v2::Tree { root: Some(decode(&root)?), children };
            output.tree_digest = Some(self.blob(tree.encode_to_vec()).into());
            output.is_topologically_sorted = true;
        }
        Ok(output)
    }

    fn directory(&mut self, path: &Path, depth: usize, found: &mut Found) -> io::Result<Bytes> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deep"));
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = utf8(entry.file_name().as_bytes())?.to_owned();
            let kind = std::fs::symlink_metadata(entry.path())?;
            let node = if kind.is_symlink() {
                let target = std::fs::read_link(entry.path())?;
                Node::Symlink { target: utf8(target.as_os_str().as_bytes())?.to_owned().into() }
            } else if kind.is_dir() {
                let bytes = self.directory(&entry.path(), depth + 1, found)?;
                let digest = self.function.digest(&bytes);
                if found.seen.insert(digest) {
                    found.children.push(bytes);
                }
                Node::Directory { digest }
            } else if kind.is_file() {
                Node::File { digest: self.blob(std::fs::read(entry.path())?), executable: is_executable(&kind) }
            } else {
                continue;
            };
            entries.push((Bytes::from(name), node));
        }
        encode_directory(entries).map_err(io::Error::other)
    }
}

/// Distinct directories below an output directory, children before their parents.
#[derive(Default)]
struct Found {
    children: Vec<Bytes>,
    seen: HashSet<Digest>,
}

/// `base` and `path`, unless a directory on the way is none or is a symlink.
fn resolve(base: &Path, path: &str) -> io::Result<Option<PathBuf>> {
    let mut full = base.to_owned();
    let mut components = Path::new(path).components().peekable();
    while let Some(component) = components.next() {
        full.push(component);
        if components.peek().is_some() {
            match std::fs::symlink_metadata(&full) {
                Ok(kind) if kind.is_dir() => {}
                Ok(_) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(Some(full))
}

fn is_executable(kind: &std::fs::Metadata) -> bool {
    kind.permissions().mode() & 0o100 != 0
}

/// Messages carry names as text.
fn utf8(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| io::Error::other("a name or symlink target in an output is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::raw::Tree;
    use std::os::unix::fs::symlink;

    fn capture(root: &Path, format: OutputDirectoryFormat, paths: &[&str]) -> (v2::ActionResult, Vec<Blob>) {
        let mut capture = Capture::new(DigestFunction::Sha256, format);
        for path in paths {
            capture.add(root, path).unwrap();
        }
        capture.finish()
    }

    #[test]
    fn files_symlinks_and_absent_paths() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("x.o"), "object").unwrap();
        symlink("x.o", root.path().join("link")).unwrap();
        symlink(".", root.path().join("here")).unwrap();
        let paths = ["x.o", "link", "absent", "absent/deeper", "here/x.o"];
        let (result, blobs) = capture(root.path(), OutputDirectoryFormat::TreeOnly, &paths);
        let files: Vec<_> = result.output_files.iter().map(|f| (f.path.as_str(), f.is_executable)).collect();
        assert_eq!(files, [("x.o", false)]);
        assert_eq!(result.output_symlinks[0].target, "x.o");
        assert_eq!(result.output_symlinks.len(), 1);
        assert_eq!(blobs.len(), 1);
    }

    #[test]
    fn a_directory_becomes_a_tree_and_its_root() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("out");
        std::fs::create_dir_all(out.join("a/same")).unwrap();
        std::fs::create_dir_all(out.join("b/same")).unwrap();
        std::fs::write(out.join("a/same/f"), "f").unwrap();
        std::fs::write(out.join("b/same/f"), "f").unwrap();
        let (result, blobs) = capture(root.path(), OutputDirectoryFormat::TreeAndDirectory, &["out"]);
        let output = &result.output_directories[0];
        let tree = Digest::try_from(&output.tree_digest).unwrap();
        let tree = blobs.iter().find(|b| b.digest() == tree).unwrap();
        let tree = Tree::parse(tree.data().clone()).unwrap();
        let root = tree.root_digest(DigestFunction::Sha256);
        assert_eq!(output.root_directory_digest, Some(root.into()));
        // `a` and `b` are equal, and so is what is in them.
        assert_eq!(tree.children().len(), 2);
        assert!(blobs.iter().any(|b| b.digest() == root));
    }

    #[test]
    fn unclean_paths_are_refused() {
        for path in ["/x", "../x", "a/../b", "a/", "./x", "a\0b"] {
            assert!(check_relative("output path", path).is_err(), "{path:?}");
        }
        for path in ["", "x", "a/b.c"] {
            assert!(check_relative("output path", path).is_ok(), "{path:?}");
        }
    }
}
