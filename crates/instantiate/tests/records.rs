//! Which record is used for an element.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::{Error, ErrorKind};
use instantiate::{
    Candidate, Engine, Event, GraphRecords, Lookup, Options, Outcome, RecordIndex, RecordReport, Report, SkipKind,
};
use overlay::graph::Element;
use overlay::layout::{self, ReferenceRecord, Stored};
use overlay::{ElementId, Record};
use reapi_proto::Digest;
use support::{APP, Scene, State, action};
use tokio::sync::mpsc::unbounded_channel;

fn record_of<'r>(report: &'r Report, element: &str) -> &'r RecordReport {
    &report.elements.iter().find(|e| e.name == element).unwrap().record
}

fn refusal(report: &Report, element: &str) -> Option<SkipKind> {
    match record_of(report, element) {
        RecordReport::None(skip) => Some(skip.kind),
        _ => None,
    }
}

/// One file of the application was edited, which changes its weak key.
async fn edited() -> Scene {
    let mut new = State::default();
    new.app_sources.insert("main.c".to_owned(), "edited\n".to_owned());
    let mut scene = Scene::new(State::default(), new).await;
    scene.element("app.bst").weak_key = Some("another".to_owned());
    scene
}

fn with_lookup(scene: &Scene, lookup: Lookup) -> Engine {
    scene.engine_for_all().with_options(Options { lookup, ..Options::default() })
}

#[tokio::test]
async fn other_sources_explain_another_weak_key() {
    let scene = edited().await;
    let report = with_lookup(&scene, Lookup::Nearest).run_static().await.unwrap();
    assert_eq!(record_of(&report, "app.bst"), &RecordReport::Nearest);
    assert_eq!(record_of(&report, "lib.bst"), &RecordReport::Exact);
    assert_eq!(action(&report, "main.o").outcome, Outcome::Adapted);
    assert_eq!(action(&report, "util.o").outcome, Outcome::Unchanged);
    let mut submitted = scene.toy.submitted();
    submitted.sort_unstable();
    assert_eq!(submitted, scene.expected());

    let scene = edited().await;
    let report = with_lookup(&scene, Lookup::Weak).run_static().await.unwrap();
    assert_eq!(refusal(&report, "app.bst"), Some(SkipKind::OtherKey));
    assert!(scene.toy.submitted().is_empty());
    assert_eq!((report.totals.records, report.totals.actions), (1, 2));
}

#[tokio::test]
async fn equal_sources_under_another_key_are_no_ground_to_speculate() {
    let mut scene = Scene::header_changed().await;
    scene.element("app.bst").weak_key = Some("another".to_owned());
    let report = scene.prime().await;
    assert_eq!(refusal(&report, "app.bst"), Some(SkipKind::OtherKey));
    assert_eq!(report.totals.executed, 2);
}

#[tokio::test]
async fn sources_that_come_later_decide_later() {
    for (mut scene, good) in [(edited().await, true), (Scene::header_changed().await, false)] {
        let app = scene.element("app.bst");
        app.weak_key = Some("another".to_owned());
        let root = app.sources.take().unwrap();
        let report = scene.prime().await;
        let waiting = action(&report, "app");
        assert_eq!(waiting.outcome, Outcome::Deferred);
        assert!(waiting.reason.as_deref().unwrap().contains("decide whether the record fits"), "{waiting:?}");

        let (sender, receiver) = unbounded_channel();
        sender.send(Event::SourcesAvailable { element: "app.bst".to_owned(), root }).unwrap();
        drop(sender);
        let report = scene.engine().run(receiver).await.unwrap();
        if good {
            assert_eq!(record_of(&report, "app.bst"), &RecordReport::Nearest);
            assert_eq!(action(&report, "app").outcome, Outcome::Adapted);
        } else {
            assert_eq!(refusal(&report, "app.bst"), Some(SkipKind::OtherKey));
            assert!(APP.iter().all(|name| action(&report, name).skip == Some(SkipKind::OtherKey)));
        }
    }
}

