//! Which files a C file includes, by its text: `#include` lines whatever conditions they stand under.

/// One `#include`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Include<'a> {
    pub(super) name: &'a str,
    /// With quotes: looked for beside the including file first.
    pub(super) quoted: bool,
}

/// The includes of a text in order, repetitions included.
pub(super) fn scan(text: &str) -> impl Iterator<Item = Include<'_>> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
        let (quoted, end) = match rest.chars().next()? {
            '"' => (true, '"'),
            '<' => (false, '>'),
            _ => return None,
        };
        let (name, _) = rest.get(1..)?.split_once(end)?;
        Some(Include { name, quoted })
    })
}

/// Where an include may be found: each a path, best first. `from` is the including file's path.
pub(super) fn candidates(include: Include<'_>, from: &str, folders: &[String]) -> Vec<String> {
    let beside = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let first = include.quoted.then(|| join(beside, include.name));
    first.into_iter().chain(folders.iter().map(|f| join(f, include.name))).flatten().collect()
}

/// Joins and normalises; `None` for a path that leaves the tree.
fn join(folder: &str, name: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in folder.split('/').chain(name.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            other => segments.push(other),
        }
    }
    (!name.starts_with('/')).then(|| segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn includes_are_found_by_text() {
        let text = "#include <a.h>\n  #  include \"b/c.h\" // x\n#include MACRO\n#included <d.h>\n// #include <no.h>\n#include <e.h";
        let found: Vec<_> = scan(text).map(|i| (i.name, i.quoted)).collect();
        assert_eq!(found, [("a.h", false), ("b/c.h", true)]);
    }

    #[test]
    fn quotes_look_beside_the_file_first() {
        let folders = ["w/include".to_owned(), "usr/include".to_owned()];
        let check = |name, quoted| candidates(Include { name, quoted }, "w/src/x.c", &folders);
        assert_eq!(check("../y.h", true), ["w/y.h", "w/y.h", "usr/y.h"]);
        assert_eq!(check("y.h", false), ["w/include/y.h", "usr/include/y.h"]);
        assert_eq!(check("/y.h", true), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[#include <\"/.>\\n\\PC]*") {
            for include in scan(&text) {
                candidates(include, "a/b.c", &["c".to_owned()]);
            }
        }
    }
}
