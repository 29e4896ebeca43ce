//! What inputs were when they were recorded.

use std::fmt;

use reapi_proto::raw::Node;

/// What stood at a place of an input tree, or in a platform property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// In full.
    Whole(Node),
    /// Enough to tell whether something else is the same. The recorded input tree says the rest.
    Stamp(Stamp),
}

impl Recorded {
    /// Whether this stood there.
    #[must_use]
    pub fn is(&self, node: &Node) -> bool {
        match self {
            Self::Whole(recorded) => recorded == node,
            Self::Stamp(stamp) => Stamp::of(node) == Some(*stamp),
        }
    }

    /// What stood there, if that is known in full.
    #[must_use]
    pub fn whole(&self) -> Option<&Node> {
        match self {
            Self::Whole(node) => Some(node),
            Self::Stamp(_) => None,
        }
    }

    /// What kind of thing it was.
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        match self {
            Self::Whole(node) => NodeKind::of(node),
            Self::Stamp(stamp) => stamp.kind,
        }
    }

    /// The same, no longer than it takes to recognise it: symlinks stay as they are.
    #[must_use]
    pub fn shortened(&self) -> Self {
        match self {
            Self::Whole(node) => Stamp::of(node).map_or_else(|| self.clone(), Self::Stamp),
            Self::Stamp(_) => self.clone(),
        }
    }
}

impl From<Node> for Recorded {
    fn from(node: Node) -> Self {
        Self::Whole(node)
    }
}

/// What an entry of a directory can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeKind {
    /// A file without the executable bit.
    File,
    /// A file with the executable bit.
    Executable,
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
}

impl NodeKind {
    /// The kind of this.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        match node {
            Node::File { executable: false, .. } => Self::File,
            Node::File { executable: true, .. } => Self::Executable,
            Node::Directory { .. } => Self::Directory,
            Node::Symlink { .. } => Self::Symlink,
        }
    }

    /// Whether it is a file of either kind.
    #[must_use]
    pub fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable)
    }
}

/// A file or directory by its kind and the beginning of its hash.
///
/// For an input that is only compared with what its origins hold, that is enough: something else passes for it once
/// in 2⁶⁴ comparisons, and all that comes of it is one action that is not predicted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    kind: NodeKind,
    hash: [u8; Self::HASH_BYTES],
}

impl Stamp {
    /// How many bytes of the hash it has; every digest function's hashes are longer.
    pub const HASH_BYTES: usize = 8;

    /// The stamp of a file or directory; `None` for a symlink.
    #[must_use]
    pub fn of(node: &Node) -> Option<Self> {
        let (Node::File { digest, .. } | Node::Directory { digest }) = node else { return None };
        Some(Self { kind: NodeKind::of(node), hash: *digest.hash().first_chunk()? })
    }

    /// The beginning of the hash.
    #[must_use]
    pub fn hash(&self) -> &[u8; Self::HASH_BYTES] {
        &self.hash
    }

    /// The stamp of something of this kind whose hash begins so.
    pub(crate) fn new(kind: NodeKind, hash: [u8; Self::HASH_BYTES]) -> Self {
        Self { kind, hash }
    }
}

/// The beginning of the hash, in hex.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
