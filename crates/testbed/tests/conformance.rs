//! The client's conformance suite over the gRPC client and this server.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail like tests")]

use cas_client::grpc::{Endpoint, GrpcClient, GrpcConfig};
use cas_client::testing::conformance::{self, ActionCacheRules, BlobStoreOptions, ExecutionRules, Rule, Sandbox};
use testbed::{MissingInputs, Server, ServerConfig};

fn client(server: &Server) -> GrpcClient {
    connect(server.url().parse().unwrap())
}

fn connect(endpoint: Endpoint) -> GrpcClient {
    GrpcClient::new(GrpcConfig::new(endpoint)).unwrap()
}

async fn check_execution(client: &GrpcClient) {
    let subject = conformance::ExecutionSubject {
        store: client,
        cache: client,
        execution: client,
        sandbox: Sandbox::with_shell("/bin/sh"),
        rules: ExecutionRules::default(),
    };
    conformance::execution(&subject).await.require_all_passed().unwrap();
}

#[tokio::test]
async fn blobs() {
    let server = Server::start_default().await.unwrap();
    let report = conformance::blob_store(&client(&server), &BlobStoreOptions::default()).await;
    report.require_all_passed().unwrap();
}

#[tokio::test]
async fn blobs_with_a_small_batch_limit() {
    let config =
        ServerConfig { max_batch_bytes: 4000, read_chunk_bytes: 1000.try_into().unwrap(), ..Default::default() };
    let server = Server::start(config).await.unwrap();
    let report = conformance::blob_store(&client(&server), &BlobStoreOptions::default()).await;
    report.require_all_passed().unwrap();
}

#[tokio::test]
async fn blobs_through_a_unix_socket_of_a_named_instance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let config = ServerConfig {
        instances: vec![("some/instance".to_owned(), cas_client::InMemory::new())],
        unix_socket: Some(path.clone()),
        ..Default::default()
    };
    let _server = Server::start(config).await.unwrap();
    let mut config = GrpcConfig::new(Endpoint::unix(path).unwrap());
    config.instance_name = "some/instance".to_owned();
    let client = GrpcClient::new(config).unwrap();
    let report = conformance::blob_store(&client, &BlobStoreOptions::default()).await;
    report.require_all_passed().unwrap();
}

#[tokio::test]
async fn action_results() {
    let server = Server::start_default().await.unwrap();
    let client = client(&server);
    let report = conformance::action_cache(&client, &client, ActionCacheRules::STRICT).await;
    report.require_all_passed().unwrap();
}

#[tokio::test]
async fn assets() {
    let server = Server::start_default().await.unwrap();
    let client = client(&server);
    conformance::asset_index(&client, &client, Rule::Refused).await.require_all_passed().unwrap();
}

#[tokio::test]
async fn executions() {
    let server = Server::start_default().await.unwrap();
    check_execution(&client(&server)).await;
}

#[tokio::test]
async fn executions_with_missing_inputs_in_the_response() {
    let config = ServerConfig { missing_inputs: MissingInputs::ResponseStatus, ..Default::default() };
    let server = Server::start(config).await.unwrap();
    check_execution(&client(&server)).await;
}
