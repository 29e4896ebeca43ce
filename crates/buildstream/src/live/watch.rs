//! Files that appear while BuildStream builds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::event::{ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use reapi_proto::Digest;
use record::{CasdLogScanner, Follower, LoggedOutcome};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Configuration;
use crate::daemon::is_socket_name;
use crate::names::{ArtifactName, CacheKey, ElementRef};

/// The folder of casd's logs, below the folder of logs.
const DAEMON_LOGS: &str = "_casd";

/// Something that BuildStream has just written. The same may be reported again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sighting {
    /// A casd listens here, or is about to.
    Daemon(PathBuf),
    /// A casd writes its log here.
    DaemonLog(PathBuf),
    /// The sources of this key were staged.
    Sources(CacheKey),
    /// The build of an element has started: its log is there, and its sandbox is being set up.
    Started(ElementRef),
    /// The commands of an element are being run.
    Running(ElementRef),
    /// An artifact was stored under this name.
    Artifact(ArtifactName),
    /// The result of this action was asked for, by a client inside of a build;
    /// and once more when the client has the action executed, having stored it by then.
    Requested(Digest),
}

/// What BuildStream 2.8 writes to the log of a build once the sandbox is staged.
const RUNNING: &[u8] = b": Running commands\n";

/// What it writes once everything is where remote execution needs it.
const RUNNING_ELSEWHERE: &[u8] = b": Waiting for the remote build to complete\n";

/// What is read of such a log in search of that: staging takes a line per
/// dependency. A longer one is taken to be that far.
const MAX_LOG_BYTES: u64 = 1 << 20;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[error("changes of files are not reported on this machine")]
pub struct WatchError(#[source] notify::Error);

/// Reports what BuildStream writes for some elements, by file notification.
///
/// Only the directories that matter are watched: the cache directory itself,
/// the refs and logs of these elements, and the refs of sources. A directory
/// that is made later is watched from then on, and what it has by then is
/// reported; nothing is looked at over and over. One that cannot be watched
/// (the system allows only so many) is logged and goes unreported.
#[derive(Debug)]
pub struct Watcher {
    notifier: RecommendedWatcher,
    notes: UnboundedReceiver<notify::Result<notify::Event>>,
    elements: BTreeMap<String, BTreeSet<String>>,
    /// Files older than this are no news.
    since: SystemTime,
    places: BTreeMap<PathBuf, Place>,
    roots: Vec<(PathBuf, Place)>,
    /// Logs of elements whose commands do not run yet.
    staging: BTreeMap<PathBuf, ElementRef>,
    /// What such a log says when they do.
    running: &'static [u8],
    /// Logs of casd, read as they grow.
    daemons: BTreeMap<PathBuf, DaemonLog>,
    seen: VecDeque<Sighting>,
}

/// The log of a casd, as far as it was read.
#[derive(Debug)]
struct DaemonLog {
    follower: Follower<fs::File>,
    /// The actions that were asked for and not executed yet, by position in the scanner's list.
    open: Vec<usize>,
}

/// What is to be found in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// Sockets of daemons.
    Cache,
    /// Refs, by project.
    Refs,
    /// Refs of a project, by element.
    ProjectRefs(String),
    /// Refs of an element, by key.
    ElementRefs(ElementRef),
    /// Refs of sources, by key.
    Sources,
    /// Logs, by project.
    Logs,
    /// Logs of a project, by element.
    ProjectLogs(String),
    /// Logs of an element, by key and task.
    ElementLogs(ElementRef),
    /// Logs of casd.
    DaemonLogs,
}

