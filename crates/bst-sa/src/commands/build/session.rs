//! What goes on beside the build: watching, priming, recording.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use buildstream::daemon::Socket;
use buildstream::live::{Built, LiveBuild, News, Sighting, Summary, Watcher};
use buildstream::names::ArtifactName;
use buildstream::{Configuration, Introspection};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use instantiate::{Engine, Event, Lookup, Options, Report, Services};
use overlay::Mode;
use reapi_proto::Digest;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::record::{Place, Recorded, Recorder};
use crate::commands::prime::json_of_priming;
use crate::connect::ConnectOptions;
use crate::failure::Failure;
use crate::journal;
use crate::observe::{Observation, ObserveOptions};
use crate::progress::{Lines, line};
use crate::services::{self, Record};

/// After the build priming has nobody to work for; this is what its last words may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the user wants.
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) lookup: Lookup,
    pub(super) jobs: Option<usize>,
    pub(super) connect: ConnectOptions,
    pub(super) observe: ObserveOptions,
    /// Where to say how priming goes, if anywhere.
    pub(super) progress: Option<Lines>,
}

/// Everything beside the build. Dropping it stops it all.
pub(super) struct Session {
    project: Introspection,
    plan: Plan,
    live: LiveBuild,
    watcher: Option<Watcher>,
    priming: Priming,
    events: UnboundedSender<Event>,
    recorder: Recording,
    /// Logs of casd that the recorder does not follow yet.
    logs: Vec<PathBuf>,
    built: Vec<Built>,
    records: BTreeMap<String, Result<Option<Digest>, Failure>>,
    to_push: Vec<Record>,
    observation: Observation,
}

enum Priming {
    /// Nobody executes actions yet.
    Waiting(UnboundedReceiver<Event>),
    /// Holds what the way to the service takes.
    Running(JoinHandle<Option<Report>>, Option<Socket>),
    /// Not wanted, or not possible, for this reason.
    Off(String),
}

