//! The union of several trees, as BuildStream stages artifacts on top of each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use reapi_proto::raw::{Directory, Edit, Node, RawEntry, RawError};
use reapi_proto::{Blob, Digest, DigestFunction, v2};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::forest::{Forest, MAX_DEPTH, Missing};

/// The property of a directory that BuildStream knows.
const SUBTREE_READ_ONLY: &str = "SubtreeReadOnly";

/// The union of trees in staging order, read level by level.
///
/// A directory is read only where two or more trees have different ones at the
/// same path; everything else is shared by its digest, unread. The one
/// exception is a file or symlink that meets a directory, which is read to
/// know whether it has entries.
///
/// # What BuildStream does
/// `Element._stage_artifact` imports one artifact after the other into the
/// sandbox's tree with `CasBasedDirectory._import_files`, without a filter
/// unless split domains are named (`Element.__split_filter_func`). As of 2.8.1
/// (`storage/_casbaseddirectory.py`, `__partial_import_cas_into_cas`,
/// `__check_replacement`, `_get_digest`), with what stands there on the left:
///
/// | there | comes | result |
/// |---|---|---|
/// | nothing | anything | it is taken; a directory by its digest |
/// | file or symlink | file or symlink | the later one, whole: executable bit, time, target |
/// | empty directory | file or symlink | the file or symlink |
/// | directory with entries | file or symlink | the directory stays; the other is skipped with the warning `unstaged-files` ([`Unstaged`]) |
/// | directory | directory | their union, by these rules; an empty one adds nothing |
/// | file or symlink | directory, even an empty one | `DirectoryError`, staging fails ([`MergeError::NotADirectory`]) |
///
/// Symlinks are never followed: after `lib -> usr/lib`, a tree with a directory
/// `lib` is an error, and after a directory `lib` with entries the symlink is
/// skipped. Overlaps of files are warnings or errors by configuration, and do not change
/// the result. A directory into which something was put is written anew: files
/// keep their executable bit and, of their properties, the time of
/// modification; other properties and unknown fields of entries are gone. The
/// directory keeps only `SubtreeReadOnly`, as the earliest tree has it.
///
/// Two liberties are taken here, neither of which shows in trees that
/// BuildStream itself wrote: a tree that is merged with itself or with
/// nothing but empty ones is taken as it is instead of being written anew, and the
/// earliest tree's root may be read-only.
#[derive(Debug)]
pub struct Merge {
    function: DigestFunction,
    root: Child,
    rows: Vec<Row>,
    /// Rows by their layers: each distinct combination is merged once.
    index: FxHashMap<Vec<Layer>, usize>,
    frontier: Vec<usize>,
    unstaged: Vec<Unstaged>,
    failed: Option<MergeError>,
}

/// A directory of one of the trees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Layer {
    tree: usize,
    digest: Digest,
}

/// Several directories at one path, the earliest first.
#[derive(Debug)]
struct Row {
    layers: Vec<Layer>,
    /// Where this combination was met first.
    path: Bytes,
    /// Directories that must be read to know whether they have entries.
    also: Vec<Digest>,
    /// Whether something besides what comes of merged children is not as in the first layer.
    touched: bool,
    children: Vec<(Bytes, Child)>,
}

#[derive(Debug)]
enum Child {
    /// As it is in one of the trees: a file, a symlink, or a directory that is not looked into.
    Leaf(RawEntry),
    Shared(Digest),
    Merged(usize),
}

/// What stands at a name while the layers go by.
enum Standing {
    Leaf(RawEntry),
    Directory(Vec<Layer>),
}

impl Merge {
    /// Starts to merge the trees at `roots`, in staging order: dependencies first.
    #[must_use]
    pub fn new(function: DigestFunction, roots: impl IntoIterator<Item = Digest>) -> Self {
        let mut layers = Vec::new();
        for (tree, digest) in roots.into_iter().enumerate() {
            push_layer(&mut layers, Layer { tree, digest });
        }
        let mut merge = Self {
            function,
            root: Child::Shared(function.empty()),
            rows: Vec::new(),
            index: FxHashMap::default(),
            frontier: Vec::new(),
            unstaged: Vec::new(),
            failed: None,
        };
        merge.root = merge.child(layers, &Bytes::new(), b"");
        merge
    }

