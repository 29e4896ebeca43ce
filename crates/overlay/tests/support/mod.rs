//! Random trees, and the slow obvious way to change them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code that each binary uses in part"
)]

pub mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use overlay::Forest;
use proptest::prelude::*;
use reapi_proto::raw::{Directory, Node, encode_directory};
use reapi_proto::{Digest, DigestFunction};

pub const SHA: DigestFunction = DigestFunction::Sha256;

/// A tree as nested maps: what all rewriting is compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tree {
    Leaf(Node),
    Dir(BTreeMap<Bytes, Tree>, Extra),
}

/// Fields of a Directory message that this project does not know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extra {
    pub top: bool,
    pub in_nodes: bool,
}

pub fn file(content: &[u8], executable: bool) -> Node {
    Node::File { digest: SHA.digest(content), executable }
}

impl Tree {
    pub fn empty() -> Self {
        Self::Dir(BTreeMap::new(), Extra::default())
    }

    /// Stores every directory in `forest`; returns the root's digest.
    pub fn store(&self, forest: &mut Forest) -> Digest {
        let Self::Dir(entries, extra) = self else { panic!("a root is a directory") };
        let nodes: Vec<(Bytes, Node)> = entries
            .iter()
            .map(|(name, tree)| {
                let node = match tree {
                    Self::Leaf(node) => node.clone(),
                    dir @ Self::Dir(..) => Node::Directory { digest: dir.store(forest) },
                };
                (name.clone(), node)
            })
            .collect();
        let bytes = with_unknown_fields(&encode_directory(nodes).unwrap(), extra);
        forest.add(SHA, Directory::parse(bytes).unwrap())
    }

    /// Sets or removes one path the obvious way, making directories on the
    /// way and dropping those that become empty.
    pub fn edit(&mut self, path: &[Bytes], leaf: Option<Node>) {
        let (first, rest) = path.split_first().unwrap();
        if !matches!(self, Self::Dir(..)) {
            if leaf.is_none() {
                return;
            }
            *self = Self::empty();
        }
        let Self::Dir(entries, _) = self else { unreachable!() };
        match (rest, leaf) {
            ([], Some(node)) => {
                entries.insert(first.clone(), Self::Leaf(node));
            }
            ([], None) => {
                entries.remove(first);
            }
            (rest, leaf) => {
                let known = entries.contains_key(first);
                if !known && leaf.is_none() {
                    return;
                }
                let child = entries.entry(first.clone()).or_insert_with(Self::empty);
                let was_bare = child.is_bare();
                child.edit(rest, leaf);
                if child.is_bare() && !was_bare {
                    entries.remove(first);
                }
            }
        }
    }

    fn is_bare(&self) -> bool {
        matches!(self, Self::Dir(entries, extra) if entries.is_empty() && !extra.top)
    }

    /// Paths of everything that is no directory.
    pub fn leaves(&self) -> Vec<(Vec<Bytes>, Node)> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, at: &mut Vec<Bytes>, found: &mut Vec<(Vec<Bytes>, Node)>) {
        match self {
            Self::Leaf(node) => found.push((at.clone(), node.clone())),
            Self::Dir(entries, _) => {
                for (name, tree) in entries {
                    at.push(name.clone());
                    tree.collect(at, found);
                    at.pop();
                }
            }
        }
    }
}

/// Adds field 100 at the end of the message and field 9 at the end of every node.
fn with_unknown_fields(canonical: &Bytes, extra: &Extra) -> Bytes {
    let mut out = Vec::new();
    let mut rest = &canonical[..];
    while !rest.is_empty() {
        let tag = rest[0];
        let (length, used) = varint(&rest[1..]);
        let payload = &rest[1 + used..1 + used + length];
        rest = &rest[1 + used + length..];
        let mut payload = payload.to_vec();
        if extra.in_nodes {
            payload.extend_from_slice(&[9 << 3 | 2, 3, b'n', b'e', b'w']);
        }
        out.push(tag);
        put_varint(&mut out, payload.len());
        out.extend_from_slice(&payload);
    }
    if extra.top {
        out.extend_from_slice(&[0xa2, 0x06, 2, b'h', b'i']);
    }
    out.into()
}

fn varint(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (value, i + 1);
        }
    }
    panic!("a varint that this crate wrote")
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// Any legal name, often one of a few so that trees collide.
pub fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "src", "x.h", "x.c"]).prop_map(|s| Bytes::from_static(s.as_bytes())),
        1 => prop::collection::vec(any::<u8>().prop_filter("legal", |b| *b != b'/' && *b != 0), 1..6)
            .prop_filter("not a dot", |n| n != b"." && n != b"..")
            .prop_map(Bytes::from),
    ]
}

/// Few contents, so that duplicates and empty files are the rule.
pub fn leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        6 => (prop::sample::select(vec![&b""[..], b"1", b"2", b"3"]), any::<bool>()).prop_map(|(c, x)| file(c, x)),
        1 => prop::sample::select(vec!["../x", "/abs", "a"])
            .prop_map(|t| Node::Symlink { target: Bytes::from_static(t.as_bytes()) }),
    ]
}

pub fn extra() -> impl Strategy<Value = Extra> + Clone {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(|(top, in_nodes)| Extra { top, in_nodes })
}

pub fn tree(extra: impl Strategy<Value = Extra> + Clone + 'static) -> impl Strategy<Value = Tree> {
    let directory = {
        let extra = extra.clone();
        move |inner: BoxedStrategy<Tree>| {
            (prop::collection::btree_map(name(), inner, 0..5), extra.clone()).prop_map(|(e, x)| Tree::Dir(e, x)).boxed()
        }
    };
    let nested = leaf().prop_map(Tree::Leaf).boxed().prop_recursive(4, 40, 5, directory.clone());
    directory(nested.boxed())
}

/// Edits of leaves: some at paths that exist, some elsewhere.
pub fn edits(tree: &Tree) -> impl Strategy<Value = Vec<(Vec<Bytes>, Option<Node>)>> + use<> {
    let known: Vec<Vec<Bytes>> = tree.leaves().into_iter().map(|(path, _)| path).collect();
    let anywhere = prop::collection::vec(name(), 1..4);
    let path = if known.is_empty() {
        anywhere.boxed()
    } else {
        prop_oneof![4 => prop::sample::select(known), 1 => anywhere].boxed()
    };
    prop::collection::vec((path, prop_oneof![3 => leaf().prop_map(Some), 1 => Just(None)]), 0..6)
}

pub fn joined(path: &[Bytes]) -> Vec<u8> {
    path.join(&b'/')
}
