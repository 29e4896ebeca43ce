//! What holds for any members, and for bytes that nobody meant to be an archive.

#![allow(clippy::unwrap_used, reason = "test code")]

use archive::{Archive, ArchiveError, Recipe};
use proptest::prelude::*;

/// A symbol: name, binding and section, as in `elf(5)`.
type Symbol = (String, u8, u16);

/// A little-endian ELF object of four sections: symbols, their names, names of sections, and `extra` as `.gnu.lto_.symtab.1`.
fn elf(symbols: &[Symbol], extra: Option<&[u8]>) -> Vec<u8> {
    const HEADER_BYTES: usize = 64;
    let section_names = b"\0.symtab\0.strtab\0.shstrtab\0.gnu.lto_.symtab.1\0";
    let mut names = vec![0];
    let mut table = vec![0; 24];
    for (name, binding, section) in symbols {
        table.extend_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
        table.extend_from_slice(&[binding << 4, 0]);
        table.extend_from_slice(&section.to_le_bytes());
        table.extend_from_slice(&[0; 16]);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    // Name, type, link, size of an entry.
    let mut sections = vec![(1, 2, 2, 24, table), (9, 3, 0, 0, names), (17, 3, 0, 0, section_names.to_vec())];
    sections.extend(extra.map(|extra| (27, 1, 0, 0, extra.to_vec())));
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0".to_vec();
    out.resize(HEADER_BYTES, 0);
    let mut headers = vec![0; HEADER_BYTES];
    for (name, kind, link, entry, content) in &sections {
        let mut header = Vec::new();
        header.extend_from_slice(&u32::to_le_bytes(*name));
        header.extend_from_slice(&u32::to_le_bytes(*kind));
        header.extend_from_slice(&[0; 16]);
        header.extend_from_slice(&(out.len() as u64).to_le_bytes());
        header.extend_from_slice(&(content.len() as u64).to_le_bytes());
        header.extend_from_slice(&u32::to_le_bytes(*link));
        header.extend_from_slice(&[0; 12]);
        header.extend_from_slice(&u64::to_le_bytes(*entry));
        headers.extend_from_slice(&header);
        out.extend_from_slice(content);
    }
    let start = out.len() as u64;
    out[40..48].copy_from_slice(&start.to_le_bytes());
    out[52..54].copy_from_slice(&64u16.to_le_bytes());
    out[58..60].copy_from_slice(&64u16.to_le_bytes());
    out[60..62].copy_from_slice(&u16::try_from(sections.len() + 1).unwrap().to_le_bytes());
    out[62..64].copy_from_slice(&3u16.to_le_bytes());
    out.extend_from_slice(&headers);
    out
}

/// A recipe with a symbol table, of GNU `ar`.
fn gnu() -> Recipe {
    Recipe::of(b"!<arch>\n").unwrap().unwrap()
}

/// The names in the symbol table of an archive of one object.
fn table_of(object: &[u8]) -> Vec<String> {
    let archive = gnu().replay(&[(b"a.o", object)]).unwrap();
    let size: usize = std::str::from_utf8(&archive[56..66]).unwrap().trim().parse().unwrap();
    let table = &archive[68..68 + size];
    let count = usize::try_from(u32::from_be_bytes(table[..4].try_into().unwrap())).unwrap();
    let names = table[4 + 4 * count..].split(|byte| *byte == 0).take(count);
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

fn symbol() -> impl Strategy<Value = Symbol> {
    let binding = prop::sample::select(vec![0, 1, 2, 10]);
    ("[a-z]{1,12}", binding, prop::sample::select(vec![0, 1, 0xfff1, 0xfff2]))
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(symbol(), 0..6).prop_map(|symbols| elf(&symbols, None)),
        prop::collection::vec(symbol(), 0..6)
            .prop_map(|symbols| elf(&symbols, Some(b"f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"))),
    ]
}

fn members() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    prop::collection::vec(("[!-.0-~]([ -.0-~]{0,30}[!-.0-~])?", content()), 0..6)
}

