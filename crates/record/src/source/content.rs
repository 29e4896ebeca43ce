//! How much the inputs of an action are those of an element.

use overlay::{Forest, MAX_DEPTH};
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::FxHashMap;

/// Agreement of an input tree with what an element has. Larger is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Score {
    /// Files that are the element's: at its path, with its content.
    pub(super) matching: u64,
    /// Files at one of its paths, whatever their content.
    pub(super) known: u64,
}

impl Score {
    /// Whether no file is at one of the element's paths with other content.
    pub(super) fn is_undisputed(self) -> bool {
        self.matching == self.known
    }

    fn add(&mut self, other: Self) {
        self.matching = self.matching.saturating_add(other.matching);
        self.known = self.known.saturating_add(other.known);
    }
}

/// Compares an input tree with a tree of sources, whose roots stand at the
/// same place. Empty files are everywhere and count for nothing. Directories
/// that are not at hand count as empty.
pub(super) fn compare(
    forest: &Forest,
    inputs: Digest,
    sources: Digest,
    memo: &mut FxHashMap<(Digest, Digest), Score>,
) -> Score {
    compare_at(forest, (inputs, sources), memo, 0)
}

fn compare_at(
    forest: &Forest,
    pair: (Digest, Digest),
    memo: &mut FxHashMap<(Digest, Digest), Score>,
    depth: usize,
) -> Score {
    if let Some(score) = memo.get(&pair) {
        return *score;
    }
    let mut score = Score::default();
    let (Some(inputs), Some(sources)) = (forest.get(&pair.0), forest.get(&pair.1)) else { return score };
    if depth > MAX_DEPTH {
        return score;
    }
    for entry in inputs.entries() {
        match (entry.node, sources.get(entry.name)) {
            (Node::Directory { digest: input }, Some(Node::Directory { digest: source })) => {
                score.add(compare_at(forest, (input, source), memo, depth + 1));
            }
            (Node::Directory { .. }, _) | (_, None | Some(Node::Directory { .. })) => {}
            (node, Some(_)) if is_empty(&node) => {}
            (node, Some(source)) => {
                score.add(Score { matching: u64::from(same_file(&node, &source)), known: 1 });
            }
        }
    }
    memo.insert(pair, score);
    score
}

/// Calls `each` with every file of a tree that is at hand.
pub(super) fn each_file(forest: &Forest, root: Digest, each: &mut impl FnMut(&[u8], &Node)) {
    let mut path = Vec::new();
    each_file_below(forest, root, &mut path, 0, each);
}

fn each_file_below(
    forest: &Forest,
    root: Digest,
    path: &mut Vec<u8>,
    depth: usize,
    each: &mut impl FnMut(&[u8], &Node),
) {
    let Some(directory) = forest.get(&root).filter(|_| depth <= MAX_DEPTH) else { return };
    for entry in directory.entries() {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name);
        match entry.node {
            Node::Directory { digest } => each_file_below(forest, digest, path, depth + 1, each),
            node => each(path, &node),
        }
        path.truncate(length);
    }
}

/// Whether two entries have the same content, whatever their mode.
fn same_file(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::File { digest: a, .. }, Node::File { digest: b, .. }) => a == b,
        _ => a == b,
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(node, Node::File { digest, .. } if digest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::toy::{Files, Toys};
    use reapi_proto::raw::Directory;

    fn forest(toys: &Toys) -> Forest {
        let mut forest = Forest::new();
        for digest in toys.store.digests() {
            if let Ok(directory) = Directory::parse(toys.store.peek(&digest).unwrap()) {
                forest.insert(digest, directory);
            }
        }
        forest
    }

    #[track_caller]
    fn check(inputs: Files<'_>, sources: Files<'_>, expected: (u64, u64)) {
        let toys = Toys::default();
        let (inputs, sources) = (toys.tree(inputs), toys.tree(sources));
        let score = compare(&forest(&toys), inputs, sources, &mut FxHashMap::default());
        assert_eq!((score.matching, score.known), expected);
    }

    #[test]
    fn files_count_at_their_paths() {
        let sources: Files<'_> = &[("main.c", "main"), ("include/a.h", "a"), ("include/b.h", "b"), ("empty", "")];
        check(&[("main.c", "main"), ("include/a.h", "a"), ("usr/include/c.h", "c")], sources, (2, 2));
        check(&[("main.c", "old"), ("include/a.h", "a")], sources, (1, 2));
        check(&[("main.c", "a"), ("a.h", "a"), ("empty", ""), ("include", "file")], sources, (0, 1));
        check(&[], sources, (0, 0));
        check(sources, &[], (0, 0));
    }

    #[test]
    fn a_bomb_of_equal_directories_costs_little() {
        let toys = Toys::default();
        let file = toys.file("x");
        let mut root = toys.tree_of(&[("x".into(), file)]);
        for _ in 0..100 {
            let below = Node::Directory { digest: root };
            root = toys.tree_of(&[("a".into(), below.clone()), ("b".into(), below)]);
        }
        let score = compare(&forest(&toys), root, root, &mut FxHashMap::default());
        assert_eq!(score.matching, u64::MAX, "saturated");
    }

    #[test]
    fn every_file_has_its_path() {
        let toys = Toys::default();
        let root = toys.tree(&[("a/b/c", "1"), ("a/d", "2"), ("e", "3")]);
        let mut paths = Vec::new();
        each_file(&forest(&toys), root, &mut |path, _| paths.push(String::from_utf8(path.to_vec()).unwrap()));
        paths.sort_unstable();
        assert_eq!(paths, ["a/b/c", "a/d", "e"]);
    }
}
