//! Which files a toy compile reads: `#include`, `#define NAME`, `#ifdef NAME` and `#endif` at the beginning of lines.

use std::collections::{BTreeMap, BTreeSet};

/// The files that compiling `source` reads, sorted; `None` where an include is found nowhere.
pub fn reads(files: &BTreeMap<String, String>, arguments: &[String], directory: &str) -> Option<BTreeSet<String>> {
    let mut search = Vec::new();
    let mut forced = Vec::new();
    let mut source = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if let Some(path) = argument.strip_prefix("-I") {
            search.push(join(directory, path));
        } else if argument == "-include" {
            forced.push(rest.next()?.clone());
        } else if argument.ends_with(".c") {
            source = Some(join(directory, argument));
        }
    }
    search.push("usr/include".to_owned());
    let mut state = State { files, search, read: BTreeSet::new(), defined: BTreeSet::new() };
    for name in forced {
        let path = state.find(&name, Some(directory))?;
        state.read(&path)?;
    }
    state.read(&source?)?;
    Some(state.read)
}

struct State<'a> {
    files: &'a BTreeMap<String, String>,
    search: Vec<String>,
    read: BTreeSet<String>,
    defined: BTreeSet<String>,
}

impl State<'_> {
    fn read(&mut self, path: &str) -> Option<()> {
        let text = self.files.get(path)?.clone();
        if !self.read.insert(path.to_owned()) {
            return Some(());
        }
        let mut active = vec![true];
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let reads = active.iter().all(|active| *active);
            match word {
                "#ifdef" => active.push(self.defined.contains(rest)),
                "#endif" => drop(active.pop()),
                "#define" if reads => drop(self.defined.insert(rest.split(' ').next()?.to_owned())),
                "#include" if reads => {
                    let name = rest.trim_matches(['"', '<', '>']);
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let found = self.find(name, rest.starts_with('"').then_some(parent))?;
                    self.read(&found)?;
                }
                _ => {}
            }
        }
        Some(())
    }

    fn find(&self, name: &str, first: Option<&str>) -> Option<String> {
        let places = first.into_iter().chain(self.search.iter().map(String::as_str));
        places.map(|place| join(place, name)).find(|path| self.files.contains_key(path))
    }
}

pub fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() { path.to_owned() } else { format!("{directory}/{path}") }
}
