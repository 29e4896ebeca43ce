//! The laws of substitutions, on random trees with duplicates, empty files,
//! symlinks, unknown fields and names in any legal bytes.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use bytes::Bytes;
use overlay::{Forest, Substitution};
use proptest::prelude::*;
use reapi_proto::Digest;
use reapi_proto::raw::{Edit, Node};
use support::{Extra, Tree, edits, extra, joined, tree};

type Edits = Vec<(Vec<Bytes>, Option<Node>)>;

fn substitution(edits: &Edits) -> Substitution {
    let mut substitution = Substitution::identity();
    for (path, leaf) in edits {
        substitution.edit(&joined(path), leaf.clone().map_or(Edit::Remove, Edit::Set));
    }
    substitution
}

fn applied(substitution: &Substitution, forest: &mut Forest, root: Digest) -> Digest {
    let rewritten = substitution.apply(forest, root).unwrap();
    rewritten.add_to(forest).unwrap();
    rewritten.root
}

fn tree_and_edits<const N: usize>(
    extra: impl Strategy<Value = Extra> + Clone + 'static,
) -> impl Strategy<Value = (Tree, [Edits; N])> {
    tree(extra).prop_flat_map(|tree| {
        let sets: [_; N] = std::array::from_fn(|_| edits(&tree));
        (Just(tree), sets)
    })
}

proptest! {
    #[test]
    fn identity_changes_nothing(tree in tree(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let rewritten = Substitution::identity().apply(&forest, root).unwrap();
        prop_assert_eq!(rewritten.root, root);
        prop_assert!(rewritten.new.is_empty());
    }

    #[test]
    fn setting_what_is_there_changes_nothing(tree in tree(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let same: Edits = tree.leaves().into_iter().map(|(path, node)| (path, Some(node))).collect();
        let rewritten = substitution(&same).apply(&forest, root).unwrap();
        prop_assert_eq!(rewritten.root, root);
        prop_assert!(rewritten.new.is_empty());
    }

    #[test]
    fn rewriting_equals_a_naive_rebuild((mut tree, [edits]) in tree_and_edits(Just(Extra::default()))) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let rewritten = applied(&substitution(&edits), &mut forest, root);
        for (path, leaf) in edits {
            tree.edit(&path, leaf);
        }
        prop_assert_eq!(rewritten, tree.store(&mut forest));
    }

    #[test]
    fn one_after_the_other_is_the_composition((tree, [first, second]) in tree_and_edits(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let (first, second) = (substitution(&first), substitution(&second));
        let middle = applied(&first, &mut forest, root);
        let end = applied(&second, &mut forest, middle);
        prop_assert_eq!(applied(&first.then(&second), &mut forest, root), end);
    }

    #[test]
    fn disjoint_substitutions_commute((tree, [first, mut second]) in tree_and_edits(extra())) {
        second.retain(|(p, _)| first.iter().all(|(q, _)| !p.starts_with(q) && !q.starts_with(p)));
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let (first, second) = (substitution(&first), substitution(&second));
        let one = applied(&first.clone().then(&second), &mut forest, root);
        let other = applied(&second.then(&first), &mut forest, root);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn the_inverse_gives_the_bytes_back((tree, [edits]) in tree_and_edits(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let there = substitution(&edits);
        let back = there.inverse(&forest, root).unwrap();
        let changed = applied(&there, &mut forest, root);
        prop_assert_eq!(applied(&back, &mut forest, changed), root);
    }

    #[test]
    fn untouched_subtrees_are_never_read((tree, [edits]) in tree_and_edits(extra())) {
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let substitution = substitution(&edits);
        let expected = substitution.apply(&forest, root).unwrap();
        let mut on_the_way = Forest::new();
        for (path, _) in &edits {
            for depth in 0..path.len() {
                if let Ok(Some(Node::Directory { digest })) = forest.find(&root, &joined(&path[..depth]))
                    && let Some(directory) = forest.get(&digest)
                {
                    on_the_way.insert(digest, directory.clone());
                }
            }
        }
        if let Some(directory) = forest.get(&root) {
            on_the_way.insert(root, directory.clone());
        }
        prop_assert_eq!(substitution.apply(&on_the_way, root).unwrap(), expected);
    }

    #[test]
    fn unknown_fields_survive((tree, [mut edits]) in tree_and_edits(Just(Extra { top: true, in_nodes: true }))) {
        edits.truncate(1);
        let mut forest = Forest::new();
        let root = tree.store(&mut forest);
        let rewritten = substitution(&edits).apply(&forest, root).unwrap();
        rewritten.add_to(&mut forest).unwrap();
        let after = forest.get(&rewritten.root).unwrap();
        // The field at the end of the message, and one in each entry that has kept its kind.
        prop_assert!(after.bytes().ends_with(b"hi"));
        let before = forest.get(&root).unwrap();
        for entry in after.entries() {
            let kept = before.get(entry.name).is_some_and(|node| {
                std::mem::discriminant(&node) == std::mem::discriminant(&entry.node)
            });
            if kept {
                prop_assert!(after.raw_entry(entry.name).unwrap().bytes().ends_with(b"new"));
            }
        }
    }
}
