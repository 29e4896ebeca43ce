//! The demonstration project between two builds, built once for all tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cas_client::grpc::{GrpcClient, GrpcConfig};
use cas_client::{ActionCacheWriter, Blob, BlobStore, FileStore, InMemory};
use reapi_proto::{Digest, DigestFunction};
use serde_json::Value;
use testbed::toy::{self, BuildReport, Project, Services, State, Toolchain};
use testbed::{Server, ServerConfig};

/// The first build, the change after it, and what a rebuild from scratch makes of that.
pub(crate) struct World {
    /// With the change.
    pub(crate) project: Project,
    pub(crate) first: BuildReport,
    /// The graph after the first build.
    pub(crate) after: Value,
    /// What the services held then. Not to be changed: see [`snapshot`].
    store: InMemory,
    /// The rebuild, which nobody primed.
    pub(crate) rebuilt: BuildReport,
    /// What the services held after it.
    rebuilt_store: InMemory,
}

pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    // On a thread of its own: tests have a runtime each, and this outlives all of them.
    let make = || std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(World::make()));
    WORLD.get_or_init(|| make().join().unwrap())
}

impl World {
    async fn make() -> Self {
        let mut project = Project::demo(Toolchain::find().unwrap()).unwrap();
        let server = Server::start_default().await.unwrap();
        let first = build(&server, &project, &State::default()).await;
        let after = toy::graph_after(&project, &first);
        project.apply_demo_change().unwrap();
        let fork = server.fork().await.unwrap();
        let rebuilt = build(&fork, &project, &first.state).await;
        let (store, rebuilt_store) = (snapshot(&server.store()).await, snapshot(&fork.store()).await);
        Self { project, first, after, store, rebuilt, rebuilt_store }
    }

    /// A server that holds what the first build left.
    pub(crate) async fn server(&self, config: ServerConfig) -> Server {
        Server::start(config.with_store(snapshot(&self.store).await)).await.unwrap()
    }

    /// The same as a directory in casd's layout.
    pub(crate) async fn directory(&self, path: &Path) -> FileStore {
        let store = FileStore::create(path).unwrap();
        put_blobs(&self.store, &store).await;
        put_results(&self.store, &store).await;
        store
    }

    /// The graph before the rebuild; the new sources are in `store` afterwards.
    pub(crate) async fn before(&self, store: &dyn BlobStore) -> Value {
        toy::graph_before(&self.project, store, &self.first.state).await.unwrap()
    }

    /// Lets a directory have what the rebuild left, in blobs and results.
    pub(crate) async fn put_rebuilt(&self, store: &FileStore) {
        put_blobs(&self.rebuilt_store, store).await;
        put_results(&self.rebuilt_store, store).await;
    }

    /// The actions of the rebuild by what they make, as `ELEMENT OUTPUT`.
    pub(crate) fn truth(&self) -> BTreeMap<String, Digest> {
        let elements = self.rebuilt.elements.iter();
        elements.flat_map(|e| e.actions.iter().map(|a| (format!("{} {}", e.name, a.output), a.digest))).collect()
    }
}

pub(crate) async fn build(server: &Server, project: &Project, state: &State) -> BuildReport {
    let client = client(server);
    let services = Services { store: client.clone(), action_cache: client.clone(), execution: client, jobs: 2 };
    toy::run(project, &services, state).await.unwrap()
}

pub(crate) fn client(server: &Server) -> Arc<GrpcClient> {
    Arc::new(GrpcClient::new(GrpcConfig::new(server.url().parse().unwrap())).unwrap())
}

/// A copy that can be changed.
async fn snapshot(store: &InMemory) -> InMemory {
    let copy = InMemory::new();
    put_blobs(store, &copy).await;
    put_results(store, &copy).await;
    copy
}

async fn put_blobs(from: &InMemory, to: &impl BlobStore) {
    let blobs = from.digests().into_iter().map(|d| Blob::new(DigestFunction::Sha256, from.peek(&d).unwrap()));
    for (_, outcome) in to.write_blobs(&blobs.collect::<Vec<_>>()).await.unwrap() {
        outcome.unwrap();
    }
}

/// The results, whose actions and outputs must be there already.
async fn put_results(from: &InMemory, to: &(impl ActionCacheWriter + BlobStore)) {
    for (action, result) in from.action_results() {
        to.store_action_result(&action, &result).await.unwrap();
    }
}

/// A graph with the records that `generate --json` printed.
pub(crate) fn with_records(mut graph: Value, generated: &Value) -> Value {
    for element in graph["elements"].as_array_mut().unwrap() {
        let record = find(generated, element["name"].as_str().unwrap());
        element["speculative_actions"] = record["speculative_actions"].clone();
    }
    graph
}

/// The element of this name in a report or a graph.
#[track_caller]
pub(crate) fn find<'a>(report: &'a Value, name: &str) -> &'a Value {
    let elements = report["elements"].as_array().unwrap();
    elements.iter().find(|e| e["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// The digests that a report of `instantiate` or `prime` predicts: those of unchanged and of adapted actions.
pub(crate) fn actions(report: &Value) -> BTreeSet<Digest> {
    let elements = report["elements"].as_array().unwrap().iter();
    let actions = elements.flat_map(|e| e["actions"].as_array().unwrap());
    let digest = |action: &Value| match action["outcome"].as_str().unwrap() {
        "unchanged" => Some(action["base"].as_str().unwrap().parse().unwrap()),
        "adapted" => Some(action["adapted"].as_str().unwrap().parse().unwrap()),
        _ => None,
    };
    actions.filter_map(digest).collect()
}
