//! A project that nobody has touched since it was last built has nothing to be primed, recorded, or asked about.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use buildstream::names::ArtifactName;
use buildstream::refs::ArtifactRefs;
use buildstream::{Configuration, Installation, Invocation, Stamps};
use reapi_proto::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};

use crate::files::{read_whole, replace};

/// The version of the format.
const VERSION: u64 = 1;

/// What decides, besides files, what `bst` does and where it keeps things.
const VARIABLES: [&str; 4] = ["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"];

/// The user configurations that BuildStream looks for, the first one first.
const CONFIGURATIONS: [&str; 2] = ["buildstream2.conf", "buildstream.conf"];

/// How a project looked when it was last built.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Remembered {
    version: u64,
    /// Of the stamps.
    digest: String,
    /// Directories that stamps are not taken of: the build itself writes there.
    except: Vec<PathBuf>,
    /// The refs of artifacts, and the inodes that they had: a ref is replaced when its artifact is built again.
    artifacts: BTreeMap<PathBuf, u64>,
}

/// How a project looks before it is built.
pub(super) struct Look {
    words: Vec<Vec<u8>>,
    stamps: Stamps,
    /// Where it is remembered.
    file: PathBuf,
    remembered: Option<Remembered>,
}

impl Look {
    /// Looks at the project that `bst` is to build these elements of. `None` if its files do not tell everything.
    pub(super) fn at(installation: &Installation, invocation: &Invocation, elements: &[String]) -> Option<Self> {
        let directory = fs::canonicalize(&invocation.directory).ok()?;
        let mut words: Vec<Vec<u8>> = vec![directory.as_os_str().as_bytes().to_vec()];
        let arguments = invocation.arguments();
        words.extend(arguments.iter().map(|argument| argument.as_bytes().to_vec()));
        words.push(b"build".to_vec());
        words.extend(elements.iter().map(|element| element.as_bytes().to_vec()));
        let variable = |name: &str| env::var_os(name).unwrap_or_default().as_bytes().to_vec();
        words.extend(VARIABLES.iter().map(|name| variable(name)));
        let file = place(&words)?;
        let remembered = read(&file);
        let except = remembered.as_ref().map_or(&[][..], |remembered| &remembered.except);
        match Stamps::take(installation, invocation, &configurations(invocation), except) {
            Ok(stamps) => Some(Self { words, stamps, file, remembered }),
            Err(error) => {
                tracing::debug!(%error, "whether the project has changed is left to BuildStream");
                None
            }
        }
    }

    /// Whether all is as it was when it was last built.
    pub(super) fn is_unchanged(&self) -> bool {
        self.remembered.as_ref().is_some_and(|remembered| {
            self.digest(&remembered.except).to_string() == remembered.digest && are_there(&remembered.artifacts)
        })
    }

    /// Whether `bst` has left all as it was. If not, the next build is not taken for unchanged.
    pub(super) fn confirm(&self) -> bool {
        let same = self.remembered.as_ref().is_some_and(|remembered| are_there(&remembered.artifacts));
        if !same {
            self.forget();
        }
        same
    }

    /// Remembers the project as it looked before it was built, now that it is built.
    pub(super) fn remember(&self, configuration: &Configuration, artifacts: impl IntoIterator<Item = ArtifactName>) {
        let refs = configuration.artifact_refs();
        let except = vec![configuration.cachedir.clone(), configuration.logdir.clone()];
        let digest = self.digest(&except).to_string();
        let artifacts = inodes(&refs, artifacts);
        let remembered = Remembered { version: VERSION, digest, except, artifacts };
        if let Err(error) = write(&self.file, &remembered) {
            tracing::debug!(file = %self.file.display(), %error, "the next build will not be known to be unchanged");
        }
    }

    /// The project is not as it was remembered.
    pub(super) fn forget(&self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.file.display(), %error, "an outdated note cannot be removed");
            }
            _ => {}
        }
    }

    fn digest(&self, except: &[PathBuf]) -> Digest {
        self.stamps.digest(except, self.words.iter().map(Vec::as_slice))
    }
}

fn configurations(invocation: &Invocation) -> Vec<PathBuf> {
    match &invocation.config {
        Some(file) => vec![file.clone()],
        None => {
            let folder = folder("XDG_CONFIG_HOME", ".config");
            folder.map(|folder| CONFIGURATIONS.map(|name| folder.join(name)).to_vec()).unwrap_or_default()
        }
    }
}

