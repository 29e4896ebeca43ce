//! What is predicted of a dependency that is not built yet, and what happens
//! when its artifact says otherwise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use overlay::{
    Adaptation, ArtifactOverlay, Dependency, Deriver, Forest, Lookup, Mode, Now, Observed, Observing, OriginId, Record,
    Standing, TreeKind,
};
use prost::Message;
use reapi_proto::raw::{Action, Command, Node};
use reapi_proto::{Digest, v2};
use support::{SHA, Tree, file};

const HEADER: &str = "usr/include/dep/dep.h";
const EMPTY: &str = "usr/include/dep/empty.h";
const SCRIPT: &str = "usr/bin/dep-config";
const LINK: &str = "usr/lib/libdep.so";
const GENERATED: &str = "usr/include/dep/generated.h";

fn store(forest: &mut Forest, files: &[(&str, Node)]) -> Digest {
    let mut tree = Tree::empty();
    for (path, node) in files {
        let path: Vec<Bytes> = path.split('/').map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
        tree.edit(&path, Some(node.clone()));
    }
    tree.store(forest)
}

fn link(target: &'static str) -> Node {
    Node::Symlink { target: Bytes::from_static(target.as_bytes()) }
}

fn sources(header: &[u8]) -> [(&'static str, Node); 3] {
    [
        ("include/dep/dep.h", file(header, false)),
        ("include/dep/empty.h", file(b"", false)),
        // Not executable here: installing makes it so.
        ("tools/dep-config.sh", file(b"#!/bin/sh", false)),
    ]
}

fn artifact(header: &[u8], so: &'static str, generated: &[u8]) -> [(&'static str, Node); 5] {
    [
        (HEADER, file(header, false)),
        (EMPTY, file(b"", false)),
        (SCRIPT, file(b"#!/bin/sh", true)),
        (LINK, link(so)),
        (GENERATED, file(generated, false)),
    ]
}

struct Fixture {
    forest: Forest,
    observed: Observed,
    dependency: Dependency,
}

fn compile(inputs: &[&str]) -> Fixture {
    let mut forest = Forest::new();
    let installed = artifact(b"1", "libdep.so.1", b"g");
    let chosen: Vec<_> = installed.iter().filter(|(path, _)| inputs.contains(path)).cloned().collect();
    let root = store(&mut forest, &chosen);
    let command = v2::Command { arguments: vec!["cc".into()], working_directory: "w".into(), ..Default::default() };
    let command = Bytes::from(command.encode_to_vec());
    let action = v2::Action {
        command_digest: Some((&SHA.digest(&command)).into()),
        input_root_digest: Some((&root).into()),
        ..Default::default()
    };
    let action = Bytes::from(action.encode_to_vec());
    let dependency = Dependency {
        name: "dep.bst".into(),
        sources: Some(store(&mut forest, &sources(b"1"))),
        artifact: Some(store(&mut forest, &installed)),
        record: None,
    };
    let observed = Observed {
        base: SHA.digest(&action),
        action: Action::parse(action).unwrap(),
        command: Command::parse(command).unwrap(),
        outputs: Vec::new(),
        duration: None,
        output_bytes: None,
    };
    Fixture { forest, observed, dependency }
}

impl Fixture {
    fn adaptation(&self) -> Adaptation {
        let app = Observing {
            name: "app.bst".into(),
            weak_key: None,
            configuration: None,
            sources: None,
            artifact: None,
            own_root: Bytes::from_static(b"w"),
            platforms: Vec::new(),
        };
        let mut deriver = Deriver::new(Mode::Full, SHA, app, vec![self.dependency.clone()]);
        deriver.observe(&self.forest, &self.observed).unwrap();
        Adaptation::new(Arc::new(deriver.finish(&self.forest, &overlay::Contents::default())))
    }

