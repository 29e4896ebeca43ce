//! Every path that any tree of a workload may have, interned in canonical order.
//!
//! The first component of a path names the tree family it belongs to (`input`, an element's sources, an
//! element's artifact); that directory is the root of the trees built from it.

use std::collections::BTreeMap;

/// A directory of the namespace. Parents have smaller numbers than their children, and siblings are
/// numbered in the order of their names.
pub(super) type DirectoryId = u32;
/// A path that holds a file. Places of one directory are numbered in the order of their names.
pub(super) type PlaceId = u32;
/// A file of an element or an output of an action, whatever the number of places where it shows.
pub(super) type FileId = u32;

/// One directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// `None` for the root of a tree family.
    pub(super) parent: Option<DirectoryId>,
    pub(super) name: Box<str>,
}

/// One path of a file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) directory: DirectoryId,
    pub(super) name: Box<str>,
    pub(super) file: FileId,
}

/// All directories and places.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    pub(super) directories: Vec<Directory>,
    pub(super) places: Vec<Place>,
}

impl Namespace {
    /// Interns `paths`. The second value maps each index of `paths` to its place.
    pub(super) fn new(paths: &[(String, FileId)]) -> (Self, Vec<PlaceId>) {
        let mut root = Node::default();
        for (index, (path, _)) in paths.iter().enumerate() {
            root.insert(path, index);
        }
        let mut namespace = Self::default();
        let mut place_of = vec![0; paths.len()];
        for (name, family) in root.directories {
            namespace.add(None, name, family, paths, &mut place_of);
        }
        (namespace, place_of)
    }

    fn add(
        &mut self,
        parent: Option<DirectoryId>,
        name: &str,
        node: Node<'_>,
        paths: &[(String, FileId)],
        place_of: &mut [PlaceId],
    ) {
        let directory = id(self.directories.len());
        self.directories.push(Directory { parent, name: name.into() });
        for (name, index) in node.files {
            if let (Some(place), Some((_, file))) = (place_of.get_mut(index), paths.get(index)) {
                *place = id(self.places.len());
                self.places.push(Place { directory, name: name.into(), file: *file });
            }
        }
        for (name, child) in node.directories {
            self.add(Some(directory), name, child, paths, place_of);
        }
    }
}

/// Numbers stay far below `u32::MAX`: the largest workload has some ten thousand paths.
pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Node<'a> {
    directories: BTreeMap<&'a str, Node<'a>>,
    files: BTreeMap<&'a str, usize>,
}

impl<'a> Node<'a> {
    fn insert(&mut self, path: &'a str, index: usize) {
        match path.split_once('/') {
            Some((first, rest)) => self.directories.entry(first).or_default().insert(rest, index),
            None => {
                self.files.insert(path, index);
            }
        }
    }
}
