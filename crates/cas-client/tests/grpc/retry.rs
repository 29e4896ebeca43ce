//! When the gRPC client tries again, and when it does not.

use std::time::{Duration, Instant};

use cas_client::grpc::GrpcClient;
use cas_client::{ActionCache as _, BlobStore as _, ErrorKind};
use futures_util::TryStreamExt as _;
use reapi_proto::{rpc, v2};
use tonic::{Code, Status};

use crate::support::proxy::Proxy;
use crate::support::raw::{Place, refuse};
use crate::support::{Scripted, any, detailed, digest, impatient, piece, replies, replies_then_hang};

#[tokio::test]
async fn a_failure_that_may_pass_is_retried() {
    let server = Scripted::start().await;
    server.script.get_result.fail_times(2, Code::Unavailable).then_ok(v2::ActionResult::default());
    let result = server.client().fetch_action_result(&digest(b"action")).await.unwrap();
    assert_eq!(result, Some(v2::ActionResult::default()));
    assert_eq!(server.script.get_result.calls().len(), 3);
}

#[tokio::test]
async fn a_failure_that_stays_is_reported_with_everything_known() {
    let server = Scripted::start().await;
    server.script.get_result.fail_times(5, Code::Unavailable);
    let action = digest(b"action");
    let error = server.client().fetch_action_result(&action).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected =
        format!("unavailable: GetActionResult of {action} at {}: UNAVAILABLE: scripted (after 3 attempts)", server.url);
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.script.get_result.left(), 2);
}

