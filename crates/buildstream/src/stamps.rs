//! Whether anything that decides what a project looks like has been touched.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use reapi_proto::{Digest, DigestFunction};

use crate::{Installation, Invocation};

/// Where BuildStream notes which elements have workspaces, which are directories anywhere.
const WORKSPACES: &str = ".bst/workspaces.yml";

/// What nothing is ever built of.
const IGNORED: &str = ".git";

/// Files of a project at most; beyond them, looking at every one is no gain over asking BuildStream.
const MAX_FILES: usize = 200_000;

/// Why a project cannot be told from its files' stamps.
#[derive(Debug, thiserror::Error)]
pub enum StampError {
    /// There is no `project.conf` in the directory or above it.
    #[error("there is no project.conf in {0} or above it")]
    NoProject(PathBuf),
    /// Sources may be in workspaces, wherever those are.
    #[error("{0} has workspaces")]
    Workspaces(PathBuf),
    /// A project of so many files.
    #[error("{0} has more than {MAX_FILES} files")]
    TooLarge(PathBuf),
    /// Something cannot be looked at.
    #[error("{path} cannot be looked at")]
    Unreadable {
        /// What it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The stamps (inode, mode, size, times of change) of whatever a project is loaded from: `bst`, the user
/// configuration, and every file in the project's directory, links followed.
///
/// Equal [digests](Self::digest) mean that nobody has touched any of it, so that BuildStream would say of the project
/// what it said before. It is not so the other way round: touching a file without changing it makes another digest.
///
/// A file that is changed, keeping its size, within the clock tick (some milliseconds) in which its stamp was taken
/// goes unnoticed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamps {
    /// By path.
    stamps: Vec<(PathBuf, Stamp)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp([i64; 8]);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let device = i64::from_ne_bytes(metadata.dev().to_ne_bytes());
        let inode = i64::from_ne_bytes(metadata.ino().to_ne_bytes());
        let mode = i64::from(metadata.mode());
        if metadata.is_dir() {
            // What is in it has stamps of its own; its times tell of files that came and went.
            return Self([device, inode, mode, 0, 0, 0, 0, 0]);
        }
        let size = i64::from_ne_bytes(metadata.size().to_ne_bytes());
        let (modified, changed) =
            ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Self([device, inode, mode, size, modified.0, modified.1, changed.0, changed.1])
    }
}

impl Stamps {
    /// Looks at a project that `bst` is to be run on, and at the user configurations that it might read.
    /// Directories in `except`, which the project is not made of (caches, logs), are left out.
    ///
    /// # Errors
    /// [`StampError`], for each of which there is nothing to do but to ask BuildStream.
    pub fn take(
        installation: &Installation,
        invocation: &Invocation,
        configurations: &[PathBuf],
        except: &[PathBuf],
    ) -> Result<Self, StampError> {
        let project = project_of(&invocation.directory)?;
        let workspaces = project.join(WORKSPACES);
        if exists(&workspaces)? {
            return Err(StampError::Workspaces(project));
        }
        let mut walk = Walk { project: &project, except, seen: BTreeSet::new(), stamps: Vec::new() };
        let outside = [installation.bst()].into_iter().chain(configurations.iter().map(PathBuf::as_path));
        for file in outside {
            if exists(file)? {
                let metadata = fs::metadata(file).map_err(|source| unreadable(file, source))?;
                walk.stamps.push((file.to_owned(), Stamp::of(&metadata)));
            }
        }
        walk.directory()?;
        let mut stamps = walk.stamps;
        stamps.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { stamps })
    }

    /// One digest of all stamps, apart from those in the directories `except`, and of these words, which stand for
    /// whatever else decides what is loaded.
    pub fn digest<'a>(&self, except: &[PathBuf], words: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut bytes = Vec::with_capacity(self.stamps.len() * 128);
        let mut part = |part: &[u8]| {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        };
        words.into_iter().for_each(&mut part);
        for (path, Stamp(stamp)) in &self.stamps {
            if !except.iter().any(|except| path.starts_with(except)) {
                part(path.as_os_str().as_bytes());
                stamp.iter().for_each(|number| part(&number.to_le_bytes()));
            }
        }
        DigestFunction::Sha256.digest(&bytes)
    }
}

/// The directory of the project in `directory`, or above it, with all links resolved.
fn project_of(directory: &Path) -> Result<PathBuf, StampError> {
    let start = fs::canonicalize(directory).map_err(|source| unreadable(directory, source))?;
    for directory in start.ancestors() {
        if exists(&directory.join("project.conf"))? {
            return Ok(directory.to_owned());
        }
    }
    Err(StampError::NoProject(start))
}