impl Watcher {
    /// Watches what BuildStream writes for `elements`, from the moment
    /// `since` on. Directories that are not there yet are made, as
    /// BuildStream would. Blocks on the file system.
    ///
    /// # Errors
    /// Where the system has no file notification to offer.
    pub fn start(
        configuration: &Configuration,
        elements: impl IntoIterator<Item = ElementRef>,
        since: SystemTime,
    ) -> Result<Self, WatchError> {
        let (sender, notes) = unbounded_channel();
        // Nobody listens any more: the watcher is being dropped.
        let note = move |note| drop(sender.send(note));
        let notifier = notify::recommended_watcher(note).map_err(WatchError)?;
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for element in elements {
            names.entry(element.project().to_owned()).or_default().insert(element.name().to_owned());
        }
        let roots = vec![
            (configuration.cachedir.clone(), Place::Cache),
            (configuration.artifact_refs.clone(), Place::Refs),
            (configuration.element_sources.clone(), Place::Sources),
            (configuration.logdir.clone(), Place::Logs),
            (configuration.logdir.join(DAEMON_LOGS), Place::DaemonLogs),
        ];
        let (places, staging, daemons) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let seen = VecDeque::new();
        let running = if configuration.execution.is_some() { RUNNING_ELSEWHERE } else { RUNNING };
        let mut watcher =
            Self { notifier, notes, elements: names, since, places, roots, staging, running, daemons, seen };
        for (directory, place) in watcher.roots.clone() {
            if let Err(error) = fs::create_dir_all(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "not there, and cannot be made");
            }
            watcher.enter(&directory, &place);
        }
        Ok(watcher)
    }

    /// The next sighting. Dropping the future loses none.
    ///
    /// `None` when the system reports nothing any more.
    pub async fn next(&mut self) -> Option<Sighting> {
        loop {
            if let Some(sighting) = self.seen.pop_front() {
                return Some(sighting);
            }
            let note = self.notes.recv().await?;
            self.take(note);
        }
    }

    /// What is known by now: takes in all that was reported, and looks through
    /// all directories once more. For the end of a build, where an artifact is not to be missed. Blocks.
    pub fn rest(&mut self) -> Vec<Sighting> {
        while let Ok(note) = self.notes.try_recv() {
            self.take(note);
        }
        self.look_again();
        self.seen.drain(..).collect()
    }

    fn look_again(&mut self) {
        for (directory, place) in self.roots.clone() {
            self.list(&directory, &place);
        }
        for (directory, place) in self.places.clone() {
            self.list(&directory, &place);
        }
    }

    fn take(&mut self, note: notify::Result<notify::Event>) {
        let note = match note {
            Ok(note) => note,
            Err(error) => {
                tracing::warn!(%error, "changes of files may go unreported");
                return;
            }
        };
        if note.need_rescan() {
            tracing::info!("changes of files were lost; looking through all directories");
            self.look_again();
        }
        if let EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) = note.kind {
            for path in &note.paths {
                self.read_on(path);
            }
        }
        let appeared = match note.kind {
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => &note.paths[..],
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => note.paths.get(1..).unwrap_or_default(),
            _ => &[],
        };
        for path in appeared {
            let Some(place) = path.parent().and_then(|parent| self.places.get(parent)) else { continue };
            let place = place.clone();
            self.look_at(path, &place);
        }
    }

    /// Watches a directory, and looks at what it has: in this order, so that nothing is missed in between.
    fn enter(&mut self, directory: &Path, place: &Place) {
        if self.places.contains_key(directory) {
            return;
        }
        if let Err(error) = self.notifier.watch(directory, RecursiveMode::NonRecursive) {
            tracing::warn!(directory = %directory.display(), %error, "cannot be watched; what the build does there goes unnoticed");
            return;
        }
        self.places.insert(directory.to_owned(), place.clone());
        self.list(directory, place);
    }

    fn list(&mut self, directory: &Path, place: &Place) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "cannot be listed");
                return;
            }
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() || is_news(&path, self.since) {
                self.look_at(&path, place);
            }
        }
    }

    /// Understands one entry of a place.
    fn look_at(&mut self, path: &Path, place: &Place) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        let wanted = |project: &str, name: &str| self.elements.get(project).is_some_and(|names| names.contains(name));
        let below = match place {
            Place::Refs if self.elements.contains_key(name) => Place::ProjectRefs(name.to_owned()),
            Place::Logs if name == DAEMON_LOGS => Place::DaemonLogs,
            Place::Logs if self.elements.contains_key(name) => Place::ProjectLogs(name.to_owned()),
            Place::ProjectRefs(project) if wanted(project, name) => {
                let Ok(element) = ElementRef::new(project, name) else { return };
                Place::ElementRefs(element)
            }
            Place::ProjectLogs(project) if wanted(project, name) => {
                let Ok(element) = ElementRef::new(project, name) else { return };
                Place::ElementLogs(element)
            }
            _ => {
                let sighting = sighting(path, name, place);
                match &sighting {
                    Some(Sighting::Started(element)) => {
                        self.staging.insert(path.to_owned(), element.clone());
                    }
                    Some(Sighting::DaemonLog(log)) => self.follow(log),
                    _ => {}
                }
                self.seen.extend(sighting);
                return self.read_on(path);
            }
        };
        self.enter(path, &below);
    }

    fn follow(&mut self, log: &Path) {
        if self.daemons.contains_key(log) {
            return;
        }
        match fs::File::open(log) {
            Ok(file) => {
                let follower = Follower::new(file, CasdLogScanner::new());
                self.daemons.insert(log.to_owned(), DaemonLog { follower, open: Vec::new() });
            }
            Err(error) => tracing::debug!(log = %log.display(), %error, "cannot be read"),
        }
    }

    /// Reads what a log has in addition: what a casd was asked for, or that
    /// the commands of an element have begun to run.
    fn read_on(&mut self, path: &Path) {
        if let Some(log) = self.daemons.get_mut(path) {
            match log.read_on() {
                Ok(requested) => self.seen.extend(requested.into_iter().map(Sighting::Requested)),
                Err(error) => tracing::debug!(log = %path.display(), %error, "cannot be read"),
            }
            return;
        }
        let Some(element) = self.staging.get(path) else { return };
        let mut log = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(MAX_LOG_BYTES).read_to_end(&mut log));
        if let Err(error) = read {
            tracing::debug!(log = %path.display(), %error, "cannot be read");
            return;
        }
        if log.len() as u64 == MAX_LOG_BYTES || memchr::memmem::find(&log, self.running).is_some() {
            self.seen.push_back(Sighting::Running(element.clone()));
            self.staging.remove(path);
        }
    }
}

