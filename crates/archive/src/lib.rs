//! Static libraries as a pure function of their members.
//!
//! A build compiles objects and puts them into an archive with `ar`. When the
//! archive of the last build is at hand and the objects of the next one are
//! known, the next archive is known too, if `ar` is a function that can be
//! computed here. Two questions are answered:
//!
//! 1. **What is in it?** [`Archive::parse`] names the members and their bytes.
//! 2. **Can it be made again?** [`Recipe::of`] finds the way of writing that
//!    gives exactly these bytes from these members, if there is one, and
//!    [`Recipe::replay`] writes other members the same way.
//!
//! Known ways are those of GNU binutils (`ar`, `ranlib`) and of LLVM
//! (`llvm-ar`, `llvm-ranlib`) in deterministic mode, which is the default of
//! both in most distributions: with a symbol table, or without one (`S`). They differ
//! in what a table without symbols looks like, in long names that occur twice,
//! and in how GCC's LTO objects are read: GNU `ar` asks the compiler's plugin
//! where one is installed.
//!
//! Not here: thin archives (they are refused, their members are elsewhere),
//! archives in the formats of BSD, macOS and AIX, archives of 4 GiB and more, and
//! symbols of objects that are not ELF (LLVM bitcode, COFF, Mach-O). Such archives
//! have no recipe. Nor does one that `ar` wrote with real times and owners
//! (`U`): that one is not a function of its members. Running `ar`, files and
//! digests are the caller's matter; there is no I/O.
//!
//! ```
//! use archive::{Archive, Recipe};
//!
//! # fn main() -> Result<(), archive::ArchiveError> {
//! let recorded = b"!<arch>\n\
//!     notes.txt/      0           0     0     644     6         `\nfirst\n\
//!     a_name_that_goe/0           0     0     644     1         `\n1\n";
//! let archive = Archive::parse(recorded)?;
//! let names: Vec<&[u8]> = archive.members().map(|(name, _)| name).collect();
//! assert_eq!(names, [&b"notes.txt"[..], b"a_name_that_goe"]);
//!
//! // These are the bytes that `ar` makes of these members …
//! let recipe = Recipe::of(recorded)?.expect("written by ar in deterministic mode");
//! // … and of other ones.
//! let next = recipe.replay(&[(b"notes.txt", b"second"), (b"a_name_that_goe", b"22")])?;
//! assert_eq!(next.len(), recorded.len());
//! assert_eq!(Archive::parse(&next)?.members().next(), Some((&b"notes.txt"[..], &b"second"[..])));
//! # Ok(())
//! # }
//! ```

mod error;
mod parse;
mod recipe;
mod sources;
mod symbols;
mod write;

pub use error::ArchiveError;
pub use parse::Archive;
pub use recipe::Recipe;
pub use sources::source_names;
