//! What a directory entry is, and where its parts are in the message.

use bytes::Bytes;

use super::RawError;
use super::error::shown;
use super::splice::{
    Value, number_field, put_bytes, put_digest, put_len_like, put_message, put_number, set_digest, set_fields,
};
use super::wire::{DigestSpan, Field, Fields, Span, require_digest};
use crate::Digest;

/// What a name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Node {
    /// A regular file (`FileNode`).
    File {
        /// Digest of the contents.
        digest: Digest,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A subdirectory (`DirectoryNode`).
    Directory {
        /// Digest of its Directory message.
        digest: Digest,
    },
    /// A symbolic link (`SymlinkNode`).
    Symlink {
        /// What it points at, relative to the directory that holds it or absolute; not normalised.
        target: Bytes,
    },
}

impl Node {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::File,
            Self::Directory { .. } => Kind::Directory,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// Appends a canonical entry: the field of the Directory with this node under `name`.
    pub(super) fn encode(&self, out: &mut Vec<u8>, name: &[u8]) {
        put_message(out, self.kind().field(), |out| {
            put_bytes(out, 1, name);
            match self {
                Self::File { digest, executable } => {
                    put_digest(out, 2, digest);
                    put_number(out, 4, u64::from(*executable));
                }
                Self::Directory { digest } => put_digest(out, 2, digest),
                Self::Symlink { target } => put_bytes(out, 2, target),
            }
        });
    }
}

/// The list of a Directory that an entry is in; ordered as the lists are in the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
}

impl Kind {
    pub(super) const fn field(self) -> u32 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
        }
    }

    pub(super) const fn from_field(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::File),
            2 => Some(Self::Directory),
            3 => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// One entry of a Directory message: where it is and what it says. Digests
/// are read when they are asked for: an index of a whole tree takes half the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The whole entry, with tag and length.
    pub(super) span: Span,
    pub(super) name: Span,
    pub(super) value: SlotValue,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SlotValue {
    File { digest: DigestSpan, executable: bool },
    Directory { digest: DigestSpan },
    Symlink { target: Span },
}

/// Reads an entry as every client writes it, field by field in order.
struct Plain<'a> {
    message: &'a [u8],
    pos: usize,
}

impl Plain<'_> {
    /// The payload of the field that begins with this tag, if it is here and short.
    fn payload(&mut self, tag: u8, end: usize) -> Option<Span> {
        let [found, len, ..] = *self.message.get(self.pos..end)? else { return None };
        let start = self.pos + 2;
        let stop = start + usize::from(len);
        if found != tag || len >= 0x80 || stop > end {
            return None;
        }
        self.pos = stop;
        Some(Span::new(start, stop))
    }

    /// The number behind this tag, or 0 at the end.
    fn number(&mut self, tag: u8, end: usize) -> Option<u64> {
        if self.pos == end {
            return Some(0);
        }
        let (found, digits) = self.message.get(self.pos..end)?.split_first()?;
        if *found != tag {
            return None;
        }
        let mut value = 0;
        for (i, byte) in digits.iter().take(9).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.pos += i + 2;
                return Some(value);
            }
        }
        None
    }

    fn digest(&mut self, end: usize) -> Option<DigestSpan> {
        let nested = self.payload(0x12, end)?.range();
        self.pos = nested.start;
        let hash = self.payload(0x0a, nested.end)?;
        let size_bytes = self.number(0x10, nested.end)?;
        let is_whole = self.pos == nested.end;
        DigestSpan::of(self.message, hash, size_bytes).filter(|_| is_whole)
    }
}

impl Slot {
    /// Reads one entry: `field` of the Directory `message`.
    pub(super) fn parse(message: &[u8], kind: Kind, field: &Field) -> Result<Self, RawError> {
        match Self::parse_plain(message, kind, field) {
            Some(slot) => Ok(slot),
            None => Self::parse_any(message, kind, field),
        }
    }

    /// `None` for whatever is not as usual, be it legal or not.
    fn parse_plain(message: &[u8], kind: Kind, field: &Field) -> Option<Self> {
        let range = field.payload().ok()?.range();
        let end = range.end;
        let mut plain = Plain { message, pos: range.start };
        let name = plain.payload(0x0a, end)?;
        check_name(name.of(message)).ok()?;
        let value = match kind {
            Kind::File => {
                let digest = plain.digest(end)?;
                SlotValue::File { digest, executable: plain.number(0x20, end)? != 0 }
            }
            Kind::Directory => SlotValue::Directory { digest: plain.digest(end)? },
            Kind::Symlink => SlotValue::Symlink { target: plain.payload(0x12, end)? },
        };
        (plain.pos == end).then_some(Self { span: field.whole(), name, value })
    }

