//! How much of what has changed matters, told once for all actions that have the same directory.

use overlay::{ChangedEntry, InputId, LevelId, NodeKind, Recorded};
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::FxHashMap;

use super::Priming;
use super::inspection::Inspector;
use super::tables::RowId;

/// Verdicts on directories, while what is known of the record stays as it is.
#[derive(Default)]
pub(super) struct Below {
    generation: u64,
    verdicts: FxHashMap<(LevelId, Look), Weight>,
    /// Verdicts on files by their texts.
    texts: FxHashMap<(InputId, Look), Weight>,
}

/// What of the changes is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Look {
    /// What kinds of things they are.
    Kinds,
    /// The texts, too.
    Texts,
    /// The texts, as far as they have been read.
    KnownTexts,
}

/// How much the changes below a directory can matter; the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Files are other files, and include what they included.
    Texts,
    /// As far as is known; some texts are being read.
    Unread,
    /// Files are other files, which include something else.
    Directives,
    /// Something is gone, or is not what it was.
    Kinds,
}

impl Priming {
    /// How much what has changed below a directory matters to a compile. What cannot be read cannot be compared.
    ///
    /// Texts that have to be read are asked for, if they are looked at. `None` where a directory with changes was not
    /// visited.
    pub(super) fn weigh(&mut self, row: RowId, root: LevelId, look: Look) -> Option<Weight> {
        let Self { tables, inspector, workshop, .. } = self;
        let adaptation = &tables[row].adaptation;
        let known = inspector.below.get(&row).filter(|below| below.generation == adaptation.generation());
        if let Some(weight) = known.and_then(|below| below.verdicts.get(&(root, look))) {
            return Some(*weight);
        }
        let mut below = inspector.below.remove(&row).unwrap_or_default();
        if below.generation != adaptation.generation() {
            below = Below { generation: adaptation.generation(), ..Below::default() };
        }
        // A level is done once all below it are: they have smaller rows, so this ends.
        let mut pending = vec![root];
        while let Some(level) = pending.last().copied() {
            let mut weight = Weight::Texts;
            let unweighed = pending.len();
            if !below.verdicts.contains_key(&(level, look)) {
                for entry in adaptation.changed_entries(level) {
                    weight = weight.max(match entry {
                        ChangedEntry::Input { id, name, recorded, now } => match now {
                            Some(Node::File { digest, .. }) if look != Look::Kinds && recorded.kind().is_file() => {
                                match below.texts.get(&(id, look)) {
                                    Some(weight) => *weight,
                                    None => {
                                        let Some(before) = workshop.recorded_file(row, level, name) else {
                                            inspector.below.insert(row, below);
                                            return None;
                                        };
                                        let weight = inspector.compare(before, *digest, look);
                                        if weight == Weight::Unread {
                                            inspector.unread.insert(row);
                                        }
                                        below.texts.insert((id, look), weight);
                                        weight
                                    }
                                }
                            }
                            _ => of_kinds(recorded, now),
                        },
                        ChangedEntry::Level(level) => match below.verdicts.get(&(level, look)) {
                            Some(weight) => *weight,
                            None => {
                                pending.push(level);
                                Weight::Texts
                            }
                        },
                    });
                }
                if pending.len() > unweighed {
                    continue;
                }
                below.verdicts.insert((level, look), weight);
            }
            pending.pop();
        }
        let weight = below.verdicts.get(&(root, look)).copied();
        inspector.below.insert(row, below);
        weight
    }
}

impl Inspector {
    fn compare(&mut self, before: Digest, now: Digest, look: Look) -> Weight {
        let mut directives = |content| match look {
            Look::Texts => self.directives(content),
            Look::Kinds | Look::KnownTexts => self.known_directives(content),
        };
        match (directives(before), directives(now)) {
            (Ok(before), Ok(now)) if *before == *now => Weight::Texts,
            (Ok(_), Ok(_)) | (Err(Some(_)), _) | (_, Err(Some(_))) => Weight::Directives,
            (Err(None), _) | (_, Err(None)) => Weight::Unread,
        }
    }

    /// What was read is no longer being read.
    pub(super) fn forget_unread(&mut self) {
        for row in std::mem::take(&mut self.unread) {
            if let Some(below) = self.below.get_mut(&row) {
                below.verdicts.retain(|_, weight| *weight != Weight::Unread);
                below.texts.retain(|_, weight| *weight != Weight::Unread);
            }
        }
    }
}

/// How much it matters that something is something else, whatever is in it.
fn of_kinds(recorded: &Recorded, now: Option<&Node>) -> Weight {
    match (recorded.kind(), now) {
        (NodeKind::File | NodeKind::Executable, Some(Node::File { .. })) => Weight::Texts,
        (NodeKind::Directory, Some(Node::Directory { .. })) => Weight::Texts,
        _ => Weight::Kinds,
    }
}
