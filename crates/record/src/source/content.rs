//! How much the inputs of an action are those of an element.

use std::sync::Arc;

use bytes::Bytes;
use overlay::{Forest, MAX_DEPTH, PathId, Paths};
use reapi_proto::Digest;
use reapi_proto::raw::{Directory, Node};
use rustc_hash::FxHashMap;

/// Agreement of an action's own files with what an element has. Larger is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Score {
    /// Files that are the element's: at its path, with its content.
    pub(super) matching: usize,
    /// Files at one of its paths, whatever their content.
    pub(super) known: usize,
}

impl Score {
    /// Whether no file is at one of the element's paths with other content.
    pub(super) fn is_undisputed(self) -> bool {
        self.matching == self.known
    }
}

/// Files by path and content.
pub(super) type Files = Arc<[(PathId, Digest)]>;

/// Tells the files of input trees that no artifact stages there. Each
/// (path, directory) is walked once, however many trees share it.
pub(super) struct OwnFiles<'f> {
    forest: &'f Forest,
    artifacts: Vec<Digest>,
    paths: Paths,
    memo: FxHashMap<(PathId, Digest), Files>,
}

impl<'f> OwnFiles<'f> {
    /// `artifacts` are the roots of whatever may be staged.
    pub(super) fn new(forest: &'f Forest, artifacts: Vec<Digest>) -> Self {
        Self { forest, artifacts, paths: Paths::new(), memo: FxHashMap::default() }
    }

    /// The files of the tree at `root` that are not staged. Empty ones are
    /// everywhere and count for nothing; directories that are not at hand count as empty.
    pub(super) fn of(&mut self, root: Digest) -> Files {
        let staged: Vec<&Directory> = self.artifacts.iter().filter_map(|root| self.forest.get(root)).collect();
        self.walk((PathId::ROOT, root), &staged, 0)
    }

    pub(super) fn path(&self, path: PathId) -> Vec<u8> {
        self.paths.bytes(path)
    }

    fn walk(&mut self, place: (PathId, Digest), staged: &[&'f Directory], depth: usize) -> Files {
        if let Some(files) = self.memo.get(&place) {
            return Arc::clone(files);
        }
        let forest = self.forest;
        let Some(directory) = forest.get(&place.1).filter(|_| depth <= MAX_DEPTH) else { return Arc::new([]) };
        let mut files = Vec::new();
        for entry in directory.entries() {
            let name = self.paths.name_id(entry.name);
            let path = self.paths.child(place.0, name);
            let staged_here = staged.iter().filter_map(|directory| directory.get(entry.name));
            match entry.node {
                Node::Directory { digest } => {
                    let below: Vec<&Directory> = staged_here
                        .filter_map(|node| match node {
                            Node::Directory { digest } => forest.get(&digest),
                            _ => None,
                        })
                        .collect();
                    files.extend_from_slice(&self.walk((path, digest), &below, depth + 1));
                }
                Node::File { digest, .. } if !digest.is_empty() => {
                    let mut staged_here = staged_here;
                    if !staged_here.any(|node| file(&node) == Some(digest)) {
                        files.push((path, digest));
                    }
                }
                _ => {}
            }
        }
        let files: Files = files.into();
        self.memo.insert(place, Arc::clone(&files));
        files
    }
}

/// The sources of elements, by the names at their roots.
pub(super) struct SourceIndex<'f> {
    forest: &'f Forest,
    rows: FxHashMap<Bytes, Vec<(usize, Node)>>,
}

impl<'f> SourceIndex<'f> {
    /// An index of the sources of elements, given with their rows.
    pub(super) fn new(forest: &'f Forest, sources: &[(usize, Digest)]) -> Self {
        let mut rows: FxHashMap<Bytes, Vec<(usize, Node)>> = FxHashMap::default();
        for (row, root) in sources {
            for entry in forest.get(root).into_iter().flat_map(Directory::entries) {
                rows.entry(Bytes::copy_from_slice(entry.name)).or_default().push((*row, entry.node));
            }
        }
        Self { forest, rows }
    }

    /// Every element that has a file at `path`, and whether its content is `digest`.
    pub(super) fn find(&self, path: &[u8], digest: Digest) -> impl Iterator<Item = (usize, bool)> {
        let cut = path.iter().position(|b| *b == b'/');
        let (first, rest) = cut.map_or((path, None), |cut| (&path[..cut], Some(&path[cut + 1..])));
        self.rows.get(first).into_iter().flatten().filter_map(move |(row, node)| {
            let found = match (node, rest) {
                (Node::Directory { digest }, Some(rest)) => self.forest.find(digest, rest).ok().flatten()?,
                (node, None) => node.clone(),
                _ => return None,
            };
            let is_directory = matches!(found, Node::Directory { .. });
            (!is_directory).then(|| (*row, file(&found) == Some(digest)))
        })
    }
}

fn file(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } => Some(*digest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::toy::{self, Toys};

    fn forest(toys: &Toys) -> Forest {
        let mut forest = Forest::new();
        for digest in toys.store.digests() {
            if let Ok(directory) = Directory::parse(toys.store.peek(&digest).unwrap()) {
                forest.insert(digest, directory);
            }
        }
        forest
    }

    fn own_files(toys: &Toys, artifacts: &[Digest], root: Digest) -> Vec<String> {
        let forest = forest(toys);
        let mut own = OwnFiles::new(&forest, artifacts.to_vec());
        let files = own.of(root);
        assert_eq!(own.of(root), files);
        files.iter().map(|(path, _)| String::from_utf8(own.path(*path)).unwrap()).collect()
    }

    #[test]
    fn what_is_staged_is_nobodys_own() {
        let toys = Toys::default();
        let artifacts = [toys.tree(&[("usr/include/a.h", "a"), ("usr/lib/x", "x")]), toys.tree(&[("usr/b", "b")])];
        let root = toys.tree(&[
            ("main.c", "main"),
            ("a.h", "a"),
            ("empty", ""),
            ("usr/include/a.h", "a"),
            ("usr/include/own.h", "own"),
            ("usr/b", "other"),
        ]);
        let mut found = own_files(&toys, &artifacts, root);
        found.sort_unstable();
        assert_eq!(found, ["a.h", "main.c", "usr/b", "usr/include/own.h"]);
        assert_eq!(own_files(&toys, &[root], root), [""; 0]);
    }

    #[test]
    fn sources_are_found_by_path() {
        let toys = Toys::default();
        let sources: [toy::Files<'_>; 3] =
            [&[("main.c", "main"), ("inc/a.h", "a")], &[("main.c", "other"), ("inc/a.h/b", "b")], &[]];
        let sources: Vec<(usize, Digest)> = sources.iter().map(|files| toys.tree(files)).enumerate().collect();
        let forest = forest(&toys);
        let index = SourceIndex::new(&forest, &sources);
        let find = |path: &str, content: &str| {
            let digest = file(&toys.file(content)).unwrap();
            let mut found: Vec<_> = index.find(path.as_bytes(), digest).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(find("main.c", "main"), [(0, true), (1, false)]);
        assert_eq!(find("inc/a.h", "a"), [(0, true)]);
        assert_eq!(find("inc", "a"), []);
        assert_eq!(find("main.c/x", "a"), []);
        assert_eq!(find("gone.c", "main"), []);
        assert_eq!(find("", "main"), []);
    }
}
