//! The wire format: finding fields, and replacing them without touching the rest.

use std::ops::Range;

use bytes::Bytes;

use super::RawError;
use crate::{Digest, DigestError};

/// The limit that every protobuf implementation shares. Offsets fit `u32` below it.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;
/// How deep groups may nest in an unknown field, as in other implementations.
const MAX_GROUP_DEPTH: usize = 100;

/// Refuses what is too long for any protobuf implementation.
pub(super) fn check_size(bytes: &[u8]) -> Result<(), RawError> {
    if bytes.len() > MAX_MESSAGE_BYTES { Err(RawError::TooLarge(bytes.len())) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WireType {
    Varint,
    Len,
    /// Fixed-width numbers and groups: nothing here reads them, they are only kept.
    Other,
}

/// One field; offsets are those of the whole message, also for fields of nested messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    wire_type: WireType,
    /// Offset of the tag.
    pub(super) start: usize,
    /// Offset of the payload, behind tag and length.
    pub(super) value: usize,
    pub(super) end: usize,
    varint: u64,
}

impl Field {
    /// The whole field: tag, length and payload.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The payload of a length-delimited field.
    pub(super) fn payload(&self) -> Result<Span, RawError> {
        match self.wire_type {
            WireType::Len => Ok(Span::new(self.value, self.end)),
            _ => Err(self.wrong_type()),
        }
    }

    /// The number in a varint field.
    pub(super) fn number_value(&self) -> Result<u64, RawError> {
        match self.wire_type {
            WireType::Varint => Ok(self.varint),
            _ => Err(self.wrong_type()),
        }
    }

    fn wrong_type(&self) -> RawError {
        RawError::WireType { field: self.number, at: self.start }
    }

    /// Notes the only occurrence of a singular field.
    ///
    /// Decoders let the last occurrence win or merge them; there is no edit
    /// that every reader would understand alike, and no encoder writes two.
    pub(super) fn only(self, slot: &mut Option<Self>, name: &'static str) -> Result<(), RawError> {
        match slot.replace(self) {
            None => Ok(()),
            Some(_) => Err(RawError::NotCanonical(format!("{name} occurs more than once"))),
        }
    }
}

/// A range of a message, half the size of `Range<usize>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[allow(clippy::cast_possible_truncation, reason = "parsers refuse messages above MAX_MESSAGE_BYTES")]
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of the span; `message` is the one it was found in.
    pub(super) fn of(self, message: &[u8]) -> &[u8] {
        &message[self.range()]
    }
}

/// Reads the fields of a message one by one.
pub(super) struct Fields<'a> {
    message: &'a [u8],
    pos: usize,
}

impl<'a> Fields<'a> {
    /// The fields of a whole message.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { message, pos: 0 }
    }

    /// The fields of a nested message.
    pub(super) fn within(message: &'a [u8], span: Span) -> Self {
        let Range { start, end } = span.range();
        Self { message: &message[..end], pos: start }
    }

    /// The next field, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field>, RawError> {
        if self.pos >= self.message.len() {
            return Ok(None);
        }
        let start = self.pos;
        let (number, bits) = self.tag()?;
        let mut field = Field { number, wire_type: WireType::Other, start, value: self.pos, end: self.pos, varint: 0 };
        match bits {
            0 => {
                field.wire_type = WireType::Varint;
                field.varint = self.varint()?;
            }
            2 => {
                field.wire_type = WireType::Len;
                let len = self.varint()?;
                field.value = self.pos;
                self.skip(start, len)?;
            }
            _ => self.skip_other(start, number, bits)?,
        }
        field.end = self.pos;
        Ok(Some(field))
    }

    fn tag(&mut self) -> Result<(u32, u64), RawError> {
        let at = self.pos;
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 && tag >> 3 <= MAX_FIELD_NUMBER => Ok((number, tag & 7)),
            _ => Err(RawError::BadTag(at)),
        }
    }

    fn skip(&mut self, field_start: usize, len: u64) -> Result<(), RawError> {
        let end = usize::try_from(len).ok().and_then(|len| self.pos.checked_add(len));
        match end {
            Some(end) if end <= self.message.len() => {
                self.pos = end;
                Ok(())
            }
            _ => Err(RawError::Truncated(field_start)),
        }
    }

    fn skip_other(&mut self, start: usize, number: u32, bits: u64) -> Result<(), RawError> {
        match bits {
            1 => self.skip(start, 8),
            5 => self.skip(start, 4),
            3 => self.skip_group(start, number),
            _ => Err(RawError::BadTag(start)),
        }
    }

    fn skip_group(&mut self, start: usize, number: u32) -> Result<(), RawError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let at = self.pos;
            if at >= self.message.len() {
                return Err(RawError::Truncated(start));
            }
            let (number, bits) = self.tag()?;
            match bits {
                0 => drop(self.varint()?),
                2 => {
                    let len = self.varint()?;
                    self.skip(at, len)?;
                }
                3 if open.len() < MAX_GROUP_DEPTH => open.push(number),
                4 if number == innermost => drop(open.pop()),
                1 => self.skip(at, 8)?,
                5 => self.skip(at, 4)?,
                _ => return Err(RawError::BadTag(at)),
            }
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, RawError> {
        let at = self.pos;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.message.get(self.pos).ok_or(RawError::Truncated(at))?;
            self.pos += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(RawError::BadVarint(at));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RawError::BadVarint(at))
    }
}

/// The digest in a nested message; `what` names it in errors.
pub(super) fn read_digest(message: &[u8], field: Option<Field>, what: &[u8]) -> Result<Digest, RawError> {
    let malformed = |error| RawError::Digest(super::error::shown(what), error);
    let Some(field) = field else { return Err(malformed(DigestError::Absent)) };
    let mut fields = Fields::within(message, field.payload()?);
    let (mut hash, mut size) = (None, None);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => field.only(&mut hash, "Digest.hash")?,
            2 => field.only(&mut size, "Digest.size_bytes")?,
            _ => {}
        }
    }
    let hash = hash.map_or(Ok(Span::default()), |field| field.payload())?;
    let size = size.map_or(Ok(0), |field| field.number_value())?;
    Digest::from_hex(hash.of(message), size.cast_signed()).map_err(malformed)
}

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
            _ => out.extend_from_slice(&message[field.range()]),
        }
    }
    for (number, value) in absent {
        put_field(&mut out, *number, *value);
    }
    Ok(out)
}

/// The payload of a Digest message with another digest in it.
pub(super) fn set_digest(message: &[u8], span: Span, digest: &Digest) -> Result<Vec<u8>, RawError> {
    let hash = digest.to_hex();
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
            if payload.len() == old.end - old.value {
                out.extend_from_slice(&message[old.start..old.value]);
            } else {
                out.extend_from_slice(tag_bytes(&message[old.start..old.value]));
                put_varint(out, payload.len() as u64);
            }
            out.extend_from_slice(payload);
        }
        Value::Number(number) => {
            out.extend_from_slice(&message[old.start..old.value]);
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
    let mut payload = Vec::with_capacity(80);
    put_len_field(&mut payload, 1, digest.to_hex().as_bytes());
    put_number(&mut payload, 2, digest.size_bytes());
    put_len_field(out, number, &payload);
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
