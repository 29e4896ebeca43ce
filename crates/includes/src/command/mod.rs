//! A compile as the command line states it.

mod driver;
mod options;

use bytes::Bytes;

use crate::path::extension;
use options::{Kind, Value};

/// The language of a source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cpp,
    /// Objective-C.
    ObjC,
    /// Objective-C++.
    ObjCpp,
    /// Assembler that is preprocessed.
    Assembler,
}

/// A file that the command line includes before each source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    /// The name as given.
    pub name: Bytes,
    /// `-imacros`: only its macros stay.
    pub macros_only: bool,
}

/// A driver's command line that preprocesses and compiles C-like sources.
///
/// Understood is what gcc and clang share. See the GCC manual, "Options
/// Controlling the Preprocessor" and "Options for Directory Search". What the
/// environment adds (`CPATH`, `C_INCLUDE_PATH`, `GCC_EXEC_PREFIX`, …) is not
/// part of a command line: callers treat such commands as doubtful.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CompileCommand {
    sources: Vec<Source>,
    quote: Vec<Bytes>,
    include: Vec<Bytes>,
    system: Vec<Bytes>,
    after: Vec<Bytes>,
    forced: Vec<Forced>,
    macros: Vec<(Bytes, bool)>,
    no_standard: bool,
    stops: bool,
    doubts: Vec<Bytes>,
    other_inputs: Vec<Bytes>,
    kept: Vec<Kept>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Source {
    name: Bytes,
    language: Language,
}

/// An argument of the listing, or the place of a source in it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kept {
    Argument(Bytes),
    Source(usize),
}

impl CompileCommand {
    /// Reads a command line. `arguments[0]` is the compiler, by whatever path,
    /// target prefix and version suffix, or `ccache`, `recc`, `sccache`,
    /// `distcc` or `icecc` before it.
    ///
    /// `None`: another program, or nothing that is preprocessed: a link, plain
    /// assembler, a header to be precompiled, standard input.
    pub fn parse(arguments: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Option<CompileCommand> {
        // One copy of all of them, of which everything that is kept is a part.
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for argument in arguments {
            text.extend_from_slice(argument.as_ref());
            ends.push(text.len());
        }
        let (text, mut start) = (Bytes::from(text), 0);
        let mut arguments = ends.into_iter().map(|end| text.slice(std::mem::replace(&mut start, end)..end));
        let mut compiler = arguments.next()?;
        if driver::is_launcher(&compiler) {
            compiler = arguments.next()?;
        }
        if !driver::is_compiler(&compiler) {
            return None;
        }
        let cpp = driver::is_cpp(&compiler);
        let mut reader = Reader { command: CompileCommand::default(), language: None, cpp, refused: false };
        reader.command.kept.push(Kept::Argument(compiler));
        while let Some(argument) = arguments.next() {
            reader.argument(argument, &mut arguments);
        }
        // Files of macros are read before all others (GCC manual, -imacros).
        reader.command.forced.sort_by_key(|forced| !forced.macros_only);
        (!reader.refused && !reader.command.sources.is_empty()).then_some(reader.command)
    }

    /// Whether [`parse`](Self::parse) may find a compile: it finds none where this is false. Much less is looked at.
    pub fn is_conceivable(arguments: impl IntoIterator<Item = impl AsRef<[u8]>>) -> bool {
        let mut arguments = arguments.into_iter();
        let runs = |program: &[u8]| driver::is_launcher(program) || driver::is_compiler(program);
        arguments.next().is_some_and(|program| runs(program.as_ref()))
            && arguments.any(|argument| {
                let argument = argument.as_ref();
                argument.starts_with(b"-x") || driver::language_of(extension(argument)).is_some()
            })
    }

    /// The sources as given, in order; at least one.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.sources.iter().map(|source| &source.name)
    }

    /// The language of all sources, if it is one.
    #[must_use]
    pub fn language(&self) -> Option<Language> {
        let first = self.sources.first()?.language;
        self.sources.iter().all(|source| source.language == first).then_some(first)
    }

    /// Directories for quoted names only (`-iquote`), as given and in order.
    #[must_use]
    pub fn quote_directories(&self) -> &[Bytes] {
        &self.quote
    }

    /// The directories of `-I`.
    #[must_use]
    pub fn include_directories(&self) -> &[Bytes] {
        &self.include
    }