    fn adapt(&self, adaptation: &mut Adaptation) -> Digest {
        let id = adaptation.record().action_ids().next().unwrap();
        match adaptation.standing(id) {
            Standing::Ready { changed: false, .. } => self.observed.base,
            Standing::Ready { changed: true, .. } => {
                adaptation.adapt(id, &self.observed.action, None, &self.forest).unwrap().action.digest()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn facts(record: &Record, forest: &Forest, kind: TreeKind, root: Digest) -> Vec<(OriginId, Now)> {
    let origins = record.origin_ids().filter(|(_, o)| o.tree_kind() == Some(kind)).map(|(id, _)| id);
    let mut lookup = Lookup::new(record, root, origins);
    while !lookup.is_done() {
        lookup.advance(forest);
    }
    lookup.into_found()
}

fn standing(adaptation: &Adaptation) -> Standing {
    adaptation.standing(adaptation.record().action_ids().next().unwrap())
}

#[test]
fn sources_and_old_links_stand_in_for_an_artifact_that_is_not_built() {
    let mut fixture = compile(&[HEADER, EMPTY, SCRIPT, LINK]);
    let mut adaptation = fixture.adaptation();
    let record = Arc::clone(adaptation.record());
    let next = store(&mut fixture.forest, &sources(b"2"));
    adaptation.settle(facts(&record, &fixture.forest, TreeKind::Sources, next));
    assert_eq!(standing(&adaptation), Standing::Ready { changed: true, guess: true });
    let guessed = fixture.adapt(&mut adaptation);

    // The artifact turns out as guessed: the same action, certain now.
    let built = store(&mut fixture.forest, &artifact(b"2", "libdep.so.1", b"g"));
    let affected = adaptation.settle(facts(&record, &fixture.forest, TreeKind::Artifact, built));
    assert_eq!(affected, [], "nothing has to be adapted anew");
    assert_eq!(standing(&adaptation), Standing::Ready { changed: true, guess: false });
    assert_eq!(fixture.adapt(&mut adaptation), guessed);

    // Or otherwise: it is adapted again.
    for other in [artifact(b"3", "libdep.so.1", b"g"), artifact(b"2", "libdep.so.2", b"g")] {
        let built = store(&mut fixture.forest, &other);
        let affected = adaptation.settle(facts(&record, &fixture.forest, TreeKind::Artifact, built));
        assert_eq!(affected.len(), 1);
        assert_ne!(fixture.adapt(&mut adaptation), guessed);
    }
}

#[test]
fn an_unchanged_source_keeps_the_installed_mode() {
    let mut fixture = compile(&[SCRIPT]);
    let mut adaptation = fixture.adaptation();
    let record = Arc::clone(adaptation.record());
    let same = store(&mut fixture.forest, &sources(b"2"));
    adaptation.settle(facts(&record, &fixture.forest, TreeKind::Sources, same));
    assert_eq!(standing(&adaptation), Standing::Ready { changed: false, guess: true });
}

#[test]
fn a_generated_file_waits_for_the_artifact() {
    let mut fixture = compile(&[HEADER, GENERATED]);
    let mut adaptation = fixture.adaptation();
    let record = Arc::clone(adaptation.record());
    let next = store(&mut fixture.forest, &sources(b"2"));
    adaptation.settle(facts(&record, &fixture.forest, TreeKind::Sources, next));
    let Standing::Waiting { on } = standing(&adaptation) else { panic!("it cannot be known") };
    let reasons: Vec<_> = on.iter().map(|id| record.describe(record.origin(*id))).collect();
    assert_eq!(reasons, [format!("{GENERATED} in the artifact of dep.bst")]);
}

#[test]
fn a_path_that_is_gone_is_removed() {
    let mut fixture = compile(&[HEADER, SCRIPT]);
    let mut adaptation = fixture.adaptation();
    let record = Arc::clone(adaptation.record());
    let next = store(&mut fixture.forest, &artifact(b"1", "libdep.so.1", b"g")[1..]);
    adaptation.settle(facts(&record, &fixture.forest, TreeKind::Artifact, next));
    let adapted = fixture.adapt(&mut adaptation);
    assert_eq!(adapted, compile(&[SCRIPT]).observed.base);
}

#[test]
fn an_artifact_explains_its_own_files_for_those_who_use_it() {
    let mut forest = Forest::new();
    let element = Observing {
        name: "dep.bst".into(),
        weak_key: None,
        configuration: None,
        sources: Some(store(&mut forest, &sources(b"1"))),
        artifact: Some(store(&mut forest, &artifact(b"1", "libdep.so.1", b"g"))),
        own_root: Bytes::from_static(b"w"),
        platforms: Vec::new(),
    };
    let record = Deriver::new(Mode::Full, SHA, element, Vec::new()).finish(&forest, &overlay::Contents::default());
    let explained: Vec<_> = record
        .artifact_overlays
        .iter()
        .map(|ArtifactOverlay { path, origin }| (record.paths.display(*path), record.describe(record.origin(*origin))))
        .collect();
    let expected = [
        (SCRIPT, "source tools/dep-config.sh of dep.bst"),
        (HEADER, "source include/dep/dep.h of dep.bst"),
        (EMPTY, "source include/dep/empty.h of dep.bst"),
    ];
    let mut explained = explained;
    explained.sort();
    let mut expected = expected.map(|(path, origin)| (path.to_owned(), origin.to_owned()));
    expected.sort();
    assert_eq!(explained, expected);
}
