//! Which way of writing made an archive.

use crate::symbols::Reader;
use crate::write::{Table, Writer, write};
use crate::{Archive, ArchiveError};

/// A way of writing that is known to give exactly the bytes of one archive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recipe {
    writer: Writer,
    table: Table,
}

/// The likelier ones first, for where the bytes do not tell them apart.
const WRITERS: [Writer; 3] = [Writer::Gnu(Reader::Plugin), Writer::Gnu(Reader::Elf), Writer::Llvm];

impl Recipe {
    /// The recipe of an archive; `None` where no known writer makes these bytes
    /// of these members, for one because times and owners are in them.
    ///
    /// Where several writers make the same bytes, GNU `ar` with the compiler's
    /// plugin is taken to be the one. Takes memory for a second archive of the
    /// same size.
    ///
    /// # Errors
    /// As [`Archive::parse`].
    pub fn of(archive: &[u8]) -> Result<Option<Self>, ArchiveError> {
        let parsed = Archive::parse(archive)?;
        let makes = |recipe: &Self| recipe.replay(parsed.as_slice()).is_ok_and(|bytes| bytes == archive);
        // A table that is asked for is left out too where no member is an object.
        let tables: &[Table] =
            if parsed.has_symbol_table() { &[Table::OfObjects] } else { &[Table::OfObjects, Table::Absent] };
        let mut recipes =
            tables.iter().flat_map(|table| WRITERS.into_iter().map(|writer| Self { writer, table: *table }));
        Ok(recipes.find(makes))
    }

    /// The archive that the same writer makes of other members: name and bytes of each, in order.
    ///
    /// Takes memory for the archive, which is at most twice the members plus
    /// 64 bytes and three times the name for each.
    ///
    /// # Errors
    /// [`ArchiveError::BadName`], [`ArchiveError::Symbols`] for an object
    /// whose symbols are wanted and cannot be told, [`ArchiveError::TooLarge`].
    pub fn replay(&self, members: &[(&[u8], &[u8])]) -> Result<Vec<u8>, ArchiveError> {
        write(members, self.writer, self.table)
    }
}