fn borrowed(members: &[(String, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
    members.iter().map(|(name, data)| (name.as_bytes(), &data[..])).collect()
}

/// An archive with some bytes overwritten.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (members(), damage, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(members, damage, cut, is_cut)| {
        let mut archive = gnu().replay(&borrowed(&members)).unwrap();
        for (index, byte) in damage {
            let at = index.index(archive.len());
            archive[at] = byte;
        }
        if is_cut {
            archive.truncate(cut.index(archive.len()));
        }
        archive
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_has_a_recipe(members in members()) {
        let members = borrowed(&members);
        let archive = gnu().replay(&members).unwrap();
        let read: Vec<_> = Archive::parse(&archive).unwrap().members().collect();
        prop_assert_eq!(&read, &members);
        let recipe = Recipe::of(&archive).unwrap().unwrap();
        prop_assert_eq!(recipe.replay(&read).unwrap(), archive);
    }

    #[test]
    fn a_recipe_gives_its_archive_or_there_is_none(archive in damaged()) {
        if let Ok(Some(recipe)) = Recipe::of(&archive) {
            let members: Vec<_> = Archive::parse(&archive).unwrap().members().collect();
            prop_assert_eq!(recipe.replay(&members).unwrap(), archive);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let bytes = if header { [&b"!<arch>\n"[..], &bytes].concat() } else { bytes };
        let _ = Recipe::of(&bytes);
        // As a member, too: it may look like an object.
        let object = [&b"\x7fELF\x02\x01\x01"[..], &bytes].concat();
        let _ = gnu().replay(&[(b"a.o", &object)]);
    }
}

#[test]
fn the_table_names_what_others_may_use() {
    let symbol = |name: &str, binding, section| (name.to_owned(), binding, section);
    let symbols = [
        symbol("local", 0, 1),
        symbol("global", 1, 1),
        symbol("undefined", 1, 0),
        symbol("weak", 2, 1),
        symbol("weak_undefined", 2, 0),
        symbol("unique", 10, 1),
        symbol("absolute", 1, 0xfff1),
        symbol("common", 1, 0xfff2),
    ];
    assert_eq!(table_of(&elf(&symbols, None)), ["global", "weak", "unique", "absolute", "common"]);
    // Name, comdat key, kind, visibility, size, slot.
    let entry = |name: &str, kind: u8| [name.as_bytes(), b"\0key\0", &[kind], &[0; 13]].concat();
    let entries = [entry("d", 0), entry("weak_d", 1), entry("u", 2), entry("weak_u", 3), entry("c", 4)].concat();
    assert_eq!(table_of(&elf(&symbols, Some(&entries))), ["d", "weak_d", "c"]);
}

#[test]
fn an_object_made_to_take_memory_is_refused() {
    // One name of 100 kB, and 50 000 symbols that share it: 5 GB of names.
    let name = "x".repeat(100_000);
    let mut object = elf(&vec![(String::new(), 1, 1); 50_000], None);
    let names = object.len() as u64;
    object.extend_from_slice(name.as_bytes());
    object.push(0);
    let start = usize::try_from(u64::from_le_bytes(object[40..48].try_into().unwrap())).unwrap();
    // The section of names is the second after the empty one.
    object[start + 128 + 24..start + 128 + 32].copy_from_slice(&names.to_le_bytes());
    object[start + 128 + 32..start + 128 + 40].copy_from_slice(&(name.len() as u64 + 1).to_le_bytes());
    let symbols = 64 + 24;
    for i in 0..50_000 {
        object[symbols + 24 * i..symbols + 24 * i + 4].copy_from_slice(&[0; 4]);
    }
    let refused = gnu().replay(&[(b"a.o", &object)]);
    assert!(matches!(refused, Err(ArchiveError::Symbols { .. })));
}

#[test]
fn what_cannot_be_told_is_an_error() {
    let replay = |name: &[u8], data: &[u8]| gnu().replay(&[(name, data)]).map(|_| ());
    assert!(matches!(replay(b"", b""), Err(ArchiveError::BadName(..))));
    assert!(matches!(replay(b"a/b.o", b""), Err(ArchiveError::BadName(..))));
    assert!(matches!(replay(b"a.o", b"BC\xc0\xde"), Err(ArchiveError::Symbols { .. })));
    assert!(matches!(replay(b"a.o", b"\x7fELF"), Err(ArchiveError::Symbols { .. })));
    assert!(matches!(Archive::parse(b"INPUT(libc.so.6)"), Err(ArchiveError::Malformed(_))));
}