/// One of the user's folders: what the variable says, else the one of this name at home.
fn folder(variable: &str, name: &str) -> Option<PathBuf> {
    let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).filter(|folder| folder.is_absolute()).or_else(|| Some(set("HOME")?.join(name)))
}

fn place(words: &[Vec<u8>]) -> Option<PathBuf> {
    let name = DigestFunction::Sha256.digest(&words.join(&0));
    let name: OsString = format!("{}.json", name.to_string().split('/').next()?).into();
    Some(folder("XDG_CACHE_HOME", ".cache")?.join("bst-sa").join("projects").join(name))
}

fn inodes(refs: &ArtifactRefs, artifacts: impl IntoIterator<Item = ArtifactName>) -> BTreeMap<PathBuf, u64> {
    let paths = artifacts.into_iter().map(|artifact| refs.path(&artifact));
    let with_inode = |path: PathBuf| {
        let inode = fs::metadata(&path).ok()?.ino();
        Some((path, inode))
    };
    paths.filter_map(with_inode).collect()
}

fn are_there(artifacts: &BTreeMap<PathBuf, u64>) -> bool {
    artifacts.iter().all(|(path, inode)| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == *inode))
}

/// A note that cannot be read, or is of another version, is as good as none.
fn read(file: &Path) -> Option<Remembered> {
    parse(&read_whole(file).ok()?)
}

fn parse(bytes: &[u8]) -> Option<Remembered> {
    let remembered: Remembered = serde_json::from_slice(bytes).ok()?;
    (remembered.version == VERSION).then_some(remembered)
}

fn write(file: &Path, remembered: &Remembered) -> io::Result<()> {
    replace(file, serde_json::to_string(remembered)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(home: &Path) -> Look {
        let bst = Installation::with_interpreter(home.join("bst"), "python3", []);
        let invocation = Invocation::new(home.join("project"));
        let file = home.join("notes/project.json");
        let stamps = Stamps::take(&bst, &invocation, &[], &[]).unwrap();
        Look { words: vec![b"app.bst".to_vec()], stamps, remembered: read(&file), file }
    }

    #[test]
    fn a_project_is_unchanged_while_nothing_is_touched_and_no_artifact_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        for folder in ["project", "cache"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        fs::write(home.join("bst"), "").unwrap();
        fs::write(home.join("project/project.conf"), "name: a").unwrap();
        fs::write(home.join("cache/ref"), "artifact").unwrap();
        let remember = |look: &Look| {
            let path = home.join("cache/ref");
            let artifacts = BTreeMap::from([(path.clone(), fs::metadata(path).unwrap().ino())]);
            let digest = look.digest(&[]).to_string();
            write(&look.file, &Remembered { version: VERSION, digest, except: Vec::new(), artifacts }).unwrap();
        };
        assert!(!look(home).is_unchanged());
        remember(&look(home));
        assert!(look(home).is_unchanged());
        assert!(look(home).confirm());

        fs::write(home.join("project/project.conf"), "name: b").unwrap();
        assert!(!look(home).is_unchanged());
        remember(&look(home));
        assert!(look(home).is_unchanged());

        // Built again: the ref is another file.
        fs::write(home.join("cache/new"), "artifact").unwrap();
        fs::rename(home.join("cache/new"), home.join("cache/ref")).unwrap();
        assert!(!look(home).is_unchanged());
        assert!(!look(home).confirm());
        assert!(look(home).remembered.is_none());
        remember(&look(home));
        fs::remove_file(home.join("cache/ref")).unwrap();
        assert!(!look(home).is_unchanged());
    }

    #[test]
    fn other_versions_are_not_understood() {
        let note = |version: u64| format!(r#"{{"version": {version}, "digest": "", "except": [], "artifacts": {{}}}}"#);
        assert!(parse(note(VERSION).as_bytes()).is_some());
        assert!(parse(note(VERSION + 1).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_note_panics(text in r#"\{("version": 1|"digest": "a"|"except": \[("/"){0,2}\]|"artifacts": \{("a": -?[0-9]{0,30})?\}|,){0,7}\}?"#, noise in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = parse(text.as_bytes());
            let _ = parse(&noise);
        }
    }
}
