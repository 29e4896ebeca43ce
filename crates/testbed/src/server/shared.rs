//! State that all services share, and the way every call enters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cas_client::{ActionCacheWriter, AssetIndex, ErrorKind, InMemory, PushRequest};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reapi_proto::{Digest, DigestFunction};
use tonic::{Request, Status};

use super::asset::DirectoryAssets;
use super::byte_stream::Uploads;
use super::config::ServerConfig;
use super::connection::Switch;
use super::scheduler::Scheduler;
use crate::faults::{Fault, Faults};
use crate::stats::{Counters, Rpc};

/// What a streaming method returns.
pub(super) type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// One isolated set of contents.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) store: InMemory,
    pub(super) directories: DirectoryAssets,
    pub(super) uploads: Uploads,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    instances: BTreeMap<String, Instance>,
    pub(super) counters: Counters,
    pub(super) faults: Faults,
    pub(super) scheduler: Scheduler,
    pub(super) connections: Connections,
}

impl Shared {
    pub(super) fn new(config: ServerConfig) -> Self {
        let instances = config
            .instances
            .iter()
            .map(|(name, store)| (name.clone(), Instance::new(store.clone(), DirectoryAssets::default())))
            .collect();
        Self::with_instances(config, instances)
    }

    /// The same configuration over deep copies of the contents, and nothing else of this one.
    pub(super) async fn fork(&self) -> Result<Self, cas_client::Error> {
        let mut config = self.config.clone();
        config.unix_socket = None;
        config.instances.clear();
        let mut instances = BTreeMap::new();
        for (name, instance) in &self.instances {
            let store = copy(&instance.store).await?;
            config.instances.push((name.clone(), store.clone()));
            instances.insert(name.clone(), Instance::new(store, instance.directories.snapshot()));
        }
        Ok(Self::with_instances(config, instances))
    }

    fn with_instances(config: ServerConfig, instances: BTreeMap<String, Instance>) -> Self {
        Self {
            config,
            instances,
            counters: Counters::default(),
            faults: Faults::default(),
            scheduler: Scheduler::default(),
            connections: Connections::default(),
        }
    }

    pub(super) fn instance(&self, name: &str) -> Result<&Instance, Status> {
        self.instances.get(name).ok_or_else(|| Status::invalid_argument(format!("there is no instance {name:?}")))
    }

    /// Registers a call. Everything is decided here, in order of arrival; see [`Arrival::proceed`].
    pub(super) fn arrive<T>(&self, rpc: Rpc, request: &Request<T>) -> Arrival {
        self.counters.called(rpc);
        let authorization = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        Arrival {
            rpc,
            accepted: self.faults.accepts(authorization),
            fault: self.faults.take(rpc),
            switch: request.extensions().get::<Switch>().cloned().unwrap_or_default(),
        }
    }

    /// The instance that is configured first.
    pub(super) fn first(&self) -> Option<&Instance> {
        self.instances.get(&self.config.instances.first()?.0)
    }

    fn evict(&self, digests: &[Digest]) {
        for instance in self.instances.values() {
            for digest in digests {
                instance.store.forget(digest);
            }
        }
    }
}

/// A call that has arrived and not been let in yet.
pub(super) struct Arrival {
    rpc: Rpc,
    accepted: bool,
    fault: Option<Fault>,
    switch: Switch,
}

impl Arrival {
    /// Acts out the faults that any call can have and lets the call in otherwise.
    pub(super) async fn proceed(self, shared: &Shared) -> Result<Call, Status> {
        if !self.accepted {
            return Err(Status::unauthenticated("the bearer token is absent or not the expected one"));
        }
        let fault = match self.fault {
            Some(Fault::Status(status)) => return Err(status),
            Some(Fault::Disconnect) => {
                self.switch.sever();
                return Err(Status::unavailable("the connection was severed by a scripted fault"));
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                None
            }
            Some(Fault::Evict(digests)) => {
                shared.evict(&digests);
                None
            }
            other => other,
        };
        Ok(Call { rpc: self.rpc, fault, switch: self.switch })
    }
}

/// A call that was let in, with the fault that it has to act out itself.
pub(super) struct Call {
    rpc: Rpc,
    pub(super) fault: Option<Fault>,
    switch: Switch,
}

impl Call {
    /// For calls that have no faults of their own, and for what is left of a match over them.
    pub(super) fn without_fault(&self) -> Result<(), Status> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(self.does_not_apply(fault)),
        }
    }

    pub(super) fn does_not_apply(&self, fault: &Fault) -> Status {
        Status::internal(format!("the scripted fault {fault:?} does not apply to {:?}", self.rpc))
    }

    /// Acts out the faults of streams, and fails for any other that is left.
    pub(super) fn script<T: Clone + Send + 'static>(self, replies: Replies<T>) -> Result<Replies<T>, Status> {
        let switch = self.switch.clone();
        Ok(match self.fault {
            None => replies,
            Some(Fault::EndAfter(n)) => replies.take(n).boxed(),
            Some(Fault::FailAfter(n, status)) => replies.take(n).chain(stream::iter([Err(status)])).boxed(),
            Some(Fault::DisconnectAfter(n)) => {
                let severed = stream::once(async move {
                    switch.sever();
                    Err(Status::unavailable("the connection was severed by a scripted fault"))
                });
                replies.take(n).chain(severed).boxed()
            }
            Some(Fault::HoldAfter(n, gate)) => replies
                .enumerate()
                .then(move |(i, reply)| {
                    let gate = (i == n).then(|| gate.clone());
                    async move {
                        if let Some(gate) = gate {
                            gate.pass().await;
                        }
                        reply
                    }
                })
                .boxed(),
            Some(Fault::Repeat) => replies.flat_map(|reply| stream::iter(std::iter::repeat_n(reply, 2))).boxed(),
            Some(ref other) => return Err(self.does_not_apply(other)),
        })
    }
}

/// The open connections.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<Switch>>>);

impl Connections {
    pub(super) fn add(&self) -> Switch {
        let switch = Switch::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(Switch::is_in_use);
        all.push(switch.clone());
        switch
    }

    pub(super) fn sever_all(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.iter().for_each(Switch::sever);
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.0.lock().unwrap_or_else(PoisonError::into_inner).len())
    }
}

impl Instance {
    fn new(store: InMemory, directories: DirectoryAssets) -> Self {
        Self { store, directories, uploads: Uploads::default() }
    }

    pub(super) fn function(&self) -> DigestFunction {
        cas_client::BlobStore::digest_function(&self.store)
    }
}

/// A deep copy of blobs, action results and names. What is corrupt, or refers
/// to blobs that are gone, is left out: a store does not accept it.
async fn copy(from: &InMemory) -> Result<InMemory, cas_client::Error> {
    let to = InMemory::with_function(cas_client::BlobStore::digest_function(from));
    for digest in from.digests() {
        if let Some(data) = from.peek(&digest) {
            to.put(data);
        }
    }
    for (action, result) in from.action_results() {
        unless_dangling(to.store_action_result(&action, &result).await)?;
    }
    for (name, blob) in from.assets() {
        let push = PushRequest {
            uris: vec![name],
            blob,
            references_blobs: Vec::new(),
            references_directories: Vec::new(),
            lifetime: None,
        };
        unless_dangling(to.push_blob(&push).await)?;
    }
    Ok(to)
}

fn unless_dangling(stored: Result<(), cas_client::Error>) -> Result<(), cas_client::Error> {
    match stored {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::MissingInputs) => Ok(()),
        other => other,
    }
}
