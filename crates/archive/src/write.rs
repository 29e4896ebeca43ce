//! Archives in the common format, byte for byte as GNU and LLVM write them.
//!
//! The `ar_archive_writer` crate is a port of LLVM's writer alone. It does not
//! write what GNU `ar` writes where there are no symbols or where a long name
//! occurs twice; and the format is a page of code.

use std::collections::HashMap;

use crate::ArchiveError;
use crate::error::shown;
use crate::symbols::{Reader, for_each_symbol};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// The longest name that stands in the header itself, followed by `/`.
const SHORT_NAME_BYTES: usize = 15;

/// Whose format it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Writer {
    /// binutils.
    Gnu(Reader),
    /// LLVM reads ELF symbols, writes three zero bytes in place of no symbols
    /// at all, and a long name that occurs twice once.
    Llvm,
}

/// Whether there is a symbol table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Table {
    /// Never.
    Absent,
    /// Wherever a member is an object.
    OfObjects,
}

type Members<'a> = [(&'a [u8], &'a [u8])];

pub(crate) fn write(members: &Members<'_>, writer: Writer, table: Table) -> Result<Vec<u8>, ArchiveError> {
    let mut long_names = LongNames { table: Vec::new(), known: (writer == Writer::Llvm).then(HashMap::new) };
    let mut names = Vec::with_capacity(members.len());
    for (name, _) in members {
        names.push(long_names.header_name(name)?);
    }
    let long_names = long_names.table;
    let index = match (table, writer) {
        (Table::Absent, _) => None,
        (Table::OfObjects, Writer::Gnu(reader)) => index(members, reader)?,
        (Table::OfObjects, Writer::Llvm) => index(members, Reader::Elf)?.map(|mut index| {
            if index.owners.is_empty() {
                index.names = vec![0; 3];
            }
            index
        }),
    };
    let index_bytes =
        index.as_ref().map_or(0, |index| HEADER_BYTES + even(4 + 4 * index.owners.len() + index.names.len()));
    let long_names_bytes = if long_names.is_empty() { 0 } else { HEADER_BYTES + even(long_names.len()) };
    let mut offset = MAGIC.len() + index_bytes + long_names_bytes;
    let mut offsets = Vec::with_capacity(members.len());
    for (_, data) in members {
        offsets.push(offset);
        offset += HEADER_BYTES + even(data.len());
    }

    let mut out = Vec::with_capacity(offset);
    out.extend_from_slice(MAGIC);
    if let Some(Index { owners, names }) = index {
        let size = even(4 + 4 * owners.len() + names.len());
        put_header(&mut out, b"/", ["0", "0", "0", "0"], size)?;
        out.extend_from_slice(&word(owners.len())?);
        for owner in &owners {
            out.extend_from_slice(&word(offsets[*owner])?);
        }
        out.extend_from_slice(&names);
        if !names.len().is_multiple_of(2) {
            out.push(0);
        }
    }
    if !long_names.is_empty() {
        put_header(&mut out, b"//", ["", "", "", ""], even(long_names.len()))?;
        put_even(&mut out, &long_names);
    }
    for (name, (_, data)) in names.iter().zip(members) {
        put_header(&mut out, name, ["0", "0", "0", "644"], data.len())?;
        put_even(&mut out, data);
    }
    Ok(out)
}

/// Symbols of all members, in the order of the members and of their own tables.
struct Index {
    /// For each symbol, its member's position.
    owners: Vec<usize>,
    /// The names, each ended by 0.
    names: Vec<u8>,
}

/// `None` where no member is an object.
fn index(members: &Members<'_>, reader: Reader) -> Result<Option<Index>, ArchiveError> {
    // A symbol takes more room in its object, so only one that is made to do so gets past this.
    let limit: usize = members.iter().map(|(_, data)| data.len()).sum();
    let (mut owners, mut names) = (Vec::new(), Vec::new());
    let mut any_object = false;
    for (owner, (member, data)) in members.iter().enumerate() {
        let is_object = for_each_symbol(data, reader, |name| {
            if 4 * owners.len() + names.len() + name.len() >= limit {
                return Err("its symbols take more room than the objects".to_owned());
            }
            owners.push(owner);
            names.extend_from_slice(name);
            names.push(0);
            Ok(())
        });
        any_object |= is_object.map_err(|reason| ArchiveError::Symbols { member: shown(member), reason })?;
    }
    Ok(any_object.then_some(Index { owners, names }))
}

/// The table of names that do not fit a header.
struct LongNames<'a> {
    table: Vec<u8>,
    /// Where each name is, if it is not to be repeated.
    known: Option<HashMap<&'a [u8], usize>>,
}

impl<'a> LongNames<'a> {
    /// The name as it stands in the header; a long one goes into the table.
    fn header_name(&mut self, name: &'a [u8]) -> Result<Vec<u8>, ArchiveError> {
        let bad = |reason| Err(ArchiveError::BadName(shown(name), reason));
        if name.is_empty() {
            return bad("it is empty");
        }
        if name.iter().any(|byte| b"/\n\0".contains(byte)) {
            return bad("it has a slash, a line feed or a zero in it");
        }
        if name.len() <= SHORT_NAME_BYTES {
            return Ok([name, b"/"].concat());
        }
        let end = self.table.len();
        let offset = self.known.as_mut().map_or(end, |known| *known.entry(name).or_insert(end));
        if offset == end {
            self.table.extend_from_slice(name);
            self.table.extend_from_slice(b"/\n");
        }
        Ok(format!("/{offset}").into_bytes())
    }
}

/// `fields`: time, user, group, mode.
fn put_header(out: &mut Vec<u8>, name: &[u8], fields: [&str; 4], size: usize) -> Result<(), ArchiveError> {
    let size = size.to_string();
    let [time, user, group, mode] = fields.map(str::as_bytes);
    for (field, width) in [(name, 16), (time, 12), (user, 6), (group, 6), (mode, 8), (size.as_bytes(), 10)] {
        let padding = width - field.len().min(width);
        if field.len() > width {
            return Err(ArchiveError::TooLarge("a number does not fit its field of a header"));
        }
        out.extend_from_slice(field);
        out.resize(out.len() + padding, b' ');
    }
    out.extend_from_slice(b"`\n");
    Ok(())
}

fn put_even(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    if !data.len().is_multiple_of(2) {
        out.push(b'\n');
    }
}

fn even(bytes: usize) -> usize {
    bytes.next_multiple_of(2)
}

fn word(number: usize) -> Result<[u8; 4], ArchiveError> {
    let number = u32::try_from(number).map_err(|_| ArchiveError::TooLarge("a member begins beyond 4 GiB"))?;
    Ok(number.to_be_bytes())
}
