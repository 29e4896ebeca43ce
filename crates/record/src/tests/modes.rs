use overlay::Mode;

use super::toy::*;

#[tokio::test]
async fn below_source_artifact_nothing_is_read_or_written() {
    let p = Project::new().await;
    let before = p.toys.store.digests();
    for mode in [Mode::None, Mode::PrimeOnly] {
        let all = p.generate(mode, &["app.bst"]).await;
        assert!(all.elements.is_empty());
    }
    assert_eq!(p.toys.store.digests(), before);
    assert_eq!(p.toys.store.stats().read_blobs.calls, 0);
}

#[tokio::test]
async fn source_artifact_asks_no_action_cache() {
    let p = Project::new().await;
    p.toys.store.take_stats();
    let all = p.generate(Mode::SourceArtifact, &["lib.bst", "app.bst"]).await;
    assert_eq!(p.toys.store.stats().fetch_action_result.calls, 0);
    let record = p.toys.record(report(&all, "app.bst"));
    assert_eq!(record.actions.len(), 3);
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [""; 0]);
    assert_eq!(origins(&record, &p.app_link, "usr/lib/lib.so"), ["usr/lib/lib.so in the artifact of lib.bst"]);
    // Without the record of lib.bst, its sources still offer a guess.
    assert_eq!(
        origins(&record, &p.app_main, "usr/include/lib.h"),
        ["usr/include/lib.h in the artifact of lib.bst", "source include/lib.h of lib.bst"]
    );
}

#[tokio::test]
async fn intra_element_knows_only_its_own_actions() {
    let p = Project::new().await;
    let all = p.generate(Mode::IntraElement, &["lib.bst", "app.bst"]).await;
    let record = p.toys.record(report(&all, "app.bst"));
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [output("main.o", &p.app_main, "app.bst")]);
    assert_eq!(origins(&record, &p.app_link, "usr/lib/lib.so"), ["usr/lib/lib.so in the artifact of lib.bst"]);
}

#[tokio::test]
async fn a_record_stored_before_serves_like_one_of_this_run() {
    let p = Project::new().await;
    let both = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let lib = report(&both, "lib.bst").speculative_actions;
    let later = p.graph_with("lib.bst", |element| element.speculative_actions = lib);
    let alone = p.toys.generate(Mode::Full, &later, &["app.bst"]).await;
    let stored = |all: &crate::GenerateReport| report(all, "app.bst").speculative_actions;
    assert_eq!(stored(&alone), stored(&both));
    assert_eq!((alone.elements.len(), alone.derived), (1, 0));
}
