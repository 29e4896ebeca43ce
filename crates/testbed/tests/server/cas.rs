use bytes::Bytes;
use futures_util::StreamExt;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::{Digest, DigestFunction, v2};
use testbed::{Rpc, ServerConfig};
use tonic::Code;

use crate::rig::Rig;

fn digest(data: &str) -> Digest {
    DigestFunction::Sha256.digest(data.as_bytes())
}

fn entry(digest: Digest, data: &'static str) -> v2::batch_update_blobs_request::Request {
    v2::batch_update_blobs_request::Request {
        digest: Some(digest.into()),
        data: Bytes::from_static(data.as_bytes()),
        compressor: 0,
    }
}

async fn find_missing(rig: &Rig, digests: &[Digest]) -> Vec<v2::Digest> {
    let blob_digests = digests.iter().map(Into::into).collect();
    let request = v2::FindMissingBlobsRequest { blob_digests, ..Default::default() };
    rig.cas().find_missing_blobs(request).await.unwrap().into_inner().missing_blob_digests
}

#[tokio::test]
async fn missing_blobs_are_found_once_each() {
    let rig = Rig::new().await;
    let there = rig.server.store().put("there");
    let empty = DigestFunction::Sha256.empty();
    let gone = digest("gone");
    assert_eq!(find_missing(&rig, &[there, gone, empty, gone]).await, [gone.into()]);
    assert_eq!(rig.server.stats().calls(Rpc::FindMissingBlobs), 1);
}

#[tokio::test]
async fn batches_are_verified_entry_by_entry() {
    let rig = Rig::new().await;
    let requests = vec![entry(digest("good"), "good"), entry(digest("expected"), "other")];
    let request = v2::BatchUpdateBlobsRequest { requests, ..Default::default() };
    let responses = rig.cas().batch_update_blobs(request).await.unwrap().into_inner().responses;
    let codes: Vec<_> = responses.iter().map(|r| Code::from_i32(r.status.as_ref().unwrap().code)).collect();
    assert_eq!(codes, [Code::Ok, Code::InvalidArgument]);
    assert_eq!(rig.server.stats().uploaded, [digest("good")]);

    let digests = [digest("good"), digest("expected")].iter().map(Into::into).collect();
    let request = v2::BatchReadBlobsRequest { digests, ..Default::default() };
    let responses = rig.cas().batch_read_blobs(request).await.unwrap().into_inner().responses;
    assert_eq!(responses[0].data, "good");
    assert_eq!(Code::from_i32(responses[1].status.as_ref().unwrap().code), Code::NotFound);
}

