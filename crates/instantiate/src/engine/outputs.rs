//! What an execution made, by path.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::{BlobStore, Output, OutputKind, TreeBudget, read_trees};
use overlay::Forest;
use reapi_proto::raw::{Directory, Node, Tree};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use super::task::fetch;

/// The outputs of an action by their paths, as the action's result names them.
///
/// There are as many of these as actions, most of them with one file: they take no more room than that.
#[derive(Clone, Debug, Default)]
pub(super) struct Outputs {
    /// Sorted by path, each path once.
    nodes: Box<[Made]>,
    /// Whatever is known of the directories among them.
    forest: Option<Box<Forest>>,
}

/// A node and its path.
type Made = (Box<[u8]>, Node);

impl Outputs {
    /// The outputs, if no directory is among them: those have to be [read](Self::read).
    pub(super) fn without_directories(outputs: &[Output]) -> Option<Self> {
        let nodes = outputs.iter().map(|output| Some((place(output), plain(&output.kind)?)));
        Some(Self { nodes: by_place(nodes.collect::<Option<_>>()?), forest: None })
    }

    /// The outputs, with what is inside of the directories among them. A
    /// directory that cannot be read is as good as absent.
    pub(super) async fn read(blobs: Arc<dyn BlobStore>, outputs: Vec<Output>) -> Self {
        let function = blobs.digest_function();
        let mut nodes = Vec::with_capacity(outputs.len());
        let mut forest = Forest::new();
        let trees = outputs.iter().filter_map(|output| match output.kind {
            OutputKind::Directory { tree, .. } => tree,
            _ => None,
        });
        let trees: FxHashMap<Digest, Digest> = fetch(Arc::clone(&blobs), trees.collect())
            .await
            .into_iter()
            .filter_map(|(digest, bytes)| Some((digest, plant(&mut forest, function, bytes.ok()?)?)))
            .collect();
        let mut alone = Vec::new();
        for output in outputs {
            let place = place(&output);
            let node = match output.kind {
                OutputKind::Directory { tree: Some(tree), root } => match trees.get(&tree) {
                    Some(actual) if root.is_none_or(|root| root == *actual) => Node::Directory { digest: *actual },
                    _ => continue,
                },
                OutputKind::Directory { tree: None, root: Some(digest) } => {
                    alone.push(digest);
                    Node::Directory { digest }
                }
                kind => match plain(&kind) {
                    Some(node) => node,
                    None => continue,
                },
            };
            nodes.push((place, node));
        }
        if !alone.is_empty() {
            match read_trees(&*blobs, &alone, |_| false, &TreeBudget::default()).await {
                Ok(read) => read.directories.into_iter().for_each(|(digest, dir)| forest.insert(digest, dir)),
                Err(error) => tracing::warn!(%error, "output directories cannot be read"),
            }
        }
        Self { nodes: by_place(nodes), forest: Some(Box::new(forest)) }
    }

    /// The only output and its place, if it is one that nothing can lie in.
    pub(super) fn only(&self) -> Option<(&[u8], &Node)> {
        match &*self.nodes {
            [(place, node @ (Node::File { .. } | Node::Symlink { .. }))] => Some((place, node)),
            _ => None,
        }
    }

    /// What stands at `path`, which may lie inside of an output directory.
    pub(super) fn find(&self, path: &[u8]) -> Option<Node> {
        let path = normal(path);
        let mut end = path.len();
        loop {
            if let Ok(place) = self.nodes.binary_search_by(|(at, _)| (**at).cmp(&path[..end])) {
                let node = &self.nodes[place].1;
                let Node::Directory { digest } = node else { return (end == path.len()).then(|| node.clone()) };
                return self.forest.as_ref()?.find(digest, &path[end..]).ok().flatten();
            }
            if end == 0 {
                return None;
            }
            end = path[..end].iter().rposition(|&b| b == b'/').unwrap_or(0);
        }
    }
}

fn place(output: &Output) -> Box<[u8]> {
    normal(output.path.as_bytes()).into()
}