impl DaemonLog {
    /// The actions that were asked for, or are being executed, since the last time.
    fn read_on(&mut self) -> io::Result<Vec<Digest>> {
        let new = self.follower.poll()?;
        let actions = self.follower.scanner().actions();
        let mut requested = Vec::new();
        self.open.retain(|position| match actions[*position].outcome {
            LoggedOutcome::Executed => {
                requested.push(actions[*position].action);
                false
            }
            LoggedOutcome::Hit => false,
            _ => true,
        });
        let first_new = actions.len() - new;
        for (position, logged) in actions.iter().enumerate().skip(first_new) {
            requested.push(logged.action);
            if !matches!(logged.outcome, LoggedOutcome::Executed | LoggedOutcome::Hit) {
                self.open.push(position);
            }
        }
        Ok(requested)
    }
}

fn sighting(path: &Path, name: &str, place: &Place) -> Option<Sighting> {
    match place {
        Place::Cache if is_socket_name(name) => Some(Sighting::Daemon(path.to_owned())),
        Place::DaemonLogs if name.ends_with(".log") => Some(Sighting::DaemonLog(path.to_owned())),
        Place::Sources => Some(Sighting::Sources(name.parse().ok()?)),
        Place::ElementRefs(element) => Some(Sighting::Artifact(element.artifact(name.parse().ok()?))),
        // KEY-TASK.TIME.log
        Place::ElementLogs(element) => {
            let task = name.strip_suffix(".log")?.split('.').next()?.rsplit('-').next()?;
            (task == "build").then(|| Sighting::Started(element.clone()))
        }
        _ => None,
    }
}

