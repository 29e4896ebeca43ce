//! A server that answers exactly what a test tells it to, one call after the other.

pub(crate) mod certificates;
mod local_cas;
pub(crate) mod proxy;
pub(crate) mod raw;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cas_client::grpc::{GrpcClient, GrpcConfig, RetryPolicy};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use prost::Message as _;
use prost_types::Any;
use reapi_proto::asset::{self, fetch_server, push_server};
use reapi_proto::buildgrid::{self, local_content_addressable_storage_server as local_server};
use reapi_proto::bytestream::{self, byte_stream_server};
use reapi_proto::longrunning::{self, Operation, operations_server};
use reapi_proto::v2::{
    self, action_cache_server, capabilities_server, content_addressable_storage_server, execution_server,
};
use reapi_proto::{Digest, DigestFunction, rpc};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

pub(crate) type Answer<R> = Result<R, Status>;
pub(crate) type Replies<R> = BoxStream<'static, Answer<R>>;
type Step<Q, R> = Box<dyn FnOnce(Q) -> Answer<R> + Send>;

/// The answers planned for one method, and the requests that came.
pub(crate) struct Method<Q, R> {
    plan: Mutex<VecDeque<Step<Q, R>>>,
    calls: Mutex<Vec<Q>>,
    metadata: Mutex<Vec<v2::RequestMetadata>>,
}

impl<Q, R> Default for Method<Q, R> {
    fn default() -> Self {
        Self { plan: Mutex::default(), calls: Mutex::default(), metadata: Mutex::default() }
    }
}

impl<Q: Clone, R> Method<Q, R> {
    /// Plans the answer to the next call that has none yet.
    pub(crate) fn then(&self, answer: impl FnOnce(Q) -> Answer<R> + Send + 'static) -> &Self {
        self.plan.lock().unwrap().push_back(Box::new(answer));
        self
    }

    pub(crate) fn then_ok(&self, reply: R) -> &Self
    where
        R: Send + 'static,
    {
        self.then(|_| Ok(reply))
    }

    pub(crate) fn then_fail(&self, status: Status) -> &Self {
        self.then(|_| Err(status))
    }

    /// Plans the same failure `times` times.
    pub(crate) fn fail_times(&self, times: usize, code: Code) -> &Self {
        for _ in 0..times {
            self.then_fail(Status::new(code, "scripted"));
        }
        self
    }

    pub(crate) fn calls(&self) -> Vec<Q> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn metadata(&self) -> Vec<v2::RequestMetadata> {
        self.metadata.lock().unwrap().clone()
    }

    /// How many planned answers nobody asked for.
    pub(crate) fn left(&self) -> usize {
        self.plan.lock().unwrap().len()
    }

    fn next(&self, request: Request<Q>) -> Answer<R> {
        let header = request.metadata().get_bin("build.bazel.remote.execution.v2.requestmetadata-bin");
        let bytes = header.expect("every call names its caller").to_bytes().unwrap();
        self.metadata.lock().unwrap().push(v2::RequestMetadata::decode(bytes).unwrap());
        let message = request.into_inner();
        self.calls.lock().unwrap().push(message.clone());
        let step = self.plan.lock().unwrap().pop_front();
        // Not retried, and recognisable in the failure of a test.
        step.ok_or_else(|| Status::permission_denied("the script has no more answers"))?(message)
    }
}

/// What an upload consisted of, and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) messages: Vec<bytestream::WriteRequest>,
    pub(crate) header: Option<String>,
    /// Whether the server has stopped looking.
    pub(crate) over: bool,
}

impl Upload {
    pub(crate) fn data(&self) -> Vec<u8> {
        self.messages.iter().flat_map(|m| m.data.to_vec()).collect()
    }

    pub(crate) fn finished(&self) -> bool {
        self.messages.iter().any(|m| m.finish_write)
    }
}

