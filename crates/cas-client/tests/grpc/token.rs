//! Bearer tokens: on every call, replaced when they change, and never shown.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cas_client::grpc::{GrpcClient, PlaintextToken, TokenFile};
use cas_client::{ActionCache as _, BlobStore as _, CacheLookup, ErrorKind, ExecuteRequest, Execution as _};
use futures_util::TryStreamExt as _;
use reapi_proto::v2::{ActionResult, FindMissingBlobsResponse};
use tempfile::NamedTempFile;
use tonic::{Code, Status};

use crate::support::certificates::Authority;
use crate::support::{Guard, Scripted, digest, impatient, piece, replies};

/// A server for those who show the right token, and what it was shown.
struct Doorkeeper {
    server: Scripted,
    authority: Authority,
    token: NamedTempFile,
    right: Arc<Mutex<String>>,
    shown: Arc<Mutex<Vec<String>>>,
}

impl Doorkeeper {
    /// Both sides know the token "one".
    async fn new() -> Self {
        let authority = Authority::new("ours");
        let right = Arc::new(Mutex::new("Bearer one".to_owned()));
        let shown = Arc::<Mutex<Vec<String>>>::default();
        let (expected, log) = (Arc::clone(&right), Arc::clone(&shown));
        let guard = Guard {
            tls: Some(authority.server()),
            check: Some(Box::new(move |metadata| {
                let value = metadata.get("authorization").map_or("", |value| value.to_str().unwrap());
                log.lock().unwrap().push(value.to_owned());
                if value == *expected.lock().unwrap() {
                    Ok(())
                } else {
                    Err(Status::unauthenticated(format!("do not know {value}")))
                }
            })),
        };
        let server = Scripted::start_as(guard).await;
        let token = NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "one\n").unwrap();
        Self { server, authority, token, right, shown }
    }

    fn client(&self, reload: Option<Duration>) -> GrpcClient {
        self.server.client_with(|config| {
            config.tls = self.authority.trusted();
            config.token = Some(TokenFile { reload, ..TokenFile::new(self.token.path()) });
        })
    }

    fn replace(&self, token: &str) {
        std::fs::write(self.token.path(), token).unwrap();
    }

    fn expect(&self, token: &str) {
        *self.right.lock().unwrap() = format!("Bearer {token}");
    }

    fn shown(&self) -> Vec<String> {
        std::mem::take(&mut *self.shown.lock().unwrap())
    }
}

#[tokio::test]
async fn every_call_shows_the_token() {
    let door = Doorkeeper::new().await;
    let script = &door.server.script;
    let blob = digest(b"content");
    script.get_result.then_ok(ActionResult::default());
    script.find_missing.then_ok(FindMissingBlobsResponse::default());
    script.read.then_ok(replies(vec![piece(b"content")]));
    script.execute.then_fail(Status::permission_denied("it got here"));
    script.write_ok();
    let client = door.client(None);
    client.fetch_action_result(&blob).await.unwrap();
    client.find_missing(&[blob]).await.unwrap();
    client.open_blob(&blob).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    let pieces = futures_util::stream::iter([Ok("content".into())]);
    client.write_chunks(&blob, Box::pin(pieces)).await.unwrap();
    let request = ExecuteRequest { action: blob, cache_lookup: CacheLookup::Use, priority: 0 };
    assert!(client.execute(request).await.err().unwrap().reason().contains("it got here"));
    let shown = door.shown();
    assert!(shown.len() >= 6 && shown.iter().all(|token| token == "Bearer one"), "{shown:?}");
}

#[tokio::test]
async fn a_new_token_is_read_when_the_old_one_is_refused() {
    let door = Doorkeeper::new().await;
    door.server.script.get_result.then_ok(ActionResult::default()).then_ok(ActionResult::default());
    // Not even one retry would be left to the policy.
    let client = door.server.client_with(|config| {
        config.tls = door.authority.trusted();
        config.token = Some(TokenFile { reload: None, ..TokenFile::new(door.token.path()) });
        config.retry.max_attempts = 1;
    });
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    door.replace("two");
    door.expect("two");
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    assert_eq!(door.shown(), ["Bearer one", "Bearer one", "Bearer two"]);
}