#[tokio::test]
async fn the_batch_limit_is_advertised_and_enforced() {
    let rig = Rig::with(ServerConfig { max_batch_bytes: 8, ..Default::default() }).await;
    let mut capabilities = v2::capabilities_client::CapabilitiesClient::new(rig.channel.clone());
    let found = capabilities.get_capabilities(v2::GetCapabilitiesRequest::default()).await.unwrap().into_inner();
    assert_eq!(found.cache_capabilities.unwrap().max_batch_total_size_bytes, 8);
    assert!(found.execution_capabilities.unwrap().exec_enabled);

    let requests = vec![entry(digest("12345"), "12345"), entry(digest("6789"), "6789")];
    let request = v2::BatchUpdateBlobsRequest { requests, ..Default::default() };
    let status = rig.cas().batch_update_blobs(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let digests = vec![rig.server.store().put("123456789").into()];
    let request = v2::BatchReadBlobsRequest { digests, ..Default::default() };
    assert_eq!(rig.cas().batch_read_blobs(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let rig = Rig::new().await;
    let ask = |d: v2::Digest, digest_function, instance: &str| {
        let request =
            v2::FindMissingBlobsRequest { instance_name: instance.to_owned(), blob_digests: vec![d], digest_function };
        let mut cas = rig.cas();
        async move { cas.find_missing_blobs(request).await.map(drop).map_err(|s| s.code()) }
    };
    let good: v2::Digest = digest("x").into();
    assert_eq!(ask(good.clone(), 1, "").await, Ok(()));
    assert_eq!(ask(v2::Digest { size_bytes: -1, ..good.clone() }, 0, "").await, Err(Code::InvalidArgument));
    assert_eq!(ask(v2::Digest { hash: "zz".to_owned(), size_bytes: 1 }, 0, "").await, Err(Code::InvalidArgument));
    assert_eq!(ask(good.clone(), 9, "").await, Err(Code::InvalidArgument), "BLAKE3 is not what this server uses");
    assert_eq!(ask(good, 0, "elsewhere").await, Err(Code::InvalidArgument), "no such instance");
}

#[tokio::test]
async fn instances_are_isolated() {
    let instances = ["", "a/b"].map(|name| (name.to_owned(), cas_client::InMemory::new())).to_vec();
    let rig = Rig::with(ServerConfig { instances, ..Default::default() }).await;
    let blob = rig.server.instance_store("a/b").unwrap().put("here");
    let ask = |instance_name: &str| {
        let request = v2::FindMissingBlobsRequest {
            instance_name: instance_name.to_owned(),
            blob_digests: vec![blob.into()],
            ..Default::default()
        };
        let mut cas = rig.cas();
        async move { cas.find_missing_blobs(request).await.unwrap().into_inner().missing_blob_digests.len() }
    };
    assert_eq!((ask("a/b").await, ask("").await), (0, 1));
}

async fn get_tree(rig: &Rig, root: Digest, page_size: i32, page_token: &str) -> Vec<v2::GetTreeResponse> {
    let request = v2::GetTreeRequest {
        root_digest: Some(root.into()),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let stream = rig.cas().get_tree(request).await.unwrap().into_inner();
    stream.map(Result::unwrap).collect().await
}

#[tokio::test]
async fn trees_come_in_pages_without_repetitions_or_missing_parts() {
    let rig = Rig::new().await;
    let store = rig.server.store();
    let make = |entries: Vec<(&'static str, Digest)>| {
        let entries =
            entries.into_iter().map(|(name, digest)| (Bytes::from_static(name.as_bytes()), Node::Directory { digest }));
        store.put(encode_directory(entries).unwrap())
    };
    let leaf = store.put(encode_directory([(Bytes::from("f"), Node::Symlink { target: Bytes::from("t") })]).unwrap());
    let lost = make(vec![("lost", leaf)]);
    let middle = make(vec![("leaf", leaf)]);
    let root = make(vec![("again", middle), ("lost", lost), ("middle", middle)]);
    assert!(store.forget(&lost));

    let all = get_tree(&rig, root, 0, "").await;
    assert_eq!(all.iter().map(|r| r.directories.len()).collect::<Vec<_>>(), [3]);
    let pages = get_tree(&rig, root, 2, "").await;
    assert_eq!(pages.iter().map(|r| r.directories.len()).collect::<Vec<_>>(), [2, 1]);
    let rest = get_tree(&rig, root, 2, &pages[0].next_page_token).await;
    assert_eq!(rest, pages[1..]);
    let status = rig
        .cas()
        .get_tree(v2::GetTreeRequest { root_digest: Some(lost.into()), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_fork_starts_equal_and_stays_apart() {
    let rig = Rig::new().await;
    let store = rig.server.store();
    let common = store.put("common");
    let fork = Rig::of(rig.server.fork().await.unwrap());
    assert_eq!(fork.server.store().digests(), store.digests());
    let later = store.put("later");
    assert_eq!(find_missing(&fork, &[common, later]).await, [later.into()]);
    assert_eq!(find_missing(&rig, &[common, later]).await, []);
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let rig = Rig::with(ServerConfig { unix_socket: Some(path.clone()), ..Default::default() }).await;
    let blob = rig.server.store().put("blob");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut cas = v2::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    let request = v2::FindMissingBlobsRequest { blob_digests: vec![blob.into()], ..Default::default() };
    assert_eq!(cas.find_missing_blobs(request).await.unwrap().into_inner().missing_blob_digests, []);
    rig.server.shutdown().await;
}
