//! Sockets with long paths.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Longest path of a Unix socket on Linux (`sockaddr_un.sun_path` has 108 bytes, one for the terminator).
const MAX_PATH_BYTES: usize = 107;

/// A way to a Unix socket that fits into an address.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Holds the link, where one is needed.
    _link: Option<TempDir>,
}

impl Socket {
    /// The socket itself or, where its path is too long for an address, its
    /// name behind a link to its directory in the directory for temporary
    /// files. The link goes with this value. Blocks on the file system.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn reach(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no socket", path.display())));
        };
        if path.as_os_str().as_bytes().len() <= MAX_PATH_BYTES {
            return Ok(Self { path: path.to_owned(), _link: None });
        }
        let link = tempfile::Builder::new().prefix("bst-sa-").tempdir()?;
        let short = link.path().join("s");
        symlink(directory, &short)?;
        Ok(Self { path: short.join(name), _link: Some(link) })
    }

    /// The path to connect to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_long_path_is_reached_through_a_short_one() {
        let home = TempDir::new().unwrap();
        let near = home.path().join("near.sock");
        assert_eq!(Socket::reach(&near).unwrap().path(), near);

        let deep = home.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let far = Socket::reach(&deep.join("far.sock")).unwrap();
        assert!(far.path().as_os_str().as_bytes().len() <= MAX_PATH_BYTES);
        let listener = UnixListener::bind(far.path()).unwrap();
        assert!(deep.join("far.sock").exists());
        UnixStream::connect(far.path()).unwrap();
        drop(listener);
        let path = far.path().to_owned();
        drop(far);
        assert!(!path.exists(), "the link is gone, and what it led to is not");
        assert!(deep.join("far.sock").exists());
        assert!(Socket::reach(Path::new("/")).is_err());
    }
}
