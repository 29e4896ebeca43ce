//! Setting one field of any message.

use bytes::Bytes;

use super::RawError;
use super::splice::{Patch, apply, put_len_field, put_len_like};
use super::wire::{Fields, check_size};

/// `bytes` with one top-level length-delimited field replaced, inserted or
/// (`None`) removed; every other byte is kept.
///
/// A new field goes behind the last field with a smaller number. Removing an
/// absent field changes nothing. The result is `bytes` itself if nothing changes.
///
/// # Errors
/// [`RawError`] if `bytes` is not a message; [`RawError::NotCanonical`] if the
/// field occurs more than once, [`RawError::WireType`] if it has another type,
/// [`RawError::Edit`] if there cannot be a field of that number.
pub fn set_message_field(bytes: &Bytes, field: u32, value: Option<&[u8]>) -> Result<Bytes, RawError> {
    check_size(bytes)?;
    if !(1..1 << 29).contains(&field) {
        return Err(RawError::Edit(format!("{field} is not a field number")));
    }
    let (mut old, mut insert_at) = (None, 0);
    let mut fields = Fields::of(bytes);
    while let Some(found) = fields.next()? {
        if found.number == field {
            if old.replace(found).is_some() {
                return Err(RawError::NotCanonical(format!("field {field} occurs more than once")));
            }
        } else if found.number < field {
            insert_at = found.whole().range().end;
        }
    }
    if let Some(old) = old {
        old.payload()?;
    }
    let mut with = Vec::with_capacity(value.map_or(0, <[u8]>::len) + 10);
    let range = match (&old, value) {
        (Some(old), Some(value)) => {
            put_len_like(&mut with, bytes, old, value);
            old.whole().range()
        }
        (Some(old), None) => old.whole().range(),
        (None, Some(value)) => {
            put_len_field(&mut with, field, value);
            insert_at..insert_at
        }
        (None, None) => return Ok(bytes.clone()),
    };
    apply(bytes, &[Patch { range, with }])
}
