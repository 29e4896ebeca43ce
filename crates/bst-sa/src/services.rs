//! The services that BuildStream's configuration names, and casd on its cache directory.

use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buildstream::daemon::{self, OwnDaemon, Socket};
use buildstream::names::ArtifactName;
use buildstream::records::{Layered, RefRecords};
use buildstream::remote::{ArtifactServer, RemoteRecords};
use buildstream::{Configuration, Introspection, Remote};
use cas_client::decorators::{Backed, Nearby, Supplying};
use cas_client::grpc::{Access, Endpoint, GrpcClient, GrpcConfig, RetryPolicy};
use cas_client::{ActionCache, BlobStore, Execution, FileStore};
use instantiate::{Options, RecordIndex, Services, WhenReached};
use reapi_proto::{Digest, DigestFunction};

use crate::connect::{self, ConnectOptions};
use crate::failure::Failure;

/// BuildStream's digests.
pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Services to prime through, and what has to be kept for them.
pub(crate) struct Prepared {
    pub(crate) services: Services,
    /// A casd of our own, to be stopped in the end.
    pub(crate) daemon: Option<OwnDaemon>,
}

/// A record that an artifact names.
pub(crate) struct Record {
    /// The element's project.
    pub(crate) project: String,
    /// The artifact, by its strong key.
    pub(crate) artifact: ArtifactName,
    pub(crate) message: Digest,
}

