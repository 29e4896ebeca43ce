//! The laws of merging, and what BuildStream itself makes of the same trees.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use overlay::{Forest, Merge, MergeError, Merged, Unstaged};
use proptest::prelude::*;
use prost::Message;
use reapi_proto::raw::{Directory, Node};
use reapi_proto::{Digest, v2};
use serde_json::Value;
use support::{Extra, SHA, Tree, extra, tree};

fn merged(forest: &Forest, roots: &[Digest]) -> Result<Merged, MergeError> {
    Merge::new(SHA, roots.iter().copied()).finish(forest)
}

/// The rules on whole trees, one tree after the other. An error is a path.
fn naive(into: &mut BTreeMap<Bytes, Tree>, from: &BTreeMap<Bytes, Tree>) -> Result<(), ()> {
    for (name, comes) in from {
        match (into.get_mut(name), comes) {
            (Some(Tree::Dir(there, _)), Tree::Dir(comes, _)) => naive(there, comes)?,
            (Some(Tree::Dir(there, _)), Tree::Leaf(_)) if !there.is_empty() => {}
            (Some(Tree::Leaf(_)), Tree::Dir(..)) => return Err(()),
            _ => {
                into.insert(name.clone(), comes.clone());
            }
        }
    }
    Ok(())
}

fn entries(tree: &Tree) -> &BTreeMap<Bytes, Tree> {
    let Tree::Dir(entries, _) = tree else { panic!("a root is a directory") };
    entries
}

fn naive_union(trees: &[Tree]) -> Result<Tree, ()> {
    let mut union = BTreeMap::new();
    for tree in trees {
        naive(&mut union, entries(tree))?;
    }
    Ok(Tree::Dir(union, Extra::default()))
}

/// The tree with every leaf renamed so that no name is both leaf and directory.
fn without_kind_conflicts(tree: &Tree) -> Tree {
    let Tree::Dir(entries, extra) = tree else { return tree.clone() };
    let renamed = entries.iter().map(|(name, child)| match child {
        Tree::Leaf(_) => ([name, &b".file"[..]].concat().into(), child.clone()),
        Tree::Dir(..) => ([name, &b".dir"[..]].concat().into(), without_kind_conflicts(child)),
    });
    Tree::Dir(renamed.collect(), extra.clone())
}

fn plain() -> impl Strategy<Value = Tree> {
    tree(Just(Extra::default()))
}

/// Directories that stand at one path in two trees and differ, or meet a leaf.
fn may_be_read(forest: &Forest, roots: &[Digest]) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    let mut pending = vec![roots.iter().map(|digest| Node::Directory { digest: *digest }).collect::<Vec<_>>()];
    while let Some(nodes) = pending.pop() {
        let directories: BTreeSet<Digest> = nodes
            .iter()
            .filter_map(|node| match node {
                Node::Directory { digest } if !digest.is_empty() => Some(*digest),
                _ => None,
            })
            .collect();
        if directories.is_empty()
            || (directories.len() == 1 && nodes.iter().all(|n| matches!(n, Node::Directory { .. })))
        {
            continue;
        }
        let mut below: BTreeMap<Vec<u8>, Vec<Node>> = BTreeMap::new();
        for node in &nodes {
            let Node::Directory { digest } = node else { continue };
            for entry in forest.get(digest).unwrap().entries() {
                below.entry(entry.name.to_vec()).or_default().push(entry.node);
            }
        }
        found.extend(directories);
        pending.extend(below.into_values());
    }
    found
}

