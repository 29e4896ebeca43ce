//! The conformance suite over the gRPC client and a real service.
//!
//! Runs against the service at `BST_SA_TEST_URL` (and the instance
//! `BST_SA_TEST_INSTANCE`, empty by default); without a URL it says so and
//! checks nothing. `cargo xtask integration` starts a buildbox-casd and sets it.
#![cfg(all(feature = "grpc", feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests may fail, and print, like tests")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cas_client::grpc::{Direct, GrpcClient, GrpcConfig};
use cas_client::testing::conformance::{
    self, ActionCacheRules, BlobStoreOptions, ExecutionRules, Report, Rule, Sandbox,
};
use cas_client::{Blob, BlobStore as _, BlobStoreExt as _, FileStore};
use prost::Message as _;
use reapi_proto::{Digest, v2};

const URL: &str = "BST_SA_TEST_URL";

/// The client of the service under test, or `None`, loudly.
fn client() -> Option<GrpcClient> {
    let Ok(url) = std::env::var(URL) else {
        // Past the capture of the test harness: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {URL} is not set, so there is no service to test against");
        return None;
    };
    let mut config = GrpcConfig::new(url.parse().unwrap());
    config.instance_name = std::env::var("BST_SA_TEST_INSTANCE").unwrap_or_default();
    Some(GrpcClient::new(config).unwrap())
}

/// Whether the service is buildbox-casd, which checks less than the specification allows.
async fn is_casd(client: &GrpcClient) -> bool {
    client.local_server_details().await.unwrap().is_some()
}

fn check(report: Report) {
    for name in report.require_all_passed().unwrap() {
        println!("passed: {name}");
    }
}

#[tokio::test]
async fn capabilities() {
    let Some(client) = client() else { return };
    println!("{client}: {:?}", client.capabilities().await.unwrap());
    println!("{client}: {:?}", client.local_server_details().await.unwrap());
}

#[tokio::test]
async fn blobs() {
    let Some(client) = client() else { return };
    check(conformance::blob_store(&client, &BlobStoreOptions::default()).await);
}

#[tokio::test]
async fn blobs_read_directly() {
    let Some(client) = client() else { return };
    let Some(details) = client.local_server_details().await.unwrap() else { return };
    if !details.storage_root.is_dir() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not on this machine", details.storage_root.display());
        return;
    }
    let store = Direct::new(client.clone(), details.hostname);
    check(conformance::blob_store(&store, &BlobStoreOptions::default()).await);
    let files = FileStore::open_blobs(&details.storage_root).unwrap();
    assert_eq!(store.to_string(), format!("Direct(Nearby({files}, {client}))"));

    let blob = Blob::new(client.digest_function(), "what the service has written is found in its directory");
    client.write_blob(&blob).await.unwrap();
    assert_eq!(files.read_blob(&blob.digest()).await.unwrap(), blob.data());
}

#[tokio::test]
async fn action_results() {
    let Some(client) = client() else { return };
    let rules = if is_casd(&client).await { ActionCacheRules::LENIENT } else { ActionCacheRules::STRICT };
    check(conformance::action_cache(&client, &client, rules).await);
}

#[tokio::test]
async fn assets() {
    let Some(client) = client() else { return };
    let without_blob = if is_casd(&client).await { Rule::Accepted } else { Rule::Refused };
    check(conformance::asset_index(&client, &client, without_blob).await);
}

#[tokio::test]
async fn executions() {
    let Some(client) = client() else { return };
    let mut sandbox = Sandbox::with_shell("/bin/sh");
    sandbox.input_root = Some(upload_shell(&client).await);
    let subject = conformance::ExecutionSubject {
        store: &client,
        cache: &client,
        execution: &client,
        sandbox,
        // It refers to missing inputs in prose only.
        rules: ExecutionRules { names_missing_inputs: !is_casd(&client).await, ..ExecutionRules::default() },
    };
    check(conformance::execution(&subject).await);
}

/// Stores an input root in which this machine's `/bin/sh` runs.
async fn upload_shell(client: &GrpcClient) -> Digest {
    let mut files = BTreeMap::from([(PathBuf::from("bin/sh"), PathBuf::from("/bin/sh"))]);
    let listing = Command::new("ldd").arg("/bin/sh").output().unwrap();
    for word in String::from_utf8(listing.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        files.insert(Path::new(word).strip_prefix("/").unwrap().to_owned(), word.into());
    }
    let mut blobs = Vec::new();
    let mut tree = Folder::default();
    for (path, source) in files {
        let blob = Blob::new(client.digest_function(), std::fs::read(source).unwrap());
        tree.insert(&path, blob.digest());
        blobs.push(blob);
    }
    let root = tree.encode(client, &mut blobs);
    for (_, result) in client.write_blobs(&blobs).await.unwrap() {
        result.unwrap();
    }
    root
}

#[derive(Default)]
struct Folder {
    files: BTreeMap<String, Digest>,
    folders: BTreeMap<String, Folder>,
}

impl Folder {
    fn insert(&mut self, path: &Path, digest: Digest) {
        let mut names: Vec<String> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        let file = names.pop().unwrap();
        let folder = names.into_iter().fold(self, |folder, name| folder.folders.entry(name).or_default());
        folder.files.insert(file, digest);
    }

    fn encode(&self, client: &GrpcClient, blobs: &mut Vec<Blob>) -> Digest {
        let file = |(name, digest): (&String, &Digest)| v2::FileNode {
            name: name.clone(),
            digest: Some(digest.into()),
            is_executable: true,
            node_properties: None,
        };
        let mut directory = v2::Directory { files: self.files.iter().map(file).collect(), ..Default::default() };
        for (name, folder) in &self.folders {
            let digest = Some(folder.encode(client, blobs).into());
            directory.directories.push(v2::DirectoryNode { name: name.clone(), digest });
        }
        let blob = Blob::new(client.digest_function(), directory.encode_to_vec());
        blobs.push(blob.clone());
        blob.digest()
    }
}
