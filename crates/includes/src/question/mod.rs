//! Whether a compile still reads the same files.

mod align;
mod bits;
mod files;
mod graph;
mod macros;
mod moved;
mod walk;

use std::fmt;
use std::hash::Hash;

use bytes::Bytes;

use crate::command::CompileCommand;
use crate::directives::Directives;

/// What is at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<K> {
    /// A file with this content.
    File(K),
    /// No file.
    Absent,
    /// That is not known yet, for instance because something that makes it still runs.
    Unknown,
}

/// The state of things that a [`Question`] is about. `K` is a key of content, such as a digest.
pub trait World<K> {
    /// What is at `path`, which is normalised, now.
    ///
    /// Paths that no compile has read are asked for, too: an answer of
    /// [`Found::Absent`] must be meant for these. Directories are no files.
    fn now(&self, path: &[u8]) -> Found<K>;

    /// The directives of the file with this content; `None` if they are not at hand.
    fn directives(&self, content: K) -> Option<&Directives>;
}

/// A recorded compile and what surrounds it. All paths but those of the
/// command are [normalised](crate::normalise).
#[derive(Clone, Copy, Debug)]
pub struct Question<'a, K> {
    /// What was run.
    pub command: &'a CompileCommand,
    /// Where it ran, relative to the tree's root.
    pub working_directory: &'a [u8],
    /// All files that it read, with their contents then: its sources, headers
    /// and, where the record has them, system headers. Each path once.
    pub recorded: &'a [(Bytes, K)],
    /// The compiler's standard include directories for this language, in order.
    pub standard: &'a [Bytes],
    /// All paths at which there is a file now and was none then. Without
    /// them a header that shadows another one goes unseen.
    pub appeared: &'a [Bytes],
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict<K> {
    /// It reads the same files, whose contents may be others.
    Same,
    /// It reads others.
    Changed {
        /// What it reads in addition, sorted.
        added: Vec<Bytes>,
        /// What it does not read any more, sorted.
        removed: Vec<Bytes>,
    },
    /// The directives of these contents are needed for an answer. Comes at
    /// most three times, and once more for each level of new headers.
    Lacks {
        /// Of what, each once.
        contents: Vec<K>,
    },
    /// It takes what is at these paths, which is not known.
    Waits {
        /// Normalised paths, each once.
        paths: Vec<Bytes>,
    },
    /// The compile would fail: there is nothing to predict.
    Broken {
        /// The file with the include; for a source or a forced include that is
        /// gone, the file named by the command.
        file: Bytes,
        /// The name that is found nowhere.
        include: Bytes,
    },
    /// Text cannot say: ask the compiler.
    Unsure(Doubt),
}

/// Why text cannot say which files are read. Names are for people to read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Doubt {
    /// The command has an argument whose meaning is not known here.
    Argument(Bytes),
    /// The command has several sources, and something else than macros changed.
    SeveralSources,
    /// This source is not among the recorded files.
    NotRecorded(Bytes),
    /// This file is, or hides, a precompiled header.
    Precompiled(Bytes),
    /// The macro changes, or changes place, and a condition around an include may depend on it.
    Macro(Bytes),
    /// Whether the file is read depends on a condition around its include.
    Conditional(Bytes),
    /// The file has an include whose meaning cannot be said by text.
    Computed(Bytes),
    /// The file asks for existence of files, and such a one came or went.
    Probe(Bytes),
    /// Nothing in the recorded texts says why this file was read.
    Unexplained(Bytes),
    /// The record has not all files that were read, and this name may be one of those.
    Partial(Bytes),
    /// The file has something in it that is not understood here, or too much of it.
    Odd(Bytes),
    /// The file is no longer, or was not until now, read just once.
    Guard(Bytes),
    /// The name may be outside of the tree.
    Outside(Bytes),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name): (&str, &[u8]) = match self {
            Doubt::SeveralSources => ("several sources in one command", b""),
            Doubt::Argument(name) => ("argument not understood: ", name),
            Doubt::NotRecorded(name) => ("source not recorded: ", name),
            Doubt::Precompiled(name) => ("precompiled header: ", name),
            Doubt::Macro(name) => ("an include may depend on the macro ", name),
            Doubt::Conditional(name) => ("read under a condition: ", name),
            Doubt::Computed(name) => ("include that cannot be resolved in ", name),
            Doubt::Probe(name) => ("existence of files asked for in ", name),
            Doubt::Unexplained(name) => ("read for no reason that is known: ", name),
            Doubt::Partial(name) => ("not all files are recorded, may be one of them: ", name),
            Doubt::Odd(name) => ("not understood: ", name),
            Doubt::Guard(name) => ("include guard changed: ", name),
            Doubt::Outside(name) => ("may be outside of the tree: ", name),
        };
        write!(f, "{what}{}", String::from_utf8_lossy(name))
    }
}

impl<K: Copy + Eq + Hash> Question<'_, K> {
    /// The answer as of now.
    ///
    /// Where no directives changed and nothing appeared, only the files whose
    /// content changed are looked at. After [`Verdict::Lacks`] and
    /// [`Verdict::Waits`] ask again with what was missing; nothing is kept in between.
    ///
    /// Trusted, and so not told by the text alone:
    /// - system headers, which are those below [`standard`](Question::standard),
    ///   read the same files in whatever order they are included;
    /// - what the compiler predefines stays: the compiler is the same one;
    /// - a conditional include of something that is found nowhere is not active;
    /// - the recorded files are those that a run of the command did read.
    pub fn ask(&self, world: &impl World<K>) -> Verdict<K> {
        match walk::ask(self, world) {
            Ok(verdict) | Err(verdict) => verdict,
        }
    }
}
