//! The sources of subactions over what a real BuildStream left behind.
//!
//! Reads the casd logs below `BST_SA_TEST_LOGDIR`, BuildStream's `logdir`. With
//! `BST_SA_TEST_CACHEDIR`, its `cachedir`, the actions are attributed to the
//! elements whose artifacts are there, compared with the recc logs in their
//! buildtrees, and recorded; records are kept in memory. Neither directory is
//! written to, except that reading renews times as casd does. No `bst` should run meanwhile.
//! Without the variables, says so and checks nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests may fail, and print, like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cas_client::{BlobStore, Chunks, FileStore, InMemory, PerBlob};
use overlay::graph::{Element, Graph};
use prost::Message as _;
use reapi_proto::buildstream::Artifact;
use reapi_proto::{Digest, DigestFunction};
use record::{
    Attributor, CasdLog, CasdLogScanner, Combined, Follower, Generator, LoggedAction, ReccLogs, Sessions, SkipReason,
    SubactionSource,
};

/// The variable's directory; without it a notice that bypasses the harness's capture of output.
fn directory(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name);
    if value.is_none() {
        let notice = format!("SKIPPED real_logs: {name} is not set, so there are no real logs to read\n");
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    value.map(PathBuf::from)
}

/// The casd logs, oldest first.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("_casd")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    assert!(!logs.is_empty(), "no logs in {}", directory.display());
    logs
}

fn scan(log: &Path) -> CasdLogScanner {
    let mut follower = Follower::new(File::open(log).unwrap(), CasdLogScanner::new());
    follower.poll().unwrap();
    follower.finish()
}

fn sessions(directory: &Path) -> Vec<Vec<LoggedAction>> {
    logs(directory).iter().map(|log| scan(log).into_actions()).collect()
}

#[test]
fn every_request_in_the_logs_is_found() {
    let Some(directory) = directory("BST_SA_TEST_LOGDIR") else { return };
    let mut total = 0;
    for log in logs(&directory) {
        let scanner = scan(&log);
        let stats = scanner.stats();
        assert_eq!((stats.malformed, stats.forgotten, stats.overlong), (0, 0, 0), "{}", log.display());
        assert_eq!(scanner.resume_at(), fs::metadata(&log).unwrap().len());
        // The same, found in another way.
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        let requests = text.lines().filter(|line| {
            (line.contains("] GetActionResult request from [") || line.contains("] Execute request from ["))
                && (line.contains("tool_name=\"recc\"") || line.contains("tool_name=\"recc (via "))
        });
        let expected: BTreeSet<Digest> =
            requests.map(|line| line.split('"').find_map(|part| part.parse().ok()).unwrap()).collect();
        let found: BTreeSet<Digest> = scanner.actions().iter().map(|a| a.action).collect();
        assert_eq!(found, expected, "{}", log.display());
        let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
        for action in scanner.actions() {
            *outcomes.entry(format!("{:?}", action.outcome)).or_default() += 1;
        }
        println!("{}: {} lines, actions: {outcomes:?}", log.display(), stats.lines);
        total += found.len();
    }
    assert!(total > 0, "a build through recc should have left requests");
}

/// Whatever the logs have, as after incremental builds: more is attributed than in any other way.
fn every_session(graph: &Graph) -> BTreeMap<String, Sessions> {
    graph.elements().map(|element| (element.name.clone(), Sessions::All)).collect()
}

/// What artifacts in a cache say of the elements: the newest artifact of each.
struct Project {
    graph: Graph,
    buildtrees: BTreeMap<String, Digest>,
}

impl Project {
    fn read(cache: &Path) -> Self {
        let mut newest: BTreeMap<(String, String), (SystemTime, Artifact)> = BTreeMap::new();
        let mut names: BTreeMap<(String, String), String> = BTreeMap::new();
        let files = |directory: &Path| -> Vec<PathBuf> {
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let last = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        for project in files(&cache.join("artifacts/refs")) {
            for element in files(&project) {
                for key in files(&element) {
                    let artifact = Artifact::decode(&*fs::read(&key).unwrap()).unwrap();
                    for dep in &artifact.build_deps {
                        // `sub/a.bst` has its artifacts in `sub-a`.
                        let stem = dep.element_name.trim_end_matches(".bst").replace('/', "-");
                        names.insert((dep.project_name.clone(), stem), dep.element_name.clone());
                    }
                    let id = (last(&project), last(&element));
                    if let Some(sandbox) = &artifact.buildsandbox
                        && let Some(below) = sandbox.working_directory.strip_prefix("/buildstream/")
                        && let Some((project, name)) = below.split_once('/')
                        && project == id.0
                    {
                        names.insert(id.clone(), name.to_owned());
                    }
                    let modified = fs::metadata(&key).unwrap().modified().unwrap();
                    if newest.get(&id).is_none_or(|(time, _)| *time < modified) {
                        newest.insert(id, (modified, artifact));
                    }
                }
            }
        }
        let digest = |digest: &Option<reapi_proto::v2::Digest>| digest.as_ref().map(|d| Digest::try_from(d).unwrap());
        let known: BTreeSet<String> = newest.keys().filter_map(|id| names.get(id)).cloned().collect();
        let (mut elements, mut buildtrees) = (Vec::new(), BTreeMap::new());
        for (id, (_, artifact)) in &newest {
            let Some(name) = names.get(id) else { continue };
            let deps = artifact.build_deps.iter().map(|dep| dep.element_name.clone()).filter(|dep| known.contains(dep));
            elements.push(Element {
                project: Some(id.0.clone()),
                weak_key: Some(artifact.weak_key.clone()),
                sources: digest(&artifact.sources),
                artifact: digest(&artifact.files),
                build_deps: Some(deps.collect()),
                ..Element::new(name)
            });
            buildtrees.extend(digest(&artifact.buildtree).map(|tree| (name.clone(), tree)));
        }
        Self { graph: Graph::new(DigestFunction::Sha256, elements).unwrap(), buildtrees }
    }
}

/// Reads from a cache, and writes to memory.
#[derive(Debug)]
struct Overlaid(FileStore, InMemory);

impl std::fmt::Display for Overlaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Overlaid({}, {})", self.0, self.1)
    }
}