#[tokio::test]
async fn a_stream_goes_on_with_the_new_token() {
    let door = Doorkeeper::new().await;
    let broken = vec![piece(b"con"), Err(Status::new(Code::Unauthenticated, "expired"))];
    door.server.script.read.then_ok(replies(broken)).then_ok(replies(vec![piece(b"tent")]));
    let client = door.client(None);
    let mut pieces = client.open_blob(&digest(b"content")).await.unwrap();
    assert_eq!(pieces.try_next().await.unwrap().unwrap(), "con");
    door.replace("two");
    door.expect("two");
    assert_eq!(pieces.try_next().await.unwrap().unwrap(), "tent");
    assert_eq!(door.shown().last().unwrap(), "Bearer two");
}

#[tokio::test]
async fn many_calls_refused_at_once_all_go_through_with_the_new_token() {
    let door = Doorkeeper::new().await;
    let client = door.client(None);
    for _ in 0..20 {
        door.server.script.get_result.then_ok(ActionResult::default());
    }
    door.replace("two");
    door.expect("two");
    let action = digest(b"action");
    let calls = (0..20).map(|_| client.fetch_action_result(&action));
    futures_util::future::try_join_all(calls).await.unwrap();
}

#[tokio::test]
async fn a_token_that_stays_wrong_is_tried_twice_and_not_repeated() {
    let door = Doorkeeper::new().await;
    door.expect("two");
    let error = door.client(None).fetch_action_result(&digest(b"action")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().ends_with("UNAUTHENTICATED: do not know Bearer … (after 2 attempts)"), "{error}");
    assert_eq!(door.shown(), ["Bearer one", "Bearer one"]);
}

#[tokio::test]
async fn the_interval_brings_a_new_token_without_a_refusal() {
    let door = Doorkeeper::new().await;
    let results = &door.server.script.get_result;
    results.then_ok(ActionResult::default()).then_ok(ActionResult::default()).then_ok(ActionResult::default());
    let client = door.client(Some(Duration::ZERO));
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    door.replace("two");
    door.expect("two");
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    // Gone for now: the last one stays in use.
    std::fs::remove_file(door.token.path()).unwrap();
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    assert_eq!(door.shown(), ["Bearer one", "Bearer two", "Bearer two"]);
}

#[tokio::test]
async fn plain_text_is_no_place_for_a_token_unless_asked_for() {
    let server = Scripted::start().await;
    let token = NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "secret").unwrap();
    let with = |url: &str, path: &Path, plaintext| {
        let mut config = impatient(url);
        config.token = Some(TokenFile { plaintext, ..TokenFile::new(path) });
        GrpcClient::new(config)
    };
    let error = with(&server.url, token.path(), PlaintextToken::Refused).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.reason().contains("https://") && !error.to_string().contains("secret"), "{error}");
    with("unix:casd.sock", token.path(), PlaintextToken::Refused).unwrap();

    server.script.get_result.then_ok(ActionResult::default());
    let client = with(&server.url, token.path(), PlaintextToken::Allowed).unwrap();
    client.fetch_action_result(&digest(b"action")).await.unwrap();
    assert!(!format!("{client:?} {:?}", client.config()).contains("secret"));

    let error = with("unix:casd.sock", Path::new("/nowhere/token"), PlaintextToken::Refused).unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Io, "the token file /nowhere/token cannot be read"));
    std::fs::write(token.path(), "not secret").unwrap();
    let error = with("unix:casd.sock", token.path(), PlaintextToken::Refused).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.to_string().contains("secret"), "{error}");
}
