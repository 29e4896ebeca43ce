//! Local files as input trees, and outputs as local files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use cas_client::{Blob, BlobStore, BlobStoreExt, Output, OutputKind};
use futures_util::StreamExt;
use futures_util::stream;
use overlay::derive::MAX_TREE_PATHS;
use overlay::{Forest, MAX_DEPTH};
use reapi_proto::raw::{Directory, Node, Tree, encode_directory};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::failure::Failure;

/// Files up to this size are uploaded in batches, larger ones one by one in pieces.
const BATCHED_BYTES: u64 = 1 << 20;

/// Size of a piece of a large file.
const PIECE_BYTES: usize = 1 << 20;

/// The most that is read of a file as a whole. The largest that is meant to be read, a record of 5,000 actions of
/// 400 inputs each in the reference layout, has half of that.
pub(crate) const MAX_WHOLE_BYTES: u64 = 1 << 30;

/// Writes a file, with the folder that it is in. It is replaced at once or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Reads a whole file; one that is larger than any real one is an error, whatever it claims and wherever it ends.
pub(crate) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len();
    let mut bytes =
        Vec::with_capacity(usize::try_from(expected).ok().filter(|_| expected <= MAX_WHOLE_BYTES).unwrap_or(0));
    if expected <= MAX_WHOLE_BYTES {
        file.take(MAX_WHOLE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if expected.max(bytes.len() as u64) > MAX_WHOLE_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_WHOLE_BYTES} bytes, the limit for such a file")));
    }
    Ok(bytes)
}

/// A tree of local files, hashed.
#[derive(Debug, Default)]
pub(crate) struct LocalTree {
    root: Level,
    files: BTreeMap<Digest, PathBuf>,
}

#[derive(Debug, Default)]
struct Level(BTreeMap<Bytes, Entry>);

#[derive(Debug)]
enum Entry {
    Leaf(Node),
    Level(Level),
}

impl LocalTree {
    /// Hashes `paths`, relative ones below the current directory, at the same places.
    pub(crate) fn read(function: DigestFunction, paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut tree = Self::default();
        for path in paths {
            let names = names(path).ok_or_else(|| leads_out("--input", path))?;
            let Some((last, parents)) = names.split_last() else {
                let entry = tree.hash(function, Path::new("."))?;
                if let Entry::Level(level) = entry {
                    tree.root = level;
                }
                continue;
            };
            let entry = tree.hash(function, path)?;
            let mut level = &mut tree.root;
            for name in parents {
                let below = level.0.entry(name.clone()).or_insert_with(|| Entry::Level(Level::default()));
                match below {
                    Entry::Level(next) => level = next,
                    Entry::Leaf(_) => {
                        return Err(Failure::usage(format!("input {} is below a file", path.display())));
                    }
                }
            }
            level.0.insert(last.clone(), entry);
        }
        Ok(tree)
    }

    fn hash(&mut self, function: DigestFunction, path: &Path) -> Result<Entry, Failure> {
        let failed = |e: io::Error| Failure::new(format!("input {} cannot be read", path.display())).because(&e);
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(failed)?;
            return Ok(Entry::Leaf(Node::Symlink { target: os_bytes(target.as_os_str()) }));
        }
        if meta.is_dir() {
            let mut level = Level::default();
            for child in fs::read_dir(path).map_err(failed)? {
                let child = child.map_err(failed)?;
                level.0.insert(os_bytes(&child.file_name()), self.hash(function, &child.path())?);
            }
            return Ok(Entry::Level(level));
        }
        if !meta.is_file() {
            return Err(Failure::new(format!("input {} is neither file, directory nor link", path.display())));
        }
        let mut hasher = function.hasher();
        let mut file = File::open(path).map_err(failed)?;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let digest = hasher.finish();
        self.files.insert(digest, path.to_owned());
        Ok(Entry::Leaf(Node::File { digest, executable: is_executable(&meta) }))
    }

    /// The Directory messages, and the digest of the root.
    pub(crate) fn directories(&self, function: DigestFunction) -> Result<(Digest, Vec<Blob>), Failure> {
        let mut blobs = Vec::new();
        let root = store_level(function, &self.root, &mut blobs)?;
        Ok((root, blobs))
    }

    /// Uploads the contents that the store lacks.
    pub(crate) async fn upload_files(&self, store: &dyn BlobStore) -> Result<(), Failure> {
        let digests: Vec<Digest> = self.files.keys().copied().collect();
        let mut small = Vec::new();
        let mut small_bytes = 0;
        for digest in store.find_missing(&digests).await? {
            let Some(path) = self.files.get(&digest) else { continue };
            let failed = |e: io::Error| Failure::new(format!("input {} cannot be read", path.display())).because(&e);
            if digest.size_bytes() > BATCHED_BYTES {
                let file = File::open(path).map_err(failed)?;
                store.write_chunks(&digest, stream::unfold(file, next_piece).boxed()).await?;
                continue;
            }
            let data = fs::read(path).map_err(failed)?;
            let blob = Blob::verified(digest, data.into())
                .ok_or_else(|| Failure::new(format!("input {} changed while it was being read", path.display())))?;
            small_bytes += digest.size_bytes();
            small.push(blob);
            // Bounds memory, not messages: the store splits batches by itself.
            if small_bytes > 64 * BATCHED_BYTES {
                store.upload_missing(&std::mem::take(&mut small)).await?;
                small_bytes = 0;
            }
        }
        store.upload_missing(&small).await?;
        Ok(())
    }
}