#[tokio::test]
async fn records_that_cannot_be_read() {
    let mut scene = Scene::header_changed().await;
    let message = scene.element("lib.bst").speculative_actions.unwrap();
    scene.world.store.forget(&message);
    let garbage = scene.world.store.put("no message at all");
    scene.element("app.bst").speculative_actions = Some(garbage);
    let report = scene.prime_all().await;
    assert_eq!(refusal(&report, "base.bst"), Some(SkipKind::NoRecord));
    assert_eq!(refusal(&report, "lib.bst"), Some(SkipKind::NoRecord));
    assert_eq!(refusal(&report, "app.bst"), Some(SkipKind::Malformed));
    assert_eq!(report.totals.skips[&SkipKind::NoRecord], 3);

    scene.world.store.corrupt(&message, "damaged");
    assert_eq!(refusal(&scene.prime_all().await, "lib.bst"), Some(SkipKind::Service));
}

/// Has several records for an element, or fails.
#[derive(Debug)]
struct Index(Option<Vec<Candidate>>);

impl std::fmt::Display for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index")
    }
}

#[async_trait]
impl RecordIndex for Index {
    async fn find_records(&self, elements: &[&Element], _: Lookup) -> cas_client::Result<Vec<Vec<Candidate>>> {
        let found = self.0.clone().ok_or_else(|| Error::new(ErrorKind::Unavailable, "find_records", "scripted"))?;
        let of = |e: &&Element| if e.name == "app.bst" { found.clone() } else { Vec::new() };
        Ok(elements.iter().map(of).collect())
    }
}

/// Knows where messages are, and what they say.
#[derive(Debug)]
struct Decoded(BTreeMap<Digest, Arc<Record>>);

impl std::fmt::Display for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoded")
    }
}

#[async_trait]
impl RecordIndex for Decoded {
    async fn find_records(&self, elements: &[&Element], lookup: Lookup) -> cas_client::Result<Vec<Vec<Candidate>>> {
        GraphRecords.find_records(elements, lookup).await
    }

    fn decoded(&self, message: &Digest) -> Option<Arc<Record>> {
        self.0.get(message).cloned()
    }
}

#[tokio::test]
async fn what_an_index_has_decoded_is_not_read() {
    let mut scene = Scene::header_changed().await;
    let mut decoded = BTreeMap::new();
    for name in ["lib.bst", "app.bst"] {
        let message = scene.element(name).speculative_actions.unwrap();
        let Stored::Compact(record) = layout::decode(&scene.world.store.peek(&message).unwrap()).unwrap() else {
            panic!("{name} has a record in another layout");
        };
        decoded.insert(message, Arc::from(record));
        scene.world.store.forget(&message);
    }
    let report = scene.engine().with_records(Arc::new(Decoded(decoded))).run_static().await.unwrap();
    assert_eq!(record_of(&report, "app.bst"), &RecordReport::Exact);
    let mut submitted = scene.toy.submitted();
    submitted.sort_unstable();
    assert_eq!(submitted, scene.expected());

    let report = scene.engine().run_static().await.unwrap();
    assert_eq!(refusal(&report, "app.bst"), Some(SkipKind::NoRecord), "the messages are gone");
}

#[tokio::test]
async fn the_first_candidate_that_fits_is_used() {
    let mut scene = Scene::header_changed().await;
    let good = scene.element("app.bst").speculative_actions.unwrap();
    let garbage = scene.world.store.put("no message at all");
    let candidate = |message, key: &str| Candidate { message, weak_key: Some(key.to_owned()) };
    let candidates =
        vec![candidate(garbage, "weak-app.bst"), candidate(good, "other"), candidate(good, "weak-app.bst")];
    let report = scene.engine_for_all().with_records(Arc::new(Index(Some(candidates)))).run_static().await.unwrap();
    assert_eq!(record_of(&report, "app.bst"), &RecordReport::Exact);
    assert_eq!(refusal(&report, "lib.bst"), Some(SkipKind::NoRecord));
    assert_eq!(action(&report, "main.o").outcome, Outcome::Adapted);

    let report = scene.engine_for_all().with_records(Arc::new(Index(None))).run_static().await.unwrap();
    assert!(report.elements.iter().all(|e| refusal(&report, &e.name) == Some(SkipKind::Service)));
}

