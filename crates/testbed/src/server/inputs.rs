//! What an action needs and what a result refers to.

use std::collections::HashSet;

use prost::Message;
use reapi_proto::raw::{self, Node};
use reapi_proto::{Digest, v2};
use tonic::Status;

use super::shared::Instance;
use super::wire;

/// Distinct directories of one input tree that the server is willing to walk.
const MAX_DIRECTORIES: usize = 1 << 20;

/// The Action message, or `None` if it is not in the store.
pub(super) fn action(instance: &Instance, digest: &Digest) -> Result<Option<v2::Action>, Status> {
    message(instance, "Action", digest)
}

/// The Command message, or `None` if it is not in the store.
pub(super) fn command(instance: &Instance, digest: &Digest) -> Result<Option<v2::Command>, Status> {
    message(instance, "Command", digest)
}

fn message<M: Message + Default>(instance: &Instance, kind: &str, digest: &Digest) -> Result<Option<M>, Status> {
    let Some(data) = instance.store.peek(digest) else { return Ok(None) };
    M::decode(data).map(Some).map_err(|e| Status::invalid_argument(format!("{digest} is not {kind}: {e}")))
}

/// Every blob below `root` (itself included) that is not in the store.
///
/// # Errors
/// INVALID_ARGUMENT for a Directory that is malformed or not canonical.
pub(super) fn missing_tree(instance: &Instance, root: Digest) -> Result<Vec<Digest>, Status> {
    let mut missing = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut directories = vec![root];
    let mut files = Vec::new();
    while let Some(digest) = directories.pop() {
        if seen.len() > MAX_DIRECTORIES {
            return Err(Status::invalid_argument("the input tree has too many directories"));
        }
        let Some(data) = instance.store.peek(&digest) else {
            missing.push(digest);
            continue;
        };
        let directory = raw::Directory::parse(data)
            .map_err(|e| Status::invalid_argument(format!("input directory {digest}: {e}")))?;
        for entry in directory.entries() {
            match entry.node {
                Node::Directory { digest } if seen.insert(digest) => directories.push(digest),
                Node::File { digest, .. } if seen.insert(digest) => files.push(digest),
                _ => {}
            }
        }
    }
    missing.extend(files.into_iter().filter(|file| instance.store.peek(file).is_none()));
    Ok(missing)
}

/// Every blob that a result refers to, with the contents of its Trees as far as those are in the store.
pub(super) fn output_blobs(instance: &Instance, result: &v2::ActionResult) -> Result<Vec<Digest>, Status> {
    let function = instance.function();
    let mut blobs = Vec::new();
    for file in &result.output_files {
        blobs.push(wire::required("output_files.digest", file.digest.as_ref(), function)?);
    }
    for stream in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
        blobs.push(wire::required("stdout or stderr digest", Some(stream), function)?);
    }
    for directory in &result.output_directories {
        if let Some(root) = &directory.root_directory_digest {
            let root = wire::required("root_directory_digest", Some(root), function)?;
            blobs.extend(missing_tree(instance, root)?);
            blobs.push(root);
        }
        if let Some(tree) = &directory.tree_digest {
            let digest = wire::required("tree_digest", Some(tree), function)?;
            blobs.push(digest);
            if let Some(data) = instance.store.peek(&digest) {
                tree_files(data, &mut blobs)?;
            }
        }
        if directory.root_directory_digest.is_none() && directory.tree_digest.is_none() {
            return Err(Status::invalid_argument(format!("output directory {:?} has no digest", directory.path)));
        }
    }
    Ok(blobs)
}

fn tree_files(data: bytes::Bytes, blobs: &mut Vec<Digest>) -> Result<(), Status> {
    let invalid = |e: raw::RawError| Status::invalid_argument(format!("output Tree: {e}"));
    let tree = raw::Tree::parse(data).map_err(invalid)?;
    for bytes in std::iter::once(tree.root()).chain(tree.children()) {
        let directory = raw::Directory::parse(bytes.clone()).map_err(invalid)?;
        blobs.extend(directory.entries().filter_map(|entry| match entry.node {
            Node::File { digest, .. } => Some(digest),
            _ => None,
        }));
    }
    Ok(())
}