    /// The directories that must be at hand for the next step, each once.
    #[must_use]
    pub fn needs(&self, forest: &Forest) -> Vec<Digest> {
        let rows = self.frontier.iter().map(|row| &self.rows[*row]);
        let mut needs: Vec<Digest> = rows
            .flat_map(|row| row.layers.iter().map(|layer| layer.digest).chain(row.also.iter().copied()))
            .filter(|digest| !forest.contains(digest))
            .collect();
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// Whether everything has been read that has to be.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.frontier.is_empty()
    }

    /// Merges what is at hand of one level. What is not stays among the
    /// [`needs`](Self::needs).
    pub fn advance(&mut self, forest: &Forest) {
        for row in std::mem::take(&mut self.frontier) {
            if self.failed.is_some() {
                return;
            }
            match self.merge_row(row, forest) {
                Ok(()) => {}
                Err(Stuck::Missing(also)) => {
                    self.rows[row].also = also;
                    self.frontier.push(row);
                }
                Err(Stuck::Failed(error)) => {
                    self.frontier.clear();
                    self.failed = Some(error);
                }
            }
        }
    }

    /// The merged tree. Steps that were not taken yet are taken with what is in `forest`.
    ///
    /// # Errors
    /// [`MergeError`]. [`MergeError::NotADirectory`] means that BuildStream
    /// cannot stage these trees either.
    pub fn finish(mut self, forest: &Forest) -> Result<Merged, MergeError> {
        while !self.is_done() {
            if let Some(missing) = self.needs(forest).first() {
                return Err(Missing(*missing).into());
            }
            self.advance(forest);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut unstaged = std::mem::take(&mut self.unstaged);
        unstaged.sort_unstable();
        let mut writer = Writer {
            merge: &self,
            forest,
            done: FxHashMap::default(),
            written: FxHashSet::default(),
            directories: Vec::new(),
        };
        let root = match self.root {
            Child::Merged(row) => writer.write(row, 0)?,
            Child::Shared(digest) => digest,
            Child::Leaf(_) => self.function.empty(),
        };
        Ok(Merged { root, directories: writer.directories, unstaged })
    }

    fn merge_row(&mut self, row: usize, forest: &Forest) -> Result<(), Stuck> {
        let Row { layers, path, .. } = &self.rows[row];
        let (layers, path) = (layers.clone(), path.clone());
        let mut directories = Vec::with_capacity(layers.len());
        for layer in &layers {
            // Asked for as one of the layers, so there is nothing to note.
            directories.push(forest.get(&layer.digest).ok_or(Stuck::Missing(Vec::new()))?);
        }
        let mut names: BTreeMap<&[u8], Vec<(usize, Node)>> = BTreeMap::new();
        for (i, directory) in directories.iter().enumerate() {
            for entry in directory.entries() {
                names.entry(entry.name).or_default().push((i, entry.node));
            }
        }
        let (mut lacking, mut touched, mut unstaged) = (Vec::new(), false, Vec::new());
        let mut standing = Vec::with_capacity(names.len());
        for (name, comers) in names {
            let mut stands: Option<Standing> = None;
            for (i, node) in comers {
                let tree = layers[i].tree;
                let at = || below(&path, name);
                let leaf = || directories[i].raw_entry(name).map(Standing::Leaf);
                stands = match (stands, node) {
                    (None, Node::Directory { digest }) => {
                        touched |= i > 0;
                        Some(Standing::Directory(vec![Layer { tree, digest }]))
                    }
                    (None | Some(Standing::Leaf(_)), Node::File { .. } | Node::Symlink { .. }) => {
                        touched |= i > 0;
                        leaf()
                    }
                    (Some(Standing::Directory(mut there)), Node::Directory { digest }) => {
                        touched |= there.first().is_some_and(|first| first.digest.is_empty()) && !digest.is_empty();
                        push_layer(&mut there, Layer { tree, digest });
                        Some(Standing::Directory(there))
                    }
                    (Some(Standing::Directory(there)), Node::File { .. } | Node::Symlink { .. }) => {
                        match has_entries(&there, forest) {
                            Ok(false) => {
                                touched = true;
                                leaf()
                            }
                            Ok(true) => {
                                unstaged.push(Unstaged { path: at(), tree });
                                Some(Standing::Directory(there))
                            }
                            Err(Missing(digest)) => {
                                lacking.push(digest);
                                Some(Standing::Directory(there))
                            }
                        }
                    }
                    (Some(Standing::Leaf(there)), Node::Directory { .. }) if lacking.is_empty() => {
                        let error = MergeError::NotADirectory { path: at(), tree, standing: Box::new(there.node()) };
                        return Err(Stuck::Failed(error));
                    }
                    // Judged when what is lacking is at hand, so that the first conflict by path is the one reported.
                    (Some(Standing::Leaf(there)), Node::Directory { .. }) => Some(Standing::Leaf(there)),
                };
            }
            standing.extend(stands.map(|stands| (Bytes::copy_from_slice(name), stands)));
        }
        if !lacking.is_empty() {
            return Err(Stuck::Missing(lacking));
        }
        let children = standing
            .into_iter()
            .map(|(name, stands)| {
                let child = match stands {
                    Standing::Leaf(entry) => Child::Leaf(entry),
                    Standing::Directory(layers) => self.child(layers, &path, &name),
                };
                (name, child)
            })
            .collect();
        self.unstaged.extend(unstaged);
        let row = &mut self.rows[row];
        (row.touched, row.children) = (touched, children);
        Ok(())
    }

    /// What becomes of directories at one path.
    fn child(&mut self, layers: Vec<Layer>, parent: &Bytes, name: &[u8]) -> Child {
        match layers[..] {
            [] => return Child::Shared(self.function.empty()),
            [one] => return Child::Shared(one.digest),
            _ => {}
        }
        if let Some(row) = self.index.get(&layers) {
            return Child::Merged(*row);
        }
        let row = self.rows.len();
        self.index.insert(layers.clone(), row);
        let path = below(parent, name);
        self.rows.push(Row { layers, path, also: Vec::new(), touched: false, children: Vec::new() });
        self.frontier.push(row);
        Child::Merged(row)
    }
}

/// Why a row is not merged yet.
enum Stuck {
    Missing(Vec<Digest>),
    Failed(MergeError),
}

/// Adds a directory on top of others, unless that changes nothing.
fn push_layer(layers: &mut Vec<Layer>, layer: Layer) {
    match layers.last() {
        Some(last) if last.digest == layer.digest || layer.digest.is_empty() => {}
        Some(last) if last.digest.is_empty() => *layers = vec![layer],
        _ => layers.push(layer),
    }
}

fn has_entries(layers: &[Layer], forest: &Forest) -> Result<bool, Missing> {
    let mut missing = None;
    for Layer { digest, .. } in layers {
        match forest.get(digest) {
            Some(directory) if !directory.is_empty() => return Ok(true),
            Some(_) => {}
            None => missing = Some(Missing(*digest)),
        }
    }
    missing.map_or(Ok(false), Err)
}

fn below(parent: &[u8], name: &[u8]) -> Bytes {
    if parent.is_empty() { Bytes::copy_from_slice(name) } else { [parent, b"/", name].concat().into() }
}

/// Writes merged directories, children first, each once.
struct Writer<'m> {
    merge: &'m Merge,
    forest: &'m Forest,
    done: FxHashMap<usize, Digest>,
    written: FxHashSet<Digest>,
    directories: Vec<Blob>,
}

