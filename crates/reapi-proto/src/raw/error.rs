//! Why bytes are not the message that they should be, or an edit does not apply.

use crate::DigestError;

/// Longest part of a name that a message repeats, in bytes.
const SHOWN_BYTES: usize = 80;

/// Why a message was refused, or an edit of it.
///
/// Names come from outside: they are shown escaped, with invalid UTF-8
/// replaced, and cut after 80 bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RawError {
    /// A field or number extends past the end of its message.
    #[error("the message is cut off: the field at byte {0} extends past its end")]
    Truncated(usize),
    /// Not a field tag: field number 0 or above 2²⁹-1, an unknown wire type, or an unmatched group.
    #[error("the bytes at {0} are not a field tag")]
    BadTag(usize),
    /// A variable-length number of more than 64 bits.
    #[error("the number at byte {0} has more than 64 bits")]
    BadVarint(usize),
    /// A known field has another wire type than its own.
    #[error("field {field} at byte {at} has another wire type than this message gives it")]
    WireType {
        /// The field's number.
        field: u32,
        /// Offset of its tag.
        at: usize,
    },
    /// Longer than the 2 GiB that a message may have.
    #[error("a message of {0} bytes; at most 2147483647 are possible")]
    TooLarge(usize),
    /// Decodable, but not in the one form that gives equal content equal digests.
    #[error("not in canonical form: {0}")]
    NotCanonical(String),
    /// A name that no file may have.
    #[error("{0:?} cannot be the name of a directory entry: {1}")]
    BadName(String, &'static str),
    /// A name occurs twice among the files, directories and symlinks of one Directory.
    #[error("{0:?} occurs more than once in the directory")]
    Duplicate(String),
    /// A name stands behind one that sorts after it.
    #[error("{0:?} is out of order: entries of a directory are sorted by the bytes of their names")]
    Unsorted(String),
    /// A digest that is absent or malformed, and what it belongs to.
    #[error("the digest of {0:?}: {1}")]
    Digest(String, DigestError),
    /// The edit does not apply to this message.
    #[error("the edit does not apply: {0}")]
    Edit(String),
}

/// A name from outside, fit for a message.
pub(super) fn shown(name: &[u8]) -> String {
    match name.get(..SHOWN_BYTES) {
        Some(start) if name.len() > SHOWN_BYTES => String::from_utf8_lossy(start).into_owned() + "…",
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_cut() {
        let error = RawError::Duplicate(shown(b"a\xff\n"));
        assert_eq!(error.to_string(), "\"a\u{fffd}\\n\" occurs more than once in the directory");
        assert_eq!(shown(&[b'x'; 80]), "x".repeat(80));
        assert_eq!(shown(&[b'x'; 81]), "x".repeat(80) + "…");
    }
}
