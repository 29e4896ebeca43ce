//! The casd that a running BuildStream uses.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The sockets of the daemons of running `bst` commands in this cache
/// directory, the youngest first; each serves everything that casd serves.
///
/// One that was killed leaves its socket behind, so connecting decides. A
/// socket's path may be longer than an address can be (107 bytes): BuildStream
/// itself reaches it through a link with a short name. Blocks on the file system.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn sockets(cachedir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(cachedir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_named = name.to_str().is_some_and(|name| name.starts_with("casserver-") && name.ends_with(".sock"));
        if !is_named || !entry.file_type()?.is_socket() {
            continue;
        }
        // Gone by now: its daemon has ended.
        let Ok(modified) = entry.metadata().and_then(|m| m.modified()) else { continue };
        sockets.push((modified, entry.path()));
    }
    sockets.sort_by(|a, b| b.cmp(a));
    Ok(sockets.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use tempfile::TempDir;

    #[test]
    fn only_sockets_of_daemons_count() {
        let cache = TempDir::new().unwrap();
        assert_eq!(sockets(&cache.path().join("none")).unwrap(), [""; 0].map(PathBuf::from));
        let path = |name: &str| cache.path().join(name);
        fs::write(path("casserver-file.sock"), "").unwrap();
        let _other = UnixListener::bind(path("other.sock")).unwrap();
        let _daemon = UnixListener::bind(path("casserver-abcd1234.sock")).unwrap();
        assert_eq!(sockets(cache.path()).unwrap(), [path("casserver-abcd1234.sock")]);
    }
}