#[tokio::test]
async fn the_reference_layout_does_as_well() {
    let mut scene = Scene::header_changed().await;
    let records = scene.world.records(&scene.old);
    for name in ["lib.bst", "app.bst"] {
        let bytes = ReferenceRecord::from_record(&records[name], &scene.world.forest).encode();
        let message = scene.world.store.put(bytes);
        scene.element(name).speculative_actions = Some(message);
    }
    let report = scene.prime().await;
    assert_eq!(record_of(&report, "app.bst"), &RecordReport::Exact);
    let mut submitted = scene.toy.submitted();
    submitted.sort_unstable();
    assert_eq!(submitted, scene.expected(), "{report:#?}");

    // An action that is gone takes nothing else with it.
    let scene_actions = &scene.old["app.bst"].actions;
    scene.world.store.forget(&scene_actions[0]);
    let report = scene.dry_engine().run_static().await.unwrap();
    let app = report.elements.iter().find(|e| e.name == "app.bst").unwrap();
    let gone = app.actions.iter().find(|a| a.base == scene_actions[0]).unwrap();
    assert_eq!((gone.outcome, gone.skip), (Outcome::Dropped, Some(SkipKind::BaseMissing)));
    assert_eq!(app.actions.len(), 3);
}

/// A record of the application with copies of the library's actions in front.
fn with_copies(lib: &Record, app: &Record) -> Record {
    let mut record = app.clone();
    let row = record.element_ids().find(|id| record.element(*id).name == "lib.bst").unwrap();
    // The copies share no tables with the record here; what counts is whose they are.
    let copies = lib.actions.iter().map(|action| {
        let mut copy = action.clone();
        copy.element = row;
        copy.root = None;
        copy.properties.clear();
        copy
    });
    record.actions = copies.chain(app.actions.iter().cloned()).collect();
    record
}

#[tokio::test]
async fn copies_stand_in_only_where_the_owner_has_no_record() {
    let mut scene = Scene::header_changed().await;
    let records = scene.world.records(&scene.old);
    let copied = with_copies(&records["lib.bst"], &records["app.bst"]);
    assert!(copied.actions[0].element != ElementId::SELF);
    let message = scene.world.put_record(&copied);
    scene.element("app.bst").speculative_actions = Some(message);
    let report = scene.prime().await;
    let app = report.elements.iter().find(|e| e.name == "app.bst").unwrap();
    assert_eq!((app.actions.len(), report.totals.actions, report.totals.executed), (3, 5, 5));

    let mut scene = Scene::header_changed().await;
    let message = scene.world.put_record(&copied);
    scene.element("app.bst").speculative_actions = Some(message);
    scene.element("lib.bst").speculative_actions = None;
    let report = scene.dry_engine().run_static().await.unwrap();
    let app = report.elements.iter().find(|e| e.name == "app.bst").unwrap();
    assert_eq!(app.actions.len(), 5);
    // The copies have no inputs, so they stay as they were, and the link with them.
    assert_eq!(app.actions[0].outcome, Outcome::Unchanged);
}

/// A claimed size is believed only so far: nothing is read for it.
#[tokio::test]
async fn a_record_of_an_absurd_size_is_not_read() {
    let mut scene = edited().await;
    let huge = Digest::from_raw(reapi_proto::DigestFunction::Sha256, &[7; 32], 1 << 40).unwrap();
    scene.element("app.bst").speculative_actions = Some(huge);
    let report = scene.engine().run_static().await.unwrap();
    let RecordReport::None(skip) = record_of(&report, "app.bst") else { panic!("{report:?}") };
    assert_eq!(skip.kind, SkipKind::Malformed);
    assert!(skip.reason.contains(&huge.to_string()), "{}", skip.reason);
}
