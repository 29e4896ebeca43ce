//! Reading past a service on this machine, against a scripted server: what it is asked, and what it is not.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use cas_client::grpc::Direct;
use cas_client::{Blob, BlobStore, BlobStoreExt as _, ErrorKind, FileStore};
use futures_util::TryStreamExt as _;
use reapi_proto::buildgrid::LocalServerDetails;
use reapi_proto::v2::batch_read_blobs_response::Response;
use reapi_proto::v2::{BatchReadBlobsRequest, BatchReadBlobsResponse};
use reapi_proto::{Digest, DigestFunction};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::support::{Scripted, digest, piece, replies};

const HERE: &str = "this-host";

/// A directory as casd's, with these blobs in it.
async fn casd_directory(blobs: &[&'static str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let files = FileStore::create(directory.path()).unwrap();
    std::fs::create_dir(directory.path().join("cas")).unwrap();
    for blob in blobs {
        files.write_blob(&Blob::new(DigestFunction::Sha256, *blob)).await.unwrap();
    }
    directory
}

fn details(hostname: &str, storage_root: &Path) -> LocalServerDetails {
    LocalServerDetails {
        hostname: hostname.to_owned(),
        process_uid: 0,
        storage_root: storage_root.to_str().unwrap().to_owned(),
    }
}

/// Has the server answer one batch with `known`, in the order of the request.
fn serve(server: &Scripted, known: &'static [&'static str]) {
    server.script.batch_read.then(|request| {
        let answer = |wanted: reapi_proto::v2::Digest| {
            let data = known.iter().find(|data| digest(data.as_bytes()).to_hex() == wanted.hash);
            let code = if data.is_some() { Code::Ok } else { Code::NotFound };
            Response {
                digest: Some(wanted),
                data: data.map_or(Bytes::new(), |data| Bytes::from_static(data.as_bytes())),
                status: Some(reapi_proto::rpc::Status { code: code as i32, ..Default::default() }),
                ..Default::default()
            }
        };
        Ok(BatchReadBlobsResponse { responses: request.digests.into_iter().map(answer).collect() })
    });
}

/// What the service was asked for, call by call.
fn asked_for(server: &Scripted) -> Vec<BTreeSet<String>> {
    let hashes = |call: BatchReadBlobsRequest| call.digests.into_iter().map(|digest| digest.hash).collect();
    server.script.batch_read.calls().into_iter().map(hashes).collect()
}

fn object(directory: &TempDir, digest: &Digest) -> std::path::PathBuf {
    let hex = digest.to_hex();
    directory.path().join("cas/objects").join(&hex[..2]).join(&hex[2..])
}

/// Replaces a file of the directory by one with other contents.
fn damage(directory: &TempDir, digest: &Digest, contents: &str) {
    let path = object(directory, digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path, contents).unwrap();
}

#[tokio::test]
async fn what_is_here_is_read_without_the_service() {
    let directory = casd_directory(&["one", "two"]).await;
    let server = Scripted::start().await;
    server.script.local_details.then_ok(details(HERE, &directory.path().join("cas")));
    let store = Direct::new(server.client(), HERE);
    assert_eq!(store.to_string(), format!("Direct(Grpc({}))", server.url));
    for data in ["one", "two", "one"] {
        assert_eq!(store.read_blob(&digest(data.as_bytes())).await.unwrap(), data);
    }
    let streamed: Vec<Bytes> = store.open_blob(&digest(b"two")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.concat(), b"two");
    assert_eq!(server.script.batch_read.calls(), []);
    assert_eq!(server.script.read.calls(), []);
    assert_eq!(server.script.local_details.calls().len(), 1, "it is asked once");
    let files = format!("file:{}", directory.path().join("cas").display());
    assert_eq!(store.to_string(), format!("Direct(Nearby({files}, Grpc({})))", server.url));
}

#[tokio::test]
async fn what_is_absent_or_damaged_here_comes_from_the_service() {
    let directory = casd_directory(&["good", "damaged", "cut off"]).await;
    let [good, damaged, cut, elsewhere, nowhere] =
        ["good", "damaged", "cut off", "elsewhere", "nowhere"].map(|data| digest(data.as_bytes()));
    damage(&directory, &damaged, "DAMAGED");
    damage(&directory, &cut, "cut");
    let server = Scripted::start().await;
    server.script.local_details.then_ok(details(HERE, &directory.path().join("cas")));
    serve(&server, &["good", "damaged", "cut off", "elsewhere"]);
    let store = Direct::new(server.client(), HERE);

    let read = store.read_blobs(&[good, damaged, cut, elsewhere, nowhere]).await.unwrap();
    let read: Vec<_> = read.into_iter().map(|(digest, read)| (digest, read.map_err(|error| error.kind()))).collect();
    let expected = [
        (good, Ok("good".into())),
        (damaged, Ok("damaged".into())),
        (cut, Ok("cut off".into())),
        (elsewhere, Ok("elsewhere".into())),
        (nowhere, Err(ErrorKind::NotFound)),
    ];
    assert_eq!(read, expected);
    assert_eq!(asked_for(&server), [BTreeSet::from([damaged, cut, elsewhere, nowhere].map(|digest| digest.to_hex()))]);

    // A stream that has begun cannot be continued elsewhere, so it must not begin with what is damaged.
    serve(&server, &["damaged"]);
    let streamed: Vec<Bytes> = store.open_blob(&damaged).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.concat(), b"damaged");
    assert_eq!(asked_for(&server).len(), 2);
}

