//! The platform properties of an Action or a Command.

use std::ops::Range;

use bytes::Bytes;

use super::RawError;
use super::error::shown;
use super::splice::{Patch, Value, put_len_like, set_fields};
use super::wire::{Field, Fields, Span};

/// One platform property.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Property<'a> {
    /// The name; several properties may share it.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Gives every property that has this name and this value another value.
///
/// Edits of one call are all judged by the properties as they were. The order
/// of the properties stays, even where the new value would sort elsewhere
/// among properties of the same name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PropertyEdit {
    /// Name of the property.
    pub name: Bytes,
    /// The value that it has.
    pub from: Bytes,
    /// The value that it gets.
    pub to: Bytes,
}

/// Where the Platform of a message is.
#[derive(Clone, Debug, Default)]
pub(super) struct Platform {
    field: Option<Field>,
    properties: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    field: Field,
    name: Span,
    value: Span,
}

impl Platform {
    pub(super) fn parse(message: &[u8], field: Option<Field>) -> Result<Self, RawError> {
        let Some(field) = field else { return Ok(Self::default()) };
        let mut properties = Vec::new();
        let mut fields = Fields::within(message, field.payload()?);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                let (name, value) = read_pair(message, &field, "a platform property")?;
                properties.push(Slot { field, name, value });
            }
        }
        Ok(Self { field: Some(field), properties })
    }

    pub(super) fn iter<'a>(&'a self, message: &'a [u8]) -> impl Iterator<Item = Property<'a>> {
        self.properties.iter().map(|slot| Property { name: slot.name.of(message), value: slot.value.of(message) })
    }

    /// The Platform field with the edits made; `None` if there are no edits.
    pub(super) fn patch(&self, message: &[u8], edits: &[PropertyEdit]) -> Result<Option<Patch>, RawError> {
        for (i, edit) in edits.iter().enumerate() {
            let same = |other: &PropertyEdit| other.name == edit.name && other.from == edit.from;
            if edits[..i].iter().any(|other| same(other) && other.to != edit.to) {
                return Err(no_edit(edit, "is given two values"));
            }
            if !self.iter(message).any(|property| edit.matches(&property)) {
                return Err(no_edit(edit, "is not there"));
            }
        }
        let (Some(field), false) = (self.field, edits.is_empty()) else { return Ok(None) };
        let Range { start: mut pos, end } = field.payload()?.range();
        let mut payload = Vec::with_capacity(end - pos + 64);
        for (slot, property) in self.properties.iter().zip(self.iter(message)) {
            if let Some(edit) = edits.iter().find(|edit| edit.matches(&property)) {
                let Range { start, end } = slot.field.whole().range();
                payload.extend_from_slice(&message[pos..start]);
                let new = set_fields(message, slot.field.payload()?, &[(2, Value::Len(&edit.to))])?;
                put_len_like(&mut payload, message, &slot.field, &new);
                pos = end;
            }
        }
        payload.extend_from_slice(&message[pos..end]);
        let mut with = Vec::with_capacity(payload.len() + 6);
        put_len_like(&mut with, message, &field, &payload);
        Ok(Some(Patch { range: field.whole().range(), with }))
    }
}

impl PropertyEdit {
    fn matches(&self, property: &Property<'_>) -> bool {
        self.name == property.name && self.from == property.value
    }
}

fn no_edit(edit: &PropertyEdit, why: &str) -> RawError {
    RawError::Edit(format!("platform property {:?} with value {:?} {why}", shown(&edit.name), shown(&edit.from)))
}

/// Name and value of a message that has them as fields 1 and 2.
pub(super) fn read_pair(message: &[u8], field: &Field, what: &'static str) -> Result<(Span, Span), RawError> {
    let (mut name, mut value) = (None, None);
    let mut fields = Fields::within(message, field.payload()?);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => field.only(&mut name, what)?,
            2 => field.only(&mut value, what)?,
            _ => {}
        }
    }
    let payload = |field: Option<Field>| field.map_or(Ok(Span::default()), |field| field.payload());
    Ok((payload(name)?, payload(value)?))
}