impl Writer<'_> {
    fn write(&mut self, row: usize, depth: usize) -> Result<Digest, MergeError> {
        if let Some(digest) = self.done.get(&row) {
            return Ok(*digest);
        }
        if depth > MAX_DEPTH {
            return Err(MergeError::TooDeep);
        }
        let Row { layers, touched, children, .. } = &self.merge.rows[row];
        let (first, mut touched) = (layers[0].digest, *touched);
        let failed = |reason| MergeError::Directory { directory: first, reason: Box::new(reason) };
        let mut entries = Vec::with_capacity(children.len());
        for (name, child) in children {
            let edit = match child {
                Child::Leaf(entry) => Edit::Raw(rewritten(entry).map_err(failed)?),
                Child::Shared(digest) => Edit::Set(Node::Directory { digest: *digest }),
                Child::Merged(child) => {
                    let digest = self.write(*child, depth + 1)?;
                    touched |= self.merge.rows[*child].layers[0].digest != digest;
                    Edit::Set(Node::Directory { digest })
                }
            };
            entries.push((name.clone(), edit));
        }
        let digest = if touched {
            let base = self.forest.get(&first).ok_or(Missing(first))?;
            let bytes = kept_properties(base).and_then(|kept| kept.splice(&entries)).map_err(failed)?;
            let blob = Blob::new(self.merge.function, bytes);
            let digest = blob.digest();
            if layers.iter().all(|layer| layer.digest != digest) && self.written.insert(digest) {
                self.directories.push(blob);
            }
            digest
        } else {
            first
        };
        self.done.insert(row, digest);
        Ok(digest)
    }
}