    /// The directories of `-isystem`, which come after those of `-I`, before the standard ones.
    #[must_use]
    pub fn system_directories(&self) -> &[Bytes] {
        &self.system
    }

    /// The directories of `-idirafter`, which come last.
    #[must_use]
    pub fn after_directories(&self) -> &[Bytes] {
        &self.after
    }

    /// Whether the standard directories are searched: not with `-nostdinc`.
    #[must_use]
    pub fn searches_standard(&self) -> bool {
        !self.no_standard
    }

    /// What `-imacros` and `-include` name, in the order in which it is read.
    #[must_use]
    pub fn forced(&self) -> &[Forced] {
        &self.forced
    }

    /// Whether the command links, too: nothing stops it before.
    #[must_use]
    pub fn links(&self) -> bool {
        !self.stops
    }

    /// Inputs that are not preprocessed: objects, archives, plain assembler.
    #[must_use]
    pub fn other_inputs(&self) -> &[Bytes] {
        &self.other_inputs
    }

    /// The arguments whose meaning for the search is not known here. With any
    /// of them, text alone cannot say which file a name means.
    #[must_use]
    pub fn doubts(&self) -> &[Bytes] {
        &self.doubts
    }

    /// Whether the compiler reads `stdc-predef.h` by itself before everything
    /// else: gcc does, for a hosted C-like language; clang does not. `None`: one
    /// cannot tell by the name of the driver.
    pub(crate) fn reads_predefinitions(&self) -> Option<bool> {
        let arguments = self.kept.iter().filter_map(|kept| match kept {
            Kept::Argument(argument) => Some(argument),
            Kept::Source(_) => None,
        });
        let mut arguments = arguments.peekable();
        let gcc = driver::is_gcc(arguments.peek()?);
        let hosted = !arguments.any(|a| a == "-nostdinc" || a == "-ffreestanding" || a == "-fno-hosted");
        match gcc {
            Some(true) if self.language() == Some(Language::Assembler) => None,
            gcc => gcc.map(|gcc| gcc && hosted),
        }
    }

    /// What the command line itself says of the macro: the last `-D` or `-U` of it.
    pub(crate) fn defines(&self, name: &[u8]) -> Option<bool> {
        self.macros.iter().rev().find(|(known, _)| known == name).map(|(_, defined)| *defined)
    }

    /// The command that, run in the same place, only writes to `depfile` which
    /// files this one reads, system headers included.
    ///
    /// Outputs, other dependency files and the link are dropped, as is a
    /// launcher such as ccache; whatever bears on preprocessing stays in order,
    /// `-O`, `-m` and `-f` options included, for they define macros.
    ///
    /// With more than one source, gcc overwrites the listing with that of the
    /// next: ask for each with [`listing_of`](Self::listing_of).
    #[must_use]
    pub fn listing(&self, depfile: &str) -> Vec<Bytes> {
        self.list(None, depfile)
    }

    /// The [`listing`](Self::listing) of one of the [`sources`](Self::sources), by its index.
    #[must_use]
    pub fn listing_of(&self, source: usize, depfile: &str) -> Vec<Bytes> {
        self.list(Some(source), depfile)
    }

    fn list(&self, source: Option<usize>, depfile: &str) -> Vec<Bytes> {
        let wanted = |kept: &Kept| match kept {
            Kept::Argument(argument) => Some(argument.clone()),
            Kept::Source(index) if source.is_none_or(|source| source == *index) => {
                Some(self.sources[*index].name.clone())
            }
            Kept::Source(_) => None,
        };
        let mut arguments: Vec<Bytes> = self.kept.iter().filter_map(wanted).collect();
        arguments.extend([Bytes::from_static(b"-M"), Bytes::from_static(b"-MF"), Bytes::from(depfile.to_owned())]);
        arguments
    }
}

struct Reader {
    command: CompileCommand,
    /// What `-x` said last; `Some(None)`: a language that is not preprocessed.
    language: Option<Option<Language>>,
    cpp: bool,
    refused: bool,
}

