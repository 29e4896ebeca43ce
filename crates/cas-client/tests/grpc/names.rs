//! Action results, assets and server details of the gRPC client against a scripted server.

use std::time::{Duration, SystemTime};

use cas_client::grpc::Access;
use cas_client::{ActionCache as _, ActionCacheWriter as _, AssetIndex as _, ErrorKind, PushRequest};
use reapi_proto::asset::{FetchBlobResponse, PushBlobResponse};
use reapi_proto::buildgrid::LocalServerDetails;
use reapi_proto::v2::{self, ActionResult};
use reapi_proto::{DigestFunction, rpc};
use tonic::Status;

use crate::support::{Scripted, digest};

#[tokio::test]
async fn a_miss_is_no_error() {
    let server = Scripted::start().await;
    server
        .script
        .get_result
        .then_fail(Status::not_found("no"))
        .then_ok(ActionResult { exit_code: 1, ..Default::default() });
    let client = server.client();
    let action = digest(b"action");
    assert_eq!(client.fetch_action_result(&action).await.unwrap(), None);
    assert_eq!(client.fetch_action_result(&action).await.unwrap().unwrap().exit_code, 1);
    let call = &server.script.get_result.calls()[0];
    assert_eq!(call.action_digest, Some(action.into()));
    assert_eq!(call.digest_function, v2::digest_function::Value::Sha256 as i32);
}

#[tokio::test]
async fn results_are_stored_where_that_is_allowed() {
    let server = Scripted::start().await;
    let result = ActionResult { exit_code: 1, ..Default::default() };
    server.script.update_result.then_ok(result.clone());
    let action = digest(b"action");
    server.client().store_action_result(&action, &result).await.unwrap();
    let call = &server.script.update_result.calls()[0];
    assert_eq!((call.action_digest.clone(), call.action_result.clone()), (Some(action.into()), Some(result.clone())));
    assert_eq!(call.digest_function, v2::digest_function::Value::Sha256 as i32);

    let reader = server.client_with(|config| config.access = Access::ReadOnly);
    assert_eq!(reader.store_action_result(&action, &result).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(server.script.update_result.calls().len(), 1);
}

#[tokio::test]
async fn a_cache_that_takes_no_results_is_not_offered_any() {
    let server = Scripted::start().await;
    let cache = v2::CacheCapabilities {
        action_cache_update_capabilities: Some(v2::ActionCacheUpdateCapabilities { update_enabled: false }),
        ..Default::default()
    };
    server
        .script
        .capabilities
        .then_ok(v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() });
    let error = server.client().store_action_result(&digest(b"action"), &ActionResult::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(server.script.update_result.calls().len(), 0);
}

fn found(code: i32) -> FetchBlobResponse {
    FetchBlobResponse {
        status: Some(rpc::Status { code, ..Default::default() }),
        blob_digest: Some(digest(b"blob").into()),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_name_is_looked_up_under_all_its_uris() {
    let server = Scripted::start().await;
    let fetch = &server.script.fetch_blob;
    fetch.then_ok(found(0)).then_ok(found(5)).then_fail(Status::not_found("no"));
    fetch.then_ok(FetchBlobResponse { digest_function: 9, ..found(0) }).then_ok(found(7));
    let client = server.client();
    let uris = ["urn:a".to_owned(), "urn:b".to_owned()];
    assert_eq!(client.fetch_blob(&uris).await.unwrap(), Some(digest(b"blob")));
    assert_eq!(client.fetch_blob(&uris).await.unwrap(), None, "not found by status in the reply");
    assert_eq!(client.fetch_blob(&uris).await.unwrap(), None, "not found by status of the call");
    assert_eq!(client.fetch_blob(&uris).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(client.fetch_blob(&uris).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(client.fetch_blob(&[]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let call = &fetch.calls()[0];
    assert_eq!((&call.uris[..], call.qualifiers.len()), (&uris[..], 0));
    assert_eq!(fetch.calls().len(), 5);
}

#[tokio::test]
async fn a_name_is_published_with_what_it_needs() {
    let server = Scripted::start().await;
    server.script.push_blob.then_ok(PushBlobResponse {}).then_ok(PushBlobResponse {});
    let client = server.client();
    let mut request = PushRequest {
        uris: vec!["urn:a".into(), "urn:b".into()],
        blob: digest(b"blob"),
        references_blobs: vec![digest(b"file")],
        references_directories: vec![digest(b"tree")],
        lifetime: None,
    };
    client.push_blob(&request).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    request.lifetime = Some(day);
    let before = SystemTime::now();
    client.push_blob(&request).await.unwrap();
    let calls = server.script.push_blob.calls();
    assert_eq!(calls[0].uris, request.uris);
    assert_eq!(calls[0].blob_digest, Some(digest(b"blob").into()));
    assert_eq!(calls[0].references_blobs, [digest(b"file").into()]);
    assert_eq!(calls[0].references_directories, [digest(b"tree").into()]);
    assert_eq!((calls[0].expire_at, calls[0].qualifiers.len()), (None, 0));
    let expires = SystemTime::try_from(calls[1].expire_at.unwrap()).unwrap();
    assert!(expires >= before + day && expires <= SystemTime::now() + day);

    request.uris.clear();
    assert_eq!(client.push_blob(&request).await.unwrap_err().kind(), ErrorKind::Invalid);
    request.uris = vec!["urn:a".into()];
    request.references_blobs = vec![DigestFunction::Sha512.digest(b"")];
    assert_eq!(client.push_blob(&request).await.unwrap_err().kind(), ErrorKind::Invalid);
    let reader = server.client_with(|config| config.access = Access::ReadOnly);
    request.references_blobs.clear();
    assert_eq!(reader.push_blob(&request).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(server.script.push_blob.calls().len(), 2);
}

#[tokio::test]
async fn only_some_services_say_where_their_files_are() {
    let server = Scripted::start().await;
    server.script.local_details.then_fail(Status::unimplemented("no")).then_ok(LocalServerDetails {
        hostname: "host".into(),
        process_uid: 7,
        storage_root: "/var/cas".into(),
    });
    let client = server.client();
    assert_eq!(client.local_server_details().await.unwrap(), None);
    let details = client.local_server_details().await.unwrap().unwrap();
    assert_eq!((details.hostname.as_str(), details.process_uid), ("host", 7));
    assert_eq!(details.storage_root, std::path::Path::new("/var/cas"));
}
