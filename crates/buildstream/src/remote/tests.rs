use cas_client::{BlobStoreExt, Error, ErrorKind, InMemory, Result};
use instantiate::{Candidate, Lookup, RecordIndex};
use overlay::graph::Element;
use overlay::{Record, RecordedElement, layout};
use prost::Message;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::{Action, Command};
use reapi_proto::{Digest, DigestFunction, buildstream};

use super::*;
use crate::artifact::Artifact;
use crate::artifact::tests::{message, sha};
use crate::names::ArtifactName;
use crate::refs::tests::{element, key};

/// A recorded build on the machine that ran it.
struct Recorded {
    local: InMemory,
    record: Digest,
    action: Digest,
    command: Digest,
    root: Digest,
    include: Digest,
    header: Digest,
}

/// One action that compiles a large source with a header from a subdirectory.
fn recorded() -> Recorded {
    let local = InMemory::new();
    let header = local.put("#define X");
    let source = local.put("x".repeat(3 << 20));
    let directory = |entries: Vec<(&'static str, Node)>| {
        local.put(encode_directory(entries.into_iter().map(|(name, node)| (name.into(), node))).unwrap())
    };
    let include = directory(vec![("x.h", Node::File { digest: header, executable: false })]);
    let root = directory(vec![
        ("include", Node::Directory { digest: include }),
        ("main.c", Node::File { digest: source, executable: false }),
    ]);
    let command = local.put_message(&Command { arguments: vec!["cc".into()], ..Command::default() });
    let action = local.put_message(&Action {
        command_digest: Some(command.into()),
        input_root_digest: Some(root.into()),
        ..Action::default()
    });
    let own = RecordedElement { name: "app.bst".into(), sources: None, artifact: None };
    let message = buildstream::SpeculativeActions::decode(layout::encode(&Record::new(DigestFunction::Sha256, own)));
    let base = buildstream::speculative_actions::SpeculativeAction {
        base_action_digest: Some(action.into()),
        overlays: Vec::new(),
    };
    let message = buildstream::SpeculativeActions { actions: vec![base], compact: None, ..message.unwrap() };
    let record = local.put_message(&message);
    Recorded { local, record, action, command, root, include, header }
}

/// A server to which BuildStream has pushed an artifact, with everything that belongs to it.
fn server_with(names: &[ArtifactName], message: &buildstream::Artifact) -> (InMemory, ArtifactServer) {
    let memory = InMemory::new();
    for content in ["files", "public", "low", "high", "log", "chroot"] {
        memory.put(content);
    }
    if !names.is_empty() {
        publish(&memory, names, message);
    }
    let server = ArtifactServer { index: Arc::new(memory.clone()), storage: Arc::new(memory.clone()) };
    (memory, server)
}

fn publish(memory: &InMemory, names: &[ArtifactName], message: &buildstream::Artifact) {
    let blob = memory.put_message(message);
    let uris = names.iter().map(ArtifactName::urn).collect();
    let request = cas_client::PushRequest {
        uris,
        blob,
        references_blobs: Vec::new(),
        references_directories: Vec::new(),
        lifetime: None,
    };
    futures_util::FutureExt::now_or_never(memory.push_blob(&request)).unwrap().unwrap();
}

fn names(strong: char, weak: char) -> [ArtifactName; 2] {
    [strong, weak].map(|digit| element("app.bst").artifact(key(digit)))
}

fn built(strong: char, weak: char) -> buildstream::Artifact {
    message(key(strong).as_str(), key(weak).as_str())
}

async fn artifact(server: &ArtifactServer, name: &ArtifactName) -> Option<Artifact> {
    server.fetch_artifacts(std::slice::from_ref(name)).await.unwrap().pop().unwrap().unwrap()
}

