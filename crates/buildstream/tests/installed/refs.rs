//! BuildStream goes on with refs that name a record.

use buildstream::names::ArtifactName;
use buildstream::records::RefRecords;
use buildstream::refs::{ArtifactRefs, Attached, Attachment};
use buildstream::{CacheState, Introspection};
use instantiate::Lookup;
use reapi_proto::{Digest, DigestFunction};

use crate::world::{World, element};

fn record(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

fn attach(found: &Introspection, name: &str, record: Digest) -> ArtifactName {
    let strong = element(found, name).strong_artifact().unwrap();
    let attachment = found.configuration.artifact_refs().attach(&strong, &record).unwrap();
    assert_eq!(attachment, Attachment { strong: Attached::Written, weak: Attached::Written });
    strong
}

fn record_of(refs: &ArtifactRefs, name: &ArtifactName) -> Option<Digest> {
    refs.read(name).unwrap().unwrap().speculative_actions().unwrap()
}

#[tokio::test]
async fn an_artifact_with_a_record_is_an_artifact() {
    let Some(world) = World::new() else { return };
    world.build();
    let found = world.ask(&world.request()).await;
    let refs = found.configuration.artifact_refs();
    let names: Vec<_> = found.elements.iter().map(|e| attach(&found, &e.name, record(&e.name))).collect();

    let invocation = world.invocation("cache");
    assert!(world.show(&invocation).values().all(|(_, state)| state == "cached"));
    let shown = world.bst(&invocation, &["artifact", "show", "deep/app.bst", &names[2].to_string()]);
    assert_eq!(shown.matches("cached").count(), 2, "{shown}");
    let checkout = world.path("checkout");
    let target = checkout.to_str().unwrap();
    world.bst(&invocation, &["artifact", "checkout", "--deps", "none", "--directory", target, "lib.bst"]);
    assert_eq!(std::fs::read_to_string(checkout.join("lib.h")).unwrap(), "#define LIB 1\n");

    // A build finds everything, and changes no ref.
    world.build();
    let again = world.ask(&world.request()).await;
    assert!(again.elements.iter().all(|element| element.cache == CacheState::Cached));
    for (element, name) in found.elements.iter().zip(&names) {
        assert_eq!(record_of(&refs, name), Some(record(&element.name)));
        assert_eq!(record_of(&refs, element.weak_artifact.as_ref().unwrap()), Some(record(&element.name)));
    }
    // Elements of a graph are told apart by it, across junctions too.
    let mut elements = again.to_elements();
    RefRecords::new(refs).annotate(&mut elements);
    assert!(elements.iter().all(|element| element.speculative_actions == Some(record(&element.name))));
}

#[tokio::test]
async fn records_of_earlier_builds_are_found_by_weak_key() {
    let Some(world) = World::new() else { return };
    world.build();
    let before = world.ask(&world.request()).await;
    let index = RefRecords::new(before.configuration.artifact_refs());
    let app = attach(&before, "deep/app.bst", record("app"));
    attach(&before, "lib.bst", record("lib"));

    world.write("files/lib/lib.h", "#define LIB 2\n");
    let changed = world.ask(&world.request()).await;
    let find = |found: &Introspection, name: &str, lookup| {
        let elements = found.to_elements();
        let element = elements.iter().find(|element| element.name == name).unwrap();
        index.candidates(element, lookup).into_iter().map(|candidate| candidate.message).collect::<Vec<_>>()
    };
    assert_eq!(find(&changed, "deep/app.bst", Lookup::Weak), [record("app")], "rebuilt under the same weak key");
    assert_eq!(find(&changed, "lib.bst", Lookup::Weak), [], "another weak key");
    assert_eq!(find(&changed, "lib.bst", Lookup::Nearest), [record("lib")]);

    // The rebuild overwrites the weak key's ref with one that has no record yet; the one before is still found.
    world.build();
    let rebuilt = world.ask(&world.request()).await;
    let weak = element(&rebuilt, "deep/app.bst").weak_artifact.clone().unwrap();
    let refs = rebuilt.configuration.artifact_refs();
    assert_eq!((record_of(&refs, &weak), record_of(&refs, &app)), (None, Some(record("app"))));
    assert_eq!(find(&rebuilt, "deep/app.bst", Lookup::Weak), [record("app")]);
    let newer = attach(&rebuilt, "deep/app.bst", record("newer"));
    assert_ne!(newer, app);
    assert_eq!(find(&rebuilt, "deep/app.bst", Lookup::Weak), [record("newer"), record("app")]);
    assert_eq!(refs.attach(&app, &record("late")).unwrap().weak, Attached::OtherBuild);
}