/// Each path once, sorted; of several outputs at one path, the last.
fn by_place(mut nodes: Vec<Made>) -> Box<[Made]> {
    nodes.reverse();
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    nodes.dedup_by(|a, b| a.0 == b.0);
    nodes.into()
}

/// Takes in a Tree message; returns its root.
fn plant(forest: &mut Forest, function: DigestFunction, bytes: Bytes) -> Option<Digest> {
    let tree = Tree::parse(bytes).ok()?;
    for (digest, bytes) in tree.directories(function) {
        forest.insert(digest, Directory::parse(bytes.clone()).ok()?);
    }
    Some(tree.root_digest(function))
}

fn plain(kind: &OutputKind) -> Option<Node> {
    match kind {
        OutputKind::File { digest, is_executable } => Some(Node::File { digest: *digest, executable: *is_executable }),
        OutputKind::Symlink { target } => Some(Node::Symlink { target: Bytes::copy_from_slice(target.as_bytes()) }),
        OutputKind::Directory { .. } => None,
    }
}

/// The path as records keep it: without empty segments and `.`.
fn normal(path: &[u8]) -> Cow<'_, [u8]> {
    let says_nothing = |segment: &[u8]| segment.is_empty() || segment == b".";
    let segments = path.split(|&b| b == b'/');
    if !segments.clone().any(says_nothing) {
        return Cow::Borrowed(path);
    }
    segments.filter(|segment| !says_nothing(segment)).collect::<Vec<_>>().join(&b'/').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_client::InMemory;
    use prost::Message;
    use reapi_proto::raw::encode_directory;
    use reapi_proto::v2;

    const SHA: DigestFunction = DigestFunction::Sha256;

    fn file(content: &str) -> Node {
        Node::File { digest: SHA.digest(content.as_bytes()), executable: false }
    }

    fn output(path: &str, kind: OutputKind) -> Output {
        Output { path: path.to_owned(), kind }
    }

    #[tokio::test]
    async fn files_are_found_inside_of_directories_too() {
        let store = InMemory::new();
        let inner = encode_directory([(Bytes::from("x.h"), file("x"))]).unwrap();
        let inner_digest = store.put(inner.clone());
        let root = encode_directory([(Bytes::from("in"), Node::Directory { digest: inner_digest })]).unwrap();
        let root_digest = store.put(root.clone());
        let tree = v2::Tree {
            root: Some(v2::Directory::decode(root).unwrap()),
            children: vec![v2::Directory::decode(inner).unwrap()],
        };
        let tree = store.put_message(&tree);
        let blobs: Arc<dyn BlobStore> = Arc::new(store);
        let given = [
            OutputKind::Directory { tree: Some(tree), root: None },
            OutputKind::Directory { tree: None, root: Some(root_digest) },
        ];
        for kind in given {
            let outputs = vec![
                output("./gen", kind),
                output("a.o", OutputKind::File { digest: SHA.digest(b"a"), is_executable: false }),
            ];
            assert!(Outputs::without_directories(&outputs).is_none());
            let made = Outputs::read(Arc::clone(&blobs), outputs).await;
            assert_eq!(made.find(b"a.o"), Some(file("a")));
            assert_eq!(made.find(b"gen"), Some(Node::Directory { digest: root_digest }));
            assert_eq!(made.find(b"gen//in/x.h"), Some(file("x")));
            assert_eq!(made.find(b"gen/in/y.h"), None);
            assert_eq!(made.find(b"a.o/x"), None);
            assert_eq!(made.find(b"b.o"), None);
        }
    }

    #[tokio::test]
    async fn a_tree_that_contradicts_its_root_is_no_output() {
        let store = InMemory::new();
        let tree = store.put_message(&v2::Tree { root: Some(v2::Directory::default()), children: Vec::new() });
        let kind = OutputKind::Directory { tree: Some(tree), root: Some(SHA.digest(b"other")) };
        let made = Outputs::read(Arc::new(store), vec![output("d", kind)]).await;
        assert_eq!(made.find(b"d"), None);
    }
}
