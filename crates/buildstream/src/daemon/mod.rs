//! The casd that BuildStream runs (its sockets while it lives, its logs
//! afterwards), and one of our own on the same cache directory.

mod own;
mod socket;

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use own::{OwnDaemon, StartError};
pub use socket::Socket;

/// Whether a file of this name in a cache directory is the socket of a daemon.
pub(crate) fn is_socket_name(name: &str) -> bool {
    name.starts_with("casserver-") && name.ends_with(".sock")
}

/// The sockets of the daemons of running `bst` commands in this cache
/// directory, the youngest first; each serves everything that casd serves.
///
/// One that was killed leaves its socket behind, so connecting decides (with
/// the path of [`Socket::reach`]). Blocks on the file system.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn sockets(cachedir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_socket = |name: &str, kind: FileType| is_socket_name(name) && kind.is_socket();
    let mut sockets = by_age(cachedir, is_socket)?;
    sockets.reverse();
    Ok(sockets)
}

/// What casd wrote for one `bst` command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// The file.
    pub path: PathBuf,
    /// When that casd was started; `None` where the file is not named after it.
    pub started: Option<SystemTime>,
}

/// The logs that casd wrote for `bst` commands, the oldest first: one per
/// command, of which BuildStream keeps the last ten. `logdir` is that of the
/// [`Configuration`](crate::Configuration). Blocks on the file system.
///
/// # Errors
/// When the directory is there and cannot be read.
pub fn logs(logdir: &Path) -> io::Result<Vec<Log>> {
    let paths = by_age(&logdir.join("_casd"), |name, kind| name.ends_with(".log") && kind.is_file())?;
    Ok(paths.into_iter().map(|path| Log { started: started(&path), path }).collect())
}

/// `SECONDS.log`: since 1970, with a fraction.
fn started(log: &Path) -> Option<SystemTime> {
    let seconds = log.file_stem()?.to_str()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// The entries of a directory that are wanted, the oldest first; none where there is no directory.
fn by_age(directory: &Path, wanted: impl Fn(&str, FileType) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if !entry.file_name().to_str().is_some_and(|name| wanted(name, kind)) {
            continue;
        }
        // Gone by now: its daemon has ended, or it was rotated away.
        let Ok(modified) = entry.metadata().and_then(|m| m.modified()) else { continue };
        found.push((modified, entry.path()));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
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

    #[test]
    fn logs_are_in_the_order_of_the_builds() {
        let logdir = TempDir::new().unwrap();
        assert_eq!(logs(logdir.path()).unwrap(), []);
        let folder = logdir.path().join("_casd");
        fs::create_dir(&folder).unwrap();
        let start = SystemTime::UNIX_EPOCH;
        for (age, name) in [(2, "a.log"), (1, "1795745166.5.log"), (3, "c.txt"), (4, "-1.log"), (5, "1e300.log")] {
            let file = fs::File::create(folder.join(name)).unwrap();
            file.set_modified(start + Duration::from_secs(age)).unwrap();
        }
        let log = |name: &str, started| Log { path: folder.join(name), started };
        let expected = [
            log("1795745166.5.log", Some(start + Duration::from_millis(1_795_745_166_500))),
            log("a.log", None),
            log("-1.log", None),
            log("1e300.log", None),
        ];
        assert_eq!(logs(logdir.path()).unwrap(), expected);
    }
}
