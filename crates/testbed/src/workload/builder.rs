//! Whole trees from lists of places, bottom-up and with no memory of earlier trees.

use reapi_proto::Digest;
use reapi_proto::v2::{DirectoryNode, FileNode};

use super::DIGEST_FUNCTION;
use super::namespace::{DirectoryId, Namespace, PlaceId};

/// Sums over all trees that a builder made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct TreeTotals {
    pub(super) file_nodes: u64,
    pub(super) directory_visits: u64,
}

/// Field 1 of `Directory` (files), length-delimited.
const FILES_TAG: u8 = 1 << 3 | 2;
/// Field 2 of `Directory` (directories), length-delimited.
const DIRECTORIES_TAG: u8 = 2 << 3 | 2;

/// Builds trees over one namespace.
pub(super) struct TreeBuilder<'a> {
    namespace: &'a Namespace,
    /// Per place: its `FileNode` as a field of `Directory`, encoded when first needed.
    nodes: Vec<Vec<u8>>,
    /// Per directory: what the tree under construction has there. Empty between trees.
    open: Vec<Open>,
    touched: Vec<DirectoryId>,
    buffer: Vec<u8>,
    pub(super) totals: TreeTotals,
}

#[derive(Clone, Default)]
struct Open {
    touched: bool,
    files: Vec<u8>,
    /// In descending order of names.
    directories: Vec<(DirectoryId, Digest)>,
}

impl<'a> TreeBuilder<'a> {
    pub(super) fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            nodes: vec![Vec::new(); namespace.places.len()],
            open: vec![Open::default(); namespace.directories.len()],
            touched: Vec::new(),
            buffer: Vec::new(),
            totals: TreeTotals::default(),
        }
    }

    /// Builds the tree of `places` (ascending, one tree family), hands every directory to `sink`, children
    /// first, and returns the root's digest. `content` says what is at a place, and is asked once per place.
    pub(super) fn build(
        &mut self,
        places: &[PlaceId],
        content: impl Fn(PlaceId) -> (Digest, bool),
        mut sink: impl FnMut(Digest, &[u8]),
    ) -> Digest {
        for &place in places {
            self.add_file(place, &content);
        }
        self.totals.file_nodes += places.len() as u64;
        self.totals.directory_visits += self.touched.len() as u64;
        self.touched.sort_unstable_by(|a, b| b.cmp(a));
        let mut root = DIGEST_FUNCTION.empty();
        for id in std::mem::take(&mut self.touched) {
            self.buffer.clear();
            let open = &mut self.open[id as usize];
            open.touched = false;
            self.buffer.append(&mut open.files);
            for (child, digest) in std::mem::take(&mut open.directories).into_iter().rev() {
                let name = self.namespace.directories[child as usize].name.to_string();
                field(DIRECTORIES_TAG, &DirectoryNode { name, digest: Some((&digest).into()) }, &mut self.buffer);
            }
            let digest = DIGEST_FUNCTION.digest(&self.buffer);
            sink(digest, &self.buffer);
            match self.namespace.directories[id as usize].parent {
                Some(parent) => self.open[parent as usize].directories.push((id, digest)),
                None => root = digest,
            }
        }
        root
    }

    fn add_file(&mut self, id: PlaceId, content: impl Fn(PlaceId) -> (Digest, bool)) {
        let place = &self.namespace.places[id as usize];
        let node = &mut self.nodes[id as usize];
        if node.is_empty() {
            let (digest, is_executable) = content(id);
            let message = FileNode {
                name: place.name.to_string(),
                digest: Some((&digest).into()),
                is_executable,
                node_properties: None,
            };
            field(FILES_TAG, &message, node);
        }
        self.open[place.directory as usize].files.extend_from_slice(node);
        let mut ancestor = Some(place.directory);
        while let Some(id) = ancestor {
            let open = &mut self.open[id as usize];
            if std::mem::replace(&mut open.touched, true) {
                break;
            }
            self.touched.push(id);
            ancestor = self.namespace.directories[id as usize].parent;
        }
    }
}

fn field(tag: u8, message: &impl prost::Message, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&message.encode_length_delimited_to_vec());
}
