//! A directory tree as a list of files, and as Directory messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use cas_client::Blob;
use reapi_proto::raw::{Node, RawError, encode_directory};
use reapi_proto::{Digest, DigestFunction};

/// A file of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Digest of the contents.
    pub digest: Digest,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Files by their paths, which are relative and have `/` between segments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileTree(BTreeMap<String, File>);

impl FileTree {
    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<String>, file: File) {
        self.0.insert(path.into(), file);
    }

    /// The file at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<File> {
        self.0.get(path).copied()
    }

    /// All files, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, File)> {
        self.0.iter().map(|(path, file)| (path.as_str(), *file))
    }

    /// Adds the files of another tree; those of the other win.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(path, file)| (path.clone(), *file)));
    }

    /// The root's digest and every Directory of the tree.
    ///
    /// # Errors
    /// When a path is not a clean relative path or names a file and a directory at once.
    pub fn encode(&self, function: DigestFunction) -> Result<(Digest, Vec<Blob>), RawError> {
        let mut blobs = Vec::new();
        let entries: Vec<(&str, File)> = self.iter().collect();
        let root = encode_level(&entries, function, &mut blobs)?;
        Ok((root, blobs))
    }
}

fn encode_level(files: &[(&str, File)], function: DigestFunction, blobs: &mut Vec<Blob>) -> Result<Digest, RawError> {
    let mut entries = Vec::new();
    let mut below: BTreeMap<&str, Vec<(&str, File)>> = BTreeMap::new();
    for (path, file) in files {
        match path.split_once('/') {
            None => {
                let node = Node::File { digest: file.digest, executable: file.executable };
                entries.push((Bytes::from((*path).to_owned()), node));
            }
            Some((directory, rest)) => below.entry(directory).or_default().push((rest, *file)),
        }
    }
    for (name, files) in below {
        let digest = encode_level(&files, function, blobs)?;
        entries.push((Bytes::from(name.to_owned()), Node::Directory { digest }));
    }
    let blob = Blob::new(function, encode_directory(entries)?);
    let digest = blob.digest();
    blobs.push(blob);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::raw::Directory;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    #[test]
    fn paths_become_nested_directories() {
        let mut tree = FileTree::default();
        let file = File { digest: FUNCTION.digest(b"x"), executable: true };
        for path in ["usr/include/a.h", "usr/lib/a.so", "top", "usr/include/sub/b.h"] {
            tree.insert(path, file);
        }
        let (root, blobs) = tree.encode(FUNCTION).unwrap();
        let parse = |digest| {
            let blob = blobs.iter().find(|b| b.digest() == digest).unwrap();
            Directory::parse(blob.data().clone()).unwrap()
        };
        let top = parse(root);
        assert_eq!(top.get(b"top"), Some(Node::File { digest: file.digest, executable: true }));
        let Some(Node::Directory { digest }) = top.get(b"usr") else { panic!("usr is a directory") };
        assert_eq!(parse(digest).len(), 2);
        assert_eq!(blobs.len(), 5);
    }

    #[test]
    fn a_path_cannot_be_file_and_directory() {
        let mut tree = FileTree::default();
        let file = File { digest: FUNCTION.empty(), executable: false };
        tree.insert("a", file);
        tree.insert("a/b", file);
        assert!(tree.encode(FUNCTION).is_err());
        let mut unclean = FileTree::default();
        unclean.insert("a/../b", file);
        assert!(unclean.encode(FUNCTION).is_err());
    }

    #[test]
    fn no_files_is_the_empty_directory() {
        assert_eq!(FileTree::default().encode(FUNCTION).unwrap().0, FUNCTION.empty());
    }
}
