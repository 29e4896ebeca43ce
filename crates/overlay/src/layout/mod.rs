//! The two forms of a stored `SpeculativeActions` message.
//!
//! The *reference layout* repeats, for every action, an overlay per origin and
//! input digest; it knows neither paths of inputs nor anything but files. The
//! *compact layout* stores the tables of a [`Record`] in a field of its own.
//! Compact messages list the same actions without overlays, which tells a
//! reader of the reference layout that nothing about them is to be replaced.
//!
//! The compact layout keeps whole digests only where they are needed: a record that is decoded has a
//! [`Stamp`](crate::Stamp) of most inputs. Its first version kept them all and did not pack the tables; it is still read.

mod compact;
mod packed;
mod reference;

use bytes::Bytes;
use prost::Message;
use reapi_proto::buildstream::SpeculativeActions;
use reapi_proto::buildstream::speculative_actions::SpeculativeAction;
use reapi_proto::{Digest, DigestError, bst_sa};

use crate::model::{Record, RecordedAction};
pub use reference::{ReferenceAction, ReferenceOrigin, ReferenceOverlay, ReferenceRecord, Upgraded};

/// The version of the compact layout that is written.
const VERSION: u32 = 2;

/// What a message turned out to be.
#[derive(Clone, Debug)]
pub enum Stored {
    /// The compact layout.
    Compact(Box<Record>),
    /// The reference layout; see [`ReferenceRecord::upgrade`].
    Reference(ReferenceRecord),
}

/// Why bytes are not a usable message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not a `SpeculativeActions` message at all.
    #[error("not a SpeculativeActions message: {0}")]
    Malformed(String),
    /// Written by a later version of this library.
    #[error(
        "compact layout version {0} is not one that this library reads (1 to {VERSION}): update it, or record again"
    )]
    Version(u32),
    /// A digest in it is none.
    #[error("{what}: {reason}")]
    Digest {
        /// Where it stands.
        what: String,
        /// What is wrong with it.
        reason: DigestError,
    },
    /// The tables contradict themselves.
    #[error("inconsistent table: {0}")]
    Inconsistent(String),
}

/// Reads a message of either layout.
///
/// # Errors
/// [`LayoutError`]; a value that is returned has no dangling reference. Takes
/// memory in proportion to the message, whatever it claims: packed tables that are
/// more than 32 times as large as what they were packed to, and 64 kB, are refused.
pub fn decode(bytes: &[u8]) -> Result<Stored, LayoutError> {
    let mut message = SpeculativeActions::decode(bytes).map_err(|e| LayoutError::Malformed(e.to_string()))?;
    match message.compact.take() {
        Some(table) => {
            let record = match table.version {
                1 => compact::decode(bases(&message)?, &table)?,
                VERSION => compact::decode(bases(&message)?, &packed::unpack(table)?)?,
                other => return Err(LayoutError::Version(other)),
            };
            Ok(Stored::Compact(Box::new(record)))
        }
        None => Ok(Stored::Reference(ReferenceRecord::from_message(&message)?)),
    }
}

/// Writes the compact layout.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    let table = bst_sa::Record { version: VERSION, ..packed::pack(compact::encode(record)) };
    let listed = |action: &RecordedAction| SpeculativeAction {
        base_action_digest: Some((&action.base).into()),
        overlays: Vec::new(),
    };
    let actions = record.actions.iter().map(listed).collect();
    SpeculativeActions { actions, compact: Some(table), ..Default::default() }.encode_to_vec().into()
}

fn bases(message: &SpeculativeActions) -> Result<Vec<Digest>, LayoutError> {
    let digests = message.actions.iter().enumerate().map(|(i, action)| {
        Digest::try_from(action.base_action_digest.as_ref())
            .map_err(|reason| LayoutError::Digest { what: format!("base_action_digest of action {i}"), reason })
    });
    digests.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use reapi_proto::DigestFunction;
    use reapi_proto::raw::Node;

    use super::*;
    use crate::{Origin, Recorded};

    /// One action with `src/a.c` from the sources and `usr/lib` from an artifact, as the first version had it.
    fn first_version(function: DigestFunction) -> SpeculativeActions {
        let (base, file, directory) = (function.digest(b"base"), function.digest(b"a.c"), function.digest(b"lib"));
        let table = bst_sa::Record {
            version: 1,
            digest_function: function.wire_value(),
            elements: ["", "lib.bst"].map(|name| bst_sa::Element { name: name.into(), ..Default::default() }).into(),
            names: ["src", "a.c", "usr", "lib"].map(Bytes::from).into(),
            path_parents: vec![0, 1, 0, 3],
            path_names: vec![1, 2, 3, 4],
            origin_kinds: vec![0, 1],
            origin_elements: vec![0, 1],
            origin_paths: vec![2, 4],
            input_kinds: vec![0, 2],
            input_hashes: [file.hash(), directory.hash()].concat().into(),
            input_sizes: vec![file.size_bytes(), directory.size_bytes()],
            input_origin_counts: vec![1, 1],
            input_origins: vec![0, 1],
            level_entry_counts: vec![1, 1, 2],
            level_entry_names: vec![2, 4, 1, 3],
            level_entries: vec![0, 2, 5, 3],
            action_elements: vec![0],
            action_roots: vec![3],
            action_durations: vec![0],
            action_output_bytes: vec![0],
            action_property_counts: vec![0],
            ..Default::default()
        };
        let action = SpeculativeAction { base_action_digest: Some((&base).into()), overlays: Vec::new() };
        SpeculativeActions { actions: vec![action], compact: Some(table), ..Default::default() }
    }

    fn decoded(bytes: &[u8]) -> Box<Record> {
        match decode(bytes) {
            Ok(Stored::Compact(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_version_is_read_and_what_is_written_means_the_same() {
        for function in DigestFunction::ALL {
            let record = decoded(&first_version(function).encode_to_vec());
            assert_eq!(record.actions[0].base, function.digest(b"base"));
            let file = Node::File { digest: function.digest(b"a.c"), executable: false };
            assert_eq!(record.inputs[0].recorded, Recorded::Whole(file.clone()));
            assert!(matches!(record.origins[1], Origin::Artifact { .. }));

            let again = decoded(&encode(&record));
            assert_eq!(again.levels, record.levels);
            assert_eq!(again.actions, record.actions);
            assert_eq!(again.origins, record.origins);
            for (again, input) in again.inputs.iter().zip(&record.inputs) {
                assert_eq!(again.recorded, input.recorded.shortened());
                assert_eq!(again.recorded.whole(), None);
            }
            assert!(again.inputs[0].recorded.is(&file));
            assert!(!again.inputs[0].recorded.is(&Node::File { digest: function.digest(b"b.c"), executable: false }));
            assert!(!again.inputs[0].recorded.is(&Node::File { digest: function.digest(b"a.c"), executable: true }));
        }
    }

    #[test]
    fn the_first_version_lists_its_actions_beside_the_tables() {
        let mut message = first_version(DigestFunction::Sha256);
        message.actions.clear();
        assert!(matches!(decode(&message.encode_to_vec()), Err(LayoutError::Inconsistent(_))));
    }

    #[test]
    fn later_versions_are_refused() {
        let mut message = first_version(DigestFunction::Sha256);
        message.compact.as_mut().unwrap().version = VERSION + 1;
        assert_eq!(decode(&message.encode_to_vec()).map(|_| ()), Err(LayoutError::Version(VERSION + 1)));
    }
}