fn is_news(path: &Path, since: SystemTime) -> bool {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|modified| modified >= since)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::project::RemoteKind;
    use crate::project::tests::{configuration, remote};
    use crate::refs::tests::{element, key};

    /// Waits for exactly these, in any order; the same may come again.
    async fn expect(watcher: &mut Watcher, expected: &[Sighting]) {
        let mut found = BTreeSet::new();
        let expected: BTreeSet<Sighting> = expected.iter().cloned().collect();
        while found != expected {
            let next = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await;
            let next = next.unwrap_or_else(|_| panic!("only {found:?} of {expected:?}")).unwrap();
            assert!(expected.contains(&next), "{next:?}");
            found.insert(next);
        }
    }

    fn write(path: impl AsRef<Path>) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[tokio::test]
    async fn what_buildstream_writes_is_seen() {
        let home = TempDir::new().unwrap();
        let cachedir = home.path().join("cache");
        let configuration = configuration(&cachedir);
        let before = [key('1'), key('2')].map(|key| configuration.artifact_refs.join(format!("demo/app/{key}")));
        for path in before {
            write(&path);
            fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        let start = SystemTime::now() - Duration::from_secs(3);
        let sub = element("sub/lib.bst");
        let mut watcher = Watcher::start(&configuration, [element("app.bst"), sub.clone()], start).unwrap();

        write(cachedir.join("casserver-abcd.sock"));
        write(cachedir.join("other"));
        expect(&mut watcher, &[Sighting::Daemon(cachedir.join("casserver-abcd.sock"))]).await;

        let log = configuration.logdir.join("_casd/1.5.log");
        write(&log);
        expect(&mut watcher, &[Sighting::DaemonLog(log)]).await;

        write(configuration.element_sources.join(key('3').to_string()));
        write(configuration.element_sources.join("tmp-file"));
        expect(&mut watcher, &[Sighting::Sources(key('3'))]).await;

        // Directories and files at once, in one that is not there yet; other tasks and elements do not count.
        write(configuration.logdir.join("demo/other/1234abcd-build.20261127-000000.log"));
        write(configuration.logdir.join("demo/sub-lib/1234abcd-fetch.20261127-000000.log"));
        write(configuration.logdir.join("demo/sub-lib/1234abcd-build.20261127-000000.log"));
        expect(&mut watcher, &[Sighting::Started(sub.clone())]).await;
        let log = configuration.logdir.join("demo/sub-lib/1234abcd-build.20261127-000000.log");
        let mut log = fs::File::options().append(true).open(log).unwrap();
        log.write_all(b"[--:--:--] START   [1234abcd] sub/lib.bst: Staging sources\n").unwrap();
        log.write_all(b"[--:--:--] START   sub/lib.bst: Running commands\n\n    make\n").unwrap();
        expect(&mut watcher, &[Sighting::Running(sub)]).await;

        // As BuildStream does it: another file takes the name.
        let path = configuration.artifact_refs.join(format!("demo/app/{}", key('4')));
        write(path.with_extension("tmp"));
        fs::rename(path.with_extension("tmp"), &path).unwrap();
        let artifact = Sighting::Artifact(element("app.bst").artifact(key('4')));
        expect(&mut watcher, std::slice::from_ref(&artifact)).await;
        assert!(watcher.rest().contains(&artifact), "and again, when asked for all");
    }

    #[tokio::test]
    async fn an_element_runs_elsewhere_once_its_inputs_are_there() {
        let home = TempDir::new().unwrap();
        let mut configuration = configuration(&home.path().join("cache"));
        configuration.execution = Some(remote("http://grid", RemoteKind::Storage, false));
        let app = element("app.bst");
        let mut watcher = Watcher::start(&configuration, [app.clone()], SystemTime::UNIX_EPOCH).unwrap();
        let log = configuration.logdir.join("demo/app/1234abcd-build.20261127-000000.log");
        write(&log);
        expect(&mut watcher, &[Sighting::Started(app.clone())]).await;
        let mut log = fs::File::options().append(true).open(log).unwrap();
        log.write_all(b"[--:--:--] START   app.bst: Running commands\n").unwrap();
        assert!(!watcher.rest().contains(&Sighting::Running(app.clone())), "its inputs are being uploaded");
        log.write_all(b"[--:--:--] START   app.bst: Waiting for the remote build to complete\n").unwrap();
        loop {
            match watcher.next().await.unwrap() {
                Sighting::Running(element) => break assert_eq!(element, app),
                other => assert_eq!(other, Sighting::Started(app.clone())),
            }
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_watched_is_left_out() {
        let home = TempDir::new().unwrap();
        write(home.path().join("file"));
        let configuration =
            Configuration { logdir: home.path().join("file/logs"), ..configuration(&home.path().join("cache")) };
        let mut watcher = Watcher::start(&configuration, [element("app.bst")], SystemTime::now()).unwrap();
        let sources = configuration.element_sources.join(key('1').to_string());
        write(&sources);
        expect(&mut watcher, &[Sighting::Sources(key('1'))]).await;
    }
}
