//! Names: of compilers, of languages, of sources.

use super::Language;
use crate::path::file_name;

const LAUNCHERS: [&[u8]; 5] = [b"ccache", b"recc", b"sccache", b"distcc", b"icecc"];
const COMPILERS: [&[u8]; 6] = [b"gcc", b"g++", b"cc", b"c++", b"clang", b"clang++"];

/// Whether the program runs the compiler that its arguments begin with.
pub(super) fn is_launcher(program: &[u8]) -> bool {
    LAUNCHERS.contains(&file_name(program))
}

/// Whether the program is a driver of gcc or clang: `cc`, `/usr/bin/x86_64-linux-gnu-g++-14`, `clang-18.1`.
pub(super) fn is_compiler(program: &[u8]) -> bool {
    COMPILERS.contains(&stem(program))
}

/// Whether the driver takes C sources for C++.
pub(super) fn is_cpp(program: &[u8]) -> bool {
    stem(program).ends_with(b"++")
}

/// Whether the driver is gcc's, not clang's. `cc` may be either.
pub(super) fn is_gcc(program: &[u8]) -> Option<bool> {
    match stem(program) {
        b"gcc" | b"g++" => Some(true),
        b"clang" | b"clang++" => Some(false),
        _ => None,
    }
}

/// The driver's name without a target before it and a version behind it.
fn stem(program: &[u8]) -> &[u8] {
    let mut name = file_name(program);
    if let Some(at) = name.iter().rposition(|c| *c == b'-') {
        let version = &name[at + 1..];
        if !version.is_empty() && version.iter().all(|c| c.is_ascii_digit() || *c == b'.') {
            name = &name[..at];
        }
    }
    name.iter().rposition(|c| *c == b'-').map_or(name, |at| &name[at + 1..])
}

/// What `-x` makes of the inputs behind it: `None` for what their names say.
#[allow(clippy::option_option, reason = "no language given, and one that is not preprocessed, are not the same")]
pub(super) fn language_named(name: &[u8]) -> Option<Option<Language>> {
    match name {
        b"none" => None,
        b"c" => Some(Some(Language::C)),
        b"c++" => Some(Some(Language::Cpp)),
        b"objective-c" => Some(Some(Language::ObjC)),
        b"objective-c++" => Some(Some(Language::ObjCpp)),
        b"assembler-with-cpp" => Some(Some(Language::Assembler)),
        _ => Some(None),
    }
}

/// The language of a source by its extension (GCC manual, "Options Controlling the Kind of Output").
pub(super) fn language_of(extension: &[u8]) -> Option<Language> {
    match extension {
        b"c" => Some(Language::C),
        b"cc" | b"cp" | b"cxx" | b"cpp" | b"CPP" | b"c++" | b"C" => Some(Language::Cpp),
        b"m" => Some(Language::ObjC),
        b"mm" | b"M" => Some(Language::ObjCpp),
        b"S" | b"sx" => Some(Language::Assembler),
        _ => None,
    }
}

/// Whether a file of this extension would be precompiled as a header.
pub(super) fn is_header(extension: &[u8]) -> bool {
    matches!(extension, b"h" | b"hh" | b"H" | b"hp" | b"hxx" | b"hpp" | b"HPP" | b"h++" | b"tcc")
}