fn exists(path: &Path) -> Result<bool, StampError> {
    path.try_exists().map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> StampError {
    StampError::Unreadable { path: path.to_owned(), source }
}

struct Walk<'a> {
    project: &'a Path,
    except: &'a [PathBuf],
    /// Directories that were walked, so that links cannot lead in circles.
    seen: BTreeSet<(u64, u64)>,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl Walk<'_> {
    /// Takes in the project's directory with all below it.
    fn directory(&mut self) -> Result<(), StampError> {
        let mut pending = vec![self.project.to_owned()];
        while let Some(directory) = pending.pop() {
            if self.except.contains(&directory) {
                continue;
            }
            let failed = |source| unreadable(&directory, source);
            let metadata = fs::metadata(&directory).map_err(failed)?;
            if !self.seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_name() != IGNORED {
                    let metadata = entry.metadata().map_err(|source| unreadable(&entry.path(), source))?;
                    pending.extend(self.entry(entry.path(), &metadata)?);
                }
            }
        }
        Ok(())
    }

    /// Takes in an entry. Returns it if it is a directory, or a link to one.
    fn entry(&mut self, path: PathBuf, metadata: &Metadata) -> Result<Option<PathBuf>, StampError> {
        if self.stamps.len() >= MAX_FILES {
            return Err(StampError::TooLarge(self.project.to_owned()));
        }
        self.stamps.push((path.clone(), Stamp::of(metadata)));
        if metadata.is_dir() {
            return Ok(Some(path));
        }
        // A link that leads nowhere is what it is.
        if metadata.is_symlink()
            && let Ok(target) = fs::metadata(&path)
        {
            self.stamps.push((path.clone(), Stamp::of(&target)));
            return Ok(target.is_dir().then_some(path));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            for folder in ["project/files/base", "project/empty", "project/.git", "elsewhere"] {
                fs::create_dir_all(home.path(folder)).unwrap();
            }
            for file in ["bst", "project/project.conf", "project/files/base/a", "project/.git/index", "elsewhere/b"] {
                fs::write(home.path(file), "1").unwrap();
            }
            symlink(home.path("elsewhere"), home.path("project/files/linked")).unwrap();
            // In a circle.
            symlink("..", home.path("project/files/up")).unwrap();
            symlink("nowhere", home.path("project/files/lost")).unwrap();
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn stamps(&self) -> Result<Stamps, StampError> {
            let bst = Installation::with_interpreter(self.path("bst"), "python3", []);
            // One below the project's.
            let invocation = Invocation::new(self.path("project/files"));
            Stamps::take(&bst, &invocation, &[self.path("user.conf")], &[])
        }

        fn digest(&self) -> Digest {
            self.stamps().unwrap().digest(&[], [])
        }
    }

    #[test]
    fn whatever_is_touched_makes_another_digest() {
        let home = Home::new();
        let mut last = home.digest();
        assert_eq!(last, home.digest());
        let mut differs = |what: &str| {
            let now = home.digest();
            assert_ne!(now, last, "{what}");
            last = now;
        };
        // As long as before, and with the same time of change of its bytes.
        let (a, copy) = (home.path("project/files/base/a"), home.path("project/files/base/copy"));
        let time = fs::metadata(&a).unwrap().modified().unwrap();
        fs::write(&copy, "2").unwrap();
        fs::File::open(&copy).unwrap().set_modified(time).unwrap();
        fs::rename(&copy, &a).unwrap();
        differs("another file of the same name");
        fs::write(home.path("elsewhere/b"), "22").unwrap();
        differs("a file behind a link");
        fs::write(home.path("project/more.bst"), "").unwrap();
        differs("a new file");
        fs::create_dir(home.path("project/files/base/new")).unwrap();
        differs("a new folder");
        fs::remove_dir(home.path("project/empty")).unwrap();
        differs("a folder less");
        fs::write(home.path("user.conf"), "").unwrap();
        differs("a configuration");
        fs::write(home.path("bst"), "another version").unwrap();
        differs("another BuildStream");
    }

    #[test]
    fn what_a_project_is_not_made_of_does_not_matter() {
        let home = Home::new();
        let before = home.digest();
        fs::write(home.path("project/.git/index"), "another").unwrap();
        let folder = home.path("project/files/base");
        fs::write(folder.join("temporary"), "").unwrap();
        fs::remove_file(folder.join("temporary")).unwrap();
        assert_eq!(home.digest(), before);
        let stamps = home.stamps().unwrap();
        let except = [fs::canonicalize(&folder).unwrap()];
        let without = stamps.digest(&except, []);
        fs::write(folder.join("a"), "another").unwrap();
        assert_ne!(home.digest(), before);
        assert_eq!(home.stamps().unwrap().digest(&except, []), without);
        assert_ne!(stamps.digest(&[], [&b"app.bst"[..]]), stamps.digest(&[], [&b"app"[..], b".bst"]));
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let home = Home::new();
        fs::create_dir_all(home.path("project/.bst")).unwrap();
        fs::write(home.path("project/.bst/workspaces.yml"), "").unwrap();
        assert!(matches!(home.stamps(), Err(StampError::Workspaces(_))), "{:?}", home.stamps());
        fs::remove_file(home.path("project/project.conf")).unwrap();
        assert!(matches!(home.stamps(), Err(StampError::NoProject(_))), "{:?}", home.stamps());
    }
}
