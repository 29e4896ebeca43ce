//! One entry of a Directory as its exact bytes.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use super::error::shown;
use super::node::{Kind, Slot, check_name};
use super::wire::{Fields, check_size};
use super::{Node, RawError};

/// The exact bytes of one FileNode, DirectoryNode or SymlinkNode in its
/// Directory, tag and length included. Equality is that of the bytes.
#[derive(Clone)]
pub struct RawEntry {
    bytes: Bytes,
    slot: Slot,
}

impl RawEntry {
    /// Reads bytes that consist of exactly one entry: field 1, 2 or 3 of a Directory.
    ///
    /// # Errors
    /// As [`Directory::parse`](super::Directory::parse), for this entry.
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let mut fields = Fields::of(&bytes);
        let entry = fields.next()?.and_then(|field| Some((Kind::from_field(field.number)?, field)));
        let (Some((kind, field)), None) = (entry, fields.next()?) else {
            return Err(RawError::NotCanonical("not exactly one entry of a directory".into()));
        };
        let slot = Slot::parse(&bytes, kind, &field)?;
        Ok(Self { bytes, slot })
    }

    /// A freshly encoded entry.
    ///
    /// # Errors
    /// [`RawError::BadName`].
    pub fn encode(name: &[u8], node: &Node) -> Result<Self, RawError> {
        check_name(name)?;
        let mut out = Vec::new();
        node.encode(&mut out, name);
        Self::parse(out.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.slot.name.of(&self.bytes)
    }

    /// What the entry stands for.
    #[must_use]
    pub fn node(&self) -> Node {
        self.slot.node(&self.bytes)
    }

    pub(super) fn kind(&self) -> Kind {
        self.slot.kind()
    }
}

impl PartialEq for RawEntry {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for RawEntry {}

impl Hash for RawEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

/// Shows kind and name.
impl fmt::Debug for RawEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawEntry({:?} {:?}, {} bytes)", self.kind(), shown(self.name()), self.bytes.len())
    }
}