/// How to prime where these services do the work. On this machine: no more executions at a time than it has processors,
/// as the build wants some of them, and none for elements that the build has reached, as casd executes equal actions
/// twice. On a cluster: many, and on behalf of elements under way too, as a build asks for few of their actions at a time.
pub(crate) fn options(project: Option<&Introspection>, connect: &ConnectOptions) -> Options {
    match project {
        Some(project) if connect.is_empty() && project.configuration.execution.is_none() => {
            Options { jobs: processors(), when_reached: WhenReached::GiveWay, ..Options::default() }
        }
        _ => Options { when_reached: WhenReached::GoOn, ..Options::default() },
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn client(remote: &Remote) -> Result<GrpcClient, Failure> {
    connect::remote(remote, FUNCTION, Access::ReadWrite)
}

/// The storage that BuildStream's remote execution, or what stands in for it, reads and writes.
fn remote_storage(configuration: &Configuration) -> Option<&Remote> {
    let storage = configuration.execution_storage.as_ref().or(configuration.storage_service.as_ref());
    storage.or(configuration.execution.as_ref())
}

fn remote_cache(configuration: &Configuration) -> Option<&Remote> {
    configuration.action_cache.as_ref().or(configuration.execution.as_ref())
}

/// The remote execution of BuildStream's configuration, with the local cache for reading; `None` without one.
pub(crate) fn remote(configuration: &Configuration) -> Result<Option<Services>, Failure> {
    let Some(execution) = &configuration.execution else { return Ok(None) };
    let near = FileStore::open(configuration.cachedir.clone())?;
    Ok(Some(Services {
        blobs: Arc::new(Nearby::new(near, client(remote_storage(configuration).unwrap_or(execution))?)),
        cache: Arc::new(client(remote_cache(configuration).unwrap_or(execution))?),
        execution: Some(Arc::new(client(execution)?)),
    }))
}

/// The services that options name, with the local cache for reading.
pub(crate) fn named(configuration: &Configuration, connect: &ConnectOptions) -> Result<Services, Failure> {
    let services = connect.services(FUNCTION)?;
    let near = FileStore::open(configuration.cachedir.clone())?;
    Ok(Services { blobs: Arc::new(Nearby::new(near, services.blobs)), ..services })
}

/// Blobs, and results of actions.
type Left = (Arc<dyn BlobStore>, Arc<dyn ActionCache>);

/// Where builds leave what they ran: the directory of BuildStream's casd. What
/// elements asked for while they were built elsewhere, or found in a remote
/// action cache, is with those services only.
pub(crate) fn left_behind(configuration: &Configuration) -> Result<Left, Failure> {
    let here = Arc::new(FileStore::open(configuration.cachedir.clone())?);
    let (mut blobs, mut cache): Left = (here.clone(), here);
    if let Some(storage) = remote_storage(configuration) {
        blobs = Arc::new(Backed::new(blobs, client(storage)?));
    }
    if let Some(results) = remote_cache(configuration) {
        cache = Arc::new(Backed::new(cache, client(results)?));
    }
    Ok((blobs, cache))
}

/// The casd of a running `bst`, else one of our own.
pub(crate) async fn local(configuration: &Configuration, jobs: usize) -> Result<Prepared, Failure> {
    let cachedir = &configuration.cachedir;
    let unreadable = |e| Failure::new(format!("{} cannot be read", cachedir.display())).because(&e);
    for path in daemon::sockets(cachedir).map_err(unreadable)? {
        let socket = Socket::reach(&path).map_err(unreadable)?;
        // One that was killed leaves its socket behind.
        if UnixStream::connect(socket.path()).is_ok() {
            return Ok(Prepared { services: casd(&socket)?, daemon: None });
        }
    }
    let daemon = OwnDaemon::start(configuration, jobs).await.map_err(|e| {
        Failure::new("nothing executes actions: no `bst` is running, and no casd can be started")
            .because(&e)
            .hint("name a service with --server URL, or run `bst-sa doctor`")
    })?;
    let socket = Socket::reach(daemon.socket()).map_err(unreadable)?;
    Ok(Prepared { services: casd(&socket)?, daemon: Some(daemon) })
}

/// Everything, from one casd on this machine.
pub(crate) fn casd(socket: &Socket) -> Result<Services, Failure> {
    let client = casd_client(socket.path())?;
    let blobs = Arc::new(connect::direct(client.clone()));
    let client = Arc::new(client);
    Ok(Services { blobs, cache: client.clone(), execution: Some(client) })
}

/// A casd on this machine is there at once or, with its `bst`, gone for good.
fn casd_client(socket: &Path) -> Result<GrpcClient, Failure> {
    let endpoint = Endpoint::unix(socket).map_err(|e| Failure::new(e.to_string()))?;
    let retry = RetryPolicy {
        max_attempts: 4,
        first_delay: Duration::from_millis(50),
        max_elapsed: Duration::from_secs(2),
        ..RetryPolicy::default()
    };
    let config = GrpcConfig { retry, ..connect::config(endpoint, "", FUNCTION) };
    Ok(GrpcClient::new(config)?)
}

/// Services to prime through, and the records to go by.
///
/// With artifact servers their records count, too; they are copied here. What
/// those were made of is read from there where it was never built or is no longer kept here.
///
/// Services elsewhere are given the inputs that they lack, from here or from those servers.
pub(crate) fn priming(
    project: &Introspection,
    services: Services,
    connect: &ConnectOptions,
) -> (Services, Arc<dyn RecordIndex>) {
    let mut indexes: Vec<Arc<dyn RecordIndex>> = vec![own_records(project)];
    let mut blobs = Arc::clone(&services.blobs);
    for (name, servers) in &project.servers {
        for (index, storage) in servers.artifacts_to_pull() {
            match artifact_server(index, storage, Access::ReadOnly) {
                Ok(server) => {
                    blobs = Arc::new(Backed::new(blobs, Arc::clone(&server.storage)));
                    indexes.push(Arc::new(RemoteRecords::new(server, Arc::clone(&services.blobs)).of_project(name)));
                }
                Err(failure) => tracing::warn!("records on {} are not used: {}", index.url, failure.summary()),
            }
        }
    }
    let mut execution = services.execution;
    if !connect.is_empty() || project.configuration.execution.is_some() {
        let supplying = |execution| -> Arc<dyn Execution> { Arc::new(Supplying::new(execution, Arc::clone(&blobs))) };
        execution = execution.map(supplying);
    }
    (Services { blobs, execution, ..services }, Arc::new(Layered::new(indexes)))
}

/// The records that refs name.
pub(crate) fn own_records(project: &Introspection) -> Arc<dyn RecordIndex> {
    Arc::new(RefRecords::new(project.configuration.artifact_refs()))
}

fn artifact_server(index: &Remote, storage: &Remote, access: Access) -> Result<ArtifactServer, Failure> {
    let index_client = connect::remote(index, FUNCTION, access)?;
    let storage = if index == storage { index_client.clone() } else { connect::remote(storage, FUNCTION, access)? };
    Ok(ArtifactServer { index: Arc::new(index_client), storage: Arc::new(storage) })
}

/// Attaches records to the artifacts that BuildStream has pushed. Best
/// effort: what does not work is logged. Returns how many were pushed.
pub(crate) async fn push(project: &Introspection, blobs: &Arc<dyn BlobStore>, records: &[Record]) -> usize {
    let mut pushed = 0;
    for (name, servers) in &project.servers {
        let records: Vec<&Record> = records.iter().filter(|record| record.project == *name).collect();
        if records.is_empty() {
            continue;
        }
        for (index, storage) in servers.artifacts_to_push() {
            let server = match artifact_server(index, storage, Access::ReadWrite) {
                Ok(server) => server,
                Err(failure) => {
                    tracing::warn!("records are not pushed to {}: {}", index.url, failure.summary());
                    continue;
                }
            };
            for Record { artifact, message, .. } in &records {
                match server.push_record(&**blobs, artifact, message).await {
                    Ok(Ok(_)) => pushed += 1,
                    Ok(Err(why)) => tracing::info!(%artifact, %server, ?why, "the record is not pushed"),
                    Err(error) => tracing::warn!(%artifact, %server, %error, "the record is not pushed"),
                }
            }
        }
    }
    pushed
}
