//! Why an archive cannot be read or written.

/// Why bytes are not an archive, or members cannot be made into one.
///
/// Names of members come from outside: they are shown with invalid UTF-8 replaced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Not an archive, or a damaged one.
    #[error("not an archive that can be read: {0}")]
    Malformed(String),
    /// A thin archive: it names its members, and does not hold them.
    #[error("a thin archive, whose members are files of their own")]
    Thin,
    /// A name that no member may have.
    #[error("{0:?} cannot be the name of a member: {1}")]
    BadName(String, &'static str),
    /// An object whose symbols cannot be told, so that the symbol table is not known.
    #[error("the symbols of member {member:?} cannot be told: {reason}")]
    Symbols {
        /// The member's name.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than the format, or this crate's use of memory, allows.
    #[error("an archive too large to write: {0}")]
    TooLarge(&'static str),
}

/// A name from outside, fit for a message.
pub(crate) fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES: usize = 80;
    String::from_utf8_lossy(name.get(..SHOWN_BYTES).unwrap_or(name)).into_owned()
}