enum Recording {
    Idle(Box<Recorder>),
    Busy(LocalBoxFuture<'static, (Box<Recorder>, Vec<Recorded>)>),
    /// Between the two.
    Passing,
}

/// What the session came to.
pub(super) struct Ended {
    pub(super) summary: Summary,
    /// Why nothing was primed.
    pub(super) unprimed: Option<String>,
    /// Per element that was built: its record, or why there is none.
    pub(super) records: BTreeMap<String, Result<Option<Digest>, Failure>>,
    pub(super) pushed: usize,
    pub(super) configuration: Configuration,
    /// The artifacts that elements have, by their strong keys.
    pub(super) artifacts: Vec<ArtifactName>,
}

impl Session {
    /// Watches the project, and primes as soon as there is somebody to execute
    /// actions: the services that are named, or the casd of the `bst` that is about to be run.
    pub(super) fn start(project: Introspection, mut plan: Plan, since: SystemTime) -> Result<Self, Failure> {
        let observation = observe(&mut plan)?;
        let live = LiveBuild::new(&project);
        let configuration = &project.configuration;
        let watcher = match Watcher::start(configuration, live.element_refs(), since) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let failure = Failure::new("priming goes by what is known before the build").because(&error);
                tracing::warn!("{}", failure.summary());
                None
            }
        };
        let (blobs, cache) = services::left_behind(configuration)?;
        let graph = Arc::new(live.graph().map_err(|e| Failure::new("the elements are no usable graph").because(&e))?);
        let (refs, logdir) = (configuration.artifact_refs(), configuration.logdir.clone());
        let place = if configuration.execution.is_some() { Place::Elsewhere } else { Place::Here };
        let recorder = Recorder::new(graph, blobs, cache, refs, logdir, plan.mode).for_builds(place);
        let (events, receiver) = unbounded_channel();
        let priming = match plan.mode {
            Mode::None => Priming::Off("the mode is none".to_owned()),
            _ => Priming::Waiting(receiver),
        };
        let remote = match &plan.connect {
            connect if connect.is_empty() => services::remote(configuration),
            connect => services::named(configuration, connect).map(Some),
        };
        let mut session = Self {
            project,
            plan,
            live,
            watcher,
            priming,
            events,
            recorder: Recording::Idle(Box::new(recorder)),
            logs: Vec::new(),
            built: Vec::new(),
            records: BTreeMap::new(),
            to_push: Vec::new(),
            observation,
        };
        match remote {
            Ok(Some(services)) => session.prime(services, None),
            Ok(None) if session.watcher.is_none() => session.priming = Priming::Off("files are not watched".to_owned()),
            Ok(None) => {}
            Err(failure) => session.priming = Priming::Off(failure.summary()),
        }
        Ok(session)
    }

    /// Does the next thing that is due. Dropping the future loses nothing.
    pub(super) async fn step(&mut self) {
        let Self { watcher, recorder, .. } = self;
        tokio::select! {
            sighting = next_sighting(watcher) => match sighting {
                Some(sighting) => self.take(&sighting),
                None => self.watcher = None,
            },
            recorded = end_of(recorder) => self.take_records(recorded),
        }
        self.record();
    }

    fn take(&mut self, sighting: &Sighting) {
        match sighting {
            Sighting::Daemon(path) => self.prime_through(path),
            Sighting::DaemonLog(path) => self.logs.push(path.clone()),
            Sighting::Started(element) => {
                self.live.names(element).for_each(|name| self.observation.element_started(name));
            }
            Sighting::Sources(_) | Sighting::Running(_) | Sighting::Artifact(_) | Sighting::Requested(_) => {}
        }
        for news in self.live.take(sighting) {
            match &news {
                News::Event(Event::BuildReached { element }) => self.observation.element_running(element),
                News::Built(built) => self.observation.element_built(&built.element),
                News::Event(_) => {}
            }
            match news {
                // Nobody listens where nothing is primed.
                News::Event(event) => drop(self.events.send(event)),
                News::Built(built) => self.built.push(built),
            }
        }
    }

    fn prime_through(&mut self, socket: &std::path::Path) {
        if !matches!(self.priming, Priming::Waiting(_)) {
            return;
        }
        let services = Socket::reach(socket)
            .map_err(|e| Failure::new(format!("{} cannot be reached", socket.display())).because(&e))
            .and_then(|socket| Ok((services::casd(&socket)?, socket)));
        match services {
            Ok((services, socket)) => self.prime(services, Some(socket)),
            Err(failure) => {
                tracing::warn!("{}", failure.summary());
                self.priming = Priming::Off(failure.summary());
            }
        }
    }

    fn prime(&mut self, services: Services, socket: Option<Socket>) {
        let graph = match self.live.graph() {
            Ok(graph) => Arc::new(graph),
            Err(error) => {
                self.priming = Priming::Off(error.to_string());
                return;
            }
        };
        match std::mem::replace(&mut self.priming, Priming::Off(String::new())) {
            Priming::Waiting(receiver) => {
                for element in self.live.first() {
                    // The engine that listens is about to be started.
                    let _ = self.events.send(Event::BuildStarted { element });
                }
                let usual = services::options(Some(&self.project), &self.plan.connect);
                let jobs = self.plan.jobs.unwrap_or(usual.jobs);
                let options = Options { lookup: self.plan.lookup, jobs, ..usual };
                let (services, records) = services::priming(&self.project, services, &self.plan.connect);
                let engine = Engine::new(services, graph).with_options(options).with_records(records);
                let engine = engine.with_observer(self.observation.observer());
                let run = async move {
                    match engine.run(receiver).await {
                        Ok(report) => Some(report),
                        Err(error) => {
                            tracing::warn!(%error, "nothing is primed");
                            None
                        }
                    }
                };
                self.priming = Priming::Running(tokio::spawn(run), socket);
            }
            other => self.priming = other,
        }
    }

    /// Follows the logs that were seen and records what was built, unless a recording is under way.
    fn record(&mut self) {
        let Recording::Idle(recorder) = &mut self.recorder else { return };
        for log in self.logs.drain(..) {
            recorder.follow(log);
        }
        if self.built.is_empty() {
            return;
        }
        let Recording::Idle(mut recorder) = std::mem::replace(&mut self.recorder, Recording::Passing) else { return };
        let built = std::mem::take(&mut self.built);
        match self.live.graph() {
            Ok(graph) => {
                let work = async move {
                    let recorded = recorder.record(graph, built).await;
                    (recorder, recorded)
                };
                self.recorder = Recording::Busy(work.boxed_local());
            }
            Err(error) => {
                self.recorder = Recording::Idle(recorder);
                let failed = || Failure::new("the elements are no usable graph any more").because(&error);
                self.records.extend(built.into_iter().map(|built| (built.element, Err(failed()))));
            }
        }
    }

    fn take_records(&mut self, (recorder, recorded): (Box<Recorder>, Vec<Recorded>)) {
        self.recorder = Recording::Idle(recorder);
        for Recorded { built, record } in recorded {
            if let Ok(Some(message)) = &record {
                self.live.recorded(&built.element, *message);
                if let Some(state) = self.project.element(&built.element) {
                    let project = state.project.clone();
                    self.to_push.push(Record { project, artifact: built.artifact, message: *message });
                }
            }
            self.records.insert(built.element, record);
        }
    }

    /// The build is over: ends priming, records what is left, and pushes records.
    pub(super) async fn finish(mut self) -> Ended {
        // An engine that has come to its end listens no more.
        drop(self.events.send(Event::Cancel));
        let (report, unprimed) = match std::mem::replace(&mut self.priming, Priming::Off(String::new())) {
            Priming::Running(mut task, _socket) => match tokio::time::timeout(LAST_WORDS, &mut task).await {
                Ok(Ok(Some(report))) => (Some(report), None),
                Ok(Ok(None)) => (None, Some("priming could not be set up".to_owned())),
                Ok(Err(error)) => (None, Some(format!("priming was lost: {error}"))),
                Err(_) => {
                    task.abort();
                    (None, Some("priming did not end in time".to_owned()))
                }
            },
            Priming::Waiting(_) => (None, Some("no casd of BuildStream was seen".to_owned())),
            Priming::Off(reason) => (None, Some(reason)),
        };
        if let Some(report) = &report {
            journal::keep(&self.project.configuration.cachedir, json_of_priming(report));
        }
        if let Recording::Busy(_) = &self.recorder {
            let recorded = end_of(&mut self.recorder).await;
            self.take_records(recorded);
        }
        let rest = self.watcher.as_mut().map(Watcher::rest).unwrap_or_default();
        for sighting in rest {
            self.take(&sighting);
        }
        self.record();
        if let Recording::Busy(_) = &self.recorder {
            let recorded = end_of(&mut self.recorder).await;
            self.take_records(recorded);
        }
        let mut asked = Vec::new();
        let mut pushed = 0;
        if let Recording::Idle(recorder) = &mut self.recorder {
            match recorder.asked().await {
                Ok(found) => asked = found,
                Err(failure) => tracing::warn!("what the build asked for is not known: {}", failure.summary()),
            }
            pushed = services::push(&self.project, &recorder.blobs, &self.to_push).await;
        }
        let summary = Summary::new(&asked, report.as_ref());
        Ended {
            summary,
            unprimed,
            records: std::mem::take(&mut self.records),
            pushed,
            configuration: self.project.configuration.clone(),
            artifacts: self.live.artifacts().collect(),
        }
    }
}

/// What is written beside the build. A place that cannot be written is no reason not to build, or not to prime.
fn observe(plan: &mut Plan) -> Result<Observation, Failure> {
    let lines = plan.progress.take();
    let show = move |progress: &instantiate::Progress| {
        if let Some(lines) = &lines {
            lines.say(&line(progress));
        }
    };
    let show = Arc::new(show);
    let shown = Arc::clone(&show);
    match Observation::start(&plan.observe, move |progress| shown(progress)) {
        Ok(observation) => Ok(observation),
        Err(failure) => {
            tracing::warn!("{}", failure.summary());
            Observation::start(&ObserveOptions::default(), move |progress| show(progress))
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Priming::Running(task, _) = &self.priming {
            task.abort();
        }
    }
}

async fn next_sighting(watcher: &mut Option<Watcher>) -> Option<Sighting> {
    match watcher {
        Some(watcher) => watcher.next().await,
        None => std::future::pending().await,
    }
}

/// The end of a recording that is under way; never, if there is none.
async fn end_of(recording: &mut Recording) -> (Box<Recorder>, Vec<Recorded>) {
    match recording {
        Recording::Busy(work) => work.await,
        Recording::Idle(_) | Recording::Passing => std::future::pending().await,
    }
}
