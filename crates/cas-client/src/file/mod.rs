//! Storage in a directory, laid out as buildbox-casd lays out its own.

mod actions;
mod layout;
mod read;
mod store;
mod stream;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use reapi_proto::{Digest, DigestFunction};

use crate::{Error, ErrorKind, Result};
use layout::Layout;

/// CAS and action cache in a local directory; executes nothing.
///
/// The layout is buildbox-casd's: `cas/objects/HH/REST` holds blobs and
/// `actioncache/objects/HH/REST` serialized `ActionResult`s under the hash of
/// their action, `HH` being the first two digits; temporary files live in `tmp`
/// beside `objects`. The digest function is SHA-256, casd's only one. A
/// running casd and any number of `FileStore`s may share the directory.
///
/// Files appear under their names complete or not at all. They are not synced to
/// disk one by one: after a power failure some may be damaged, which reading
/// detects and writing the blob again repairs. File modification times are
/// renewed as casd renews them, because it expires the longest unused first.
///
/// File operations run on tokio's blocking threads, so the trait methods must be
/// called within a tokio runtime.
#[derive(Clone)]
pub struct FileStore {
    layout: Arc<Layout>,
}

impl FileStore {
    /// The store in the existing directory `root`. Nothing is written until a blob is.
    ///
    /// # Errors
    /// `Invalid` when `root` is no directory.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Self::over(Layout::new(root.into()))
    }

    /// The store whose blobs are in `DIRECTORY/objects/HH/REST`, which is what casd calls its storage root. Its
    /// action cache is beside that directory.
    ///
    /// # Errors
    /// `Invalid` when `directory` is no directory.
    pub fn open_blobs(directory: impl Into<PathBuf>) -> Result<Self> {
        Self::over(Layout::of_blobs(directory.into()))
    }

    fn over(layout: Layout) -> Result<Self> {
        if !layout.root().is_dir() {
            return Err(Error::new(ErrorKind::Invalid, "open", "no such directory")
                .at(format_args!("file:{}", layout.root().display())));
        }
        Ok(Self { layout: Arc::new(layout) })
    }

    /// The store in the directory `root`, which is created if absent.
    ///
    /// # Errors
    /// `Denied` or `Io` when it cannot be created.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let layout = Layout::new(root.into());
        std::fs::create_dir_all(layout.root()).map_err(|e| layout.error("create", e))?;
        Ok(Self { layout: Arc::new(layout) })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Reads one blob on this thread. `None` if it is absent.
    ///
    /// # Errors
    /// `Corrupt` when the file is not the blob, `Denied` or `Io` when it cannot be read.
    pub fn read_blocking(&self, digest: &Digest) -> Result<Option<Bytes>> {
        crate::batch::require_function("read_blocking", DigestFunction::Sha256, [digest])?;
        read::Reader::new(&self.layout).read(digest)
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layout)
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.layout.root().display())
    }
}

#[cfg(test)]
mod tests;
