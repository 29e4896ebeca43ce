//! The two forms of a stored `SpeculativeActions` message.
//!
//! The *reference layout* repeats, for every action, an overlay per origin and
//! input digest; it knows neither paths of inputs nor anything but files. The
//! *compact layout* stores the tables of a [`Record`] in a field of its own.
//! Compact messages list the same actions without overlays, which tells a
//! reader of the reference layout that nothing about them is to be replaced.

mod compact;
mod reference;

use bytes::Bytes;
use prost::Message;
use reapi_proto::buildstream::SpeculativeActions;
use reapi_proto::{Digest, DigestError};

use crate::model::Record;
pub use reference::{ReferenceAction, ReferenceOrigin, ReferenceOverlay, ReferenceRecord, Upgraded};

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
    #[error("compact layout version {0} is not one that this library reads ({known}): update it, or record again", known = compact::VERSION)]
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
/// memory in proportion to the message, whatever it claims.
pub fn decode(bytes: &[u8]) -> Result<Stored, LayoutError> {
    let mut message = SpeculativeActions::decode(bytes).map_err(|e| LayoutError::Malformed(e.to_string()))?;
    match message.compact.take() {
        Some(table) => Ok(Stored::Compact(Box::new(compact::decode(&bases(&message)?, &table)?))),
        None => Ok(Stored::Reference(ReferenceRecord::from_message(&message)?)),
    }
}

/// Writes the compact layout.
#[must_use]
pub fn encode(record: &Record) -> Bytes {
    compact::encode(record).encode_to_vec().into()
}

fn bases(message: &SpeculativeActions) -> Result<Vec<Digest>, LayoutError> {
    let digests = message.actions.iter().enumerate().map(|(i, action)| {
        Digest::try_from(action.base_action_digest.as_ref())
            .map_err(|reason| LayoutError::Digest { what: format!("base_action_digest of action {i}"), reason })
    });
    digests.collect()
}
