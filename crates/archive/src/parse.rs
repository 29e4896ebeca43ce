//! What is in an archive.

use std::fmt;

use object::read::archive::{ArchiveFile, ArchiveKind};

use crate::ArchiveError;

/// A static library, taken apart. Members share the archive's bytes.
#[derive(Clone)]
pub struct Archive<'a> {
    members: Vec<(&'a [u8], &'a [u8])>,
    has_symbol_table: bool,
}

impl<'a> Archive<'a> {
    /// Reads an archive. The tables for symbols and long names are no members.
    ///
    /// Takes memory in the number of members, each of which takes 60 bytes of `bytes` at least.
    ///
    /// # Errors
    /// [`ArchiveError::Malformed`] and [`ArchiveError::Thin`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let malformed = |error: object::Error| ArchiveError::Malformed(error.to_string());
        let file = ArchiveFile::parse(bytes).map_err(malformed)?;
        if file.is_thin() {
            return Err(ArchiveError::Thin);
        }
        let mut members = Vec::new();
        for member in file.members() {
            let member = member.map_err(malformed)?;
            members.push((member.name(), member.data(bytes).map_err(malformed)?));
        }
        // Formats other than the common one have tables that `Recipe` does not know.
        let has_symbol_table = file.kind() != ArchiveKind::Unknown && file.symbols().is_ok_and(|table| table.is_some());
        Ok(Self { members, has_symbol_table })
    }

    /// Name and bytes of each member, in the archive's order. Names may occur more than once.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.members.iter().copied()
    }

    pub(crate) fn as_slice(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.members
    }

    pub(crate) fn has_symbol_table(&self) -> bool {
        self.has_symbol_table
    }
}

/// Shows sizes only: names belong to somebody's project.
impl fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({} members)", self.members.len())
    }
}
