//! The real compiler, and the real files as a world.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "test code, not all of it used by each test")]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use includes::{CompileCommand, Directives, Found, World, depfile, normalise};

/// Whether there is a gcc; says so loudly if not.
pub(crate) fn gcc_is_here(test: &str) -> bool {
    let found = Command::new("gcc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let here = found.is_ok_and(|status| status.success());
    if !here {
        eprintln!("SKIPPED: {test} compares with gcc, and there is none on this machine");
    }
    here
}

/// The files that the command reads in `directory` according to gcc; `None` if it fails.
pub(crate) fn files_read(command: &CompileCommand, directory: &Path) -> Option<BTreeSet<Bytes>> {
    let depfile = directory.join("listing.d");
    let mut files = BTreeSet::new();
    for source in 0..command.sources().len() {
        let arguments = command.listing_of(source, depfile.to_str().unwrap());
        let arguments: Vec<&str> = arguments.iter().map(|a| std::str::from_utf8(a).unwrap()).collect();
        let status = Command::new(arguments[0])
            .args(&arguments[1..])
            .current_dir(directory)
            .env("LC_ALL", "C")
            .stderr(Stdio::null())
            .status();
        if !status.unwrap().success() {
            return None;
        }
        let listing = depfile::parse(&std::fs::read(&depfile).unwrap()).unwrap();
        std::fs::remove_file(&depfile).unwrap();
        files.extend(listing.iter().map(|path| normalise(path, &in_root(directory)).unwrap()));
    }
    Some(files)
}

/// The directory as a path from the root.
pub(crate) fn in_root(directory: &Path) -> Bytes {
    Bytes::copy_from_slice(directory.to_str().unwrap().trim_start_matches('/').as_bytes())
}

/// gcc's standard include directories for a language (`c`, `c++`), normalised.
pub(crate) fn standard_directories(language: &str) -> Vec<Bytes> {
    let output =
        Command::new("gcc").args(["-E", "-v", "-x", language, "/dev/null"]).env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("#include <...>")).skip(1);
    let directories = lines.take_while(|line| line.starts_with(' '));
    directories.map(|line| normalise(line.trim().as_bytes(), b"").unwrap()).collect()
}

/// The file system, where everything is asked for twice: at first nothing is known.
#[derive(Default)]
pub(crate) struct Disk {
    contents: RefCell<HashMap<Vec<u8>, usize>>,
    directives: HashMap<usize, Directives>,
    known: RefCell<HashSet<Bytes>>,
}

impl Disk {
    /// The key of the content of the file there.
    pub(crate) fn content(&self, path: &[u8]) -> Option<usize> {
        let content = std::fs::read(format!("/{}", std::str::from_utf8(path).unwrap())).ok()?;
        let mut contents = self.contents.borrow_mut();
        let next = contents.len();
        Some(*contents.entry(content).or_insert(next))
    }

    pub(crate) fn load(&mut self, wanted: &[usize]) {
        for (content, key) in self.contents.borrow().iter().filter(|(_, key)| wanted.contains(key)) {
            self.directives.entry(*key).or_insert_with(|| Directives::scan(content));
        }
    }

    pub(crate) fn learn(&self, paths: &[Bytes]) {
        self.known.borrow_mut().extend(paths.iter().cloned());
    }

    /// Forgets what was learnt of paths, as those may be others after a change.
    pub(crate) fn forget(&self) {
        self.known.borrow_mut().clear();
    }
}

impl World<usize> for Disk {
    fn now(&self, path: &[u8]) -> Found<usize> {
        if !self.known.borrow().contains(path) {
            return Found::Unknown;
        }
        self.content(path).map_or(Found::Absent, Found::File)
    }

    fn directives(&self, content: usize) -> Option<&Directives> {
        self.directives.get(&content)
    }
}