    fn parse_any(message: &[u8], kind: Kind, field: &Field) -> Result<Self, RawError> {
        let mut fields = Fields::within(message, field.payload()?);
        let (mut name, mut second, mut executable, mut properties) = (None, None, None, None);
        while let Some(field) = fields.next()? {
            match (field.number, kind) {
                (1, _) => field.only(&mut name, "the name of an entry")?,
                (2, Kind::File | Kind::Directory) => field.only(&mut second, "the digest of an entry")?,
                (2, Kind::Symlink) => field.only(&mut second, "the target of a symlink")?,
                (4, Kind::File) => field.only(&mut executable, "is_executable")?,
                (6, Kind::File) | (4, Kind::Symlink) => field.only(&mut properties, "node_properties")?,
                _ => {}
            }
        }
        let payload = |field: Option<Field>| field.map_or(Ok(Span::default()), |field| field.payload());
        let name = payload(name)?;
        check_name(name.of(message))?;
        let digest = || Ok::<_, RawError>(require_digest(message, second, name.of(message))?.1);
        let value = match kind {
            Kind::File => SlotValue::File {
                digest: digest()?,
                executable: executable.map_or(Ok(0), |field: Field| field.number_value())? != 0,
            },
            Kind::Directory => SlotValue::Directory { digest: digest()? },
            Kind::Symlink => SlotValue::Symlink { target: payload(second)? },
        };
        Ok(Self { span: field.whole(), name, value })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.value {
            SlotValue::File { .. } => Kind::File,
            SlotValue::Directory { .. } => Kind::Directory,
            SlotValue::Symlink { .. } => Kind::Symlink,
        }
    }

    pub(super) fn node(&self, message: &Bytes) -> Node {
        match self.value {
            SlotValue::File { digest, executable } => Node::File { digest: digest.digest(message), executable },
            SlotValue::Directory { digest } => Node::Directory { digest: digest.digest(message) },
            SlotValue::Symlink { target } => Node::Symlink { target: message.slice(target.range()) },
        }
    }

    /// Writes another digest over the one of this entry in a copy of its message; `false`, with nothing written,
    /// unless everything keeps its length.
    pub(super) fn overwrite(&self, message: &mut [u8], node: &Node) -> bool {
        let (old, new) = match (&self.value, node) {
            (SlotValue::File { digest: old, executable: was }, Node::File { digest, executable })
                if was == executable =>
            {
                (old, digest)
            }
            (SlotValue::Directory { digest: old }, Node::Directory { digest }) => (old, digest),
            _ => return false,
        };
        let hash = old.hash().range();
        let mut size = [0; 11];
        let size = number_field(&mut size, 2, new.size_bytes());
        let mut old_size = [0; 11];
        let old_size = number_field(&mut old_size, 2, old.size_bytes());
        let behind = hash.end..hash.end + old_size.len();
        // A size of 0 is not written. One that stands elsewhere is not found here: no other field of these
        // messages begins with this byte.
        let same_lengths = hash.len() == new.function().hash_bytes() * 2 && size.len() == old_size.len();
        let both_sizes = old.size_bytes() > 0 && new.size_bytes() > 0;
        if !same_lengths || !both_sizes || message.get(behind.clone()) != Some(old_size) {
            return false;
        }
        message[hash].copy_from_slice(new.hex().as_bytes());
        message[behind].copy_from_slice(size);
        true
    }

    /// The whole entry with `node`, which is of the same kind, in place of what it says.
    pub(super) fn set(&self, message: &[u8], node: &Node) -> Result<Vec<u8>, RawError> {
        let unchanged = || self.span.of(message).to_vec();
        let Some(entry) = Fields::within(message, self.span).next()? else { return Ok(unchanged()) };
        let inner = entry.payload()?;
        let payload = match (&self.value, node) {
            (SlotValue::File { digest: old, executable: was }, Node::File { digest, executable }) => {
                let new_digest = self.digest_payload(message, inner, digest)?;
                let mut changes = Vec::with_capacity(2);
                if old.digest(message) != *digest {
                    changes.push((2, Value::Len(&new_digest)));
                }
                if was != executable {
                    changes.push((4, Value::Number(u64::from(*executable))));
                }
                set_fields(message, inner, &changes)?
            }
            (SlotValue::Directory { digest: old }, Node::Directory { digest }) if old.digest(message) != *digest => {
                let new_digest = self.digest_payload(message, inner, digest)?;
                set_fields(message, inner, &[(2, Value::Len(&new_digest))])?
            }
            (SlotValue::Symlink { target: old }, Node::Symlink { target }) if old.of(message) != target => {
                set_fields(message, inner, &[(2, Value::Len(target))])?
            }
            _ => return Ok(unchanged()),
        };
        let mut out = Vec::with_capacity(payload.len() + 6);
        put_len_like(&mut out, message, &entry, &payload);
        Ok(out)
    }

    /// The edited payload of the digest inside the node.
    fn digest_payload(&self, message: &[u8], node: Span, digest: &Digest) -> Result<Vec<u8>, RawError> {
        let mut fields = Fields::within(message, node);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                return set_digest(message, field.payload()?, digest);
            }
        }
        let name = self.name.of(message);
        Err(RawError::Digest(shown(name), crate::DigestError::Absent))
    }
}

/// Refuses names that do not name a file in a directory: `FileNode.name` and its kin are one path segment.
pub(super) fn check_name(name: &[u8]) -> Result<(), RawError> {
    let reason = match name {
        b"" => "it is empty",
        b"." | b".." => "it means a directory on the way",
        _ if name.iter().any(|byte| matches!(byte, b'/' | 0)) => "it contains a slash or a zero byte",
        _ => return Ok(()),
    };
    Err(RawError::BadName(shown(name), reason))
}
