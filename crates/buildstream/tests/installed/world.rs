//! A project with caches of its own, and `bst` to work on it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use buildstream::{ElementState, Installation, Introspection, Invocation, Request};
use tempfile::TempDir;

const BST: &str = "BST_SA_TEST_BST";

pub(crate) struct World {
    installation: Installation,
    folder: TempDir,
}

impl World {
    /// A project in which `app` builds against `stack`, which stands for
    /// `lib`, which was made with `tool` and runs on `base` of another project.
    /// `None`, loudly, where there is no BuildStream to test with.
    pub(crate) fn new() -> Option<Self> {
        let Some(bst) = std::env::var_os(BST) else {
            // Past the capture of the test harness: a skip must be seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {BST} is not set, so there is no BuildStream to test with");
            return None;
        };
        let installation = Installation::of_script(PathBuf::from(bst)).unwrap();
        let world = Self { installation, folder: TempDir::new().unwrap() };
        world.configure("cache", "");
        let project = "name: demo\nmin-version: 2.0\nelement-path: elements\n\
                       options: {flavour: {type: enum, description: x, values: [a, b], default: a, variable: flavour}}\n";
        world.write("project.conf", project);
        world.write("sub/project.conf", "name: sub\nmin-version: 2.0\nelement-path: elements\n");
        world.write("elements/sub.bst", "kind: junction\nsources: [{kind: local, path: sub}]\n");
        for (file, content) in [("sub/files/base", "base"), ("files/tool", "tool"), ("files/app", "app")] {
            world.write(&format!("{file}/content"), content);
        }
        world.write("files/lib/lib.h", "#define LIB 1\n");
        let import = |path: &str, more: &str| format!("kind: import\nsources: [{{kind: local, path: {path}}}]\n{more}");
        world.write("sub/elements/base.bst", &import("files/base", ""));
        world.write("elements/tool.bst", &import("files/tool", ""));
        let lib = "build-depends: [tool.bst]\nruntime-depends: ['sub.bst:base.bst']\npublic: {flavour: '%{flavour}'}\n";
        world.write("elements/lib.bst", &import("files/lib", lib));
        world.write("elements/stack.bst", "kind: stack\ndepends: [lib.bst]\n");
        world.write("elements/deep/app.bst", &import("files/app", "build-depends: [stack.bst]\n"));
        Some(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a user configuration of this name: caches of its own, and what else is given.
    pub(crate) fn configure(&self, name: &str, more: &str) {
        let base = self.path(name);
        let base = base.display();
        let text = format!("cachedir: {base}\nsourcedir: {base}-sources\nlogdir: {base}-logs\n{more}");
        self.write(&format!("{name}.conf"), &text);
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(crate) fn invocation(&self, configuration: &str) -> Invocation {
        let config = Some(self.path(&format!("{configuration}.conf")));
        Invocation { config, ..Invocation::new(self.folder.path()) }
    }

    /// A question about the app.
    pub(crate) fn request(&self) -> Request {
        Request::new(self.invocation("cache"), ["deep/app.bst"])
    }

    pub(crate) async fn ask(&self, request: &Request) -> Introspection {
        buildstream::introspect(&self.installation, request).await.unwrap()
    }

    /// Runs a command of `bst` that is expected to succeed; its output.
    pub(crate) fn bst(&self, invocation: &Invocation, command: &[&str]) -> String {
        let Output { status, stdout, stderr } = Command::new(self.installation.bst())
            .args(invocation.arguments())
            .arg("--no-interactive")
            .args(command)
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "bst {command:?}: {status}\n{stdout}\n{stderr}");
        stdout
    }

    pub(crate) fn build(&self) {
        self.bst(&self.invocation("cache"), &["build", "deep/app.bst"]);
    }

    /// What `bst show` says, by element: strong key and state.
    pub(crate) fn show(&self, invocation: &Invocation) -> BTreeMap<String, (String, String)> {
        let format = "%{name}|%{full-key}|%{state}";
        let shown = self.bst(invocation, &["show", "--deps", "all", "--format", format, "deep/app.bst"]);
        let line = |line: &str| {
            let mut parts = line.split('|').map(str::to_owned);
            Some((parts.next()?, (parts.next()?, parts.next()?)))
        };
        shown.lines().filter_map(line).collect()
    }
}

pub(crate) fn element<'a>(found: &'a Introspection, name: &str) -> &'a ElementState {
    found.element(name).unwrap_or_else(|| panic!("no {name} among {:?}", found.elements))
}

/// Every file below a folder, if it is there, with its contents.
pub(crate) fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => pending.push(entry.path()),
                kind if kind.is_file() => drop(files.insert(entry.path(), fs::read(entry.path()).unwrap())),
                _ => drop(files.insert(entry.path(), Vec::new())),
            }
        }
    }
    files
}
