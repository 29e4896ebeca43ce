//! What the driver's arguments are, as far as it matters here.

/// What an argument is to the compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Kept for the listing, no part in the search: macros, standards, machine options.
    Plain,
    /// Nothing to the preprocessor: outputs, dependency files, the link.
    Dropped,
    /// `-c`, `-S`, `-E`, `-M`, …: there is no link. Dropped as well.
    Stops,
    Quote,
    Include,
    System,
    After,
    Forced,
    ForcedMacros,
    Language,
    NoStandard,
    /// A root for paths; trivial if it is `/`.
    Root,
    /// `-Wp,…` and `-Xpreprocessor`: options for the preprocessor itself.
    Inner,
    /// Its meaning for the search is not known here. Kept.
    Doubtful,
}

/// How an option takes its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    /// It has none, or the value is part of it and of no interest.
    None,
    /// The next argument.
    Next,
    /// What follows in the same argument, else the next one.
    JoinedOrNext,
    /// What follows in the same argument.
    Joined,
}

use Kind::{
    After, Doubtful, Dropped, Forced, ForcedMacros, Include, Inner, Language, NoStandard, Plain, Quote, Root, Stops,
    System,
};
use Value::{Joined, JoinedOrNext, Next};

/// Options that are spelled exactly so.
const EXACT: &[(&str, Kind, Value)] = &[
    ("-c", Stops, Value::None),
    ("-S", Stops, Value::None),
    ("-E", Stops, Value::None),
    ("-M", Stops, Value::None),
    ("-MM", Stops, Value::None),
    ("-fsyntax-only", Stops, Value::None),
    ("-MD", Dropped, Value::None),
    ("-MMD", Dropped, Value::None),
    ("-MP", Dropped, Value::None),
    ("-MG", Dropped, Value::None),
    ("-MV", Dropped, Value::None),
    ("-v", Dropped, Value::None),
    ("-H", Dropped, Value::None),
    ("-P", Dropped, Value::None),
    ("-save-temps", Dropped, Value::None),
    ("--save-temps", Dropped, Value::None),
    ("--compile", Stops, Value::None),
    ("--assemble", Stops, Value::None),
    ("--preprocess", Stops, Value::None),
    ("--output", Dropped, Next),
    ("-aux-info", Dropped, Next),
    ("-dumpbase", Dropped, Next),
    ("-dumpbase-ext", Dropped, Next),
    ("-dumpdir", Dropped, Next),
    ("-Xlinker", Dropped, Next),
    ("-Xassembler", Dropped, Next),
    ("-framework", Dropped, Next),
    ("-e", Dropped, Next),
    ("-z", Dropped, Next),
    ("-u", Dropped, Next),
    ("-T", Dropped, Next),
    ("-rdynamic", Dropped, Value::None),
    ("-s", Dropped, Value::None),
    ("-nostdinc", NoStandard, Value::None),
    ("--no-standard-includes", NoStandard, Value::None),
    ("-nostdinc++", Doubtful, Value::None),
    ("-I-", Doubtful, Value::None),
    ("-remap", Doubtful, Value::None),
    ("-traditional", Doubtful, Value::None),
    ("-traditional-cpp", Doubtful, Value::None),
    ("-trigraphs", Doubtful, Value::None),
    ("-fpreprocessed", Doubtful, Value::None),
    ("-fdirectives-only", Doubtful, Value::None),
    ("-nogpuinc", Doubtful, Value::None),
    ("-arch", Doubtful, Next),
    ("-wrapper", Doubtful, Next),
    ("-Xclang", Doubtful, Next),
    ("-include-pch", Doubtful, Next),
    ("-imultilib", Doubtful, Next),
    ("-imultiarch", Doubtful, Next),
    ("-ivfsoverlay", Doubtful, Next),
    ("-isystem-after", Doubtful, Next),
    ("-cxx-isystem", Doubtful, Next),
    ("-c-isystem", Doubtful, Next),
    ("-target", Doubtful, Next),
    ("--target", Doubtful, Next),
    ("--config", Doubtful, Next),
    ("--sysroot", Root, Next),
    ("--param", Plain, Next),
    ("-mllvm", Plain, Next),
    ("--define-macro", Plain, Next),
    ("--undefine-macro", Plain, Next),
    ("--include-directory", Include, Next),
    ("--include-directory-after", After, Next),
    ("--include", Forced, Next),
    ("--imacros", ForcedMacros, Next),
    ("-Xpreprocessor", Inner, Next),
];