/// How a scripted `Write` behaves.
pub(crate) enum WriteStep {
    /// Takes everything, then answers.
    AfterAll(Answer<i64>),
    /// Takes everything, then confirms its size.
    Confirm,
    /// Answers after this many messages; what the client does then is not looked at.
    After(usize, Answer<i64>),
    /// Takes this many messages and never answers nor takes more.
    Hang(usize),
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) capabilities: Method<v2::GetCapabilitiesRequest, v2::ServerCapabilities>,
    pub(crate) find_missing: Method<v2::FindMissingBlobsRequest, v2::FindMissingBlobsResponse>,
    pub(crate) batch_read: Method<v2::BatchReadBlobsRequest, v2::BatchReadBlobsResponse>,
    pub(crate) batch_update: Method<v2::BatchUpdateBlobsRequest, v2::BatchUpdateBlobsResponse>,
    pub(crate) read: Method<bytestream::ReadRequest, Replies<bytestream::ReadResponse>>,
    pub(crate) writes: Mutex<VecDeque<WriteStep>>,
    uploads: Mutex<Vec<Upload>>,
    upload_over: Notify,
    pub(crate) get_result: Method<v2::GetActionResultRequest, v2::ActionResult>,
    pub(crate) update_result: Method<v2::UpdateActionResultRequest, v2::ActionResult>,
    pub(crate) execute: Method<v2::ExecuteRequest, Replies<Operation>>,
    pub(crate) wait: Method<v2::WaitExecutionRequest, Replies<Operation>>,
    pub(crate) cancel: Method<longrunning::CancelOperationRequest, ()>,
    pub(crate) fetch_blob: Method<asset::FetchBlobRequest, asset::FetchBlobResponse>,
    pub(crate) push_blob: Method<asset::PushBlobRequest, asset::PushBlobResponse>,
    pub(crate) local_details: Method<buildgrid::GetLocalServerDetailsRequest, buildgrid::LocalServerDetails>,
}

impl Script {
    pub(crate) fn write(&self, step: WriteStep) -> &Self {
        self.writes.lock().unwrap().push_back(step);
        self
    }

    /// Plans a `Write` that takes everything and confirms its size.
    pub(crate) fn write_ok(&self) -> &Self {
        self.write(WriteStep::Confirm)
    }

    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.uploads.lock().unwrap().clone()
    }

    /// Waits until the server has stopped looking at an upload.
    pub(crate) async fn upload_over(&self, index: usize) -> Upload {
        loop {
            let mut changed = std::pin::pin!(self.upload_over.notified());
            changed.as_mut().enable();
            if let Some(upload) = self.uploads().get(index).filter(|upload| upload.over) {
                return upload.clone();
            }
            changed.await;
        }
    }
}

/// What a call has to pass before the script sees it.
#[derive(Default)]
pub(crate) struct Guard {
    pub(crate) tls: Option<ServerTlsConfig>,
    pub(crate) check: Option<Check>,
}

pub(crate) type Check = Box<dyn Fn(&MetadataMap) -> Result<(), Status> + Send + Sync>;

/// The running server; it ends with the value.
pub(crate) struct Scripted {
    pub(crate) script: Arc<Script>,
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Scripted {
    /// A server whose capabilities, asked for any number of times, are empty unless planned otherwise.
    pub(crate) async fn start() -> Self {
        Self::start_as(Guard::default()).await
    }

    /// The same behind a guard.
    pub(crate) async fn start_as(guard: Guard) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
        let scheme = if guard.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", incoming.local_addr().unwrap());
        let script = Arc::new(Script::default());
        let service = Service(Arc::clone(&script));
        let mut server = Server::builder();
        if let Some(tls) = guard.tls {
            server = server.tls_config(tls).unwrap();
        }
        let check = Arc::new(guard.check);
        let server = server
            .layer(InterceptorLayer::new(move |request: Request<()>| match &*check {
                None => Ok(request),
                Some(check) => check(request.metadata()).map(|()| request),
            }))
            .add_service(capabilities_server::CapabilitiesServer::new(service.clone()))
            .add_service(
                content_addressable_storage_server::ContentAddressableStorageServer::new(service.clone())
                    .max_decoding_message_size(64 << 20),
            )
            .add_service(byte_stream_server::ByteStreamServer::new(service.clone()))
            .add_service(action_cache_server::ActionCacheServer::new(service.clone()))
            .add_service(execution_server::ExecutionServer::new(service.clone()))
            .add_service(operations_server::OperationsServer::new(service.clone()))
            .add_service(fetch_server::FetchServer::new(service.clone()))
            .add_service(push_server::PushServer::new(service.clone()))
            .add_service(local_server::LocalContentAddressableStorageServer::new(service))
            .serve_with_incoming(incoming);
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { script, url, task }
    }

