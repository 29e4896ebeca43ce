//! From what released programs leave behind to records, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_client::{ActionCacheWriter, BlobStore};
use overlay::graph::{Element, Graph};
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, v2};

use super::toy::*;
use crate::{
    Attributor, CasdLog, CasdLogScanner, Combined, GenerateReport, Generator, LoggedAction, NestedResults, ReccLogs,
    Sessions, SkipReason, SubactionSource,
};

fn requests(methods: &[&str], action: Digest) -> String {
    let line = |method: &&str| {
        format!(
            "2026-11-22T10:48:28.830+0000 [5871:139984694654656] [buildboxcasd_server.cpp:228] [INFO] {method} request from \
             [peer=\"unix:\"]: [tool_name=\"recc\", tool_version=\"1.4.30\", action_id=\"{action}\", tool_invocation_id=\"buildbox:4\", ]\n"
        )
    };
    methods.iter().map(line).collect()
}

fn miss(action: Digest) -> String {
    requests(&["GetActionResult", "FindMissingBlobs", "BatchUpdateBlobs", "Execute", "BatchReadBlobs"], action)
}

fn hit(action: Digest) -> String {
    requests(&["GetActionResult", "BatchReadBlobs"], action)
}

fn session(log: &str) -> Vec<LoggedAction> {
    let mut scanner = CasdLogScanner::new();
    scanner.advance(log.as_bytes());
    scanner.finish();
    assert_eq!(scanner.stats().malformed, 0);
    scanner.into_actions()
}

fn recc_log(time: &str, action: Digest) -> String {
    format!("2026-11-22T10:48:28.{time}+0000 [5:1] [executioncontext.cpp:544] [INFO] Action Cache hit for [{action}]\n")
}

impl Project {
    /// The graph as it is when no orchestrator lists actions.
    fn graph_without_lists(&self) -> Arc<Graph> {
        let elements = self.graph.elements().cloned().map(|element| Element { subactions: None, ..element });
        Arc::new(graph(elements.collect()))
    }

    /// Logs of incremental builds.
    async fn casd_log(&self, graph: &Arc<Graph>, sessions: &[Vec<LoggedAction>]) -> CasdLog {
        let store = Arc::new(self.toys.store.clone());
        let mut attributor = Attributor::new(Arc::clone(graph), store.clone()).with_action_cache(store);
        let incremental = graph.elements().map(|element| (element.name.clone(), Sessions::All));
        CasdLog::attribute(&mut attributor, sessions, &incremental.collect::<BTreeMap<_, _>>()).await.unwrap()
    }

    async fn generate_from(&self, graph: &Graph, source: Arc<dyn SubactionSource>) -> GenerateReport {
        let store = Arc::new(self.toys.store.clone());
        let report =
            Generator::new(store.clone(), store, source).generate(graph, &["lib.bst", "app.bst"]).await.unwrap();
        assert!(report.stopped.is_none(), "{:?}", report.stopped);
        report
    }
}

/// `app.bst` missed, `lib.bst` hit throughout: both have their records, the
/// same as from a list of their actions.
#[tokio::test]
async fn a_log_of_hits_and_misses_is_as_good_as_a_list() {
    let p = Project::new().await;
    let graph = p.graph_without_lists();
    let log = [hit(p.lib_compile), miss(p.app_main), hit(p.lib_link), miss(p.app_util), miss(p.app_link)].concat();
    let casd = p.casd_log(&graph, &[session(&log)]).await;
    assert_eq!((casd.report().actions, casd.report().by_working_directory, casd.report().executed), (5, 5, 3));
    let from_log = p.generate_from(&graph, Arc::new(casd)).await;
    let from_list = p.generate(overlay::Mode::Full, &["lib.bst", "app.bst"]).await;
    for name in ["lib.bst", "app.bst"] {
        let (found, expected) = (report(&from_log, name), report(&from_list, name));
        assert_eq!(found.speculative_actions, expected.speculative_actions, "{name}");
        assert!(found.speculative_actions.is_some() && found.skipped.is_empty(), "{name}");
    }
}