impl Reader {
    fn argument(&mut self, argument: Bytes, rest: &mut impl Iterator<Item = Bytes>) {
        if !argument.starts_with(b"-") && !argument.starts_with(b"@") || argument == "-" {
            return self.input(argument);
        }
        let (kind, takes, joined) = options::option(&argument);
        let separate = if takes == Value::Next { rest.next() } else { None };
        let value = joined.map(|value| argument.slice_ref(value)).or_else(|| separate.clone());
        let value = value.unwrap_or_default();
        if takes == Value::Next && separate.is_none() {
            // The driver would refuse it.
            self.command.doubts.push(argument);
            return;
        }
        let mut keep = true;
        let command = &mut self.command;
        match kind {
            Kind::Plain => self.macros(&argument, &value),
            Kind::Dropped => keep = false,
            Kind::Stops => {
                command.stops = true;
                keep = false;
            }
            Kind::Quote | Kind::Include | Kind::System | Kind::After => {
                // A `=` or `$SYSROOT` stands for the root of the system.
                if value.starts_with(b"=") || value.starts_with(b"$SYSROOT") || value.is_empty() {
                    command.doubts.push(argument.clone());
                }
                match kind {
                    Kind::Quote => command.quote.push(value),
                    Kind::Include => command.include.push(value),
                    Kind::System => command.system.push(value),
                    _ => command.after.push(value),
                }
            }
            Kind::Forced => command.forced.push(Forced { name: value, macros_only: false }),
            Kind::ForcedMacros => command.forced.push(Forced { name: value, macros_only: true }),
            Kind::Language => self.language = driver::language_named(&value),
            Kind::NoStandard => command.no_standard = true,
            Kind::Root => {
                if value.is_empty() || value.iter().any(|c| *c != b'/') {
                    command.doubts.push(argument.clone());
                }
            }
            Kind::Inner => {
                self.inner(&argument, &value, separate);
                return;
            }
            Kind::Doubtful => command.doubts.push(argument.clone()),
        }
        if keep {
            self.keep(argument);
            separate.into_iter().for_each(|value| self.keep(value));
        }
    }

    fn keep(&mut self, argument: Bytes) {
        self.command.kept.push(Kept::Argument(argument));
    }

    fn macros(&mut self, argument: &Bytes, value: &Bytes) {
        let defines = argument.starts_with(b"-D") || argument.starts_with(b"--define-macro");
        let undefines = argument.starts_with(b"-U") || argument.starts_with(b"--undefine-macro");
        if defines || undefines {
            let end = value.iter().position(|c| matches!(c, b'=' | b'(')).unwrap_or(value.len());
            self.command.macros.push((value.slice(..end), defines));
        }
    }

    fn input(&mut self, argument: Bytes) {
        let command = &mut self.command;
        let language = match self.language {
            Some(language) => language,
            None if argument == "-" => None,
            None => driver::language_of(extension(&argument)),
        };
        let is_header = self.language.is_none() && driver::is_header(extension(&argument));
        match language {
            Some(language) if argument != "-" => {
                let language = if self.cpp && language == Language::C { Language::Cpp } else { language };
                command.kept.push(Kept::Source(command.sources.len()));
                command.sources.push(Source { name: argument, language });
            }
            _ => {
                self.refused |= argument == "-" || is_header;
                command.other_inputs.push(argument);
            }
        }
    }

    /// `-Wp,a,b` and `-Xpreprocessor a`, whose options are those of the preprocessor itself.
    fn inner(&mut self, argument: &Bytes, value: &Bytes, separate: Option<Bytes>) {
        let mut kept = Vec::new();
        let mut options = value.split(|c| *c == b',').filter(|_| separate.is_none());
        while let Some(option) = options.next() {
            let (kind, more) = options::inner(option);
            match kind {
                Kind::Dropped => (0..more).for_each(|_| _ = options.next()),
                Kind::Plain => {
                    let name = value.slice_ref(&option[2..]);
                    self.macros(&value.slice_ref(option), &name);
                    kept.push(option);
                }
                _ => {
                    self.command.doubts.push(argument.clone());
                    kept.push(option);
                }
            }
        }
        match separate {
            // Options with values come in two of these; none of that is worth understanding.
            Some(separate) => {
                self.command.doubts.push(separate.clone());
                self.keep(argument.clone());
                self.keep(separate);
            }
            None if !kept.is_empty() => self.keep(Bytes::from([b"-Wp,", kept.join(&b","[..]).as_slice()].concat())),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
