//! What only a store of files can do wrong. The rest is the conformance suite's.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use reapi_proto::v2::{Action, Command};
use tempfile::TempDir;

use super::*;
use crate::{ActionCache, ActionCacheWriter, Blob, BlobStore, BlobStoreExt};

fn store() -> (TempDir, FileStore) {
    let directory = TempDir::new().unwrap();
    let store = FileStore::create(directory.path().join("store")).unwrap();
    (directory, store)
}

fn blob(data: impl Into<Bytes>) -> Blob {
    Blob::new(DigestFunction::Sha256, data)
}

fn path(store: &FileStore, digest: &Digest) -> PathBuf {
    store.layout.blobs.path(digest)
}

/// Puts any bytes where `digest` belongs.
fn plant(store: &FileStore, digest: &Digest, data: &[u8]) {
    let path = path(store, digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, data).unwrap();
}

/// All regular files below the store, relative to it.
fn files(store: &FileStore) -> Vec<PathBuf> {
    let (mut pending, mut found) = (vec![store.root().to_owned()], Vec::new());
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn blobs_are_files_as_casd_leaves_them() {
    let (_directory, store) = store();
    let hello = blob("hello");
    store.write_blob(&hello).await.unwrap();
    let name = "cas/objects/2c/f24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(files(&store), [store.root().join(name)], "and nothing else, in particular no temporary file");
    assert_eq!(fs::read(store.root().join(name)).unwrap(), b"hello");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(store.root().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
    }
    let again = FileStore::open(store.root()).unwrap();
    assert_eq!(again.read_blocking(&hello.digest()).unwrap().unwrap(), "hello");
    assert_eq!(again.to_string(), format!("file:{}", store.root().display()));
}

#[tokio::test]
async fn damaged_files_are_corrupt_and_a_write_repairs_them() {
    let (_directory, store) = store();
    let large = vec![7; 300_000];
    for (data, damaged, reason) in [
        (&b"hello"[..], &b"hellO"[..], "do not match"),
        (b"hello", b"hell", "truncated to 4 bytes"),
        (b"hello", b"", "truncated to 0 bytes"),
        (b"hello", b"hello!", "longer"),
        (&large, &large[..299_999], "truncated to 299999 bytes"),
        (&large, &[&large[..], b"x"].concat(), "longer"),
    ] {
        let good = blob(data.to_vec());
        let digest = good.digest();
        plant(&store, &digest, damaged);
        let error = store.read_blob(&digest).await.unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::Corrupt, &[digest][..]));
        assert!(error.reason().contains(reason), "{error}");
        let streamed = match store.open_blob(&digest).await {
            Ok(chunks) => chunks.try_collect::<Vec<_>>().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(streamed.unwrap_err().kind(), ErrorKind::Corrupt);
        let expected_missing = if damaged.len() == data.len() { vec![] } else { vec![digest] };
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), expected_missing, "only sizes are looked at");

        store.write_blob(&good).await.unwrap();
        assert_eq!(store.read_blob(&digest).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_hostile_size_costs_no_memory() {
    let (_directory, store) = store();
    let hash = DigestFunction::Sha256.digest(b"small");
    let digest = Digest::from_raw(DigestFunction::Sha256, hash.hash(), i64::MAX as u64).unwrap();
    plant(&store, &digest, b"small");
    assert_eq!(store.read_blob(&digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let streamed: Result<Vec<Bytes>> = store.open_blob(&digest).await.unwrap().try_collect().await;
    assert_eq!(streamed.unwrap_err().kind(), ErrorKind::Corrupt);
    let written = store.write_chunks(&digest, stream::iter([Ok("small".into())]).boxed()).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_failed_or_abandoned_write_leaves_nothing() {
    let (_directory, store) = store();
    let digest = blob(vec![1; 3 << 20]).digest();
    let piece = || Ok(Bytes::from(vec![1; 1 << 20]));
    let broken = Error::new(ErrorKind::Unavailable, "read", "the source broke");
    let failed = store.write_chunks(&digest, stream::iter([piece(), piece(), Err(broken)]).boxed()).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(files(&store), [] as [PathBuf; 0]);

    let (first_taken, taken) = tokio::sync::oneshot::channel();
    let mut first_taken = Some(first_taken);
    let endless = stream::iter([piece(), piece()])
        .inspect(move |_| {
            if let Some(sender) = first_taken.take() {
                sender.send(()).unwrap();
            }
        })
        .chain(stream::pending())
        .boxed();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.write_chunks(&digest, endless).await }
    });
    taken.await.unwrap();
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert!(!path(&store, &digest).exists());
}

#[tokio::test]
async fn what_is_present_gets_a_new_lifetime() {
    let (_directory, store) = store();
    let (asked, written) = (blob("asked for"), blob("written again"));
    store.upload_missing(&[asked.clone(), written.clone()]).await.unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    for blob in [&asked, &written] {
        File::open(path(&store, &blob.digest())).unwrap().set_modified(long_ago).unwrap();
    }
    let age = |blob: &Blob| {
        fs::metadata(path(&store, &blob.digest())).unwrap().modified().unwrap().elapsed().unwrap_or_default()
    };
    assert_eq!(store.find_missing(&[asked.digest()]).await.unwrap(), []);
    assert!(age(&asked) < Duration::from_secs(3600));
    assert!(age(&written) > Duration::from_secs(3600));
    store.write_blob(&written).await.unwrap();
    assert!(age(&written) < Duration::from_secs(3600));
}

#[tokio::test]
async fn a_large_batch_is_answered_in_order() {
    let (_directory, store) = store();
    let blobs: Vec<_> = (0..5000).map(|i| blob(format!("blob {i}"))).collect();
    let (present, absent) = blobs.split_at(4000);
    assert_eq!(store.upload_missing(present).await.unwrap().uploaded, 4000);
    let mut order: Vec<_> = blobs.iter().map(Blob::digest).collect();
    order.reverse();
    let answers = store.read_blobs(&order).await.unwrap();
    assert!(answers.iter().map(|(digest, _)| *digest).eq(order.iter().copied()));
    assert_eq!(answers.iter().filter(|(_, data)| data.is_ok()).count(), 4000);
    let missing: Vec<_> = absent.iter().rev().map(Blob::digest).collect();
    assert_eq!(store.find_missing(&order).await.unwrap(), missing);
}

#[tokio::test]
async fn action_results_are_files_too() {
    let (_directory, store) = store();
    let command = Blob::new(DigestFunction::Sha256, prost::Message::encode_to_vec(&Command::default()));
    let action = Action {
        command_digest: Some(command.digest().into()),
        input_root_digest: Some(DigestFunction::Sha256.empty().into()),
        ..Action::default()
    };
    let action = Blob::new(DigestFunction::Sha256, prost::Message::encode_to_vec(&action));
    let result = reapi_proto::v2::ActionResult { exit_code: 3, ..Default::default() };
    store.write_blob(&action).await.unwrap();
    store.store_action_result(&action.digest(), &result).await.unwrap();
    let file = store.layout.results.path(&action.digest());
    assert_eq!(fs::read(&file).unwrap(), prost::Message::encode_to_vec(&result));

    fs::write(&file, b"\xff\xff").unwrap();
    let error = store.fetch_action_result(&action.digest()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_store_that_is_not_there_is_not_an_empty_one() {
    let directory = TempDir::new().unwrap();
    let error = FileStore::open(directory.path().join("absent")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    File::create(directory.path().join("file")).unwrap();
    assert_eq!(FileStore::create(directory.path().join("file")).unwrap_err().kind(), ErrorKind::Io);
}

#[tokio::test]
async fn an_unwritable_place_says_so() {
    let (_directory, store) = store();
    File::create(store.root().join("cas")).unwrap();
    let error = store.write_blob(&blob("data")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(std::error::Error::source(&error).is_some());
}
