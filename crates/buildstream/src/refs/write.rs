//! Replacing a ref.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::path::Path;

use reapi_proto::Digest;
use tempfile::NamedTempFile;

use super::{Attached, RefError, read_file};
use crate::artifact::Artifact;

/// How often a ref is read again because somebody replaced it meanwhile.
const ATTEMPTS: usize = 4;

/// Makes the artifact at `path` name a record, if it `is_same` as the one that was recorded.
pub(super) fn attach(path: &Path, record: &Digest, is_same: impl Fn(&Artifact) -> bool) -> Result<Attached, RefError> {
    for _ in 0..ATTEMPTS {
        let Some(bytes) = read_file(path)? else { return Ok(Attached::Absent) };
        let unusable = |source| RefError::Unusable { path: path.to_owned(), source };
        let artifact = Artifact::parse(bytes).map_err(unusable)?;
        if !is_same(&artifact) {
            return Ok(Attached::OtherBuild);
        }
        let edited = artifact.with_speculative_actions(Some(record)).map_err(unusable)?;
        if edited == artifact {
            return Ok(Attached::Unchanged);
        }
        if replace(path, artifact.bytes(), edited.bytes())? {
            return Ok(Attached::Written);
        }
    }
    Err(RefError::Contended(path.to_owned()))
}

/// Replaces a file at once, unless it is not `old` any more.
fn replace(path: &Path, old: &[u8], new: &[u8]) -> Result<bool, RefError> {
    let failed = |operation| move |source: io::Error| RefError::Io { operation, path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let permissions: Permissions = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed("read")(e)),
    };
    let mut file = NamedTempFile::new_in(folder).map_err(failed("write beside"))?;
    file.write_all(new).map_err(failed("write beside"))?;
    file.as_file().set_permissions(permissions).map_err(failed("write beside"))?;
    // BuildStream takes an empty file for an artifact without files: after a
    // crash, the name must not come to stand for one.
    file.as_file().sync_data().map_err(failed("write beside"))?;
    if read_file(path)?.as_deref() != Some(old) {
        return Ok(false);
    }
    file.persist(path).map_err(|refused| failed("replace")(refused.error))?;
    Ok(true)
}
