//! An Action message.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::platform::Platform;
use super::splice::{Patch, apply, put_len_like, set_digest};
use super::wire::{Field, Fields, check_size, require_digest};
use super::{Property, PropertyEdit, RawError};
use crate::Digest;

/// An Action as its bytes and what they say. Fields may stand in any order.
///
/// Clones share both.
#[derive(Clone)]
pub struct Action(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    command: (Field, Digest),
    input_root: (Field, Digest),
    timeout: Option<(i64, i32)>,
    do_not_cache: bool,
    platform: Platform,
}

/// What to change in an [`Action`]; what is `None` or not listed stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ActionEdit {
    /// Digest of another Command.
    pub command_digest: Option<Digest>,
    /// Digest of another root Directory.
    pub input_root_digest: Option<Digest>,
    /// Platform properties with other values.
    pub platform: Vec<PropertyEdit>,
}

impl Action {
    /// Reads an Action message.
    ///
    /// # Errors
    /// [`RawError`]; a singular field that occurs twice is
    /// [`RawError::NotCanonical`], and both digests are required.
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let (mut command, mut input_root, mut timeout) = (None, None, None);
        let (mut do_not_cache, mut salt, mut platform) = (None, None, None);
        let mut fields = Fields::of(&bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => field.only(&mut command, "Action.command_digest")?,
                2 => field.only(&mut input_root, "Action.input_root_digest")?,
                6 => field.only(&mut timeout, "Action.timeout")?,
                7 => field.only(&mut do_not_cache, "Action.do_not_cache")?,
                9 => field.only(&mut salt, "Action.salt")?,
                10 => field.only(&mut platform, "Action.platform")?,
                _ => {}
            }
        }
        let (command, command_digest) = require_digest(&bytes, command, b"Action.command_digest")?;
        let (input_root, input_root_digest) = require_digest(&bytes, input_root, b"Action.input_root_digest")?;
        Ok(Self(Arc::new(Inner {
            command: (command, command_digest.digest(&bytes)),
            input_root: (input_root, input_root_digest.digest(&bytes)),
            timeout: timeout.map(|field| read_duration(&bytes, &field)).transpose()?,
            do_not_cache: do_not_cache.map_or(Ok(0), |field| field.number_value())? != 0,
            platform: Platform::parse(&bytes, platform)?,
            bytes,
        })))
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Digest of the Command.
    #[must_use]
    pub fn command_digest(&self) -> Digest {
        self.0.command.1
    }

    /// Digest of the root Directory of the inputs.
    #[must_use]
    pub fn input_root_digest(&self) -> Digest {
        self.0.input_root.1
    }

    /// Whether the result must not be cached, nor the action merged with an equal one.
    #[must_use]
    pub fn do_not_cache(&self) -> bool {
        self.0.do_not_cache
    }

    /// The time limit as seconds and nanoseconds, as they stand in the message.
    #[must_use]
    pub fn timeout(&self) -> Option<(i64, i32)> {
        self.0.timeout
    }

    /// The platform properties in the order of the message.
    pub fn platform(&self) -> impl Iterator<Item = Property<'_>> {
        self.0.platform.iter(self.bytes())
    }

    /// The message with the edit made; `bytes()` itself if nothing changes.
    ///
    /// # Errors
    /// [`RawError::Edit`] for a platform property that is not there.
    pub fn splice(&self, edit: &ActionEdit) -> Result<Bytes, RawError> {
        let mut patches = Vec::with_capacity(3);
        patches.extend(self.digest_patch(&self.0.command.0, edit.command_digest)?);
        patches.extend(self.digest_patch(&self.0.input_root.0, edit.input_root_digest)?);
        patches.extend(self.0.platform.patch(self.bytes(), &edit.platform)?);
        patches.sort_by_key(|patch| patch.range.start);
        apply(self.bytes(), &patches)
    }

    fn digest_patch(&self, field: &Field, new: Option<Digest>) -> Result<Option<Patch>, RawError> {
        let Some(new) = new else { return Ok(None) };
        let payload = set_digest(self.bytes(), field.payload()?, &new)?;
        let mut with = Vec::with_capacity(payload.len() + 2);
        put_len_like(&mut with, self.bytes(), field, &payload);
        Ok(Some(Patch { range: field.whole().range(), with }))
    }
}

/// Shows the digests.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action(command {}, input root {})", self.0.command.1, self.0.input_root.1)
    }
}

fn read_duration(message: &[u8], field: &Field) -> Result<(i64, i32), RawError> {
    let (mut seconds, mut nanos) = (None, None);
    let mut fields = Fields::within(message, field.payload()?);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => field.only(&mut seconds, "Duration.seconds")?,
            2 => field.only(&mut nanos, "Duration.nanos")?,
            _ => {}
        }
    }
    let number = |field: Option<Field>| field.map_or(Ok(0), |field| field.number_value());
    #[allow(clippy::cast_possible_truncation, reason = "an int32 is its low 32 bits, as in every decoder")]
    let nanos = number(nanos)?.cast_signed() as i32;
    Ok((number(seconds)?.cast_signed(), nanos))
}
