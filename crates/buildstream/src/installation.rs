//! Which BuildStream, and which interpreter runs it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a trampoline may put before the program proper. The kernel reads 256 bytes of a first line.
const HEAD_BYTES: u64 = 4096;

/// Why there is no BuildStream to ask.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// No folder of the search path has a `bst`.
    #[error("there is no `bst` in the search path; install BuildStream, or say where `bst` is")]
    NotFound,
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The `bst` in question.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file does not say which Python interpreter runs it.
    #[error(
        "{0} does not begin with the Python interpreter that runs it: a wrapper, perhaps; name the interpreter, or the script that the wrapper runs"
    )]
    NoInterpreter(PathBuf),
}

/// An installed BuildStream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    bst: PathBuf,
    interpreter: OsString,
    arguments: Vec<OsString>,
}

impl Installation {
    /// The first `bst` in a search path, which has the form of the variable PATH.
    ///
    /// # Errors
    /// [`InstallationError`] where there is none, or the first one is not a Python script.
    pub fn search(search_path: &OsStr) -> Result<Self, InstallationError> {
        let folders = std::env::split_paths(search_path).filter(|folder| folder.is_absolute());
        let bst = folders.map(|folder| folder.join("bst")).find(|file| is_executable(file));
        Self::of_script(bst.ok_or(InstallationError::NotFound)?)
    }

    /// The interpreter that this `bst` script names in its first line, or, where
    /// the path was too long for one, in the lines that installers write then.
    ///
    /// # Errors
    /// [`InstallationError::Unreadable`], [`InstallationError::NoInterpreter`].
    pub fn of_script(bst: impl Into<PathBuf>) -> Result<Self, InstallationError> {
        let bst = bst.into();
        let unreadable = |source| InstallationError::Unreadable { path: bst.clone(), source };
        let mut head = Vec::new();
        std::fs::File::open(&bst).and_then(|f| f.take(HEAD_BYTES).read_to_end(&mut head)).map_err(unreadable)?;
        match interpreter(&head) {
            Some((interpreter, arguments)) => Ok(Self::with_interpreter(bst, interpreter, arguments)),
            None => Err(InstallationError::NoInterpreter(bst)),
        }
    }

    /// A `bst` that is run by this interpreter with these arguments, whatever its file says.
    pub fn with_interpreter(
        bst: impl Into<PathBuf>,
        interpreter: impl Into<OsString>,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Self {
        Self { bst: bst.into(), interpreter: interpreter.into(), arguments: arguments.into_iter().collect() }
    }

    /// The `bst` program.
    #[must_use]
    pub fn bst(&self) -> &Path {
        &self.bst
    }

    /// The interpreter.
    #[must_use]
    pub fn interpreter(&self) -> &OsStr {
        &self.interpreter
    }

    /// What stands between the interpreter and the script.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The interpreter of a script and its arguments.
fn interpreter(head: &[u8]) -> Option<(OsString, Vec<OsString>)> {
    let text = std::str::from_utf8(head).or_else(|e| std::str::from_utf8(&head[..e.valid_up_to()])).ok()?;
    let mut lines = text.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    // As the kernel does: at most one argument, which may have spaces.
    let (program, argument) = match first.split_once([' ', '\t']) {
        Some((program, argument)) => (program, Some(argument.trim())),
        None => (first, None),
    };
    let name = program.rsplit('/').next()?;
    if is_python(name) || (name == "env" && argument.is_some_and(|argument| argument.split(' ').any(is_python))) {
        return Some((program.into(), argument.map(OsString::from).into_iter().collect()));
    }
    if name != "sh" {
        return None;
    }
    // `'''exec' "/long/path/python" "$0" "$@"`: a command to the shell, a string to Python.
    let command = lines.next()?.strip_prefix("'''exec'")?.trim_start();
    let (program, rest) = match command.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => command.split_once(' ')?,
    };
    let arguments = rest.split_once("\"$0\"")?.0.split_whitespace().map(OsString::from).collect();
    is_python(program.rsplit('/').next()?).then(|| (program.into(), arguments))
}

/// `python3.11`, `pypy3`, `/usr/bin/python`: nothing that stands for a shell command.
fn is_python(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    (name.starts_with("python") || name.starts_with("pypy")) && !program.contains(['$', '`', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tempfile::TempDir;

    #[track_caller]
    fn check(head: &str, expected: Option<(&str, &[&str])>) {
        let expected =
            expected.map(|(i, arguments)| (OsString::from(i), arguments.iter().map(OsString::from).collect()));
        assert_eq!(interpreter(head.as_bytes()), expected, "{head}");
    }

    #[test]
    fn scripts_name_their_interpreter_in_several_ways() {
        check("#!/opt/v/bin/python3\nimport sys\n", Some(("/opt/v/bin/python3", &[])));
        check("#! /usr/bin/python3.11 -sP\n", Some(("/usr/bin/python3.11", &["-sP"])));
        check("#!/usr/bin/env python3\n", Some(("/usr/bin/env", &["python3"])));
        check("#!/usr/bin/env -S python3 -I\r\n", Some(("/usr/bin/env", &["-S python3 -I"])));
        check("#!/bin/sh\n'''exec' /long/bin/python3 \"$0\" \"$@\"\n' '''\n", Some(("/long/bin/python3", &[])));
        check("#!/bin/sh\n'''exec' \"/a b/python3\" -s \"$0\" \"$@\"\n", Some(("/a b/python3", &["-s"])));
        check("#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")\"/'python' \"$0\" \"$@\"\n", None);
        check("#!/bin/bash\nexec real-bst\n", None);
        check("#!/bin/sh\nexec python3 real-bst\n", None);
        check("#!/usr/bin/env\n", None);
        check("#!/usr/bin/env bash\n", None);
        check("\u{7f}ELF", None);
        check("", None);
    }

    #[test]
    fn the_first_bst_of_the_search_path_counts() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let place = |name: &str, mode| {
            let bst = folder.path().join(name).join("bst");
            std::fs::create_dir(bst.parent().unwrap()).unwrap();
            std::fs::write(&bst, format!("#!/{name}/python3\n")).unwrap();
            std::fs::set_permissions(&bst, std::fs::Permissions::from_mode(mode)).unwrap();
            bst
        };
        place("data", 0o644);
        let bst = place("first", 0o755);
        place("second", 0o755);
        let path = |names: &[&str]| std::env::join_paths(names.iter().map(|name| folder.path().join(name))).unwrap();
        let found = Installation::search(&path(&["none", "data", "first", "second"])).unwrap();
        assert_eq!(found, Installation::with_interpreter(bst, "/first/python3", []));
        assert!(matches!(Installation::search(&path(&["none"])), Err(InstallationError::NotFound)));
        assert!(matches!(Installation::search(OsStr::new("")), Err(InstallationError::NotFound)));
        let unreadable = Installation::of_script(folder.path().join("none")).unwrap_err();
        assert!(matches!(unreadable, InstallationError::Unreadable { .. }));
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(head in prop::collection::vec(any::<u8>(), 0..300), text in "#!(.{0,9}[ /\"$'pyexecn0\n]{0,30}){0,9}") {
            let _ = interpreter(&head);
            let _ = interpreter(text.as_bytes());
        }
    }
}