/// Options that begin so; longer ones first where one begins with another.
const PREFIXES: &[(&str, Kind, Value)] = &[
    ("--include-directory-after=", After, Joined),
    ("--include-directory=", Include, Joined),
    ("--include=", Forced, Joined),
    ("--imacros=", ForcedMacros, Joined),
    ("--sysroot=", Root, Joined),
    ("--output=", Dropped, Value::None),
    ("-save-temps=", Dropped, Value::None),
    ("-isysroot", Root, JoinedOrNext),
    ("-isystem", System, JoinedOrNext),
    ("-idirafter", After, JoinedOrNext),
    ("-iquote", Quote, JoinedOrNext),
    ("-imacros", ForcedMacros, JoinedOrNext),
    ("-include", Forced, JoinedOrNext),
    ("-iprefix", Doubtful, JoinedOrNext),
    ("-iwithprefixbefore", Doubtful, JoinedOrNext),
    ("-iwithprefix", Doubtful, JoinedOrNext),
    ("-iframework", Doubtful, JoinedOrNext),
    ("-I", Include, JoinedOrNext),
    ("-D", Plain, JoinedOrNext),
    ("-U", Plain, JoinedOrNext),
    ("-A", Plain, JoinedOrNext),
    ("-x", Language, JoinedOrNext),
    ("-o", Dropped, JoinedOrNext),
    ("-MF", Dropped, JoinedOrNext),
    ("-MT", Dropped, JoinedOrNext),
    ("-MQ", Dropped, JoinedOrNext),
    ("-MJ", Dropped, JoinedOrNext),
    ("-L", Dropped, JoinedOrNext),
    ("-l", Dropped, JoinedOrNext),
    ("-d", Dropped, Value::None),
    ("-fdump-", Dropped, Value::None),
    ("-Wl,", Dropped, Value::None),
    ("-Wa,", Dropped, Value::None),
    ("-Wp,", Inner, Joined),
    ("-B", Doubtful, JoinedOrNext),
    ("-F", Doubtful, JoinedOrNext),
    ("-specs=", Doubtful, Value::None),
    ("--specs=", Doubtful, Value::None),
    ("--config=", Doubtful, Value::None),
    ("--target=", Doubtful, Value::None),
    ("-stdlib=", Doubtful, Value::None),
    ("--gcc-toolchain", Doubtful, Value::None),
    ("-fplugin", Doubtful, Value::None),
    ("-fmodule", Doubtful, Value::None),
    ("-fcxx-modules", Doubtful, Value::None),
    ("-fpre-include=", Doubtful, Value::None),
    ("-fdeps-", Doubtful, Value::None),
    ("-resource-dir", Doubtful, Value::None),
    ("--embed-dir", Doubtful, Value::None),
    ("@", Doubtful, Value::None),
];

/// What `argument` is, and its value if that is a part of it. Inputs and
/// options that are not known are `Plain` without a value.
pub(super) fn option(argument: &[u8]) -> (Kind, Value, Option<&[u8]>) {
    if let Some((_, kind, value)) = EXACT.iter().find(|(name, _, _)| name.as_bytes() == argument) {
        return (*kind, *value, None);
    }
    for (name, kind, value) in PREFIXES {
        let Some(rest) = argument.strip_prefix(name.as_bytes()) else { continue };
        return match value {
            JoinedOrNext if rest.is_empty() => (*kind, Next, None),
            JoinedOrNext | Joined => (*kind, Value::None, Some(rest)),
            _ => (*kind, Value::None, None),
        };
    }
    (Plain, Value::None, None)
}

/// Whether an argument of `-Wp,` is kept for a listing, is dropped (with so
/// many that follow it), or is not understood.
pub(super) fn inner(argument: &[u8]) -> (Kind, usize) {
    match argument {
        b"-MD" | b"-MMD" | b"-MF" | b"-MT" | b"-MQ" => (Dropped, 1),
        b"-MP" | b"-MG" => (Dropped, 0),
        _ if argument.starts_with(b"-D") || argument.starts_with(b"-U") => (Plain, 0),
        _ => (Doubtful, 0),
    }
}
