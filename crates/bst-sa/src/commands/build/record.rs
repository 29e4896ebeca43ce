//! Recording elements as they are built.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use buildstream::daemon;
use buildstream::live::{Asked, Built};
use buildstream::refs::{ArtifactRefs, Attached};
use cas_client::{ActionCache, BlobStore};
use overlay::Mode;
use overlay::graph::Graph;
use reapi_proto::Digest;
use record::{
    Attributor, CasdLog, CasdLogScanner, Combined, Follower, Generator, LoggedAction, Placement, ReccLogs, Sessions,
    SubactionSource,
};

use crate::failure::Failure;
use crate::project::scan;

/// Follows casd's logs of the build, and records elements from them.
pub(super) struct Recorder {
    pub(super) blobs: Arc<dyn BlobStore>,
    cache: Arc<dyn ActionCache>,
    attributor: Attributor,
    refs: ArtifactRefs,
    logdir: PathBuf,
    logs: Vec<Log>,
    /// Logs of earlier builds, read when the first incremental build asks for them.
    earlier: Option<Vec<Vec<LoggedAction>>>,
    /// What recc has logged in elements that are built elsewhere.
    elsewhere: Option<Vec<(String, LoggedAction)>>,
    mode: Mode,
}

/// Where elements are built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// By BuildStream's casd, whose log tells what they ask for.
    Here,
    /// By remote execution: the log of the casd there is out of sight, and only recc's own logs tell.
    Elsewhere,
}

struct Log {
    path: PathBuf,
    follower: Follower<File>,
}

/// What became of an element's record.
pub(super) struct Recorded {
    pub(super) built: Built,
    /// The record that its artifact names now, or why it names none. Nothing to record is no failure.
    pub(super) record: Result<Option<Digest>, Failure>,
}

impl Recorder {
    pub(super) fn new(
        graph: Arc<Graph>,
        blobs: Arc<dyn BlobStore>,
        cache: Arc<dyn ActionCache>,
        refs: ArtifactRefs,
        logdir: PathBuf,
        mode: Mode,
    ) -> Self {
        let attributor = Attributor::new(graph, Arc::clone(&blobs)).with_action_cache(Arc::clone(&cache));
        Self { blobs, cache, attributor, refs, logdir, logs: Vec::new(), earlier: None, elsewhere: None, mode }
    }

    /// Whose logs count.
    pub(super) fn for_builds(mut self, place: Place) -> Self {
        self.elsewhere = (place == Place::Elsewhere).then(Vec::new);
        self
    }

    /// Follows another log.
    pub(super) fn follow(&mut self, path: PathBuf) {
        if self.logs.iter().any(|log| log.path == path) {
            return;
        }
        match File::open(&path) {
            Ok(file) => self.logs.push(Log { path, follower: Follower::new(file, CasdLogScanner::new()) }),
            Err(error) => tracing::warn!(log = %path.display(), %error, "cannot be read"),
        }
    }

    /// Records elements, whose artifacts `graph` has.
    pub(super) async fn record(&mut self, graph: Graph, built: Vec<Built>) -> Vec<Recorded> {
        if self.mode < Mode::SourceArtifact {
            return Vec::new();
        }
        let graph = Arc::new(graph);
        self.attributor.set_graph(Arc::clone(&graph));
        let names: Vec<&str> = built.iter().map(|built| built.element.as_str()).collect();
        let report = match self.sources(&graph, &built).await {
            Ok(source) => {
                let generator = Generator::new(Arc::clone(&self.blobs), Arc::clone(&self.cache), source);
                let report = generator.with_mode(self.mode).generate(&graph, &names).await;
                report.map_err(|e| Failure::new("nothing was recorded").because(&e))
            }
            Err(failure) => Err(failure),
        };
        let mut report = match report {
            Ok(report) => report,
            Err(failure) => {
                let reason = failure.summary();
                let failed = |built| Recorded { built, record: Err(Failure::new(reason.clone())) };
                return built.into_iter().map(failed).collect();
            }
        };
        let stopped = report.stopped.take().map(|error| Failure::from(error).summary());
        let recorded = built.into_iter().map(|built| {
            let element = report.elements.iter().find(|element| element.name == built.element);
            let record = match (element.and_then(|element| element.speculative_actions), &stopped) {
                (Some(record), _) => self.attach(&built, &record).map(|()| Some(record)),
                (None, Some(reason)) => Err(Failure::new(reason.clone())),
                (None, None) => Ok(None),
            };
            Recorded { built, record }
        });
        recorded.collect()
    }