#[async_trait::async_trait]
impl BlobStore for Overlaid {
    fn digest_function(&self) -> DigestFunction {
        self.0.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> cas_client::Result<Vec<Digest>> {
        self.0.find_missing(digests).await
    }

    async fn read_blobs(&self, digests: &[Digest]) -> cas_client::Result<PerBlob<bytes::Bytes>> {
        self.0.read_blobs(digests).await
    }

    async fn write_blobs(&self, blobs: &[cas_client::Blob]) -> cas_client::Result<PerBlob<()>> {
        self.1.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> cas_client::Result<Chunks> {
        self.0.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> cas_client::Result<()> {
        self.1.write_chunks(digest, chunks).await
    }
}

#[tokio::test]
async fn what_the_logs_say_is_recorded() {
    let (Some(logdir), Some(cachedir)) = (directory("BST_SA_TEST_LOGDIR"), directory("BST_SA_TEST_CACHEDIR")) else {
        return;
    };
    let project = Project::read(&cachedir);
    let files = FileStore::open(&cachedir).unwrap();
    let store = Arc::new(Overlaid(files.clone(), InMemory::new()));
    let graph = Arc::new(project.graph);

    let recc: Arc<dyn SubactionSource> = Arc::new(ReccLogs::new(store.clone(), project.buildtrees.clone()));
    let mut attributor = Attributor::new(graph.clone(), store.clone()).with_action_cache(Arc::new(files.clone()));
    let unlisted = CasdLog::attribute(&mut attributor, &sessions(&logdir), &every_session(&graph)).await.unwrap();
    println!("by directory and content: {:?}", unlisted.report());
    let mut attributor = Attributor::new(graph.clone(), store.clone()).with_action_cache(Arc::new(files.clone()));
    assert_eq!(attributor.learn(&*recc).await.len(), 0);
    let casd = CasdLog::attribute(&mut attributor, &sessions(&logdir), &every_session(&graph)).await.unwrap();
    println!("with listings: {:?}", casd.report());
    assert_eq!((casd.report().ambiguous, casd.report().unexplained), (0, 0));

    // Each log of recc against the logs of casd that are still there.
    let logged: BTreeSet<Digest> = sessions(&logdir).iter().flatten().map(|a| a.action).collect();
    for element in graph.elements() {
        let Some(listed) = recc.subactions(element).await.unwrap() else { continue };
        let [by_casd, unlisted] = [&casd, &unlisted].map(|log| log.subactions(element));
        let set = |list: Option<Vec<record::Subaction>>| -> BTreeSet<Digest> {
            list.into_iter().flatten().map(|s| s.action).collect()
        };
        let (by_casd, unlisted) = (set(by_casd.await.unwrap()), set(unlisted.await.unwrap()));
        for subaction in listed.iter().filter(|s| logged.contains(&s.action)) {
            assert!(by_casd.contains(&subaction.action), "{}: {}", element.name, subaction.action);
            assert!(unlisted.contains(&subaction.action), "{}: {}", element.name, subaction.action);
        }
    }

    let casd: Arc<dyn SubactionSource> = Arc::new(casd);
    let combined = Combined::merge(&graph, &[recc.clone(), casd.clone()]).await;
    for counts in combined.counts() {
        println!("{counts:?}");
        assert_eq!(counts.contradicted, 0);
    }
    assert!(combined.failures().is_empty(), "{:?}", combined.failures());
    let mut recorded = BTreeMap::new();
    let all: [(&str, Arc<dyn SubactionSource>); 3] = [("recc", recc), ("casd", casd), ("combined", Arc::new(combined))];
    for (name, source) in all {
        println!("recorded from {source}:");
        recorded.insert(name, record_from(source, &graph, store.clone(), Arc::new(files.clone())).await);
    }
    assert!(recorded["combined"] > 0, "a build through recc should have left actions to record");
    assert!(recorded["combined"] >= recorded["recc"].max(recorded["casd"]), "{recorded:?}");
}

/// Records all elements from one source; returns the number of recorded actions.
async fn record_from(
    source: Arc<dyn SubactionSource>,
    graph: &Graph,
    store: Arc<Overlaid>,
    cache: Arc<FileStore>,
) -> usize {
    let names: Vec<&str> = graph.elements().map(|e| e.name.as_str()).collect();
    let report = Generator::new(store, cache, source).generate(graph, &names).await.unwrap();
    assert!(report.stopped.is_none(), "{:?}", report.stopped);
    for element in report.elements.iter().filter(|element| element.listed.is_some()) {
        let (listed, actions) = (element.listed.unwrap_or_default(), element.actions);
        println!("  {}: {listed} listed, {actions} recorded, {} overlays", element.name, element.overlays);
        for skipped in &element.skipped {
            println!("    without {}: {}", skipped.action, skipped.reason);
            assert!(matches!(skipped.reason, SkipReason::Stale { .. } | SkipReason::NoResult), "{}", skipped.reason);
        }
    }
    report.elements.iter().map(|element| element.actions).sum()
}
