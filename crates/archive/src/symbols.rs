//! Which symbols of an object the table of an archive names.

use object::read::elf::{ElfFile, FileHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, elf};

/// Who reads objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reader {
    /// The ELF symbol table.
    Elf,
    /// GCC's linker plugin for objects with intermediate code, whether or not
    /// they have machine code too; the ELF symbol table for others.
    Plugin,
}

/// GCC's symbol table of its intermediate code, one per translation unit.
const LTO_SYMTAB: &[u8] = b".gnu.lto_.symtab.";

/// Values of `enum gcc_plugin_symbol_kind` in binutils' plugin-api.h.
const LDPK_UNDEF: u8 = 2;
const LDPK_WEAKUNDEF: u8 = 3;
const LDPK_COMMON: u8 = 4;

/// How often the bytes of an object are looked at for its sections. Names of
/// sections may be tails of others, so it is a little more than once.
const MOST_LOOKED_AT: usize = 4;

/// Calls `found` with the name of each symbol that the object defines for
/// others: global, weak and unique ones, and common ones. Hidden ones are
/// among them.
///
/// Returns whether `data` is an object at all.
///
/// # Errors
/// What is wrong with an object that cannot be read, or is of a kind that this crate does not read.
pub(crate) fn for_each_symbol<'a>(
    data: &'a [u8],
    reader: Reader,
    mut found: impl FnMut(&'a [u8]) -> Result<(), String>,
) -> Result<bool, String> {
    const BITCODE: [&[u8]; 2] = [b"BC\xc0\xde", b"\xde\xc0\x17\x0b"];
    if BITCODE.iter().any(|magic| data.starts_with(magic)) {
        return Err("LLVM bitcode is not read".into());
    }
    if !data.starts_with(&elf::ELFMAG) {
        return Ok(false);
    }
    match data.get(4).copied().map(elf::FileClass) {
        Some(elf::ELFCLASS32) => symbols_of::<elf::FileHeader32<Endianness>>(data, reader, &mut found),
        Some(elf::ELFCLASS64) => symbols_of::<elf::FileHeader64<Endianness>>(data, reader, &mut found),
        _ => Err("an ELF file of an unknown class".into()),
    }
}

fn symbols_of<'a, H: FileHeader<Endian = Endianness>>(
    data: &'a [u8],
    reader: Reader,
    found: &mut dyn FnMut(&'a [u8]) -> Result<(), String>,
) -> Result<bool, String> {
    let text = |error: object::Error| error.to_string();
    let file = ElfFile::<H>::parse(data).map_err(text)?;
    if reader == Reader::Plugin {
        let (mut claimed, mut looked_at) = (false, 0);
        for section in file.sections() {
            let name = section.name_bytes().map_err(text)?;
            looked_at += name.len();
            if name.starts_with(LTO_SYMTAB) {
                claimed = true;
                let table = section.data().map_err(text)?;
                looked_at += table.len();
                lto_symbols(table, found)?;
            }
            // Sections that lie over each other would take time in the square of the size.
            if looked_at > MOST_LOOKED_AT * data.len() {
                return Err("its sections name the same bytes over and over".into());
            }
        }
        if claimed {
            return Ok(true);
        }
    }
    for symbol in file.symbols() {
        if !symbol.is_undefined() && (symbol.is_global() || symbol.is_common()) {
            found(symbol.name_bytes().map_err(text)?)?;
        }
    }
    Ok(true)
}

/// Entries are a name and a comdat key, each ended by 0, then kind, visibility,
/// size (8 bytes) and slot (4 bytes): `parse_table_entry` of GCC's lto-plugin.c.
fn lto_symbols<'a>(mut table: &'a [u8], found: &mut dyn FnMut(&'a [u8]) -> Result<(), String>) -> Result<(), String> {
    let cut_off = || "a symbol table of intermediate code that is cut off".to_owned();
    while !table.is_empty() {
        let mut string = || {
            let end = table.iter().position(|byte| *byte == 0).ok_or_else(cut_off)?;
            let (string, rest) = table.split_at(end);
            table = &rest[1..];
            Ok::<_, String>(string)
        };
        let (name, _comdat) = (string()?, string()?);
        let (rest, after) = table.split_at_checked(14).ok_or_else(cut_off)?;
        table = after;
        match rest[0] {
            LDPK_UNDEF | LDPK_WEAKUNDEF => {}
            kind if kind <= LDPK_COMMON => found(name)?,
            kind => return Err(format!("a symbol of intermediate code of the unknown kind {kind}")),
        }
    }
    Ok(())
}