proptest! {
    #[test]
    fn merging_one_tree_or_empty_ones_reads_nothing(tree in tree(extra()), before in 0..3usize, after in 0..3usize) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let roots = [vec![SHA.empty(); before], vec![root], vec![SHA.empty(); after]].concat();
        let expected = Merged { root, directories: Vec::new(), unstaged: Vec::new() };
        prop_assert_eq!(merged(&Forest::new(), &roots), Ok(expected));
    }

    #[test]
    fn merging_a_tree_with_itself_changes_nothing(tree in tree(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let expected = Merged { root, directories: Vec::new(), unstaged: Vec::new() };
        prop_assert_eq!(merged(&Forest::new(), &[root, root]), Ok(expected));
    }

    #[test]
    fn merging_again_changes_nothing(trees in prop::collection::vec(plain(), 2..4)) {
        let mut forest = Forest::new();
        let trees: Vec<Tree> = trees.iter().map(without_kind_conflicts).collect();
        let mut roots: Vec<Digest> = trees.iter().map(|tree| tree.store(&mut forest)).collect();
        let once = merged(&forest, &roots).unwrap();
        once.add_to(&mut forest).unwrap();
        roots.push(once.root);
        let again = merged(&forest, &roots).unwrap();
        prop_assert_eq!((again.root, &again.unstaged), (once.root, &once.unstaged));
        roots.insert(0, once.root);
        prop_assert_eq!(merged(&forest, &roots).unwrap().root, once.root);
    }

    #[test]
    fn merging_equals_a_naive_union_of_whole_trees(trees in prop::collection::vec(plain(), 0..5)) {
        let mut forest = Forest::new();
        let roots: Vec<Digest> = trees.iter().map(|tree| tree.store(&mut forest)).collect();
        match (merged(&forest, &roots), naive_union(&trees)) {
            (Ok(merged), Ok(union)) => {
                let mut expected = Forest::new();
                prop_assert_eq!(merged.root, union.store(&mut expected));
                // Each new one once, children first, and nothing is lacking.
                let (new, mut seen) = (merged.directories.clone(), BTreeSet::new());
                for blob in new {
                    let digest = blob.digest();
                    prop_assert_eq!(digest, SHA.digest(blob.data()));
                    let directory = Directory::parse(blob.into_data()).unwrap();
                    for (_, child) in directory.directories() {
                        prop_assert!(seen.contains(&child) || forest.contains(&child));
                    }
                    prop_assert!(expected.contains(&digest));
                    prop_assert!(seen.insert(digest));
                }
                prop_assert!(seen.contains(&merged.root) || forest.contains(&merged.root));
            }
            (Err(MergeError::NotADirectory { path, tree, standing }), Err(())) => {
                let there = forest.find(&roots[tree], &path).unwrap();
                let directory = matches!(there, Some(Node::Directory { .. }));
                prop_assert!(directory);
                let earlier = roots[..tree].iter().any(|root| forest.find(root, &path) == Ok(Some((*standing).clone())));
                prop_assert!(earlier);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn merging_is_associative_without_kind_conflicts([a, b, c] in [plain(), plain(), plain()]) {
        let mut forest = Forest::new();
        let [a, b, c] = [a, b, c].map(|tree| without_kind_conflicts(&tree).store(&mut forest));
        let all = merged(&forest, &[a, b, c]).unwrap();
        prop_assert!(all.unstaged.is_empty());
        for (first, second) in [([a, b], None), ([b, c], Some(a))] {
            let part = merged(&forest, &first).unwrap();
            part.add_to(&mut forest).unwrap();
            let roots = second.map_or([part.root, c], |a| [a, part.root]);
            prop_assert_eq!(merged(&forest, &roots).unwrap().root, all.root);
        }
    }

    #[test]
    fn merging_reads_only_what_differs_at_one_path(trees in prop::collection::vec(tree(extra()), 1..4)) {
        let mut all = Forest::new();
        let roots: Vec<Digest> = trees.iter().map(|tree| tree.store(&mut all)).collect();
        let allowed = may_be_read(&all, &roots);
        let (mut forest, mut merge) = (Forest::new(), Merge::new(SHA, roots.iter().copied()));
        while !merge.is_done() {
            for digest in merge.needs(&forest) {
                prop_assert!(allowed.contains(&digest));
                prop_assert!(!forest.contains(&digest));
                forest.insert(digest, all.get(&digest).unwrap().clone());
            }
            merge.advance(&forest);
        }
        prop_assert_eq!(merge.finish(&forest), merged(&all, &roots));
    }
}

#[test]
fn merging_shared_directories_is_done_once() {
    // 2^40 paths in each tree, made of 40 directories.
    let mut forest = Forest::new();
    let mut chain = |leaf: &'static [u8]| {
        let file = (Bytes::from_static(leaf), support::file(leaf, false));
        let mut digest =
            forest.add(SHA, Directory::parse(reapi_proto::raw::encode_directory([file]).unwrap()).unwrap());
        for _ in 0..40 {
            let names = ["a", "b"].map(|name| (Bytes::from_static(name.as_bytes()), Node::Directory { digest }));
            digest = forest.add(SHA, Directory::parse(reapi_proto::raw::encode_directory(names).unwrap()).unwrap());
        }
        digest
    };
    let roots = [chain(b"x"), chain(b"y")];
    assert_eq!(merged(&forest, &roots).unwrap().directories.len(), 41);
}

#[test]
fn merging_says_what_is_not_at_hand() {
    let roots = [SHA.digest(b"1"), SHA.digest(b"2")];
    assert!(matches!(merged(&Forest::new(), &roots), Err(MergeError::Missing(missing)) if roots.contains(&missing.0)));
}

/// `tests/golden/merge.py` says what the trees of a case mean.
fn store(forest: &mut Forest, tree: &serde_json::Map<String, Value>) -> Digest {
    let mut message = v2::Directory::default();
    let sorted: BTreeMap<&String, &Value> = tree.iter().collect();
    for (name, value) in sorted {
        let name = name.clone();
        match value {
            Value::String(value) if name == "/" => {
                let property = v2::NodeProperty { name: "SubtreeReadOnly".into(), value: value.clone() };
                let properties = v2::NodeProperties { properties: vec![property], ..Default::default() };
                message.node_properties = Some(properties);
            }
            Value::String(target) => {
                message.symlinks.push(v2::SymlinkNode { name, target: target.clone(), node_properties: None });
            }
            Value::Object(tree) => {
                let digest = Some((&store(forest, tree)).into());
                message.directories.push(v2::DirectoryNode { name, digest });
            }
            Value::Array(parts) => {
                let properties = v2::NodeProperties {
                    mtime: parts[2].as_i64().map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                    unix_mode: parts[3].as_u64().map(|mode| u32::try_from(mode).unwrap()),
                    ..Default::default()
                };
                message.files.push(v2::FileNode {
                    name,
                    digest: Some((&SHA.digest(parts[0].as_str().unwrap().as_bytes())).into()),
                    is_executable: parts[1].as_bool().unwrap(),
                    node_properties: (properties != v2::NodeProperties::default()).then_some(properties),
                });
            }
            other => panic!("{other} in a tree"),
        }
    }
    forest.add(SHA, Directory::parse(message.encode_to_vec().into()).unwrap())
}

#[test]
fn merging_equals_what_buildstream_stages() {
    let cases: Vec<Value> =
        include_str!("golden/merge.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 160);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut forest = Forest::new();
        let trees = case["trees"].as_array().unwrap().iter();
        let roots: Vec<Digest> = trees.map(|tree| store(&mut forest, tree.as_object().unwrap())).collect();
        match merged(&forest, &roots) {
            Ok(merged) => {
                assert_eq!(merged.root.to_string(), case["root"].as_str().unwrap_or("an error"), "{name}");
                assert_unstaged(&merged.unstaged, &case);
            }
            // Which of several conflicts is named depends on the order of the walk.
            Err(MergeError::NotADirectory { .. }) => assert!(case["error"].is_string(), "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// Places with equal directories are judged once, so some of BuildStream's warnings are not repeated.
fn assert_unstaged(unstaged: &[Unstaged], case: &Value) {
    let name = &case["name"];
    let known: Vec<(&str, u64)> = case["unstaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_u64().unwrap()))
        .collect();
    for Unstaged { path, tree } in unstaged {
        assert!(known.contains(&(std::str::from_utf8(path).unwrap(), *tree as u64)), "{name}");
    }
    assert_eq!(unstaged.is_empty(), known.is_empty(), "{name}");
}
