use overlay::Mode;

use super::toy::*;
use crate::{Budget, SkipReason};

#[tokio::test]
async fn actions_of_elements_without_a_record_are_copied() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    assert_eq!((all.elements.len(), all.derived, all.not_derived), (1, 1, 0));
    let app = &all.elements[0];
    assert_eq!((app.actions, app.copies, app.not_copied), (3, 2, 0));
    let record = p.toys.record(app);
    let order: Vec<_> = record.actions.iter().map(|a| a.base).collect();
    assert_eq!(order, [p.lib_compile, p.lib_link, p.app_main, p.app_util, p.app_link]);
    let lib = record.actions[0].element;
    assert_eq!(record.element(lib).name, "lib.bst");
    assert_eq!(record.element(lib).sources, p.graph.get("lib.bst").unwrap().sources);
    assert_eq!(record.actions[1].element, lib);

    // The copies have their inputs, and the chain is whole: source, compile, link, link.
    assert_eq!(origins(&record, &p.lib_compile, &format!("{LIB}/lib.c")), ["source lib.c of lib.bst"]);
    assert_eq!(origins(&record, &p.lib_link, &format!("{LIB}/lib.o")), [output("lib.o", &p.lib_compile, "lib.bst")]);
    assert!(origins(&record, &p.app_link, "usr/lib/lib.so").contains(&output(".libs/lib.so", &p.lib_link, "lib.bst")));
    assert_eq!(record.actions[0].properties.len(), 1);

    // What the copies stand on is kept alive, too.
    assert!(app.references.blobs.contains(&p.lib_compile));
    assert_eq!(app.references.directories.len(), 5);
}

#[tokio::test]
async fn nothing_is_copied_where_the_record_is_stored() {
    let p = Project::new().await;
    let all = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    assert_eq!((report(&all, "app.bst").copies, all.derived), (0, 0));
}

#[tokio::test]
async fn a_stored_record_that_is_gone_counts_as_none() {
    let p = Project::new().await;
    let gone = reapi_proto::DigestFunction::Sha256.digest(b"gone");
    let graph = p.graph_with("lib.bst", |element| element.speculative_actions = Some(gone));
    let all = p.toys.generate(Mode::Full, &graph, &["app.bst"]).await;
    assert_eq!(all.unusable_records, [("lib.bst".to_owned(), SkipReason::RecordMissing(gone))]);
    assert_eq!(all.elements[0].copies, 2);

    let garbage = p.toys.store.put("not a record");
    let graph = p.graph_with("lib.bst", |element| element.speculative_actions = Some(garbage));
    let all = p.toys.generate(Mode::Full, &graph, &["app.bst"]).await;
    assert_eq!(all.unusable_records[0].1.kind(), "unusable");
    assert_eq!(all.elements[0].copies, 2);
}

#[tokio::test]
async fn copies_are_bounded() {
    let p = Project::new().await;
    let budget = Budget { max_copied_actions: 1, ..Budget::default() };
    let all = p.toys.generator().with_budget(budget).generate(&p.graph, &["app.bst"]).await.unwrap();
    let app = &all.elements[0];
    assert_eq!((app.copies, app.not_copied), (1, 1));
    let record = p.toys.record(app);
    assert_eq!(record.actions[0].base, p.lib_link);

    let budget = Budget { max_derived_dependencies: 0, ..Budget::default() };
    let all = p.toys.generator().with_budget(budget).generate(&p.graph, &["app.bst"]).await.unwrap();
    assert_eq!((all.derived, all.not_derived, all.elements[0].copies), (0, 1, 0));
}

#[tokio::test]
async fn lower_modes_copy_nothing() {
    let p = Project::new().await;
    for mode in [Mode::SourceArtifact, Mode::IntraElement] {
        let all = p.generate(mode, &["app.bst"]).await;
        assert_eq!((all.derived, all.elements[0].copies), (0, 0));
    }
}
