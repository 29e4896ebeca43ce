//! A service on this machine that tells where its files are: it is not asked for them.

use serde_json::Value;
use testbed::{LocalFiles, Rpc, ServerConfig, Stats};

use crate::support::{Program, find, world};

/// Records the actions of the first build, with a service that says that its files are in `files`.
async fn generate(files: LocalFiles) -> (Value, Stats) {
    let server = world().server(ServerConfig { local_files: Some(files), ..ServerConfig::default() }).await;
    let temporary = tempfile::tempdir().unwrap();
    let graph = temporary.path().join("graph.json");
    std::fs::write(&graph, world().after.to_string()).unwrap();
    let program = Program::new(["generate", "--json", "--server", server.url(), "--graph"]).arg(graph);
    (program.json().await, server.stats())
}

fn reads(stats: &Stats) -> u64 {
    stats.calls(Rpc::BatchReadBlobs) + stats.calls(Rpc::Read)
}

#[tokio::test]
async fn blobs_are_read_from_the_directory_of_a_service_on_this_machine() {
    let temporary = tempfile::tempdir().unwrap();
    world().directory(temporary.path()).await;
    let hostname = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let storage_root = temporary.path().join("cas");

    let here = LocalFiles { hostname: hostname.clone(), storage_root: storage_root.clone() };
    let (report, stats) = generate(here).await;
    assert_eq!((reads(&stats), stats.calls(Rpc::GetLocalServerDetails)), (0, 1), "{stats:?}");
    assert!(!stats.uploaded.is_empty(), "writes go to the service");
    let records = |report: &Value| find(report, "app.bst")["speculative_actions"].clone();
    assert!(records(&report).is_string(), "{report:#}");

    for elsewhere in [
        LocalFiles { hostname: format!("not-{hostname}"), storage_root },
        LocalFiles { hostname, storage_root: temporary.path().join("absent") },
    ] {
        let (other, stats) = generate(elsewhere).await;
        assert!(reads(&stats) > 0, "{stats:?}");
        assert_eq!(records(&other), records(&report));
    }
}