    async fn sources(&mut self, graph: &Graph, built: &[Built]) -> Result<Arc<dyn SubactionSource>, Failure> {
        let buildtrees = built.iter().filter_map(|built| Some((built.element.clone(), built.buildtree?)));
        let recc = Arc::new(ReccLogs::new(Arc::clone(&self.blobs), buildtrees));
        if let Some(elsewhere) = &mut self.elsewhere {
            // The logs of an incremental build are those of older ones as well.
            for built in built.iter().filter(|built| !built.incremental) {
                let Some(buildtree) = &built.buildtree else { continue };
                let logged = recc.read(buildtree).await?.unwrap_or_default();
                elsewhere.extend(logged.into_iter().map(|logged| (built.element.clone(), logged)));
            }
        }
        for (element, error) in self.attributor.learn(&*recc).await {
            tracing::warn!("{element}: the logs in its buildtree cannot be read: {error}");
        }
        let mut sessions = self.current();
        let mut earlier = 0;
        if built.iter().any(|built| built.incremental) {
            // What an incremental build did not run again is in the logs of those before.
            let logged = self.earlier().to_vec();
            earlier = logged.len();
            sessions.splice(0..0, logged);
        }
        let current = Sessions::NewestOf((earlier..sessions.len()).collect());
        let counted = |built: &Built| if built.incremental { Sessions::All } else { current.clone() };
        let counted = built.iter().map(|built| (built.element.clone(), counted(built))).collect();
        let casd = Arc::new(CasdLog::attribute(&mut self.attributor, &sessions, &counted).await?);
        Ok(Arc::new(Combined::merge(graph, &[recc, casd]).await))
    }

    /// The actions of this build so far, by log.
    fn current(&mut self) -> Vec<Vec<LoggedAction>> {
        for Log { path, follower } in &mut self.logs {
            if let Err(error) = follower.poll() {
                tracing::warn!(log = %path.display(), %error, "cannot be read on");
            }
        }
        self.logs.iter().map(|log| log.follower.scanner().actions().to_vec()).collect()
    }

    fn earlier(&mut self) -> &[Vec<LoggedAction>] {
        let (logdir, logs) = (&self.logdir, &self.logs);
        self.earlier.get_or_insert_with(|| {
            let found = daemon::logs(logdir).unwrap_or_else(|error| {
                tracing::warn!(logdir = %logdir.display(), %error, "the logs of earlier builds cannot be listed");
                Vec::new()
            });
            let paths = found.into_iter().map(|log| log.path);
            let earlier = paths.filter(|path| !logs.iter().any(|log| log.path == *path));
            let scanned = earlier.filter_map(|path| match scan(&path) {
                Ok(scanner) => Some(scanner.into_actions()),
                Err(failure) => {
                    tracing::warn!("{}", failure.summary());
                    None
                }
            });
            scanned.collect()
        })
    }

    fn attach(&self, built: &Built, record: &Digest) -> Result<(), Failure> {
        let attached = self.refs.attach(&built.artifact, record);
        let attached =
            attached.map_err(|e| Failure::new(format!("{}: the record is not attached", built.element)).because(&e))?;
        if !matches!(attached.weak, Attached::Written | Attached::Unchanged) {
            tracing::info!(element = built.element, weak = ?attached.weak, "the weak key's ref does not name the record");
        }
        Ok(())
    }

    /// Everything that this build asked for.
    pub(super) async fn asked(&mut self) -> Result<Vec<Asked>, Failure> {
        let actions: Vec<LoggedAction> = self.current().into_iter().flatten().collect();
        let digests: Vec<Digest> = actions.iter().map(|logged| logged.action).collect();
        let placed = self.attributor.place(&digests).await?;
        let mut asked: Vec<Asked> = Vec::with_capacity(placed.len());
        let mut outcomes = std::collections::HashMap::new();
        for LoggedAction { action, outcome } in actions {
            let known = outcomes.entry(action).or_insert(outcome);
            *known = outcome.max(*known);
        }
        for (action, placement) in placed {
            let elements = match placement {
                Placement::Elements(names, _) => names,
                // Another build on the same cache directory.
                Placement::Elsewhere => continue,
                Placement::Ambiguous | Placement::Unexplained | Placement::Unusable(_) => Vec::new(),
            };
            if let Some(outcome) = outcomes.remove(&action) {
                asked.push(Asked { action, outcome, elements });
            }
        }
        asked.extend(self.asked_elsewhere());
        Ok(asked)
    }

    /// What was asked for in elements that were built elsewhere. Of several elements, the first one may have had it executed.
    fn asked_elsewhere(&self) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        let mut rows = std::collections::HashMap::new();
        for (element, LoggedAction { action, outcome }) in self.elsewhere.iter().flatten() {
            let row = *rows.entry(*action).or_insert_with(|| {
                asked.push(Asked { action: *action, outcome: *outcome, elements: Vec::new() });
                asked.len() - 1
            });
            let known: &mut Asked = &mut asked[row];
            known.outcome = known.outcome.max(*outcome);
            if !known.elements.contains(element) {
                known.elements.push(element.clone());
            }
        }
        asked
    }
}