async fn next_piece(mut file: File) -> Option<(cas_client::Result<Bytes>, File)> {
    let mut buffer = vec![0; PIECE_BYTES];
    match file.read(&mut buffer) {
        Ok(0) => None,
        Ok(read) => {
            buffer.truncate(read);
            Some((Ok(buffer.into()), file))
        }
        Err(error) => {
            let reason = error.to_string();
            Some((Err(cas_client::Error::new(cas_client::ErrorKind::Io, "read", reason).caused_by(error)), file))
        }
    }
}

fn store_level(function: DigestFunction, level: &Level, blobs: &mut Vec<Blob>) -> Result<Digest, Failure> {
    let mut entries = Vec::with_capacity(level.0.len());
    for (name, entry) in &level.0 {
        let node = match entry {
            Entry::Leaf(node) => node.clone(),
            Entry::Level(below) => Node::Directory { digest: store_level(function, below, blobs)? },
        };
        entries.push((name.clone(), node));
    }
    let bytes = encode_directory(entries).map_err(|e| Failure::new("the inputs make no valid tree").because(&e))?;
    let blob = Blob::new(function, bytes);
    let digest = blob.digest();
    blobs.push(blob);
    Ok(digest)
}

/// The segments of a path, if it is one that stays inside the current directory.
fn names(path: &Path) -> Option<Vec<Bytes>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(os_bytes(name)),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(names)
}

/// A path of an action as the protocol wants it: segments with a slash between them, nothing else.
pub(crate) fn clean_path(option: &str, path: &str) -> Result<String, Failure> {
    let names = names(Path::new(path)).ok_or_else(|| leads_out(option, Path::new(path)))?;
    // Segments of a string are cut at slashes, so each is a string.
    let names: Vec<&str> = names.iter().filter_map(|name| std::str::from_utf8(name).ok()).collect();
    Ok(names.join("/"))
}

fn leads_out(option: &str, path: &Path) -> Failure {
    Failure::usage(format!("{option} {} leads out of the current directory", path.display()))
        .hint("paths of inputs and outputs are relative, without `..`; change to a directory above all of them")
}

/// Writes outputs of an action below `base`, those alone that were asked for. Links come last: nothing is ever
/// written through one of them.
pub(crate) async fn write_outputs(
    store: &dyn BlobStore,
    base: &Path,
    asked: &[String],
    mut outputs: Vec<Output>,
) -> Result<(), Failure> {
    for output in &outputs {
        let clean = clean_path("", &output.path).ok();
        if !clean.is_some_and(|path| asked.contains(&path)) {
            let reason = format!("the service reports an output {:?}, which was not asked for", output.path);
            return Err(Failure::new(reason).hint("no output was written; the service or its action cache is at fault"));
        }
    }
    outputs.sort_by_key(|output| matches!(output.kind, OutputKind::Symlink { .. }));
    for output in &outputs {
        write_output(store, base, output).await?;
    }
    Ok(())
}