#[tokio::test]
async fn refusals_are_not_retried() {
    for (code, kind) in [
        (Code::InvalidArgument, ErrorKind::Invalid),
        (Code::PermissionDenied, ErrorKind::Denied),
        (Code::Unauthenticated, ErrorKind::Denied),
        (Code::Unimplemented, ErrorKind::Unsupported),
        (Code::OutOfRange, ErrorKind::LimitExceeded),
    ] {
        let server = Scripted::start().await;
        server.script.get_result.then_fail(Status::new(code, "no"));
        let error = server.client().fetch_action_result(&digest(b"action")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{code:?}");
        assert_eq!(server.script.get_result.calls().len(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn retry_info_is_honoured() {
    let server = Scripted::start().await;
    let wait = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 0, nanos: 120_000_000 }) };
    server
        .script
        .get_result
        .then_fail(detailed(Code::Unavailable, vec![any(&wait)]))
        .then_ok(v2::ActionResult::default());
    let begun = Instant::now();
    server.client().fetch_action_result(&digest(b"action")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(120), "the policy alone would wait 2 ms at most");
}

#[tokio::test]
async fn an_unanswered_call_ends_at_its_deadline() {
    // Accepts connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = impatient(&format!("http://{}", silent.local_addr().unwrap()));
    config.timeouts.call = Duration::from_millis(30);
    let error = GrpcClient::new(config).unwrap().find_missing(&[digest(b"x")]).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "no answer within 30ms"));
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_names_the_endpoint() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = GrpcClient::new(impatient(&url)).unwrap().find_missing(&[digest(b"x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&url) && error.reason().contains("refused"), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let url = format!("unix:{}/none.sock", directory.path().display());
    let error = GrpcClient::new(impatient(&url)).unwrap().find_missing(&[digest(b"x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn a_closed_connection_is_no_cancellation() {
    // Closes every connection once the client has said something.
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", rude.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = rude.accept().await {
            stream.readable().await.unwrap();
            connections += 1;
            if connections == 3 {
                break;
            }
        }
        connections
    });
    let error = GrpcClient::new(impatient(&url)).unwrap().find_missing(&[digest(b"x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(task.await.unwrap(), 3, "every attempt had a connection of its own");
}

#[tokio::test]
async fn an_outage_exhausts_the_budget_and_then_fails_at_once() {
    let server = Scripted::start().await;
    let client = server.client_with(|config| config.retry.budget = 3);
    let action = digest(b"action");
    let get = &server.script.get_result;
    get.fail_times(6, Code::Unavailable);
    for (call, total) in [("first", 3), ("second", 5), ("third", 6)] {
        client.fetch_action_result(&action).await.unwrap_err();
        assert_eq!(get.calls().len(), total, "after the {call} call");
    }
    // Two definite answers earn one retry back.
    get.then_fail(Status::not_found("")).then_ok(v2::ActionResult::default());
    client.fetch_action_result(&action).await.unwrap();
    client.fetch_action_result(&action).await.unwrap();
    get.fail_times(2, Code::Unavailable);
    client.fetch_action_result(&action).await.unwrap_err();
    assert_eq!(get.calls().len(), 10);
}

#[tokio::test]
async fn every_call_names_its_caller() {
    let server = Scripted::start().await;
    server.script.get_result.then_fail(Status::not_found(""));
    server.script.find_missing.then_ok(v2::FindMissingBlobsResponse::default());
    let client = server.client_with(|config| {
        config.tool_name = "tool".into();
        config.tool_version = "1.2".into();
        config.invocation_id = "run".into();
        config.correlated_invocations_id = "build".into();
    });
    let action = digest(b"action");
    client.fetch_action_result(&action).await.unwrap();
    client.find_missing(&[action]).await.unwrap();
    let expected = v2::RequestMetadata {
        tool_details: Some(v2::ToolDetails { tool_name: "tool".into(), tool_version: "1.2".into() }),
        tool_invocation_id: "run".into(),
        correlated_invocations_id: "build".into(),
        ..Default::default()
    };
    assert_eq!(server.script.find_missing.metadata().first(), Some(&expected));
    let with_action = v2::RequestMetadata { action_id: action.to_string(), ..expected };
    assert_eq!(server.script.get_result.metadata(), [with_action]);
}

#[test]
fn construction_needs_neither_network_nor_runtime_but_a_usable_instance_name() {
    let mut config = impatient("grpc://no.such.host.invalid:1");
    config.instance_name = "one/two".into();
    let client = GrpcClient::new(config.clone()).unwrap();
    assert_eq!(client.to_string(), "Grpc(http://no.such.host.invalid:1, instance one/two)");
    for name in ["one/blobs", "/one", "uploads", "one//two"] {
        config.instance_name = name.into();
        assert_eq!(GrpcClient::new(config.clone()).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
}

#[tokio::test]
async fn a_cut_connection_is_made_again_and_its_streams_taken_up() {
    let server = Scripted::start().await;
    let wire = Proxy::start(&server.url).await;
    server.script.read.then_ok(replies_then_hang(vec![piece(b"con")])).then_ok(replies(vec![piece(b"tent")]));
    let client = GrpcClient::new(impatient(&wire.url)).unwrap();
    let mut pieces = client.open_blob(&digest(b"content")).await.unwrap();
    assert_eq!(pieces.try_next().await.unwrap().unwrap(), "con");
    assert_eq!(wire.cut(), 1);
    assert_eq!(pieces.try_next().await.unwrap().unwrap(), "tent");
    assert_eq!(pieces.try_next().await.unwrap(), None);
    assert_eq!(wire.cut(), 2);
}

#[tokio::test]
async fn capabilities_are_asked_for_again_after_a_reconnection() {
    let server = Scripted::start().await;
    let wire = Proxy::start(&server.url).await;
    let limited = |limit| {
        let cache = v2::CacheCapabilities { max_batch_total_size_bytes: limit, ..Default::default() };
        v2::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() }
    };
    server.script.capabilities.then_ok(limited(1)).then_ok(limited(2));
    server.script.get_result.then_fail(Status::not_found(""));
    let client = GrpcClient::new(impatient(&wire.url)).unwrap();
    for _ in 0..2 {
        assert_eq!(client.capabilities().await.unwrap().max_batch_total_size_bytes, Some(1));
    }
    wire.cut();
    // Whatever is called next connects again.
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.capabilities().await.unwrap().max_batch_total_size_bytes, Some(2));
    }
    assert_eq!(server.script.capabilities.calls().len(), 2);
}

#[tokio::test]
async fn nonsense_in_place_of_details_does_no_harm() {
    for (details, place) in [("%", Place::Headers), ("AB", Place::Trailers), ("", Place::Trailers)] {
        let client = GrpcClient::new(impatient(&refuse(details, place).await)).unwrap();
        let error = client.find_missing(&[digest(b"x")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{details:?} in {place:?}: {error}");
    }
}
