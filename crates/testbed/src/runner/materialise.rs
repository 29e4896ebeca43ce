//! An input tree as files on disk.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bytes::Bytes;
use cas_client::BlobStore;
use reapi_proto::Digest;
use reapi_proto::raw::{Directory, Node};
use tonic::Code;

use super::RunError;
use super::process::STARTING;

/// Entries (by path) of one tree at most: a small message can describe a huge tree.
const MAX_ENTRIES: usize = 1 << 20;

/// What is to be created, parents first.
#[derive(Debug, Default)]
struct Plan {
    directories: Vec<PathBuf>,
    files: Vec<(PathBuf, Digest, bool)>,
    symlinks: Vec<(PathBuf, Bytes)>,
}

/// Creates the tree below `root`, which must be an empty directory that nobody else writes to.
///
/// Names have been checked to be single segments, every directory is created
/// here, and symlinks come last, so that nothing is ever created through one.
/// A dropped future leaves a part of the tree.
///
/// # Errors
/// MISSING blobs, a malformed tree, or a failure of the file system.
pub(super) async fn materialise(store: &dyn BlobStore, tree: Digest, root: &Path) -> Result<(), RunError> {
    let plan = plan(store, tree, root).await?;
    let distinct: Vec<Digest> = plan.files.iter().map(|(_, digest, _)| *digest).collect();
    let mut contents = HashMap::new();
    let mut missing = Vec::new();
    for (digest, data) in store.read_blobs(&distinct).await.map_err(|e| RunError::store(&e))? {
        match data {
            Ok(data) => {
                contents.insert(digest, data);
            }
            Err(e) if e.kind() == cas_client::ErrorKind::NotFound => missing.push(digest),
            Err(e) => return Err(RunError::store(&e)),
        }
    }
    if !missing.is_empty() {
        return Err(RunError::missing(&missing));
    }
    let created = tokio::task::spawn_blocking(move || create(&plan, &contents)).await;
    created
        .map_err(|e| RunError::new(Code::Internal, e.to_string()))?
        .map_err(|e| RunError::io("cannot create the input tree", &e))
}

async fn plan(store: &dyn BlobStore, tree: Digest, root: &Path) -> Result<Plan, RunError> {
    let mut plan = Plan::default();
    let mut known: HashMap<Digest, Directory> = HashMap::new();
    let mut level = vec![(root.to_owned(), tree)];
    let mut entries = 0;
    while !level.is_empty() {
        let wanted: Vec<Digest> = level.iter().map(|(_, d)| *d).filter(|d| !known.contains_key(d)).collect();
        for (digest, data) in store.read_blobs(&wanted).await.map_err(|e| RunError::store(&e))? {
            let data = data.map_err(|e| RunError::store(&e))?;
            let directory = Directory::parse(data)
                .map_err(|e| RunError::new(Code::InvalidArgument, format!("input directory {digest}: {e}")))?;
            known.insert(digest, directory);
        }
        let mut next = Vec::new();
        for (path, digest) in level {
            let directory =
                known.get(&digest).ok_or_else(|| RunError::new(Code::Internal, format!("no answer for {digest}")))?;
            entries += directory.len();
            if entries > MAX_ENTRIES {
                return Err(RunError::new(Code::ResourceExhausted, "the input tree has too many entries"));
            }
            for entry in directory.entries() {
                let path = path.join(OsStr::from_bytes(entry.name));
                match entry.node {
                    Node::File { digest, executable } => plan.files.push((path, digest, executable)),
                    Node::Symlink { target } => plan.symlinks.push((path, target)),
                    Node::Directory { digest } => {
                        plan.directories.push(path.clone());
                        next.push((path, digest));
                    }
                }
            }
        }
        level = next;
    }
    Ok(plan)
}

fn create(plan: &Plan, contents: &HashMap<Digest, Bytes>) -> io::Result<()> {
    for directory in &plan.directories {
        std::fs::create_dir(directory)?;
    }
    for (path, digest, executable) in &plan.files {
        let data = contents.get(digest).ok_or_else(|| io::Error::other(format!("no answer for {digest}")))?;
        let mode = if *executable { 0o755 } else { 0o644 };
        let _writing = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        io::Write::write_all(&mut file, data)?;
    }
    for (path, target) in &plan.symlinks {
        symlink(OsStr::from_bytes(target), path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_client::InMemory;
    use reapi_proto::raw::encode_directory;
    use std::os::unix::fs::PermissionsExt;

    fn directory(store: &InMemory, entries: impl IntoIterator<Item = (&'static str, Node)>) -> Digest {
        let entries = entries.into_iter().map(|(name, node)| (Bytes::from_static(name.as_bytes()), node));
        store.put(encode_directory(entries).unwrap())
    }

    #[tokio::test]
    async fn files_directories_and_symlinks_appear() {
        let store = InMemory::new();
        let text = store.put("text");
        let inner = directory(&store, [("run", Node::File { digest: text, executable: true })]);
        let empty = store.put("");
        let tree = directory(
            &store,
            [
                ("a", Node::Directory { digest: inner }),
                ("b", Node::Directory { digest: inner }),
                ("empty", Node::File { digest: empty, executable: false }),
                ("link", Node::Symlink { target: Bytes::from_static(b"a/run") }),
            ],
        );
        let root = tempfile::tempdir().unwrap();
        materialise(&store, tree, root.path()).await.unwrap();
        assert_eq!(std::fs::read(root.path().join("link")).unwrap(), b"text");
        assert_eq!(std::fs::read(root.path().join("b/run")).unwrap(), b"text");
        assert_eq!(std::fs::read(root.path().join("empty")).unwrap(), b"");
        let mode = |p: &str| std::fs::metadata(root.path().join(p)).unwrap().permissions().mode() & 0o111;
        assert_ne!(mode("a/run"), 0);
        assert_eq!(mode("empty"), 0);
    }

    #[tokio::test]
    async fn missing_files_are_all_named() {
        let store = InMemory::new();
        let lost = [store.put("one"), store.put("two")];
        let tree = directory(
            &store,
            [
                ("one", Node::File { digest: lost[0], executable: false }),
                ("two", Node::File { digest: lost[1], executable: false }),
            ],
        );
        lost.iter().for_each(|d| assert!(store.forget(d)));
        let root = tempfile::tempdir().unwrap();
        let error = materialise(&store, tree, root.path()).await.unwrap_err();
        assert_eq!(error, RunError::missing(&lost));
    }

    #[tokio::test]
    async fn names_that_leave_the_tree_are_refused() {
        // Encoded by hand: a canonical encoder refuses such a name.
        let store = InMemory::new();
        let file = reapi_proto::v2::FileNode {
            name: "../escape".to_owned(),
            digest: Some(store.put("x").into()),
            ..Default::default()
        };
        let tree = store.put_message(&reapi_proto::v2::Directory { files: vec![file], ..Default::default() });
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let error = materialise(&store, tree, &inside).await.unwrap_err();
        assert_eq!(error.status.code, Code::InvalidArgument as i32);
        assert!(!root.path().join("escape").exists());
    }
}