    /// A client that retries at once and is soon out of patience.
    pub(crate) fn client(&self) -> GrpcClient {
        self.client_with(|_| {})
    }

    pub(crate) fn client_with(&self, adjust: impl FnOnce(&mut GrpcConfig)) -> GrpcClient {
        let mut config = impatient(&self.url);
        adjust(&mut config);
        GrpcClient::new(config).unwrap()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Retries after milliseconds.
pub(crate) fn impatient(url: &str) -> GrpcConfig {
    let mut config = GrpcConfig::new(url.parse().unwrap());
    config.retry = RetryPolicy {
        max_attempts: 3,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(2),
        ..RetryPolicy::default()
    };
    config.retry_seed = 1;
    config
}

pub(crate) fn digest(data: &[u8]) -> Digest {
    DigestFunction::Sha256.digest(data)
}

/// A stream of scripted replies.
pub(crate) fn replies<R: Send + 'static>(list: Vec<Answer<R>>) -> Replies<R> {
    stream::iter(list).boxed()
}

/// Scripted replies after which the stream stays open, silently.
pub(crate) fn replies_then_hang<R: Send + 'static>(list: Vec<Answer<R>>) -> Replies<R> {
    stream::iter(list).chain(stream::pending()).boxed()
}

pub(crate) fn piece(data: &[u8]) -> Answer<bytestream::ReadResponse> {
    Ok(bytestream::ReadResponse { data: Bytes::copy_from_slice(data) })
}

pub(crate) fn any<T: prost::Name>(message: &T) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", T::full_name()), value: message.encode_to_vec() }
}

/// A status with details, as a server sends it.
pub(crate) fn detailed(code: Code, details: Vec<Any>) -> Status {
    let status = rpc::Status { code: code as i32, message: "scripted".into(), details };
    Status::with_details(code, "scripted", status.encode_to_vec().into())
}

#[derive(Clone)]
struct Service(Arc<Script>);

#[tonic::async_trait]
impl capabilities_server::Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<v2::GetCapabilitiesRequest>,
    ) -> Answer<Response<v2::ServerCapabilities>> {
        if self.0.capabilities.left() == 0 {
            self.0.capabilities.then_ok(v2::ServerCapabilities::default());
        }
        self.0.capabilities.next(request).map(Response::new)
    }
}

#[tonic::async_trait]
impl content_addressable_storage_server::ContentAddressableStorage for Service {
    type GetTreeStream = Replies<v2::GetTreeResponse>;

    async fn find_missing_blobs(
        &self,
        request: Request<v2::FindMissingBlobsRequest>,
    ) -> Answer<Response<v2::FindMissingBlobsResponse>> {
        self.0.find_missing.next(request).map(Response::new)
    }

    async fn batch_update_blobs(
        &self,
        request: Request<v2::BatchUpdateBlobsRequest>,
    ) -> Answer<Response<v2::BatchUpdateBlobsResponse>> {
        self.0.batch_update.next(request).map(Response::new)
    }

    async fn batch_read_blobs(
        &self,
        request: Request<v2::BatchReadBlobsRequest>,
    ) -> Answer<Response<v2::BatchReadBlobsResponse>> {
        self.0.batch_read.next(request).map(Response::new)
    }

    async fn get_tree(&self, _: Request<v2::GetTreeRequest>) -> Answer<Response<Self::GetTreeStream>> {
        Err(Status::unimplemented("GetTree"))
    }
}

#[tonic::async_trait]
impl byte_stream_server::ByteStream for Service {
    type ReadStream = Replies<bytestream::ReadResponse>;

