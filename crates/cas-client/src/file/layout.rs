//! Where things are, and what went wrong there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use reapi_proto::Digest;

use crate::{Error, ErrorKind};

/// The paths of one store.
pub(super) struct Layout {
    root: PathBuf,
    pub(super) blobs: Area,
    pub(super) results: Area,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { blobs: Area::new(&root.join("cas")), results: Area::new(&root.join("actioncache")), root }
    }

    /// Blobs in `root` itself, results in its sibling of their name.
    pub(super) fn of_blobs(root: PathBuf) -> Self {
        Self { blobs: Area::new(&root), results: Area::new(&root.with_file_name("actioncache")), root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The error of a failed file operation, by what the caller can do about it.
    pub(super) fn error(&self, operation: &'static str, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ErrorKind::LimitExceeded
            }
            _ => ErrorKind::Io,
        };
        Error::new(kind, operation, "the file operation failed").at(self).caused_by(error)
    }
}

/// `file:DIR`, as on the command line.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.root.display())
    }
}

/// One kind of objects: `objects/HH/REST`, and `tmp` on the same file system.
pub(super) struct Area {
    objects: PathBuf,
    temporary: PathBuf,
}

impl Area {
    fn new(directory: &Path) -> Self {
        Self { objects: directory.join("objects"), temporary: directory.join("tmp") }
    }

    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Sets `path` to where `digest` is, reusing its buffer: a batch needs one path at a time.
    pub(super) fn locate(&self, digest: &Digest, path: &mut PathBuf) {
        let hex = digest.to_hex();
        let (directory, rest) = hex.split_at(2);
        path.clone_from(&self.objects);
        path.push(directory);
        path.push(rest);
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let mut path = PathBuf::new();
        self.locate(digest, &mut path);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_what_a_caller_can_do() {
        let layout = Layout::new("/store".into());
        let check = |from, to| assert_eq!(layout.error("write", io::Error::from(from)).kind(), to, "{from}");
        check(io::ErrorKind::PermissionDenied, ErrorKind::Denied);
        check(io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Denied);
        check(io::ErrorKind::StorageFull, ErrorKind::LimitExceeded);
        check(io::ErrorKind::NotADirectory, ErrorKind::Io);
    }

    #[test]
    fn objects_lie_where_casd_puts_them() {
        let layout = Layout::new("/store".into());
        let digest = reapi_proto::DigestFunction::Sha256.digest(b"hello");
        let hash = "2c/f24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(layout.blobs.path(&digest), Path::new("/store/cas/objects").join(hash));
        assert_eq!(layout.results.path(&digest), Path::new("/store/actioncache/objects").join(hash));
    }
}