fn graph_element(weak: char) -> Element {
    Element { project: Some("demo".into()), weak_key: Some(key(weak).to_string()), ..Element::new("app.bst") }
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_elsewhere() {
    let names = names('a', 'b');
    let (memory, server) = server_with(&names, &built('a', 'b'));
    let before = artifact(&server, &names[0]).await.unwrap();
    let Recorded { local, record, action, command, root, include, header } = recorded();

    let pushed = server.push_record(&local, &names[0], &record).await.unwrap().unwrap();
    assert_eq!((pushed.names.as_slice(), pushed.actions), (&names[..], 1));
    assert_eq!((pushed.copied.asked, pushed.copied.blobs, pushed.copied.unavailable.len()), (7, 7, 0));
    for name in &names {
        let after = artifact(&server, name).await.unwrap();
        assert_eq!(after.speculative_actions(), Ok(Some(record)));
        assert_eq!(after.with_speculative_actions(None).unwrap(), before, "every other byte is kept");
    }
    assert!(memory.peek(&header).is_some(), "a server keeps whole trees");
    let again = server.push_record(&local, &names[0], &record).await.unwrap();
    assert_eq!(again, Err(NotPushed::AlreadyThere));

    let elsewhere = InMemory::new();
    let index = RemoteRecords::new(server, Arc::new(elsewhere.clone()));
    let (known, unknown) = (graph_element('b'), graph_element('9'));
    let found = index.find_records(&[&unknown, &known], Lookup::Weak).await.unwrap();
    let candidate = Candidate { message: record, weak_key: Some(key('b').to_string()) };
    assert_eq!(found, [vec![], vec![candidate]]);
    let mut pulled = [record, action, command, root, include];
    pulled.sort_unstable();
    let mut there = elsewhere.digests();
    there.sort_unstable();
    assert_eq!(there, pulled, "messages only");
    memory.take_stats();
    index.find_records(&[&known], Lookup::Weak).await.unwrap();
    assert_eq!(memory.stats().read_blobs.calls, 1, "the artifact; the rest is here by now");
}

#[tokio::test]
async fn nothing_is_published_that_buildstream_has_not_pushed() {
    let names = names('a', 'b');
    let (memory, server) = server_with(&names[..0], &built('a', 'b'));
    let recorded = recorded();
    let outcome = server.push_record(&recorded.local, &names[0], &recorded.record).await.unwrap();
    assert_eq!(outcome, Err(NotPushed::NoArtifact));
    assert!(memory.assets().is_empty() && memory.peek(&recorded.record).is_none());
}

#[tokio::test]
async fn the_weak_key_of_another_build_is_left_alone() {
    let [strong, weak] = names('a', 'b');
    let (memory, server) = server_with(&[strong.clone(), weak.clone()], &built('a', 'b'));
    publish(&memory, std::slice::from_ref(&weak), &built('c', 'b'));
    let recorded = recorded();
    let pushed = server.push_record(&recorded.local, &strong, &recorded.record).await.unwrap().unwrap();
    assert_eq!(pushed.names, [strong]);
    assert_eq!(artifact(&server, &weak).await.unwrap().message().strong_key, key('c').as_str());
}

#[tokio::test]
async fn an_action_that_is_incomplete_everywhere_is_not_promised() {
    let names = names('a', 'b');
    let (_, server) = server_with(&names, &built('a', 'b'));
    let recorded = recorded();
    recorded.local.forget(&recorded.header);
    let pushed = server.push_record(&recorded.local, &names[0], &recorded.record).await.unwrap().unwrap();
    assert_eq!((pushed.actions, pushed.copied.unavailable), (0, vec![recorded.header]));

    let (_, server) = server_with(&names, &built('a', 'b'));
    recorded.local.forget(&recorded.include);
    let pushed = server.push_record(&recorded.local, &names[0], &recorded.record).await.unwrap().unwrap();
    assert_eq!((pushed.actions, pushed.copied.unavailable), (0, vec![recorded.include]));

    let (_, server) = server_with(&names, &built('a', 'b'));
    recorded.local.forget(&recorded.record);
    let error = server.push_record(&recorded.local, &names[0], &recorded.record).await.unwrap_err();
    assert_eq!((error.kind(), error.digests()), (ErrorKind::NotFound, &[recorded.record][..]));
}

#[tokio::test]
async fn what_a_server_says_is_not_believed() {
    let [strong, weak] = names('a', 'b');
    let (memory, server) = server_with(&[], &built('a', 'b'));
    let fetch = async || -> Result<Option<Artifact>, Error> {
        server.fetch_artifacts(std::slice::from_ref(&weak)).await.unwrap().pop().unwrap()
    };
    let name = async |blob: Digest| {
        let request = cas_client::PushRequest {
            uris: vec![weak.urn()],
            blob,
            references_blobs: Vec::new(),
            references_directories: Vec::new(),
            lifetime: None,
        };
        memory.push_blob(&request).await.unwrap();
    };
    assert_eq!(fetch().await.unwrap(), None, "unknown");
    name(memory.put(&b"\x0a"[..])).await;
    assert_eq!(fetch().await.unwrap_err().kind(), ErrorKind::Protocol);
    let elsewhere = Arc::new(InMemory::new());
    let index = RemoteRecords::new(server.clone(), elsewhere.clone());
    let wanted = graph_element('b');
    assert_eq!(index.find_records(&[&wanted], Lookup::Weak).await.unwrap(), [vec![]]);

    // An artifact with a record, but of another weak key than the one asked for.
    let other = buildstream::Artifact { speculative_actions: Some(sha("r").into()), ..built('a', '7') };
    let other = memory.put_message(&other);
    name(other).await;
    assert_eq!(index.find_records(&[&wanted], Lookup::Weak).await.unwrap(), [vec![]]);
    memory.forget(&other);
    assert_eq!(fetch().await.unwrap(), None, "a name that dangles");

    // A record that is none, one that is gone, and keys that are none.
    let none = memory.put("no record");
    for record in [none, sha("gone")] {
        let artifact = buildstream::Artifact { speculative_actions: Some(record.into()), ..built('a', 'b') };
        name(memory.put_message(&artifact)).await;
        let found = index.find_records(&[&wanted], Lookup::Weak).await.unwrap();
        assert_eq!(found[0].len(), 1, "whoever reads the record says what is wrong with it");
        let stats = server.pull_records(&*elsewhere, &[record]).await.unwrap();
        assert_eq!((stats.actions, stats.missing), (0, vec![record]));
    }
    let keyless = buildstream::Artifact { weak_key: "../..".into(), ..built('a', 'b') };
    publish(&memory, std::slice::from_ref(&strong), &keyless);
    let error = server.push_record(&*elsewhere, &strong, &sha("r")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_pull_goes_on_where_an_earlier_one_ended() {
    let recorded = recorded();
    let server = ArtifactServer { index: Arc::new(InMemory::new()), storage: Arc::new(recorded.local.clone()) };
    let local = InMemory::new();
    local
        .write_blob(&cas_client::Blob::new(DigestFunction::Sha256, recorded.local.peek(&recorded.root).unwrap()))
        .await
        .unwrap();
    let stats = server.pull_records(&local, &[recorded.record, recorded.record]).await.unwrap();
    assert_eq!((stats.actions, stats.read, stats.stored, stats.missing.len()), (1, 4, 4, 0));
    let again = server.pull_records(&local, &[recorded.record]).await.unwrap();
    assert_eq!((again.actions, again.read), (1, 0));
}
