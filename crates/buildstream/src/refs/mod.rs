//! The files in which BuildStream says what it built.
//!
//! `artifacts/refs/PROJECT/NAME/KEY` holds a serialized `Artifact`, once under
//! the strong and once under the weak key; `elementsources/KEY` holds a
//! serialized `Source`. The weak key's file is that of the last build with
//! this weak key. Files are replaced, never changed in place: the two may be
//! links to one file after a pull.
//!
//! All calls block on the file system.

mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use reapi_proto::Digest;

use crate::artifact::{Artifact, MessageError, Sources};
use crate::names::{ArtifactName, CacheKey, ElementRef};

/// No real ref comes near: a build with a hundred dependencies has 20 kB.
const MAX_REF_BYTES: u64 = 64 << 20;

/// Why a ref cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RefError {
    /// The file system failed.
    #[error("{operation} {path}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MessageError,
    },
    /// The file is larger than any ref is.
    #[error("{path} has {bytes} bytes; a ref has at most {MAX_REF_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// There is no such artifact.
    #[error("there is no artifact {0}")]
    NotFound(ArtifactName),
    /// Somebody else keeps replacing the file.
    #[error("{0} changed at every attempt to replace it")]
    Contended(PathBuf),
}

/// A file among the refs of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefEntry {
    /// Which artifact it stands for.
    pub name: ArtifactName,
    /// When it was last written, or used by BuildStream, which then renews it.
    pub modified: SystemTime,
}

/// What became of one of the two refs of an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// It names the record now.
    Written,
    /// It named that record before.
    Unchanged,
    /// There is no such ref.
    Absent,
    /// It is the ref of another build, which a record of this one says nothing about.
    OtherBuild,
}

/// What became of the refs of an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Under the strong key; never [`Attached::Absent`].
    pub strong: Attached,
    /// Under the weak key.
    pub weak: Attached,
}

/// The refs of artifacts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArtifactRefs {
    folder: PathBuf,
}

impl ArtifactRefs {
    /// The refs in this folder: `artifacts/refs` of BuildStream's cache directory.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The refs of this cache directory.
    #[must_use]
    pub fn of_cache(cachedir: &Path) -> Self {
        Self::new(cachedir.join("artifacts").join("refs"))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The artifact of this name, or `None`.
    ///
    /// # Errors
    /// [`RefError`] where it is there and cannot be used.
    pub fn read(&self, name: &ArtifactName) -> Result<Option<Artifact>, RefError> {
        let path = self.path(name);
        let Some(bytes) = read_file(&path)? else { return Ok(None) };
        Artifact::parse(bytes).map(Some).map_err(|source| RefError::Unusable { path, source })
    }

    /// The refs of an element, last used first; equal times by name. Files
    /// that are not named by a key are none.
    ///
    /// # Errors
    /// [`RefError::Io`]; an element without refs has an empty list.
    pub fn list(&self, element: &ElementRef) -> Result<Vec<RefEntry>, RefError> {
        let path = self.folder.join(element.project()).join(element.name());
        let failed = |source| RefError::Io { operation: "list", path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut refs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(Ok(key)) = entry.file_name().to_str().map(str::parse) else { continue };
            let modified = match entry.metadata().and_then(|m| m.modified()) {
                Ok(modified) => modified,
                // BuildStream has removed it in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            refs.push(RefEntry { name: element.artifact(key), modified });
        }
        refs.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.name.cmp(&b.name)));
        Ok(refs)
    }

    /// Makes the artifact of this strong key name a record, under its strong
    /// and its weak key; every other byte of the refs is kept.
    ///
    /// Each ref is replaced at once or not at all; a failure at the second
    /// leaves the first one done. Doing it again changes nothing. A ref that
    /// somebody replaces at the same time is read again; between that and
    /// the replacement remains an instant in which theirs may be lost.
    ///
    /// # Errors
    /// [`RefError::NotFound`] where there is no such artifact; otherwise
    /// where a ref cannot be read, edited or replaced.
    pub fn attach(&self, strong: &ArtifactName, record: &Digest) -> Result<Attachment, RefError> {
        let artifact = self.read(strong)?.ok_or_else(|| RefError::NotFound(strong.clone()))?;
        let unusable = |source| RefError::Unusable { path: self.path(strong), source };
        let weak_key = artifact.weak_key().map_err(unusable)?;
        let is_same = |other: &Artifact| other.message().strong_key == artifact.message().strong_key;
        let attached = write::attach(&self.path(strong), record, is_same)?;
        if attached == Attached::Absent {
            return Err(RefError::NotFound(strong.clone()));
        }
        if weak_key == *strong.key() {
            return Ok(Attachment { strong: attached, weak: attached });
        }
        let weak = strong.element().artifact(weak_key);
        Ok(Attachment { strong: attached, weak: write::attach(&self.path(&weak), record, is_same)? })
    }

    /// The file of this ref, whether it is there or not.
    #[must_use]
    pub fn path(&self, name: &ArtifactName) -> PathBuf {
        let element = name.element();
        [self.folder.as_path(), element.project().as_ref(), element.name().as_ref(), name.key().as_str().as_ref()]
            .iter()
            .collect()
    }
}

/// The refs of staged sources.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceRefs {
    folder: PathBuf,
}

impl SourceRefs {
    /// The refs in this folder: `elementsources` of BuildStream's cache directory.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The refs of this cache directory.
    #[must_use]
    pub fn of_cache(cachedir: &Path) -> Self {
        Self::new(cachedir.join("elementsources"))
    }

    /// The sources of this key, or `None`. They may have expired from storage.
    ///
    /// # Errors
    /// [`RefError`] where the ref is there and cannot be used.
    pub fn read(&self, key: &CacheKey) -> Result<Option<Sources>, RefError> {
        let path = self.folder.join(key.as_str());
        let Some(bytes) = read_file(&path)? else { return Ok(None) };
        Sources::parse(&bytes).map(Some).map_err(|source| RefError::Unusable { path, source })
    }
}

/// The whole file, or `None`.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, RefError> {
    let failed = |source| RefError::Io { operation: "read", path: path.to_owned(), source };
    let bytes = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if bytes > MAX_REF_BYTES {
        return Err(RefError::TooLarge { path: path.to_owned(), bytes });
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
