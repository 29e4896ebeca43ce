//! Where the preprocessor looks for a name.

use bytes::Bytes;

use crate::command::CompileCommand;
use crate::directives::{Form, Operand};
use crate::path::{below, file_name, normalise, parent};

/// The search path of a command, normalised. A directory outside of the tree is `None`.
///
/// The order is that of the GCC manual, "Search Path" and "Options for
/// Directory Search": for quoted names the directory of the including file and
/// `-iquote`; then, for all, `-I`, `-isystem`, the standard ones, `-idirafter`.
/// A directory named twice counts where it stands first, but one of `-I` that
/// is a system directory as well only counts there.
pub(crate) struct Search {
    quote: Vec<Option<Bytes>>,
    chain: Vec<Option<Bytes>>,
    standard: Vec<Bytes>,
    working_directory: Option<Bytes>,
}

/// The paths that a name may mean, first choice first; `None` for one outside of the tree.
pub(crate) type Candidates = Vec<Option<Bytes>>;

impl Search {
    pub(crate) fn new(command: &CompileCommand, working_directory: &[u8], standard: &[Bytes]) -> Search {
        let all = |given: &[Bytes]| -> Vec<_> { given.iter().map(|d| normalise(d, working_directory)).collect() };
        let standard = if command.searches_standard() { standard } else { &[] };
        let mut system = all(command.system_directories());
        system.extend(standard.iter().cloned().map(Some));
        system.extend(all(command.after_directories()));
        dedup(&mut system);
        let mut chain = all(command.include_directories());
        chain.retain(|d| d.is_none() || !system.contains(d));
        chain.extend(system);
        dedup(&mut chain);
        let mut quote = all(command.quote_directories());
        dedup(&mut quote);
        let working_directory = normalise(b".", working_directory);
        Search { quote, chain, standard: standard.to_vec(), working_directory }
    }

    /// What an include in the file at `includer` may mean. `None`: that cannot be said by text.
    pub(crate) fn candidates(&self, form: Form, operand: &Operand, includer: &[u8]) -> Option<Candidates> {
        match (form, operand) {
            (Form::Embed, _) | (_, Operand::Computed(_)) => None,
            (Form::Next, Operand::Quote(name) | Operand::Angle(name)) => self.next(name, includer),
            (_, Operand::Quote(name)) => {
                let own = Some(Bytes::copy_from_slice(parent(includer)));
                Some(in_directories(name, std::iter::once(&own).chain(&self.quote).chain(&self.chain)))
            }
            (_, Operand::Angle(name)) => Some(in_directories(name, self.chain.iter())),
        }
    }

    /// What a name of `-include` may mean: the working directory comes first.
    pub(crate) fn forced(&self, name: &[u8]) -> Candidates {
        let directories = std::iter::once(&self.working_directory).chain(&self.quote).chain(&self.chain);
        in_directories(name, directories)
    }

    /// Whether the file was found in one of the standard directories.
    pub(crate) fn is_standard(&self, path: &[u8]) -> bool {
        self.standard.iter().any(|directory| below(path, directory))
    }

    /// `#include_next` goes on behind the directory in which its own file was
    /// found. That is only certain for the wrappers among system headers,
    /// which include their own name.
    fn next(&self, name: &[u8], includer: &[u8]) -> Option<Candidates> {
        if !self.is_standard(includer) {
            return None;
        }
        let found_in = |directory: &&Option<Bytes>| {
            in_directories(name, std::iter::once(*directory)).first().is_some_and(|c| c.as_deref() == Some(includer))
        };
        let at = self.chain.iter().position(|directory| found_in(&directory))?;
        Some(in_directories(name, self.chain[at + 1..].iter()))
    }
}

/// Whether `path` may be what an include means whose candidates are not known.
pub(crate) fn may_mean(operand: &Operand, path: &[u8]) -> bool {
    match operand {
        Operand::Quote(name) | Operand::Angle(name) => file_name(name) == file_name(path),
        Operand::Computed(_) => false,
    }
}

fn in_directories<'d>(name: &[u8], directories: impl Iterator<Item = &'d Option<Bytes>>) -> Candidates {
    if name.starts_with(b"/") {
        return vec![normalise(name, b"")];
    }
    directories.map(|directory| normalise(name, directory.as_ref()?)).collect()
}

fn dedup(directories: &mut Vec<Option<Bytes>>) {
    let mut seen = Vec::new();
    directories.retain(|directory| {
        let new = directory.is_none() || !seen.contains(directory);
        seen.push(directory.clone());
        new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, form: Form, operand: &Operand, includer: &str, expected: Option<&[&str]>) {
        let command = CompileCommand::parse(line.split(' ')).unwrap();
        let standard = [Bytes::from("usr/c++"), Bytes::from("usr/include")];
        let search = Search::new(&command, b"w", &standard);
        let found = search.candidates(form, operand, includer.as_bytes());
        let found: Option<Vec<_>> = found.map(|found| {
            found.iter().map(|c| c.as_ref().map_or("-", |c| std::str::from_utf8(c).unwrap()).to_owned()).collect()
        });
        assert_eq!(
            found.as_deref(),
            expected.map(|e| e.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()).as_deref()
        );
    }

    #[test]
    fn directories_are_searched_in_order() {
        let line = "gcc -idirafter z -isystem s -Ia -I ../b -iquote q -I/usr/include -Ia -I ../../o -c x.c";
        let angle = Operand::Angle(Bytes::from("x.h"));
        let chain = ["w/a/x.h", "b/x.h", "-", "w/s/x.h", "usr/c++/x.h", "usr/include/x.h", "w/z/x.h"];
        check(line, Form::Include, &angle, "w/d/y.c", Some(&chain));
        let quote = Operand::Quote(Bytes::from("x.h"));
        let own: Vec<&str> = ["w/d/x.h", "w/q/x.h"].into_iter().chain(chain).collect();
        check(line, Form::Include, &quote, "w/d/y.c", Some(&own));
        check("gcc -nostdinc -c x.c", Form::Include, &angle, "w/d/y.c", Some(&[]));
        check("gcc -c x.c", Form::Import, &Operand::Quote(Bytes::from("/a/b.h")), "w/y.c", Some(&["a/b.h"]));
    }

    #[test]
    fn next_is_certain_for_wrappers_only() {
        let angle = Operand::Angle(Bytes::from("x.h"));
        check("gcc -c x.c", Form::Next, &angle, "usr/c++/x.h", Some(&["usr/include/x.h"]));
        check("gcc -c x.c", Form::Next, &angle, "usr/c++/y.h", None);
        check("gcc -Ia -c x.c", Form::Next, &angle, "w/a/x.h", None);
    }
}