async fn write_output(store: &dyn BlobStore, base: &Path, output: &Output) -> Result<(), Failure> {
    let path = base.join(&output.path);
    match &output.kind {
        OutputKind::File { digest, is_executable } => write_file(store, &path, digest, *is_executable).await,
        OutputKind::Symlink { target } => write_link(&path, target.as_ref()),
        OutputKind::Directory { tree: Some(tree), .. } => {
            let invalid = || Failure::new(format!("output directory {} is not valid", path.display()));
            if tree.size_bytes() > MAX_WHOLE_BYTES {
                return Err(invalid().hint(format!("its Tree message {tree} is larger than {MAX_WHOLE_BYTES} bytes")));
            }
            let tree = Tree::parse(store.read_blob(tree).await?).map_err(|e| invalid().because(&e))?;
            let mut directories = Forest::new();
            for (digest, bytes) in tree.directories(store.digest_function()) {
                directories.insert(digest, Directory::parse(bytes.clone()).map_err(|e| invalid().because(&e))?);
            }
            write_directory(store, &path, tree.root_digest(store.digest_function()), &directories).await
        }
        OutputKind::Directory { tree: None, root } => {
            let root = root.ok_or_else(|| Failure::new(format!("output {} has no digest", output.path)))?;
            let trees = cas_client::read_trees(store, &[root], |_| false, &cas_client::TreeBudget::default()).await?;
            let mut directories = Forest::new();
            for (digest, directory) in trees.directories {
                directories.insert(digest, directory);
            }
            write_directory(store, &path, root, &directories).await
        }
    }
}

async fn write_directory(
    store: &dyn BlobStore,
    path: &Path,
    root: Digest,
    directories: &Forest,
) -> Result<(), Failure> {
    // A small message can describe more paths than any disk can hold.
    let paths = directories.path_count(&root, &mut FxHashMap::default());
    if paths > MAX_TREE_PATHS {
        let reason = format!("output directory {} has {paths} paths; the limit is {MAX_TREE_PATHS}", path.display());
        return Err(Failure::new(reason));
    }
    let mut pending = vec![(path.to_owned(), root, 0)];
    // Links last: nothing is ever written through one.
    let mut links = Vec::new();
    while let Some((path, digest, depth)) = pending.pop() {
        fs::create_dir_all(&path).map_err(|e| cannot_write(&path, &e))?;
        if digest.is_empty() {
            continue;
        }
        let directory = directories
            .get(&digest)
            .filter(|_| depth <= MAX_DEPTH)
            .ok_or_else(|| Failure::new(format!("{}: its directory {digest} is absent or too deep", path.display())))?;
        for entry in directory.entries() {
            let child = path.join(os_name(entry.name));
            match entry.node {
                Node::Directory { digest } => pending.push((child, digest, depth + 1)),
                Node::File { digest, executable } => write_file(store, &child, &digest, executable).await?,
                Node::Symlink { target } => links.push((child, target)),
            }
        }
    }
    for (path, target) in links {
        write_link(&path, os_name(&target).as_ref())?;
    }
    Ok(())
}

async fn write_file(store: &dyn BlobStore, path: &Path, digest: &Digest, executable: bool) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| cannot_write(parent, &e))?;
    // Under its final name only once it is complete and verified.
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(|e| cannot_write(path, &e))?;
    if !digest.is_empty() {
        let mut chunks = store.open_blob(digest).await?;
        while let Some(chunk) = chunks.next().await {
            file.write_all(&chunk?).map_err(|e| cannot_write(path, &e))?;
        }
    }
    let mode = if executable { 0o755 } else { 0o644 };
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(|e| cannot_write(path, &e))?;
    file.persist(path).map_err(|e| cannot_write(path, &e.error))?;
    Ok(())
}

fn write_link(path: &Path, target: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir()) {
        fs::remove_file(path).map_err(|e| cannot_write(path, &e))?;
    }
    std::os::unix::fs::symlink(target, path).map_err(|e| cannot_write(path, &e))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("output {} cannot be written", path.display())).because(error)
}

fn is_executable(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o111 != 0
}

fn os_bytes(name: &std::ffi::OsStr) -> Bytes {
    use std::os::unix::ffi::OsStrExt as _;
    Bytes::copy_from_slice(name.as_bytes())
}

fn os_name(bytes: &[u8]) -> &std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(bytes)
}
