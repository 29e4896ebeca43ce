//! Editing a Directory on the wire.

use bytes::Bytes;

use super::error::shown;
use super::node::{Kind, Slot, check_name};
use super::splice::{Patch, apply};
use super::{Directory, Node, RawEntry, RawError};

/// What happens to one name of a [`Directory`].
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Edit {
    /// The name stands for this node from now on. An entry of the same kind
    /// keeps everything else it says (properties, unknown fields, order).
    Set(Node),
    /// The name's entry is exactly this one.
    Raw(RawEntry),
    /// The name is gone; it must be there.
    Remove,
}

impl Directory {
    /// The message with entries replaced, added and removed. The edits are
    /// sorted by name, each name once; names without an edit keep their bytes,
    /// as does everything behind the entries.
    ///
    /// The result is canonical again, and is `bytes()` itself if nothing changes.
    ///
    /// # Errors
    /// [`RawError::Edit`] for edits that are not sorted, a [`RawEntry`] of
    /// another name, or the removal of a name that is absent;
    /// [`RawError::BadName`] for a new name that no entry may have.
    pub fn splice(&self, edits: &[(impl AsRef<[u8]>, Edit)]) -> Result<Bytes, RawError> {
        check_edits(edits)?;
        if let Some(bytes) = self.overwritten(edits) {
            return Ok(bytes);
        }
        let mut patches = Vec::with_capacity(edits.len());
        for (name, edit) in edits {
            self.patches(name.as_ref(), edit, &mut patches)?;
        }
        // Lists follow each other in the message, so this is the order of the offsets too; within a list the edits
        // have it already.
        patches.sort_by_key(|(kind, _)| *kind);
        let patches: Vec<_> = patches.into_iter().map(|(_, patch)| patch).collect();
        apply(self.bytes(), &patches)
    }

    /// What nearly every splice is: other digests of the same length, in a copy.
    fn overwritten(&self, edits: &[(impl AsRef<[u8]>, Edit)]) -> Option<Bytes> {
        let mut copy = None;
        for (name, edit) in edits {
            let Edit::Set(node) = edit else { return None };
            let slot = self.slot(node.kind(), name.as_ref())?;
            let copy = copy.get_or_insert_with(|| self.bytes().to_vec());
            if !slot.overwrite(copy, node) {
                return None;
            }
        }
        let copy = copy?;
        // What changes nothing shares the memory.
        Some(if copy == *self.bytes() { self.bytes().clone() } else { copy.into() })
    }

    /// The edits that turn the result of `splice(edits)` back into exactly these bytes.
    ///
    /// # Errors
    /// As [`splice`](Self::splice).
    pub fn inverse(&self, edits: &[(Bytes, Edit)]) -> Result<Vec<(Bytes, Edit)>, RawError> {
        check_edits(edits)?;
        let mut inverse = Vec::with_capacity(edits.len());
        let mut patches = Vec::new();
        for (name, edit) in edits {
            patches.clear();
            self.patches(name, edit, &mut patches)?;
            if !patches.is_empty() {
                let back = self.raw_entry(name).map_or(Edit::Remove, Edit::Raw);
                inverse.push((name.clone(), back));
            }
        }
        Ok(inverse)
    }

    /// What one edit changes in the bytes; nothing if nothing.
    fn patches(&self, name: &[u8], edit: &Edit, patches: &mut Vec<(Kind, Patch)>) -> Result<(), RawError> {
        let old = self.find(name);
        let (kind, with) = match (edit, old) {
            (Edit::Remove, None) => return Err(RawError::Edit(format!("{:?} is not there to remove", shown(name)))),
            (Edit::Remove, Some(old)) => {
                patches.push(removal(old));
                return Ok(());
            }
            (Edit::Raw(entry), _) if entry.name() != name => {
                let (entry, name) = (shown(entry.name()), shown(name));
                return Err(RawError::Edit(format!("the entry for {name:?} is one of {entry:?}")));
            }
            (Edit::Raw(entry), _) => (entry.kind(), entry.bytes().to_vec()),
            (Edit::Set(node), Some(old)) if old.kind() == node.kind() => (node.kind(), old.set(self.bytes(), node)?),
            (Edit::Set(node), _) => {
                check_name(name)?;
                let mut entry = Vec::with_capacity(name.len() + 96);
                node.encode(&mut entry, name);
                (node.kind(), entry)
            }
        };
        let range = match old {
            Some(old) if old.kind() == kind => old.span.range(),
            _ => {
                patches.extend(old.map(removal));
                let at = self.insertion_point(kind, name);
                at..at
            }
        };
        let patch = Patch { range, with };
        if patch.changes(self.bytes()) {
            patches.push((kind, patch));
        }
        Ok(())
    }
}

fn removal(slot: &Slot) -> (Kind, Patch) {
    (slot.kind(), Patch { range: slot.span.range(), with: Vec::new() })
}

fn check_edits(edits: &[(impl AsRef<[u8]>, Edit)]) -> Result<(), RawError> {
    match edits.windows(2).find(|pair| pair[0].0.as_ref() >= pair[1].0.as_ref()) {
        None => Ok(()),
        Some(pair) => {
            Err(RawError::Edit(format!("edits are not sorted by unique name at {:?}", shown(pair[1].0.as_ref()))))
        }
    }
}
