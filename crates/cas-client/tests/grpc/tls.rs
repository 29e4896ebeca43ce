//! Encrypted connections: who is trusted, and who we are.

use cas_client::grpc::{GrpcClient, TlsMaterial};
use cas_client::{ActionCache as _, Error, ErrorKind, Execution as _};
use cas_client::{CacheLookup, ExecuteRequest};
use reapi_proto::v2::ActionResult;
use tonic::Status;

use crate::support::certificates::Authority;
use crate::support::{Guard, Scripted, digest, impatient};

async fn secure(tls: tonic::transport::ServerTlsConfig) -> Scripted {
    let server = Scripted::start_as(Guard { tls: Some(tls), ..Guard::default() }).await;
    server.script.get_result.then_ok(ActionResult::default());
    server
}

async fn ask(server: &Scripted, tls: TlsMaterial) -> Result<Option<ActionResult>, Error> {
    server.client_with(|config| config.tls = tls).fetch_action_result(&digest(b"action")).await
}

#[tokio::test]
async fn a_service_of_a_trusted_authority_is_believed() {
    let authority = Authority::new("ours");
    let server = secure(authority.server()).await;
    assert_eq!(ask(&server, authority.trusted()).await.unwrap(), Some(ActionResult::default()));
    assert!(server.client_with(|config| config.tls = authority.trusted()).to_string().starts_with("Grpc(https://"));
}

#[tokio::test]
async fn executions_have_a_connection_of_their_own_which_is_secure_too() {
    let authority = Authority::new("ours");
    let server = secure(authority.server()).await;
    server.script.execute.then_fail(Status::permission_denied("it got here"));
    let client = server.client_with(|config| config.tls = authority.trusted());
    let request = ExecuteRequest { action: digest(b"action"), cache_lookup: CacheLookup::Use, priority: 0 };
    let Err(error) = client.execute(request).await else { panic!("refused by the script") };
    assert!(error.reason().contains("it got here"), "{error}");
}

#[tokio::test]
async fn a_service_of_anybody_else_is_not_believed_and_not_asked_again() {
    let server = secure(Authority::new("theirs").server()).await;
    let error = ask(&server, Authority::new("ours").trusted()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.reason().contains("UnknownIssuer") && !error.to_string().contains("attempts"), "{error}");
    assert_eq!(server.script.get_result.left(), 1);
}

#[tokio::test]
async fn without_an_authority_the_system_decides() {
    let server = secure(Authority::new("ours").server()).await;
    // Invalid where there is none at all.
    let error = match GrpcClient::new(impatient(&server.url)) {
        Ok(client) => client.fetch_action_result(&digest(b"action")).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid), "{error}");
    assert_eq!(server.script.get_result.left(), 1);
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new("ours");
    let server = secure(authority.server()).await;
    let mut config = impatient(&server.url.replace("127.0.0.1", "localhost"));
    config.tls = authority.trusted();
    let error = GrpcClient::new(config).unwrap().fetch_action_result(&digest(b"action")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.reason().contains("localhost"), "{error}");
}

#[tokio::test]
async fn a_known_client_is_let_in_and_others_are_not() {
    let authority = Authority::new("ours");
    let server = secure(authority.server_for_known_clients()).await;
    let stranger = Authority::new("theirs").issue("client");
    for tls in
        [authority.trusted(), authority.trusted().with_identity(&stranger.certificate(), &stranger.key()).unwrap()]
    {
        let error = ask(&server, tls).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(server.script.get_result.left(), 1);
    }
    let known = authority.issue("client");
    let tls = authority.trusted().with_identity(&known.certificate(), &known.key()).unwrap();
    assert_eq!(ask(&server, tls).await.unwrap(), Some(ActionResult::default()));
}

#[tokio::test]
async fn a_service_without_tls_is_recognised() {
    let server = Scripted::start().await;
    let mut config = impatient(&server.url.replace("http:", "https:"));
    config.tls = Authority::new("ours").trusted();
    let error = GrpcClient::new(config).unwrap().fetch_action_result(&digest(b"action")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.reason().contains("does not speak TLS"), "{error}");
}

#[test]
fn certificates_for_a_plaintext_endpoint_are_a_mistake() {
    for url in ["http://127.0.0.1:1", "grpc://127.0.0.1:1", "unix:casd.sock"] {
        let mut config = impatient(url);
        config.tls = Authority::new("ours").trusted();
        let error = GrpcClient::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.reason().contains("https://"), "{error}");
    }
}