/// An entry as BuildStream writes it: of its properties, a file's time of modification is left.
fn rewritten(entry: &RawEntry) -> Result<RawEntry, RawError> {
    let plain = RawEntry::encode(entry.name(), &entry.node())?;
    if plain == *entry || !matches!(entry.node(), Node::File { .. }) {
        return Ok(plain);
    }
    // An entry on its own is a Directory with that one entry. What cannot be
    // decoded is not UTF-8, and nothing that BuildStream could have read.
    let Ok(mut alone) = v2::Directory::decode(entry.bytes().clone()) else { return Ok(plain) };
    for file in &mut alone.files {
        let mtime = file.node_properties.take().and_then(|properties| properties.mtime);
        file.node_properties = mtime.map(|mtime| v2::NodeProperties { mtime: Some(mtime), ..Default::default() });
    }
    RawEntry::parse(alone.encode_to_vec().into())
}

/// A directory without entries that says what BuildStream keeps of `directory`.
fn kept_properties(directory: &Directory) -> Result<Directory, RawError> {
    // Entries stand first in the message.
    let entries = directory.entries().filter_map(|entry| directory.raw_entry(entry.name));
    let rest = directory.bytes().slice(entries.map(|entry| entry.bytes().len()).sum::<usize>()..);
    let mut kept = v2::Directory::default();
    if let Ok(properties) = v2::Directory::decode(rest)
        && let Some(properties) = properties.node_properties
        && let Some(property) = properties.properties.iter().rfind(|property| property.name == SUBTREE_READ_ONLY)
    {
        let value = if property.value == "true" { "true" } else { "false" };
        let property = v2::NodeProperty { name: SUBTREE_READ_ONLY.to_owned(), value: value.to_owned() };
        kept.node_properties = Some(v2::NodeProperties { properties: vec![property], ..Default::default() });
    }
    Directory::parse(kept.encode_to_vec().into())
}

/// The outcome of a [`Merge`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// The root of the union.
    pub root: Digest,
    /// Directories that none of the trees has at that path, children before parents, each once.
    pub directories: Vec<Blob>,
    /// What was left out, by path. Where equal directories meet in several
    /// places, the place that was met first stands for all.
    pub unstaged: Vec<Unstaged>,
}

impl Merged {
    /// Adds the new directories to `forest`.
    ///
    /// # Errors
    /// Never in practice: they were written by this crate.
    pub fn add_to(&self, forest: &mut Forest) -> Result<(), RawError> {
        for blob in &self.directories {
            forest.insert(blob.digest(), Directory::parse(blob.data().clone())?);
        }
        Ok(())
    }
}

/// A file or symlink that is not in the union, because a directory with entries stands there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unstaged {
    /// Where, from the root.
    pub path: Bytes,
    /// Whose it is: a position among the roots.
    pub tree: usize,
}

/// Why trees could not be merged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError {
    /// A directory is not at hand.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A directory should go where a file or symlink stands: BuildStream refuses to stage that.
    #[error(
        "tree {tree} has a directory at {}, where an earlier one has a file or symlink",
        String::from_utf8_lossy(path)
    )]
    NotADirectory {
        /// Where, from the root.
        path: Bytes,
        /// Whose directory it is: a position among the roots.
        tree: usize,
        /// What stands there.
        standing: Box<Node>,
    },
    /// A directory could not be written.
    #[error("directory {directory} cannot be merged: {reason}")]
    Directory {
        /// The earliest directory at that path.
        directory: Digest,
        /// What is wrong with it.
        reason: Box<RawError>,
    },
    /// The trees are deeper than [`MAX_DEPTH`].
    #[error("the trees are deeper than {MAX_DEPTH} levels")]
    TooDeep,
}