#[tokio::test]
async fn a_service_elsewhere_is_used_as_ever() {
    let directory = casd_directory(&["data"]).await;
    let here = directory.path().join("cas");
    for told in [
        details("another-host", &here),
        details("", &here),
        details(HERE, &directory.path().join("absent")),
        details(HERE, &object(&directory, &digest(b"data"))),
        details(HERE, Path::new("")),
    ] {
        let server = Scripted::start().await;
        server.script.local_details.then_ok(told.clone());
        let store = Direct::new(server.client(), HERE);
        for _ in 0..2 {
            serve(&server, &["data"]);
            assert_eq!(store.read_blob(&digest(b"data")).await.unwrap(), "data", "{told:?}");
        }
        assert_eq!(asked_for(&server).len(), 2, "{told:?}");
        assert_eq!(server.script.local_details.calls().len(), 1, "{told:?}");
        assert_eq!(store.to_string(), format!("Direct(Grpc({}))", server.url));
    }
}

#[tokio::test]
async fn a_service_that_tells_nothing_is_asked_once() {
    let server = Scripted::start().await;
    server.script.local_details.then_fail(Status::unimplemented("no"));
    let store = Direct::new(server.client(), HERE);
    for _ in 0..2 {
        serve(&server, &["data"]);
        assert_eq!(store.read_blob(&digest(b"data")).await.unwrap(), "data");
    }
    assert_eq!(server.script.local_details.calls().len(), 1);
}

#[tokio::test]
async fn a_failure_to_tell_delays_nothing_and_is_not_for_ever() {
    let directory = casd_directory(&["data"]).await;
    let server = Scripted::start().await;
    server.script.local_details.fail_times(1, Code::Unavailable);
    serve(&server, &["data"]);
    let store = Direct::new(server.client(), HERE);
    assert_eq!(store.read_blob(&digest(b"data")).await.unwrap(), "data");
    assert_eq!(server.script.local_details.calls().len(), 1, "it is not tried over and over");

    server.script.local_details.then_ok(details(HERE, &directory.path().join("cas")));
    assert_eq!(store.read_blob(&digest(b"data")).await.unwrap(), "data");
    assert_eq!(asked_for(&server).len(), 1, "the second time it was there");
}

#[tokio::test]
async fn large_streams_presence_and_writes_are_the_services_business() {
    let directory = casd_directory(&["here"]).await;
    let server = Scripted::start().await;
    server.script.local_details.then_ok(details(HERE, &directory.path().join("cas")));
    let store = Direct::new(server.client(), HERE);

    let large = vec![7; (1 << 20) + 1];
    let blob = Blob::new(DigestFunction::Sha256, large.clone());
    FileStore::open(directory.path()).unwrap().write_blob(&blob).await.unwrap();
    server.script.read.then_ok(replies(vec![piece(&large)]));
    let streamed: Vec<Bytes> = store.open_blob(&blob.digest()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.concat(), large);
    assert_eq!(server.script.read.calls().len(), 1);

    server
        .script
        .find_missing
        .then(|request| Ok(reapi_proto::v2::FindMissingBlobsResponse { missing_blob_digests: request.blob_digests }));
    server.script.batch_update.then(|request| {
        let taken = |upload: reapi_proto::v2::batch_update_blobs_request::Request| {
            reapi_proto::v2::batch_update_blobs_response::Response {
                digest: upload.digest,
                status: Some(reapi_proto::rpc::Status::default()),
            }
        };
        let responses = request.requests.into_iter().map(taken).collect();
        Ok(reapi_proto::v2::BatchUpdateBlobsResponse { responses })
    });
    let stats = store.upload_missing(&[Blob::new(DigestFunction::Sha256, "here")]).await.unwrap();
    assert_eq!(stats.uploaded, 1, "what lies about here may be about to expire");
    assert_eq!(server.script.find_missing.calls().len(), 1);
    assert_eq!(server.script.batch_update.calls().len(), 1);
}
