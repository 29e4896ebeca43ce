//! A Tree message: Directories in one blob, each kept as its own bytes.

use std::fmt;

use bytes::Bytes;

use super::RawError;
use super::wire::{Field, Fields, check_size};
use crate::{Digest, DigestFunction};

/// A Tree, with the exact bytes of each Directory in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    bytes: Bytes,
    root: Bytes,
    children: Vec<Bytes>,
}

impl Tree {
    /// Reads a Tree message. The Directories are not judged; give them to
    /// [`Directory::parse`](super::Directory::parse).
    ///
    /// # Errors
    /// [`RawError`]; [`RawError::NotCanonical`] if the root is absent or
    /// occurs twice, since then there are no bytes that could be hashed.
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let (mut root, mut children) = (None, Vec::new());
        let mut fields = Fields::of(&bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => field.only(&mut root, "Tree.root")?,
                2 => children.push(bytes.slice(field.payload()?.range())),
                _ => {}
            }
        }
        let root: Field = root.ok_or_else(|| RawError::NotCanonical("Tree.root is absent".into()))?;
        let root = bytes.slice(root.payload()?.range());
        Ok(Self { bytes, root, children })
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The root Directory's bytes.
    #[must_use]
    pub fn root(&self) -> &Bytes {
        &self.root
    }

    /// The other Directories' bytes, in the order of the message.
    #[must_use]
    pub fn children(&self) -> &[Bytes] {
        &self.children
    }

    /// Digest of the root Directory.
    #[must_use]
    pub fn root_digest(&self, function: DigestFunction) -> Digest {
        function.digest(&self.root)
    }

    /// Every Directory with its digest, the root first. A Directory that occurs twice comes twice.
    pub fn directories(&self, function: DigestFunction) -> impl Iterator<Item = (Digest, &Bytes)> {
        std::iter::once(&self.root).chain(&self.children).map(move |bytes| (function.digest(bytes), bytes))
    }
}

/// Shows sizes only.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} directories, {} bytes)", self.children.len() + 1, self.bytes.len())
    }
}