    async fn read(&self, request: Request<bytestream::ReadRequest>) -> Answer<Response<Self::ReadStream>> {
        self.0.read.next(request).map(Response::new)
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Answer<Response<bytestream::WriteResponse>> {
        let header = request.metadata().get("build.bazel.remote.execution.v2.resource-name");
        let mut upload =
            Upload { messages: vec![], header: header.map(|h| h.to_str().unwrap().to_owned()), over: false };
        let step = self.0.writes.lock().unwrap().pop_front();
        let step = step.ok_or_else(|| Status::permission_denied("the script has no more answers"))?;
        let most = match &step {
            WriteStep::AfterAll(_) | WriteStep::Confirm => usize::MAX,
            WriteStep::After(count, _) | WriteStep::Hang(count) => *count,
        };
        let index = {
            let mut uploads = self.0.uploads.lock().unwrap();
            uploads.push(upload.clone());
            uploads.len() - 1
        };
        let mut messages = request.into_inner();
        while !upload.over && upload.messages.len() < most {
            match messages.message().await {
                Ok(Some(message)) => {
                    upload.over = message.finish_write;
                    upload.messages.push(message);
                }
                // An abort shows as the end, too; `raw` tells them apart.
                Ok(None) | Err(_) => upload.over = true,
            }
            self.0.uploads.lock().unwrap()[index] = upload.clone();
        }
        upload.over = true;
        self.0.uploads.lock().unwrap()[index] = upload.clone();
        self.0.upload_over.notify_waiters();
        let committed_size = match step {
            WriteStep::AfterAll(answer) | WriteStep::After(_, answer) => answer?,
            WriteStep::Confirm => i64::try_from(upload.data().len()).unwrap(),
            WriteStep::Hang(_) => std::future::pending().await,
        };
        Ok(Response::new(bytestream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Answer<Response<bytestream::QueryWriteStatusResponse>> {
        Err(Status::unimplemented("QueryWriteStatus"))
    }
}

#[tonic::async_trait]
impl action_cache_server::ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<v2::GetActionResultRequest>,
    ) -> Answer<Response<v2::ActionResult>> {
        self.0.get_result.next(request).map(Response::new)
    }

    async fn update_action_result(
        &self,
        request: Request<v2::UpdateActionResultRequest>,
    ) -> Answer<Response<v2::ActionResult>> {
        self.0.update_result.next(request).map(Response::new)
    }
}

#[tonic::async_trait]
impl execution_server::Execution for Service {
    type ExecuteStream = Replies<Operation>;
    type WaitExecutionStream = Replies<Operation>;

    async fn execute(&self, request: Request<v2::ExecuteRequest>) -> Answer<Response<Self::ExecuteStream>> {
        self.0.execute.next(request).map(Response::new)
    }

    async fn wait_execution(
        &self,
        request: Request<v2::WaitExecutionRequest>,
    ) -> Answer<Response<Self::WaitExecutionStream>> {
        self.0.wait.next(request).map(Response::new)
    }
}

#[tonic::async_trait]
impl operations_server::Operations for Service {
    async fn list_operations(
        &self,
        _: Request<longrunning::ListOperationsRequest>,
    ) -> Answer<Response<longrunning::ListOperationsResponse>> {
        Err(Status::unimplemented("ListOperations"))
    }

    async fn get_operation(&self, _: Request<longrunning::GetOperationRequest>) -> Answer<Response<Operation>> {
        Err(Status::unimplemented("GetOperation"))
    }

    async fn delete_operation(&self, _: Request<longrunning::DeleteOperationRequest>) -> Answer<Response<()>> {
        Err(Status::unimplemented("DeleteOperation"))
    }

    async fn cancel_operation(&self, request: Request<longrunning::CancelOperationRequest>) -> Answer<Response<()>> {
        self.0.cancel.next(request).map(Response::new)
    }
}

#[tonic::async_trait]
impl fetch_server::Fetch for Service {
    async fn fetch_blob(
        &self,
        request: Request<asset::FetchBlobRequest>,
    ) -> Answer<Response<asset::FetchBlobResponse>> {
        self.0.fetch_blob.next(request).map(Response::new)
    }

    async fn fetch_directory(
        &self,
        _: Request<asset::FetchDirectoryRequest>,
    ) -> Answer<Response<asset::FetchDirectoryResponse>> {
        Err(Status::unimplemented("FetchDirectory"))
    }
}

#[tonic::async_trait]
impl push_server::Push for Service {
    async fn push_blob(&self, request: Request<asset::PushBlobRequest>) -> Answer<Response<asset::PushBlobResponse>> {
        self.0.push_blob.next(request).map(Response::new)
    }

    async fn push_directory(
        &self,
        _: Request<asset::PushDirectoryRequest>,
    ) -> Answer<Response<asset::PushDirectoryResponse>> {
        Err(Status::unimplemented("PushDirectory"))
    }
}
