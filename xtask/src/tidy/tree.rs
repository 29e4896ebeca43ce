//! The files that the rules look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// The text files of the repository by path, slashes between components.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    files: BTreeMap<String, String>,
    /// Tracked files that are not text; only their names count.
    binary: Vec<String>,
}

impl Tree {
    /// What git tracks, as it stands in the working tree. Outside of a git
    /// checkout (an unpacked archive) every file but build output counts.
    pub(super) fn tracked(root: &Path) -> Result<Self, Failure> {
        let names = if root.join(".git").exists() { git_files(root)? } else { walk(root)? };
        let mut tree = Self { root: root.to_owned(), files: BTreeMap::new(), binary: Vec::new() };
        for name in names {
            let Ok(bytes) = fs::read(root.join(&name)) else { continue };
            match String::from_utf8(bytes) {
                Ok(text) => drop(tree.files.insert(name, text)),
                Err(_) => tree.binary.push(name),
            }
        }
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Self { root: PathBuf::new(), files, binary: Vec::new() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn len(&self) -> usize {
        self.files.len() + self.binary.len()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// Every text file, in order of path.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Every line of every text file: path, number from 1, text.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.files().flat_map(|(name, text)| text.lines().enumerate().map(move |(i, line)| (name, i + 1, line)))
    }

    /// Whether `path` is a tracked file or a directory that holds one.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        let mut names = self.files.keys().chain(&self.binary);
        names.any(|name| name == path || name.starts_with(&below))
    }

    /// The names of the folders directly below `crates/` that are packages.
    pub(super) fn crates(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|name| {
            let folder = name.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!folder.contains('/')).then_some(folder)
        })
    }
}

fn git_files(root: &Path) -> Result<Vec<String>, Failure> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output()?;
    if !output.status.success() {
        return Err(Failure::new(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn walk(root: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let name = format!("{dir}{}", entry.file_name().to_string_lossy());
            if !entry.file_type()?.is_dir() {
                names.push(name);
            } else if name != "target" {
                pending.push(name + "/");
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_tracked_files_exist() {
        let tree = Tree::of(&[("crates/a/Cargo.toml", ""), ("crates/a/x/Cargo.toml", ""), ("README.md", "")]);
        assert!(tree.has("crates/a") && tree.has("crates/a/") && tree.has("README.md"));
        assert!(!tree.has("crates/b") && !tree.has("READ"));
        assert_eq!(tree.crates().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_tree_without_git_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("target/debug")).unwrap();
        fs::create_dir_all(dir.path().join("crates/a")).unwrap();
        fs::write(dir.path().join("target/debug/x"), "x").unwrap();
        fs::write(dir.path().join("crates/a/y"), b"\xff").unwrap();
        fs::write(dir.path().join("z"), "z").unwrap();
        let tree = Tree::tracked(dir.path()).unwrap();
        assert_eq!(tree.files().collect::<Vec<_>>(), [("z", "z")]);
        assert!(tree.has("crates/a/y") && !tree.has("target"));
    }
}
