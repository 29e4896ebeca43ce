//! A server and stubs that are connected to it.

use bytes::Bytes;
use futures_util::StreamExt;
use prost::Message;
use reapi_proto::bytestream::byte_stream_client::ByteStreamClient;
use reapi_proto::longrunning::operations_client::OperationsClient;
use reapi_proto::longrunning::{Operation, operation};
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::action_cache_client::ActionCacheClient;
use reapi_proto::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use reapi_proto::v2::execution_client::ExecutionClient;
use reapi_proto::v2::execution_stage::Value as Stage;
use reapi_proto::{Digest, v2};
use testbed::{Server, ServerConfig};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(ServerConfig::default()).await
    }

    pub(crate) async fn with(config: ServerConfig) -> Self {
        Self::of(Server::start(config).await.unwrap())
    }

    pub(crate) fn of(server: Server) -> Self {
        let channel = Channel::from_shared(server.url().to_owned()).unwrap().connect_lazy();
        Self { server, channel }
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    pub(crate) fn bytes(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    pub(crate) fn cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    pub(crate) fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    /// Stores an action that runs `command` on these inputs; returns its digest.
    pub(crate) fn action(&self, command: &v2::Command, inputs: &[(&'static str, &'static str)]) -> Digest {
        self.action_like(command, inputs, v2::Action::default())
    }

    pub(crate) fn action_like(
        &self,
        command: &v2::Command,
        inputs: &[(&'static str, &'static str)],
        like: v2::Action,
    ) -> Digest {
        let store = self.server.store();
        let entries = inputs.iter().map(|(name, text)| {
            let node = Node::File { digest: store.put(*text), executable: false };
            (Bytes::from_static(name.as_bytes()), node)
        });
        let root = store.put(encode_directory(entries).unwrap());
        store.put_message(&v2::Action {
            command_digest: Some(store.put_message(command).into()),
            input_root_digest: Some(root.into()),
            ..like
        })
    }

    pub(crate) async fn execute(&self, action: Digest) -> Result<Streaming<Operation>, Status> {
        Ok(self.execution().execute(request(action)).await?.into_inner())
    }

    /// Executes to the end.
    pub(crate) async fn run(&self, action: Digest) -> v2::ExecuteResponse {
        finish(self.execute(action).await.unwrap()).await.1
    }

    pub(crate) async fn lookup(&self, action: Digest) -> Result<v2::ActionResult, Status> {
        let request = v2::GetActionResultRequest { action_digest: Some(action.into()), ..Default::default() };
        Ok(self.cache().get_action_result(request).await?.into_inner())
    }
}

pub(crate) fn request(action: Digest) -> v2::ExecuteRequest {
    v2::ExecuteRequest { action_digest: Some(action.into()), ..Default::default() }
}

/// A command run by the shell in an environment that has only a PATH.
pub(crate) fn shell(script: &str, outputs: &[&str]) -> v2::Command {
    let path =
        v2::command::EnvironmentVariable { name: "PATH".to_owned(), value: "/usr/local/bin:/usr/bin:/bin".to_owned() };
    v2::Command {
        arguments: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        environment_variables: vec![path],
        output_paths: outputs.iter().map(|&o| o.to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn stage(operation: &Operation) -> Stage {
    let metadata: v2::ExecuteOperationMetadata = operation.metadata.as_ref().unwrap().to_msg().unwrap();
    metadata.stage()
}

pub(crate) fn response(operation: &Operation) -> v2::ExecuteResponse {
    match operation.result.as_ref().unwrap() {
        operation::Result::Response(any) => any.to_msg().unwrap(),
        operation::Result::Error(status) => panic!("Operation.error {status:?}"),
    }
}

/// Reads a stream of operations to its end: the stages and the response.
pub(crate) async fn finish(mut stream: Streaming<Operation>) -> (Vec<Stage>, v2::ExecuteResponse) {
    let mut stages = Vec::new();
    let mut last = None;
    while let Some(operation) = stream.next().await {
        let operation = operation.unwrap();
        stages.push(stage(&operation));
        last = Some(operation);
    }
    let last = last.unwrap();
    assert!(last.done);
    (stages, response(&last))
}

pub(crate) fn text(rig: &Rig, digest: &Option<v2::Digest>) -> String {
    let data = rig.server.store().peek(&Digest::try_from(digest).unwrap()).unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

/// The blobs that a status names as MISSING.
pub(crate) fn missing(status: &reapi_proto::rpc::Status) -> Vec<String> {
    let detail: reapi_proto::rpc::PreconditionFailure = status.details[0].to_msg().unwrap();
    assert!(detail.violations.iter().all(|v| v.r#type == "MISSING"));
    detail.violations.into_iter().map(|v| v.subject).collect()
}

/// The same for a call's status.
pub(crate) fn missing_of(status: &Status) -> Vec<String> {
    missing(&reapi_proto::rpc::Status::decode(status.details()).unwrap())
}
