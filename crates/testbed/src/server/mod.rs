//! The in-process server: one file per service over shared state.

mod action_cache;
mod asset;
mod byte_stream;
mod capabilities;
mod cas;
mod config;
mod connection;
mod execution;
mod inputs;
mod local_cas;
mod operations;
mod resource;
mod scheduler;
mod shared;
mod wire;
mod work;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use cas_client::InMemory;
use futures_util::{Stream, StreamExt};
use reapi_proto::asset::fetch_server::FetchServer;
use reapi_proto::asset::push_server::PushServer;
use reapi_proto::buildgrid::local_content_addressable_storage_server::LocalContentAddressableStorageServer;
use reapi_proto::bytestream::byte_stream_server::ByteStreamServer;
use reapi_proto::longrunning::operations_server::OperationsServer;
use reapi_proto::v2::action_cache_server::ActionCacheServer;
use reapi_proto::v2::capabilities_server::CapabilitiesServer;
use reapi_proto::v2::content_addressable_storage_server::ContentAddressableStorageServer;
use reapi_proto::v2::execution_server::ExecutionServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tonic::transport::server::{Router, TcpIncoming};

pub use config::{ActionCacheUpdates, Completeness, LocalFiles, MissingInputs, ServerConfig};

use connection::Severable;
use shared::Shared;

use crate::faults::Faults;
use crate::stats::Stats;

/// A Remote Execution service on a local socket: CAS, `ByteStream`, action
/// cache, execution, operations, capabilities and Remote Asset.
///
/// Stops when dropped: connections are severed, running commands are killed.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    url: String,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds a free port of 127.0.0.1 (and the unix socket, if configured) and
    /// serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be bound.
    pub async fn start(config: ServerConfig) -> io::Result<Self> {
        Self::launch(Shared::new(config)).await
    }

    async fn launch(shared: Shared) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?.with_nodelay(Some(true));
        let url = format!("http://{}", incoming.local_addr()?);
        let mut tasks = JoinSet::new();
        serve(&mut tasks, &shared, incoming);
        if let Some(path) = &shared.config.unix_socket {
            let listener = tokio::net::UnixListener::bind(path)?;
            serve(&mut tasks, &shared, tokio_stream::wrappers::UnixListenerStream::new(listener));
        }
        for _ in 0..shared.config.jobs.get() {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { shared.work().await });
        }
        Ok(Self { shared, url, tasks })
    }

    /// A server with the default configuration and an empty store.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_default() -> io::Result<Self> {
        Self::start(ServerConfig::default()).await
    }

    /// A second server, with the same configuration (without the unix socket,
    /// which has one owner) and a deep copy of every instance's contents: blobs
    /// that are intact, action results and names whose blobs are there.
    /// Counters, faults and operations start afresh.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn fork(&self) -> io::Result<Self> {
        let shared = self.shared.fork().await.map_err(io::Error::other)?;
        Self::launch(shared).await
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A handle on the contents of the first instance, which is the unnamed one by default.
    /// A server configured without instances has an empty store that nothing serves.
    #[must_use]
    pub fn store(&self) -> InMemory {
        self.shared.first().map(|i| i.store.clone()).unwrap_or_default()
    }

    /// A handle on the contents of the instance with that name.
    #[must_use]
    pub fn instance_store(&self, instance: &str) -> Option<InMemory> {
        self.shared.instance(instance).ok().map(|i| i.store.clone())
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.update(|s| s.clone())
    }

    /// [`stats`](Self::stats), counting from zero again.
    pub fn take_stats(&self) -> Stats {
        self.shared.counters.update(std::mem::take)
    }

    /// The script of faults; shared with the running server.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Severs every open connection; new ones are accepted.
    pub fn sever_connections(&self) {
        self.shared.connections.sever_all();
    }

    /// Stops listening, severs connections, kills running commands, and waits until all of it is done.
    pub async fn shutdown(mut self) {
        self.stop();
        while self.tasks.join_next().await.is_some() {}
    }

    fn stop(&mut self) {
        self.shared.scheduler.stop();
        self.tasks.abort_all();
        self.shared.connections.sever_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve<I, C>(tasks: &mut JoinSet<()>, shared: &Arc<Shared>, incoming: I)
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router(shared);
    let connections = shared.connections.clone();
    let incoming = incoming.map(move |c| c.map(|c| Severable::new(c, connections.add())));
    tasks.spawn(async move {
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::error!(%error, "the test server stopped");
        }
    });
}

fn router(shared: &Arc<Shared>) -> Router {
    let limit = shared.config.max_message_bytes();
    let service = || Service(Arc::clone(shared));
    tonic::transport::Server::builder()
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .add_service(ContentAddressableStorageServer::new(service()).max_decoding_message_size(limit))
        .add_service(ByteStreamServer::new(service()).max_decoding_message_size(limit))
        .add_service(ActionCacheServer::new(service()).max_decoding_message_size(limit))
        .add_service(ExecutionServer::new(service()))
        .add_service(OperationsServer::new(service()))
        .add_service(CapabilitiesServer::new(service()))
        .add_service(FetchServer::new(service()))
        .add_service(PushServer::new(service()))
        .add_service(LocalContentAddressableStorageServer::new(service()))
}

/// The type that implements every service; each in its own file.
#[derive(Clone)]
struct Service(Arc<Shared>);
