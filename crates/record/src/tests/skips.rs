use std::sync::Arc;

use cas_client::testing::MockActionCache;
use overlay::Mode;
use overlay::graph::Element;
use prost::Message;
use reapi_proto::raw;
use reapi_proto::{Digest, DigestFunction, v2};

use super::toy::*;
use crate::{Budget, ExplicitList, GenerateError, GenerateReport, Generator, SkipReason};

impl Project {
    fn action(&self, digest: &Digest) -> raw::Action {
        raw::Action::parse(self.toys.store.peek(digest).unwrap()).unwrap()
    }

    /// Generates the app and checks that exactly one action is left out.
    async fn check_skipped(&self, action: Digest, reason: &SkipReason) -> GenerateReport {
        let all = self.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
        let app = report(&all, "app.bst");
        assert_eq!(app.skipped.iter().map(|s| (s.action, &s.reason)).collect::<Vec<_>>(), [(action, reason)]);
        assert_eq!((app.listed, app.actions), (Some(3), 2));
        assert_eq!(all.skips(), [(reason.kind(), 1)].into());
        let record = self.toys.record(app);
        assert!(record.actions.iter().all(|a| a.base != action));
        all
    }
}

#[tokio::test]
async fn a_missing_action_is_left_out() {
    let p = Project::new().await;
    p.toys.store.forget(&p.app_util);
    p.check_skipped(p.app_util, &SkipReason::ActionMissing).await;
}

#[tokio::test]
async fn a_missing_command_is_left_out() {
    let p = Project::new().await;
    // The other actions of the app run elsewhere and have another command.
    let command = p.action(&p.app_util).command_digest();
    p.toys.store.forget(&command);
    p.check_skipped(p.app_util, &SkipReason::CommandMissing(command)).await;
}

#[tokio::test]
async fn an_incomplete_tree_is_named() {
    let p = Project::new().await;
    let root = p.action(&p.app_util).input_root_digest();
    p.toys.store.forget(&root);
    let all = p.check_skipped(p.app_util, &SkipReason::DirectoryMissing(root)).await;
    // Its results were not learned either: what it made is unexplained.
    let record = p.toys.record(report(&all, "app.bst"));
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/a/util.o")), [LOCAL]);
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [output("main.o", &p.app_main, "app.bst")]);
}

#[tokio::test]
async fn damaged_and_malformed_blobs_are_left_out() {
    let p = Project::new().await;
    p.toys.store.corrupt(&p.app_util, "lies");
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let [skipped] = &all.elements[0].skipped[..] else { panic!("one is skipped") };
    assert!(skipped.reason.to_string().contains("corrupt data"), "{}", skipped.reason);

    let p = Project::new().await;
    let root = p.action(&p.app_util).input_root_digest();
    p.toys.store.corrupt(&root, "lies");
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let [skipped] = &all.elements[0].skipped[..] else { panic!("one is skipped") };
    assert!(matches!(&skipped.reason, SkipReason::Unusable { digest, .. } if *digest == root));

    let p = Project::new().await;
    let not_an_action = p.toys.store.put(vec![0xff; 9]);
    let unsorted = v2::Directory {
        files: ["b", "a"].map(|name| v2::FileNode { name: name.into(), ..file_node() }).into(),
        ..v2::Directory::default()
    };
    let unsorted = p.toys.store.put_message(&unsorted);
    let action = v2::Action::decode(p.toys.store.peek(&p.app_main).unwrap()).unwrap();
    let on_it = p.toys.store.put_message(&v2::Action { input_root_digest: Some(unsorted.into()), ..action });
    p.toys.result(on_it, &[], Vec::new()).await;
    let graph = p.graph_with("app.bst", |e| e.subactions = Some(vec![not_an_action, on_it, p.app_main]));
    let all = p.toys.generate(Mode::Full, &graph, &["app.bst"]).await;
    assert_eq!(all.skips(), [("unusable", 2)].into());
    assert_eq!(all.elements[0].actions, 1);
}

fn file_node() -> v2::FileNode {
    v2::FileNode { digest: Some(DigestFunction::Sha256.digest(b"x").into()), ..v2::FileNode::default() }
}

#[tokio::test]
async fn an_action_without_a_result_failed() {
    let p = Project::new().await;
    p.toys.store.forget_action_result(&p.app_util);
    p.check_skipped(p.app_util, &SkipReason::NoResult).await;
}

#[tokio::test]
async fn a_cache_that_knows_no_action_of_an_element_proves_nothing() {
    let p = Project::new().await;
    for action in [p.app_main, p.app_util, p.app_link] {
        p.toys.store.forget_action_result(&action);
    }
    let all = p.generate(Mode::Full, &["app.bst"]).await;
    let app = &all.elements[0];
    assert_eq!((app.actions, app.skipped.len()), (3, 0));
    let record = p.toys.record(app);
    assert_eq!(origins(&record, &p.app_main, &format!("{APP}/main.c")), ["source main.c of app.bst"]);
    assert_eq!(record.actions[2].output_bytes, None);
}

