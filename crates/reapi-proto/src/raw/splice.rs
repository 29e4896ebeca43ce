//! The wire format, writing: replacing fields without touching the rest.

use std::ops::Range;

use bytes::Bytes;

use super::RawError;
use super::wire::{Field, Fields, Span, check_size};
use crate::Digest;

/// A new value of a singular field. A default value (0, empty) is expressed by absence.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Len(&'a [u8]),
}

impl Value<'_> {
    fn is_default(&self) -> bool {
        match self {
            Self::Number(n) => *n == 0,
            Self::Len(bytes) => bytes.is_empty(),
        }
    }

    fn is_in(&self, message: &[u8], field: &Field) -> bool {
        match self {
            Self::Number(n) => field.number_value() == Ok(*n),
            Self::Len(bytes) => field.payload().is_ok_and(|span| span.of(message) == *bytes),
        }
    }
}

/// The payload of a nested message with singular fields set.
///
/// `changes` are by ascending field number, each at most once. A field that
/// has its value already keeps its encoding; an absent one is inserted before
/// the first field with a larger number.
pub(super) fn set_fields(message: &[u8], span: Span, changes: &[(u32, Value<'_>)]) -> Result<Vec<u8>, RawError> {
    let mut absent: Vec<_> = changes.iter().filter(|(_, value)| !value.is_default()).collect();
    let mut fields = Fields::within(message, span);
    while let Some(field) = fields.next()? {
        absent.retain(|(number, _)| *number != field.number);
    }
    let mut absent = absent.into_iter().peekable();
    let mut out = Vec::with_capacity(span.range().len() + 16);
    let mut fields = Fields::within(message, span);
    while let Some(field) = fields.next()? {
        while let Some((number, value)) = absent.next_if(|(number, _)| *number < field.number) {
            put_field(&mut out, *number, *value);
        }
        match changes.iter().find(|(number, _)| *number == field.number) {
            Some((_, value)) if !value.is_in(message, &field) => {
                if !value.is_default() {
                    put_value_like(&mut out, message, &field, *value);
                }
            }
            _ => out.extend_from_slice(field.whole().of(message)),
        }
    }
    for (number, value) in absent {
        put_field(&mut out, *number, *value);
    }
    Ok(out)
}

/// The payload of a Digest message with another digest in it.
pub(super) fn set_digest(message: &[u8], span: Span, digest: &Digest) -> Result<Vec<u8>, RawError> {
    let hash = digest.hex();
    set_fields(message, span, &[(1, Value::Len(hash.as_bytes())), (2, Value::Number(digest.size_bytes()))])
}

/// Appends a length-delimited field in place of `old`: same tag bytes, and the
/// same length bytes where the length is the same.
pub(super) fn put_len_like(out: &mut Vec<u8>, message: &[u8], old: &Field, payload: &[u8]) {
    put_value_like(out, message, old, Value::Len(payload));
}

fn put_value_like(out: &mut Vec<u8>, message: &[u8], old: &Field, value: Value<'_>) {
    match value {
        Value::Len(payload) => {
            let header = &message[old.header()];
            if old.payload().is_ok_and(|old| old.range().len() == payload.len()) {
                out.extend_from_slice(header);
            } else {
                out.extend_from_slice(tag_bytes(header));
                put_varint(out, payload.len() as u64);
            }
            out.extend_from_slice(payload);
        }
        Value::Number(number) => {
            out.extend_from_slice(&message[old.header()]);
            put_varint(out, number);
        }
    }
}

/// The first varint of a field header.
fn tag_bytes(header: &[u8]) -> &[u8] {
    let len = header.iter().position(|byte| *byte < 0x80).map_or(header.len(), |last| last + 1);
    &header[..len]
}

fn put_field(out: &mut Vec<u8>, number: u32, value: Value<'_>) {
    match value {
        Value::Number(n) => {
            put_varint(out, u64::from(number) << 3);
            put_varint(out, n);
        }
        Value::Len(payload) => put_len_field(out, number, payload),
    }
}

/// Appends a length-delimited field.
pub(super) fn put_len_field(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Appends a length-delimited field unless it is empty, which is the default.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    if !payload.is_empty() {
        put_len_field(out, number, payload);
    }
}

/// Appends a numeric field unless it is 0, which is the default.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_field(out, number, Value::Number(value));
    }
}

/// Appends a Digest field.
pub(super) fn put_digest(out: &mut Vec<u8>, number: u32, digest: &Digest) {
    put_message(out, number, |out| {
        put_len_field(out, 1, digest.hex().as_bytes());
        put_number(out, 2, digest.size_bytes());
    });
}

/// Appends a nested message, in place.
pub(super) fn put_message(out: &mut Vec<u8>, number: u32, put_fields: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    out.push(0);
    put_fields(out);
    let payload = out.len() - start - 1;
    match u8::try_from(payload) {
        Ok(length) if length < 0x80 => out[start] = length,
        _ => {
            put_varint(out, payload as u64);
            // The length stands before what it is the length of, and nothing between them.
            out[start + 1..].rotate_left(payload);
            out.remove(start);
        }
    }
}

/// A numeric field that may not be absent, in the buffer given.
#[allow(clippy::cast_possible_truncation, reason = "the seven low bits are what is wanted")]
pub(super) fn number_field(out: &mut [u8; 11], number: u8, mut value: u64) -> &[u8] {
    out[0] = number << 3;
    let mut len = 1;
    while value >= 0x80 {
        out[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    out[len] = value as u8;
    &out[..=len]
}

#[allow(clippy::cast_possible_truncation, reason = "the seven low bits are what is wanted")]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes to stand in place of a range of a message.
pub(super) struct Patch {
    pub(super) range: Range<usize>,
    pub(super) with: Vec<u8>,
}

impl Patch {
    pub(super) fn changes(&self, message: &[u8]) -> bool {
        message[self.range.clone()] != self.with
    }
}

/// `message` with patches applied; shares its memory where there is nothing to do.
/// The patches are in ascending order and do not overlap.
pub(super) fn apply(message: &Bytes, patches: &[Patch]) -> Result<Bytes, RawError> {
    if patches.iter().all(|patch| !patch.changes(message)) {
        return Ok(message.clone());
    }
    let removed: usize = patches.iter().map(|patch| patch.range.len()).sum();
    let added: usize = patches.iter().map(|patch| patch.with.len()).sum();
    let mut out = Vec::with_capacity(message.len() - removed + added);
    let mut pos = 0;
    for patch in patches {
        out.extend_from_slice(&message[pos..patch.range.start]);
        out.extend_from_slice(&patch.with);
        pos = patch.range.end;
    }
    out.extend_from_slice(&message[pos..]);
    check_size(&out)?;
    Ok(out.into())
}