/// recc's log of `app_util` was deleted, casd's log of `lib.bst` is gone, and
/// an older build compiled another state of `main.c`.
#[tokio::test]
async fn sources_complete_each_other_and_older_builds_are_left_out() {
    let p = Project::new().await;
    let graph = p.graph_without_lists();
    let placed = |files: Files<'_>| -> Vec<_> {
        files.iter().map(|(path, content)| (format!("{APP}/{path}"), p.toys.file(content))).collect()
    };
    let older = p
        .toys
        .run(&Run {
            working_directory: APP,
            inputs: placed(&[("main.c", "older main")]),
            outputs: Some(&[("main.o", "older object")]),
            ..Run::default()
        })
        .await;
    let older_link = p
        .toys
        .run(&Run {
            working_directory: APP,
            inputs: placed(&[("main.o", "older object")]),
            outputs: Some(&[("app", "older program")]),
            ..Run::default()
        })
        .await;

    let casd = p
        .casd_log(
            &graph,
            &[
                session(&[miss(older), miss(older_link)].concat()),
                session(&[miss(p.app_main), miss(p.app_util), miss(p.app_link)].concat()),
                session("2026-11-22T11:00:00.000+0000 [1:2] [a.cpp:1] [INFO] a session that built nothing\n"),
            ],
        )
        .await;
    let logs = |logs: &[Digest]| -> Digest {
        let logs: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(i, action)| (format!(".recc-log/{i}"), recc_log(&format!("{i:03}"), *action)))
            .collect();
        let files: Vec<(&str, &str)> = logs.iter().map(|(path, log)| (path.as_str(), log.as_str())).collect();
        p.toys.tree(&files)
    };
    let store: Arc<dyn BlobStore> = Arc::new(p.toys.store.clone());
    let buildtrees = [("app.bst", logs(&[p.app_main, p.app_link])), ("lib.bst", logs(&[p.lib_compile, p.lib_link]))];
    let recc = ReccLogs::new(store, buildtrees.map(|(name, tree)| (name.to_owned(), tree)));

    let combined = Combined::merge(&graph, &[Arc::new(recc), Arc::new(casd)]).await;
    let [recc, casd] = combined.counts() else { panic!("two sources") };
    assert_eq!((recc.elements, recc.listed), (2, 4));
    assert_eq!((casd.elements, casd.listed, casd.confirmed, casd.added, casd.contradicted), (1, 5, 2, 3, 0));

    let all = p.generate_from(&graph, Arc::new(combined)).await;
    let app = report(&all, "app.bst");
    let left_out: Vec<_> = app.skipped.iter().map(|s| (s.action, &s.reason)).collect();
    let stale = |path: &str| SkipReason::Stale {
        path: format!("{APP}/{path}"),
        superseded_by: [("app", p.app_link), ("main.o", p.app_main)].iter().find(|(at, _)| *at == path).map(|s| s.1),
    };
    assert_eq!(left_out, [(older, &stale("main.o")), (older_link, &stale("app"))]);
    let record = p.toys.record(app);
    let recorded: Vec<Digest> = record.actions.iter().map(|a| a.base).collect();
    assert_eq!(recorded, [p.app_main, p.app_util, p.app_link]);
    assert_eq!(origins(&record, &p.app_link, &format!("{APP}/main.o")), [output("main.o", &p.app_main, "app.bst")]);
    assert_eq!(report(&all, "lib.bst").actions, 2);
}

#[tokio::test]
async fn nested_results_of_a_patched_server() {
    let p = Project::new().await;
    let graph = p.graph_without_lists();
    let build = p.toys.run(&Run::default()).await;
    let subactions: Vec<v2::Digest> = [p.app_main, p.app_util, p.app_link].map(Into::into).to_vec();
    let result = ActionResult { subactions, ..ActionResult::default() };
    p.toys.store.store_action_result(&build, &result).await.unwrap();
    let source = NestedResults::new(Arc::new(p.toys.store.clone()), [("app.bst".to_owned(), build)]);
    let all = p.generate_from(&graph, Arc::new(source)).await;
    assert_eq!((report(&all, "app.bst").actions, report(&all, "lib.bst").listed), (3, None));
}
