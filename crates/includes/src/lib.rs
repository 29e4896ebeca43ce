//! Which files a C or C++ compile reads, and whether that is still so after a change.
//!
//! A recorded compile can be run again ahead of time only with exactly the
//! inputs that it will have. When a header or a source changed, its contents
//! are known, but it may include something else now. Three ways to find out:
//!
//! 1. **By text.** [`Question`] compares the [`Directives`] of what changed
//!    with those of before and follows new includes along the search path of
//!    the [`CompileCommand`]. The everyday changes (code, comments, constants,
//!    an include of a header that is plainly there) have a certain answer.
//!    Where conditions or computed names come in, it says so: [`Verdict::Unsure`].
//! 2. **By the compiler.** [`CompileCommand::listing`] is the same command,
//!    reduced to writing a dependency listing, and [`depfile::parse`] reads that.
//! 3. By running it: not here.
//!
//! A wrong certain answer costs an execution for nothing, an unsure one a cheap
//! question to the compiler. So it doubts whenever it is not certain; what is
//! trusted all the same is listed at [`Question::ask`].
//!
//! Everything is a pure function of bytes. Not here: I/O, async, clocks, a
//! preprocessor, symbolic links, what environment variables add to the search
//! path, C++ modules, compilers other than gcc and clang.
//!
//! ```
//! use bytes::Bytes;
//! use includes::{CompileCommand, Directives, Found, Question, Verdict, World};
//!
//! /// Contents are their own keys here; a digest serves in earnest.
//! struct Tree(Vec<(&'static str, &'static str)>, Vec<(&'static str, Directives)>);
//!
//! impl World<&'static str> for Tree {
//!     fn now(&self, path: &[u8]) -> Found<&'static str> {
//!         let file = self.0.iter().find(|(known, _)| known.as_bytes() == path);
//!         file.map_or(Found::Absent, |(_, text)| Found::File(text))
//!     }
//!     fn directives(&self, content: &'static str) -> Option<&Directives> {
//!         self.1.iter().find(|(text, _)| *text == content).map(|(_, directives)| directives)
//!     }
//! }
//!
//! let command = CompileCommand::parse(["gcc", "-Iinc", "-c", "a.c"]).expect("a compile");
//! let (then, now) = ("#include <x.h>\n", "// reads y.h, too\n#include <x.h>\n#include <y.h>\n");
//! let files = vec![("a.c", now), ("inc/x.h", "int x;"), ("inc/y.h", "int y;")];
//! let texts = [then, now, "int x;", "int y;"];
//! let tree = Tree(files, texts.map(|text| (text, Directives::scan(text.as_bytes()))).to_vec());
//! let question = Question {
//!     command: &command,
//!     working_directory: b"",
//!     recorded: &[(Bytes::from("a.c"), then), (Bytes::from("inc/x.h"), "int x;")],
//!     standard: &[],
//!     appeared: &[],
//! };
//! let added = vec![Bytes::from("inc/y.h")];
//! assert_eq!(question.ask(&tree), Verdict::Changed { added, removed: vec![] });
//! ```

mod command;
pub mod depfile;
mod directives;
mod path;
mod question;
mod search;

pub use command::{CompileCommand, Forced, Language};
pub use directives::{Condition, Directives, Form, Include, Macro, MacroEvent, Operand, Place};
pub use path::normalise;
pub use question::{Doubt, Found, Question, Verdict, World};
