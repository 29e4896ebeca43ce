use reapi_proto::asset::fetch_client::FetchClient;
use reapi_proto::asset::push_client::PushClient;
use reapi_proto::asset::{FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier};
use reapi_proto::{Digest, DigestFunction};
use tonic::Code;

use crate::rig::Rig;

async fn push(rig: &Rig, uris: &[&str], qualifiers: Vec<Qualifier>, blob: Digest) -> Result<(), Code> {
    let request = PushBlobRequest {
        uris: uris.iter().map(|&u| u.to_owned()).collect(),
        qualifiers,
        blob_digest: Some(blob.into()),
        ..Default::default()
    };
    PushClient::new(rig.channel.clone()).push_blob(request).await.map(drop).map_err(|s| s.code())
}

async fn fetch(rig: &Rig, uris: &[&str], qualifiers: Vec<Qualifier>) -> Result<(String, Digest), Code> {
    let uris = uris.iter().map(|&u| u.to_owned()).collect();
    let request = FetchBlobRequest { uris, qualifiers, ..Default::default() };
    let answer = FetchClient::new(rig.channel.clone()).fetch_blob(request).await.map_err(|s| s.code())?.into_inner();
    Ok((answer.uri, Digest::try_from(&answer.blob_digest).unwrap()))
}

#[tokio::test]
async fn names_of_blobs() {
    let rig = Rig::new().await;
    let blob = rig.server.store().put("blob");
    assert_eq!(fetch(&rig, &["urn:a"], vec![]).await, Err(Code::NotFound));
    push(&rig, &["urn:a", "urn:b"], vec![], blob).await.unwrap();
    assert_eq!(fetch(&rig, &["urn:unknown", "urn:b"], vec![]).await, Ok(("urn:b".to_owned(), blob)));
    assert_eq!(fetch(&rig, &[], vec![]).await, Err(Code::InvalidArgument));

    let qualifier = || vec![Qualifier { name: "k".to_owned(), value: "v".to_owned() }];
    assert_eq!(fetch(&rig, &["urn:a"], qualifier()).await, Err(Code::NotFound), "another key");
    push(&rig, &["urn:a"], qualifier(), rig.server.store().put("other")).await.unwrap();
    assert_eq!(fetch(&rig, &["urn:a"], vec![]).await, Ok(("urn:a".to_owned(), blob)));

    let absent = DigestFunction::Sha256.digest(b"absent");
    assert_eq!(push(&rig, &["urn:c"], vec![], absent).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn names_of_directories_are_apart_and_forked() {
    let rig = Rig::new().await;
    let root = rig.server.store().put("");
    let request = PushDirectoryRequest {
        uris: vec!["urn:d".to_owned()],
        root_directory_digest: Some(root.into()),
        ..Default::default()
    };
    PushClient::new(rig.channel.clone()).push_directory(request).await.unwrap();
    assert_eq!(fetch(&rig, &["urn:d"], vec![]).await, Err(Code::NotFound));
    let fork = Rig::of(rig.server.fork().await.unwrap());
    let request = FetchDirectoryRequest { uris: vec!["urn:d".to_owned()], ..Default::default() };
    let answer = FetchClient::new(fork.channel.clone()).fetch_directory(request).await.unwrap().into_inner();
    assert_eq!(answer.root_directory_digest, Some(root.into()));
}
