//! Writing whole files, on a blocking thread.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use reapi_proto::Digest;
use tempfile::NamedTempFile;

use super::layout::{Area, Layout};
use crate::{Blob, Error, Result};

/// A file younger than this is not touched again: expiry works in hours, and the call is not free.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Blobs are read-only, as casd leaves them: it hands out hard links to them.
const BLOB_MODE: u32 = 0o444;

/// Stores a blob unless the very same bytes are there.
///
/// Comparing costs little more than looking, and lets a forced write repair a damaged file.
pub(super) fn write_blob(layout: &Layout, blob: &Blob) -> Result<()> {
    if blob.data().is_empty() {
        return Ok(());
    }
    let digest = blob.digest();
    let path = layout.blobs.path(&digest);
    if holds(&path, blob.data()) {
        touch(&path);
        return Ok(());
    }
    let failed = |e| layout.error("write", e).with_digest(digest);
    let mut file = temporary(&layout.blobs).map_err(failed)?;
    file.write_all(blob.data()).map_err(failed)?;
    publish_blob(layout, file, &digest)
}

/// Gives a complete temporary file its final name.
pub(super) fn publish_blob(layout: &Layout, file: NamedTempFile, digest: &Digest) -> Result<()> {
    let failed = |e: io::Error| layout.error("write", e).with_digest(*digest);
    set_mode(file.as_file(), BLOB_MODE).map_err(failed)?;
    rename(file, &layout.blobs.path(digest)).map_err(failed)
}

/// Stores a file of the action cache, replacing what is there.
pub(super) fn write_result(layout: &Layout, action: &Digest, encoded: &[u8]) -> Result<()> {
    let failed = |e: io::Error| layout.error("store_action_result", e).with_digest(*action);
    let mut file = temporary(&layout.results).map_err(failed)?;
    file.write_all(encoded).map_err(failed)?;
    rename(file, &layout.results.path(action)).map_err(failed)
}

/// A temporary file that vanishes unless it is published. Owner-only until then.
pub(super) fn temporary(area: &Area) -> io::Result<NamedTempFile> {
    match NamedTempFile::new_in(area.temporary()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(area.temporary())?;
            NamedTempFile::new_in(area.temporary())
        }
        made => made,
    }
}

fn rename(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let file = match file.persist(path) {
        Ok(_) => return Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::NotFound => refused.file,
        Err(refused) => return Err(refused.error),
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    file.persist(path).map(drop).map_err(|refused| refused.error)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// Whether the file at `path` consists of exactly `data`.
fn holds(path: &Path, data: &[u8]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    if file.metadata().map_or(true, |m| m.len() != data.len() as u64) {
        return false;
    }
    let mut buffer = vec![0; data.len().min(64 << 10)];
    data.chunks(buffer.len().max(1)).all(|expected| {
        let found = &mut buffer[..expected.len()];
        file.read_exact(found).is_ok() && found == expected
    })
}

/// Renews a file's modification time where that is permitted: a store that may
/// only be read cannot have its lifetimes extended, and that is no failure.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let touched = File::open(path).and_then(|file| {
        let fresh = file.metadata()?.modified()?.checked_add(TOUCH_INTERVAL).is_some_and(|until| until > now);
        if fresh { Ok(()) } else { file.set_modified(now) }
    });
    if let Err(error) = touched {
        tracing::trace!(path = %path.display(), %error, "lifetime not extended");
    }
}

/// Whether a blob of the right size is there, renewing its lifetime if so.
///
/// # Errors
/// When the file system cannot tell.
pub(super) fn present(layout: &Layout, digest: &Digest) -> Result<bool, Error> {
    let path = layout.blobs.path(digest);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == digest.size_bytes() && metadata.is_file() => {
            let recent = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age < TOUCH_INTERVAL));
            if !recent {
                touch(&path);
            }
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(layout.error("find_missing", e).with_digest(*digest)),
    }
}
