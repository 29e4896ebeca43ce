//! Messages written by hand, well formed or not, in a directory in casd's layout.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use cas_client::{Blob, BlobStore, FileStore};
use prost::Message;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::{Digest, DigestFunction, v2};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::Server;

use super::{Program, listing};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// A temporary directory with a store in it.
pub(crate) struct ByHand {
    directory: TempDir,
    store: FileStore,
}

impl ByHand {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::create(directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The option that names the store.
    pub(crate) fn server(&self) -> String {
        format!("--server=file:{}", self.store.root().display())
    }

    pub(crate) async fn put(&self, data: impl Into<Bytes>) -> Digest {
        let blob = Blob::new(FUNCTION, data);
        let digest = blob.digest();
        self.store.write_blobs(&[blob]).await.unwrap().remove(0).1.unwrap();
        digest
    }

    /// A canonical directory.
    pub(crate) async fn tree(&self, entries: &[(&str, Node)]) -> Digest {
        self.put(directory_bytes(entries)).await
    }

    /// `levels` directories inside each other, every one twice in the next: 2^levels paths.
    pub(crate) async fn bomb(&self, levels: usize) -> Digest {
        let leaf = self.put("leaf").await;
        let mut digest = self.tree(&[("leaf", file_node(leaf))]).await;
        for _ in 0..levels {
            let node = Node::Directory { digest };
            digest = self.tree(&[("a", node.clone()), ("b", node)]).await;
        }
        digest
    }

    /// An action that compiles nothing on this input tree.
    pub(crate) async fn action(&self, root: Digest) -> Digest {
        let command = v2::Command {
            arguments: vec!["true".to_owned()],
            output_paths: vec!["out".to_owned()],
            ..Default::default()
        };
        let command = self.put(command.encode_to_vec()).await;
        let action = v2::Action {
            command_digest: Some(command.into()),
            input_root_digest: Some(root.into()),
            ..Default::default()
        };
        self.put(action.encode_to_vec()).await
    }

    /// An action whose only input `main.c` has this content.
    pub(crate) async fn action_on(&self, content: &'static str) -> Digest {
        let file = self.put(content).await;
        let root = self.tree(&[("main.c", file_node(file))]).await;
        self.action(root).await
    }

    /// Sources that hold `main.c` with this content.
    pub(crate) async fn sources(&self, content: &'static str) -> Digest {
        let file = self.put(content).await;
        self.tree(&[("main.c", file_node(file))]).await
    }

    /// Where the store keeps a blob.
    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hash = digest.to_hex();
        self.store.root().join("cas/objects").join(&hash[..2]).join(&hash[2..])
    }

    /// Replaces a stored blob by something else.
    pub(crate) fn damage(&self, digest: &Digest, data: &str) {
        let file = self.blob_file(digest);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(file, data).unwrap();
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        std::fs::remove_file(self.blob_file(digest)).unwrap();
    }

    /// Writes the action cache's file for an action.
    pub(crate) fn put_result(&self, action: &Digest, result: impl AsRef<[u8]>) {
        let hash = action.to_hex();
        let directory = self.store.root().join("actioncache/objects").join(&hash[..2]);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(&hash[2..]), result).unwrap();
    }

    /// A server with the same blobs.
    pub(crate) async fn serve(&self) -> Server {
        let server = Server::start_default().await.unwrap();
        let objects = self.store.root().join("cas/objects");
        for (name, _) in listing(&objects) {
            server.store().put(std::fs::read(objects.join(name)).unwrap());
        }
        server
    }

    /// Writes a graph file of one element `e.bst` with these members.
    pub(crate) fn graph(&self, mut element: Value) -> PathBuf {
        element["name"] = "e.bst".into();
        self.write("graph.json", json!({ "version": 1, "elements": [element] }).to_string())
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program on a graph and this store, in JSON.
    pub(crate) fn program(&self, command: &str, graph: &Path) -> Program {
        Program::new([command, "--json", "--graph"]).arg(graph).arg(self.server())
    }
}

pub(crate) fn directory_bytes(entries: &[(&str, Node)]) -> Bytes {
    let entries = entries.iter().map(|(name, node)| (Bytes::copy_from_slice(name.as_bytes()), node.clone()));
    encode_directory(entries).unwrap()
}

pub(crate) fn file_node(digest: Digest) -> Node {
    Node::File { digest, executable: false }
}

/// An encoded message.
pub(crate) fn message(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