/// Nor does one whose only answer is damaged.
#[tokio::test]
async fn a_damaged_result_does_not_speak_for_the_others() {
    let p = Project::new().await;
    let not_a_path = v2::OutputFile { path: "/absolute".into(), ..v2::OutputFile::default() };
    let damaged = v2::ActionResult { output_files: vec![not_a_path], ..v2::ActionResult::default() };
    let mut cache = MockActionCache::new();
    let util = p.app_util;
    cache.expect_fetch_action_result().returning(move |action| Ok((*action == util).then(|| damaged.clone())));
    let store = Arc::new(p.toys.store.clone());
    let generator = Generator::new(store, Arc::new(cache), Arc::new(ExplicitList));
    let all = generator.generate(&p.graph, &["app.bst"]).await.unwrap();
    assert_eq!((all.elements[0].actions, all.skips()), (2, [("unusable", 1)].into()));
}

#[tokio::test]
async fn an_action_that_must_not_be_cached_is_left_out() {
    let p = Project::new().await;
    let inputs = p.toys.files(&[("x", "y")]);
    let volatile = p.toys.run(&Run { inputs, do_not_cache: true, ..Run::default() }).await;
    let graph = p.graph_with("app.bst", |e| e.subactions = Some(vec![p.app_main, volatile]));
    let all = p.toys.generate(Mode::Full, &graph, &["app.bst"]).await;
    assert_eq!(all.skips(), [("not to be cached", 1)].into());
}

#[tokio::test]
async fn repetitions_count_once() {
    let p = Project::new().await;
    let list = vec![p.app_main, p.app_main, p.app_util, p.app_link, p.app_util];
    let graph = p.graph_with("app.bst", |e| e.subactions = Some(list));
    let all = p.toys.generate(Mode::Full, &graph, &["app.bst"]).await;
    assert_eq!((all.elements[0].listed, all.elements[0].actions), (Some(3), 3));
    let straight = p.generate(Mode::Full, &["app.bst"]).await;
    assert_eq!(all.elements[0].speculative_actions, straight.elements[0].speculative_actions);
}

#[tokio::test]
async fn nothing_is_stored_without_a_usable_action() {
    let p = Project::new().await;
    p.toys.store.forget(&p.lib_compile);
    p.toys.store.forget(&p.lib_link);
    p.toys.store.take_stats();
    let before = p.toys.store.digests();
    let all = p.generate(Mode::Full, &["base.bst", "lib.bst"]).await;
    assert_eq!(p.toys.store.digests(), before);
    assert_eq!(p.toys.store.stats().write_blobs.calls, 0);
    let [base, lib] = &all.elements[..] else { panic!("two elements") };
    assert_eq!((base.listed, lib.listed), (None, Some(2)));
    assert_eq!((base.speculative_actions, lib.speculative_actions), (None, None));
    assert_eq!(lib.skipped.len(), 2);
}

#[tokio::test]
async fn a_missing_artifact_is_named_by_the_actions_that_would_need_it() {
    let p = Project::new().await;
    let artifact = p.graph.get("lib.bst").unwrap().artifact.unwrap();
    p.toys.store.forget(&artifact);
    let all = p.generate(Mode::SourceArtifact, &["lib.bst", "app.bst"]).await;
    let app = report(&all, "app.bst");
    assert_eq!(app.actions, 0);
    assert!(app.skipped.iter().all(|s| s.reason == SkipReason::DirectoryMissing(artifact)), "{:?}", app.skipped);
    assert_eq!(report(&all, "lib.bst").actions, 2);
}

#[tokio::test]
async fn actions_beyond_the_limit_are_counted() {
    let p = Project::new().await;
    let budget = Budget { max_subactions: 2, ..Budget::default() };
    let all = p.toys.generator().with_budget(budget).generate(&p.graph, &["app.bst"]).await.unwrap();
    let app = &all.elements[0];
    assert_eq!((app.listed, app.actions), (Some(3), 2));
    assert_eq!(app.skipped[0].action, p.app_link);
    assert_eq!(app.skipped[0].reason.kind(), "limit exceeded");
}

#[tokio::test]
async fn wrong_calls_are_refused_before_any_work() {
    let p = Project::new().await;
    p.toys.store.take_stats();
    let error = p.toys.generator().generate(&p.graph, &["app.bst", "nobody.bst"]).await.unwrap_err();
    assert_eq!(error, GenerateError::UnknownElement("nobody.bst".into()));
    let other = overlay::graph::Graph::new(DigestFunction::Sha512, vec![Element::new("e")]).unwrap();
    let error = p.toys.generator().generate(&other, &["e"]).await.unwrap_err();
    assert_eq!(error.to_string(), "the graph has SHA512 digests, InMemory has SHA256 ones");
    assert_eq!(p.toys.store.stats(), cas_client::Stats::default());
}

#[tokio::test]
async fn what_a_record_stands_on_is_kept_alive() {
    let p = Project::new().await;
    let Some(raw::Node::File { digest: lost, .. }) =
        raw::Directory::parse(p.toys.store.peek(&p.base).unwrap()).ok().map(|_| p.toys.file("std"))
    else {
        panic!("a file")
    };
    p.toys.store.forget(&lost);
    let all = p.generate(Mode::Full, &["lib.bst", "app.bst"]).await;
    let kept = &report(&all, "app.bst").kept;
    assert!(kept.failure.is_none());
    // Three actions and two commands, and everything in three trees that the library did not bring up before.
    assert!(kept.asked > 5 + 3, "{kept:?}");
    // The library's actions asked for it already.
    assert_eq!((report(&all, "lib.bst").kept.missing, kept.missing), (1, 0));
    let references = &report(&all, "app.bst").references;
    assert_eq!((references.blobs.len(), references.directories.len()), (5, 3));
}
