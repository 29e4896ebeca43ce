//! What ELF files say about the source files that went into them.

use std::collections::BTreeSet;

use object::{File, Object, ObjectSymbol, SymbolKind};

/// Names that say nothing: what assemblers and start-up files write.
const NOBODY: [&[u8]; 3] = [b"", b"<artificial>", b"crtstuff.c"];

/// The names of the source files that an ELF file names in its symbol table
/// (symbols of the kind `FILE`, one per translation unit), without directories.
///
/// `None` for what is no ELF file, and where it names none: it was stripped,
/// or its compiler writes no such symbols. A linked file that has symbols names
/// the sources of every object in it, so an object whose sources are not
/// among them is not in it; the reverse does not hold, since two sources may have the same name.
#[must_use]
pub fn source_names(data: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    if !data.starts_with(b"\x7fELF") {
        return None;
    }
    let file = File::parse(data).ok()?;
    let files = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::File);
    let names: BTreeSet<Vec<u8>> = files
        .filter_map(|symbol| symbol.name_bytes().ok())
        .map(|name| name.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
        .filter(|name| !NOBODY.contains(name))
        .map(<[u8]>::to_vec)
        .collect();
    (!names.is_empty()).then_some(names)
}
