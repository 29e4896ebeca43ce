//! A Directory message: strict, canonical, and kept as it was written.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::error::shown;
use super::node::{Kind, Slot, SlotValue, check_name};
use super::wire::{Fields, check_size};
use super::{Node, RawEntry, RawError};
use crate::Digest;

/// Bytes of the shortest entry with a digest. Hardly any symlink is shorter.
const LEAST_ENTRY_BYTES: usize = 75;

/// A canonical Directory message, as its bytes and an index of its entries.
///
/// Clones share both. Equality is that of the bytes, hence of the digest.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    /// In the order of the message: files, directories, symlinks; adjacent, from byte 0 on.
    slots: Vec<Slot>,
    files: usize,
    directories: usize,
}

/// One entry of a [`Directory`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The name: one path segment, not necessarily UTF-8.
    pub name: &'a [u8],
    /// What it stands for.
    pub node: Node,
}

impl Directory {
    /// Reads a Directory message.
    ///
    /// Accepts only the canonical form that the specification demands of a
    /// Directory: names of one segment, unique across files, directories and
    /// symlinks, each list sorted by the bytes of its names, fields in
    /// ascending order, every digest present and well formed. Unknown fields
    /// are accepted and kept, here and in entries; so are names that are not
    /// UTF-8. Symlink targets are not judged.
    ///
    /// # Errors
    /// [`RawError`], naming the entry.
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let mut slots: Vec<Slot> = Vec::with_capacity(bytes.len() / LEAST_ENTRY_BYTES);
        let (mut files, mut directories, mut properties) = (0, 0, None);
        let mut last = 0;
        let mut fields = Fields::of(&bytes);
        while let Some(field) = fields.next()? {
            if field.number < last {
                let reason = format!("field {} of the directory stands behind field {last}", field.number);
                return Err(RawError::NotCanonical(reason));
            }
            if let Some(kind) = Kind::from_field(field.number) {
                let slot = Slot::parse(&bytes, kind, &field)?;
                if field.number == last
                    && let Some(previous) = slots.last()
                {
                    check_order(previous.name.of(&bytes), slot.name.of(&bytes))?;
                }
                match kind {
                    Kind::File => files += 1,
                    Kind::Directory => directories += 1,
                    Kind::Symlink => {}
                }
                slots.push(slot);
            } else if field.number == 5 {
                field.only(&mut properties, "node_properties of the directory")?;
            }
            last = field.number;
        }
        let directory = Self(Arc::new(Inner { bytes, slots, files, directories }));
        directory.check_unique()?;
        Ok(directory)
    }

    /// Merges the three sorted lists to find names that are in two of them.
    fn check_unique(&self) -> Result<(), RawError> {
        let Inner { bytes, slots, files, directories } = &*self.0;
        let (files, rest) = slots.split_at(*files);
        let (directories, symlinks) = rest.split_at(*directories);
        for (a, b) in [(files, directories), (files, symlinks), (directories, symlinks)] {
            let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
            while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
                let name = x.name.of(bytes);
                match name.cmp(y.name.of(bytes)) {
                    Ordering::Less => drop(a.next()),
                    Ordering::Greater => drop(b.next()),
                    Ordering::Equal => return Err(RawError::Duplicate(shown(name))),
                }
            }
        }
        Ok(())
    }

    /// The subdirectories of a message that [`parse`](Self::parse) would accept, for whoever looks at nothing else.
    /// Of any other message, some of what it may mean.
    pub fn subdirectories(message: &Bytes) -> impl Iterator<Item = Digest> {
        let mut fields = Fields::of(message);
        std::iter::from_fn(move || {
            while let Ok(Some(field)) = fields.next() {
                if field.number == Kind::Directory.field()
                    && let Ok(Slot { value: SlotValue::Directory { digest }, .. }) =
                        Slot::parse(message, Kind::Directory, &field)
                {
                    return Some(digest.digest(message));
                }
            }
            None
        })
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// How many entries it has, of all kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.slots.is_empty()
    }

    /// The entries: files, then directories, then symlinks, each sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let bytes = self.bytes();
        self.0.slots.iter().map(move |slot| Entry { name: slot.name.of(bytes), node: slot.node(bytes) })
    }

    /// The subdirectories, sorted by name.
    pub fn directories(&self) -> impl Iterator<Item = (&[u8], Digest)> {
        self.slots_of(Kind::Directory).iter().filter_map(|slot| match slot.value {
            SlotValue::Directory { digest } => Some((slot.name.of(self.bytes()), digest.digest(self.bytes()))),
            _ => None,
        })
    }

    /// How many subdirectories it has.
    #[must_use]
    pub fn directory_count(&self) -> usize {
        self.0.directories
    }

    /// The subdirectory at this place among all, sorted by name.
    #[must_use]
    pub fn directory(&self, index: usize) -> Option<Digest> {
        match self.slots_of(Kind::Directory).get(index)?.value {
            SlotValue::Directory { digest } => Some(digest.digest(self.bytes())),
            _ => None,
        }
    }

    /// What `name` stands for.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<Node> {
        Some(self.find(name)?.node(self.bytes()))
    }

    /// The subdirectory `name`.
    #[must_use]
    pub fn subdirectory(&self, name: &[u8]) -> Option<Digest> {
        match self.slot(Kind::Directory, name)?.value {
            SlotValue::Directory { digest } => Some(digest.digest(self.bytes())),
            _ => None,
        }
    }

    /// The entry `name` as its exact bytes, shared with this message.
    #[must_use]
    pub fn raw_entry(&self, name: &[u8]) -> Option<RawEntry> {
        let slot = self.find(name)?;
        // An entry that was accepted here is accepted on its own.
        RawEntry::parse(self.bytes().slice(slot.span.range())).ok()
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<&Slot> {
        [Kind::File, Kind::Directory, Kind::Symlink].into_iter().find_map(|kind| self.slot(kind, name))
    }

    /// The entry of this kind and name.
    pub(super) fn slot(&self, kind: Kind, name: &[u8]) -> Option<&Slot> {
        self.0.slots.get(self.position(kind, name).ok()?)
    }

    /// Offset in the message at which an entry of this kind and name stands or would stand.
    pub(super) fn insertion_point(&self, kind: Kind, name: &[u8]) -> usize {
        let (Ok(index) | Err(index)) = self.position(kind, name);
        let slots = &self.0.slots;
        match (slots.get(index), slots.last()) {
            (Some(next), _) => next.span.range().start,
            (None, Some(last)) => last.span.range().end,
            (None, None) => 0,
        }
    }

    fn position(&self, kind: Kind, name: &[u8]) -> Result<usize, usize> {
        let start = self.range_of(kind).start;
        self.slots_of(kind)
            .binary_search_by(|slot| slot.name.of(self.bytes()).cmp(name))
            .map(|i| start + i)
            .map_err(|i| start + i)
    }

    fn slots_of(&self, kind: Kind) -> &[Slot] {
        &self.0.slots[self.range_of(kind)]
    }

    fn range_of(&self, kind: Kind) -> Range<usize> {
        let Inner { slots, files, directories, .. } = &*self.0;
        match kind {
            Kind::File => 0..*files,
            Kind::Directory => *files..files + directories,
            Kind::Symlink => files + directories..slots.len(),
        }
    }
}

impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Directory {}

/// Shows sizes only: names belong to somebody's project.
impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} entries, {} bytes)", self.len(), self.bytes().len())
    }
}

/// Encodes a canonical Directory; the entries may come in any order.
///
/// # Errors
/// [`RawError::BadName`] and [`RawError::Duplicate`].
pub fn encode_directory(entries: impl IntoIterator<Item = (Bytes, Node)>) -> Result<Bytes, RawError> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    for pair in entries.windows(2) {
        if let [(a, _), (b, _)] = pair {
            check_order(a, b)?;
        }
    }
    let mut out = Vec::with_capacity(entries.len() * 100);
    for kind in [Kind::File, Kind::Directory, Kind::Symlink] {
        for (name, node) in entries.iter().filter(|(_, node)| node.kind() == kind) {
            check_name(name)?;
            node.encode(&mut out, name);
        }
    }
    check_size(&out)?;
    Ok(out.into())
}

fn check_order(previous: &[u8], next: &[u8]) -> Result<(), RawError> {
    match previous.cmp(next) {
        Ordering::Less => Ok(()),
        Ordering::Equal => Err(RawError::Duplicate(shown(next))),
        Ordering::Greater => Err(RawError::Unsorted(shown(next))),
    }
}
