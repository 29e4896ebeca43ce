//! The wire format, reading: finding the fields of a message.

use std::ops::Range;

use super::RawError;
use super::error::shown;
use crate::digest::check_hex;
use crate::{Digest, DigestError, DigestFunction};

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
    /// Tag, length and payload.
    whole: Span,
    /// The payload alone.
    payload: Span,
    varint: u64,
}

impl Field {
    /// The whole field: tag, length and payload.
    pub(super) fn whole(&self) -> Span {
        self.whole
    }

    /// Tag and length.
    pub(super) fn header(&self) -> Range<usize> {
        self.whole.range().start..self.payload.range().start
    }

    /// The payload of a length-delimited field.
    pub(super) fn payload(&self) -> Result<Span, RawError> {
        match self.wire_type {
            WireType::Len => Ok(self.payload),
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
        RawError::WireType { field: self.number, at: self.whole.range().start }
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
        if let Some(field) = self.short() {
            return Ok(Some(field));
        }
        let (number, bits) = self.tag()?;
        let mut payload_start = self.pos;
        let mut varint = 0;
        let wire_type = match bits {
            0 => {
                varint = self.varint()?;
                WireType::Varint
            }
            2 => {
                let len = self.varint()?;
                payload_start = self.pos;
                self.skip(start, len)?;
                WireType::Len
            }
            _ => {
                self.skip_other(start, number, bits)?;
                WireType::Other
            }
        };
        let (whole, payload) = (Span::new(start, self.pos), Span::new(payload_start, self.pos));
        Ok(Some(Field { number, wire_type, whole, payload, varint }))
    }

    /// The field here, if it is length-delimited with one byte of tag and one of length, as nearly all are.
    #[inline]
    fn short(&mut self) -> Option<Field> {
        let [tag, len, ..] = *self.message.get(self.pos..)? else { return None };
        let (start, payload) = (self.pos, self.pos + 2);
        let end = payload + usize::from(len);
        if tag & 7 != 2 || !(0x08..0x80).contains(&tag) || len >= 0x80 || end > self.message.len() {
            return None;
        }
        self.pos = end;
        let (whole, payload) = (Span::new(start, end), Span::new(payload, end));
        Some(Field { number: u32::from(tag >> 3), wire_type: WireType::Len, whole, payload, varint: 0 })
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

    #[inline]
    fn varint(&mut self) -> Result<u64, RawError> {
        match self.message.get(self.pos) {
            Some(&byte) if byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, RawError> {
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

/// Where a digest stands in a message, read and found well formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct DigestSpan {
    hash: Span,
    size_bytes: u64,
    function: DigestFunction,
}

impl DigestSpan {
    /// The digest; `message` is the one it was found in.
    pub(super) fn digest(&self, message: &[u8]) -> Digest {
        Digest::from_checked_hex(self.function, self.hash.of(message), self.size_bytes)
    }

    /// Where the digits of the hash are.
    pub(super) fn hash(&self) -> Span {
        self.hash
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What stands at `hash`, with this size; `None` if that is no digest.
    pub(super) fn of(message: &[u8], hash: Span, size_bytes: u64) -> Option<Self> {
        let function = check_hex(hash.of(message)).ok()?;
        (size_bytes <= i64::MAX.cast_unsigned()).then_some(Self { hash, size_bytes, function })
    }
}

/// The digest in a nested message; `what` names it in errors.
pub(super) fn read_digest(message: &[u8], field: Field, what: &[u8]) -> Result<DigestSpan, RawError> {
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
    // Judges both, for the error.
    let digest = Digest::from_hex(hash.of(message), size.cast_signed());
    let digest = digest.map_err(|error| RawError::Digest(shown(what), error))?;
    Ok(DigestSpan { hash, size_bytes: digest.size_bytes(), function: digest.function() })
}

/// A field that must hold a digest, and the digest.
pub(super) fn require_digest(
    message: &[u8],
    field: Option<Field>,
    what: &[u8],
) -> Result<(Field, DigestSpan), RawError> {
    let field = field.ok_or_else(|| RawError::Digest(shown(what), DigestError::Absent))?;
    Ok((field, read_digest(message, field, what)?))
}
