//! Adapting: what it takes is fetched for all actions together, level by level.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use overlay::{
    AdaptError, Adapted, CommandChange, Forest, LevelId, Missing, PathId, RewriteError, Standing, Substitution,
};
use reapi_proto::raw::{Action, ActionEdit, Command, Directory, Node, RawError};
use reapi_proto::{Blob, Digest};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Priming;
use super::inspection::{Edits, Inspected};
use super::learning::is_probe;
use super::order::{Place, Queue};
use super::runs::Recipe;
use super::tables::{ActId, RowId, State, Tables};
use super::task::{Done, Fetched, fetch};
use crate::skip::{Skip, SkipKind};

/// Actions adapted before the engine looks at events again: some milliseconds.
const CHUNK: usize = 256;

/// The most actions that are fetched for at a time, so that memory does not grow with their number, and the first ones
/// are executed while others are read. What was read for fewer is kept in case that it is needed again.
const BATCH: usize = 4096;

/// How often an action is adapted to something new. More than the few times
/// that its authorities can disagree with guesses means that a record's
/// actions depend on each other in a circle.
const MAX_ADAPTATIONS: u32 = 8;

/// A directory of a recorded tree together with what the record says of it.
type Spot = (RowId, LevelId, Digest);

/// What adapting needs, and what is being adapted.
#[derive(Default)]
pub(super) struct Workshop {
    /// Actions whose inputs are all known, some of them changed.
    pub(super) queue: Queue<ActId>,
    /// What is being fetched for.
    batch: Option<Batch>,
    /// Everything is at hand.
    pub(super) ready: VecDeque<ActId>,
    /// Recorded actions.
    bases: FxHashMap<Digest, Result<Action, Skip>>,
    /// Their Commands.
    commands: FxHashMap<Digest, Result<Command, Skip>>,
    pub(super) forest: Forest,
    /// Those directories in it that were read to be rewritten.
    read: Vec<Digest>,
    /// Directories that cannot be had.
    absent: FxHashMap<Digest, Skip>,
    /// A directory for each level that was visited.
    visited: FxHashMap<(RowId, LevelId), Digest>,
    /// Directories that are not what their record says.
    misfits: FxHashMap<Spot, String>,
}

struct Batch {
    acts: Vec<ActId>,
    /// The base Actions have been read.
    begun: bool,
    /// Where the next level starts.
    frontier: Vec<Spot>,
    seen: FxHashSet<Spot>,
    /// To be read with the first directories.
    commands: FxHashSet<Digest>,
}

impl Batch {
    /// Puts on the frontier what was never there.
    fn visit(&mut self, spots: impl IntoIterator<Item = Spot>) {
        let Self { frontier, seen, .. } = self;
        frontier.extend(spots.into_iter().filter(|spot| seen.insert(*spot)));
    }
}

impl Workshop {
    /// Whether it can go on without anything from outside.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || (self.batch.is_none() && !self.queue.is_empty())
    }

    /// Nothing that was read is going to be looked at: what is adapted once more is read once more.
    fn forget(&mut self, directories: bool) {
        (self.bases, self.commands) = Default::default();
        if directories {
            (self.visited, self.misfits) = Default::default();
            for digest in std::mem::take(&mut self.read) {
                self.forest.remove(&digest);
            }
        }
    }

    /// A recorded action; `None` if it was not read.
    pub(super) fn base(&self, digest: &Digest) -> Option<Result<Action, Skip>> {
        self.bases.get(digest).cloned()
    }

    /// The message of a recorded action, if it was read.
    pub(super) fn base_bytes(&self, digest: &Digest) -> Option<&Bytes> {
        Some(self.bases.get(digest)?.as_ref().ok()?.bytes())
    }

    /// The Command of an action, if it was read.
    pub(super) fn command_of(&self, base: &Action) -> Option<Command> {
        self.command(&base.command_digest())?.ok()
    }

    fn command(&self, digest: &Digest) -> Option<Result<Command, Skip>> {
        self.commands.get(digest).cloned()
    }

    /// Base Actions, as they were read.
    pub(super) fn take_bases(&mut self, fetched: Fetched) {
        let what = |error| Skip::new(SkipKind::Malformed, format!("the recorded action cannot be read: {error}"));
        let parsed = |bytes: Result<Bytes, Skip>| bytes.and_then(|bytes| Action::parse(bytes).map_err(what));
        self.bases.extend(fetched.into_iter().map(|(digest, bytes)| (digest, parsed(bytes))));
    }

    fn take(&mut self, batch: &mut Batch, fetched: Fetched) {
        if !batch.begun {
            return self.take_bases(fetched);
        }
        // All Commands come first, together with the first directories. What is both is asked for again.
        let commands = std::mem::take(&mut batch.commands);
        let (messages, directories): (Fetched, Fetched) =
            fetched.into_iter().partition(|(digest, _)| commands.contains(digest));
        self.commands.extend(messages.into_iter().map(|(digest, bytes)| {
            let malformed = |error| Skip::new(SkipKind::Malformed, format!("{digest} cannot be read: {error}"));
            (digest, bytes.and_then(|bytes| Command::parse(bytes).map_err(malformed)))
        }));
        self.read.extend(directories.iter().map(|(digest, _)| *digest));
        self.take_directories(directories);
    }

    pub(super) fn take_directories(&mut self, fetched: Fetched) {
        self.forest.reserve(fetched.len());
        for (digest, bytes) in fetched {
            self.take_directory(digest, bytes);
        }
    }

    fn take_directory(&mut self, digest: Digest, bytes: Result<Bytes, Skip>) {
        let malformed = |error| Skip::new(SkipKind::Malformed, format!("{digest} cannot be read: {error}"));
        match bytes.and_then(|bytes| Directory::parse(bytes).map_err(malformed)) {
            Ok(directory) => self.forest.insert(digest, directory),
            Err(skip) => {
                self.absent.insert(digest, skip);
            }
        }
    }

    /// A recorded action with its Command.
    pub(super) fn know(&mut self, base: Digest, action: &Action, command: &Command) {
        self.commands.insert(action.command_digest(), Ok(command.clone()));
        self.bases.insert(base, Ok(action.clone()));
    }

    /// Whether a directory was asked for in vain.
    pub(super) fn is_absent(&self, digest: &Digest) -> bool {
        self.absent.contains_key(digest)
    }

    /// Goes down as far as directories are at hand; what is not is the next frontier.
    fn descend(&mut self, tables: &Tables, batch: &mut Batch) {
        let (mut blocked, mut below) = (Vec::new(), Vec::new());
        while let Some(spot) = batch.frontier.pop() {
            let (row, level, digest) = spot;
            if !self.forest.contains(&digest) {
                if !self.absent.contains_key(&digest) {
                    blocked.push(spot);
                }
                continue;
            }
            below.clear();
            match tables[row].adaptation.descend(&self.forest, level, &digest, &mut below) {
                Ok(()) => {
                    self.visited.insert((row, level), digest);
                    batch.visit(below.drain(..).map(|(level, digest)| (row, level, digest)));
                }
                Err(error) => {
                    self.misfits.insert(spot, error.to_string());
                }
            }
        }
        batch.frontier = blocked;
    }

    /// The file that stood at this name of a level; `None` if it was not visited.
    pub(super) fn recorded_file(&self, row: RowId, level: LevelId, name: &[u8]) -> Option<Digest> {
        match self.forest.get(self.visited.get(&(row, level))?)?.get(name)? {
            Node::File { digest, .. } => Some(digest),
            Node::Directory { .. } | Node::Symlink { .. } => None,
        }
    }

    /// The first directory on the way to a change that is not what the record says.
    fn misfit(&self, tables: &Tables, id: ActId, root: Digest) -> Option<&String> {
        if self.misfits.is_empty() {
            return None;
        }
        let act = &tables[id];
        let adaptation = &tables[act.row].adaptation;
        let mut pending: Vec<(LevelId, Digest)> =
            adaptation.changed_root(act.id).map(|level| (level, root)).into_iter().collect();
        let mut seen = FxHashSet::default();
        while let Some((level, digest)) = pending.pop() {
            if let Some(reason) = self.misfits.get(&(act.row, level, digest)) {
                return Some(reason);
            }
            if seen.insert((level, digest)) {
                // What does not fit is among the misfits.
                let _ = adaptation.descend(&self.forest, level, &digest, &mut pending);
            }
        }
        None
    }
}

impl Priming {
    /// Starts on what has been queued, what is executed first first, unless there is something to be adapted already.
    pub(super) fn start_batch(&mut self) {
        if self.workshop.batch.is_some() || !self.workshop.ready.is_empty() || self.workshop.queue.is_empty() {
            return;
        }
        let mut acts = Vec::new();
        while acts.len() < BATCH
            && let Some(id) = self.workshop.queue.pop()
        {
            if self.tables[id].state == State::Preparing {
                acts.push(id);
            }
        }
        acts.sort_unstable();
        acts.dedup();
        let unread = acts.iter().map(|id| self.tables[*id].base).filter(|base| !self.workshop.bases.contains_key(base));
        let needs: Vec<Digest> = unread.collect();
        let batch = Batch {
            acts,
            begun: false,
            frontier: Vec::new(),
            seen: FxHashSet::default(),
            commands: FxHashSet::default(),
        };
        self.go_on_with(batch, needs);
    }

    pub(super) fn prepared(&mut self, fetched: Fetched) {
        if let Some(mut batch) = self.workshop.batch.take() {
            self.workshop.take(&mut batch, fetched);
            self.go_on_with(batch, Vec::new());
        }
    }

    fn go_on_with(&mut self, mut batch: Batch, mut needs: Vec<Digest>) {
        while needs.is_empty() {
            if batch.begun {
                self.workshop.descend(&self.tables, &mut batch);
            } else {
                batch.begun = true;
                self.begin_batch(&mut batch);
                needs.extend(&batch.commands);
                self.workshop.descend(&self.tables, &mut batch);
            }
            needs.extend(batch.frontier.iter().map(|(_, _, digest)| *digest));
            if needs.is_empty() {
                self.workshop.ready.extend(batch.acts);
                return;
            }
        }
        self.workshop.batch = Some(batch);
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Prepared(fetch(blobs, needs).await) });
    }

    /// The base Actions are there: judges them, and starts at their input roots.
    fn begin_batch(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut batch.acts) {
            let act = &self.tables[id];
            let base = match self.workshop.base(&act.base) {
                Some(Ok(base)) if base.do_not_cache() => Err(do_not_cache()),
                Some(Ok(base)) => Ok(base),
                Some(Err(skip)) => Err(Skip { reason: format!("base action: {}", skip.reason), ..skip }),
                None => Err(Skip::new(SkipKind::Service, "the base action was not read")),
            };
            match base {
                Err(skip) => self.give_up(id, skip),
                Ok(base) => {
                    let adaptation = &self.tables[act.row].adaptation;
                    let command = base.command_digest();
                    batch.commands.extend(Some(command).filter(|digest| !self.workshop.commands.contains_key(digest)));
                    let root = adaptation.changed_root(act.id);
                    batch.visit(root.map(|level| (act.row, level, base.input_root_digest())));
                    batch.acts.push(id);
                }
            }
        }
    }

    /// Adapts a number of actions for which everything is at hand.
    pub(super) fn adapt_some(&mut self) {
        let mut rows = Vec::new();
        for _ in 0..CHUNK {
            let Some(id) = self.workshop.ready.pop_front() else { break };
            if self.tables[id].state != State::Preparing {
                continue;
            }
            let row = self.tables[id].row;
            if self.tables[row].news.is_none() {
                self.inspector.expect(id);
                continue;
            }
            rows.push(row);
            match self.adapt(id) {
                Ok(()) => {}
                Err(Setback::Parked) => {}
                Err(Setback::Wait(what)) => {
                    self.wait(id);
                    self.tables[id].waits = Some(what);
                    self.inspector.wait(id);
                }
                Err(Setback::Requeue) => self.requeue(id),
                Err(Setback::Reconsider) => {
                    self.set_state(id, State::Waiting);
                    self.touched.push(id);
                }
                Err(Setback::GiveUp(skip)) => self.give_up(id, skip),
            }
        }
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            self.made.extend(self.tables[row].adaptation.take_directories());
        }
        let at_rest = self.workshop.ready.is_empty() && self.workshop.batch.is_none() && self.inspector.is_at_rest();
        if at_rest && self.workshop.bases.len() >= BATCH && self.learning.is_idle() && self.asks.is_empty() {
            // Where elements have no place of their own in their trees, roots of artifacts are looked at without reading.
            let flat = |row: RowId| self.tables[row].adaptation.record().own_root == Some(PathId::ROOT);
            let directories = !self.tables.row_ids().any(flat);
            self.workshop.forget(directories);
            self.made.forget();
        }
    }

    /// Once more through the fetching: facts have changed since, so that more is needed.
    fn requeue(&mut self, id: ActId) {
        let act = &mut self.tables[id];
        act.adaptations += 1;
        if act.adaptations > MAX_ADAPTATIONS {
            self.give_up(id, unsettled());
        } else {
            self.workshop.queue.push(Place::of(&self.tables, id), id);
        }
    }

    fn adapt(&mut self, id: ActId) -> Result<(), Setback> {
        let act = &self.tables[id];
        let (row, action, base_digest) = (act.row, act.id, act.base);
        // Facts may have changed while things were fetched.
        let Standing::Ready { .. } = self.tables[row].adaptation.standing(action) else {
            return Err(Setback::Reconsider);
        };
        let Some(Ok(base)) = self.workshop.base(&base_digest) else { return Err(Setback::Requeue) };
        if let Some(reason) = self.workshop.misfit(&self.tables, id, base.input_root_digest()) {
            return Err(Setback::GiveUp(Skip::new(SkipKind::Mismatch, reason.clone())));
        }
        let command = match self.workshop.command(&base.command_digest()) {
            Some(Ok(command)) => command,
            Some(Err(skip)) => {
                return Err(Setback::GiveUp(Skip { reason: format!("command: {}", skip.reason), ..skip }));
            }
            None => return Err(Setback::Requeue),
        };
        self.tables[id].probe = is_probe(&command);
        let edits = match self.inspect(id, &command) {
            Inspected::Known(edits) => edits,
            Inspected::Pending => return Ok(()),
            Inspected::Waits(what) => return Err(Setback::Wait(what)),
            Inspected::Skip(skip) => return Err(Setback::GiveUp(skip)),
            Inspected::Unvisited => {
                self.input_root(id, &base, &Edits::new())?;
                return Err(Setback::Requeue);
            }
        };
        let root = self.input_root(id, &base, &edits)?;
        let adapted = self.tables[row].adaptation.adapt_to(action, &base, Some(&command), root);
        let adapted = match (adapted, self.lesson(id)) {
            (Ok(adapted), Some(lesson)) => match with_lesson(adapted, &command, &lesson) {
                Ok(Some(adapted)) => Ok(adapted),
                Ok(None) => {
                    let reason = "what has changed about its element's commands does not fit its own";
                    return Err(Setback::GiveUp(Skip::new(SkipKind::Commands, reason)));
                }
                Err(error) => Err(AdaptError::Message(error)),
            },
            (adapted, _) => adapted,
        };
        match adapted {
            Ok(adapted) => self.adapted(id, adapted),
            Err(error @ AdaptError::Mismatch(_)) => {
                Err(Setback::GiveUp(Skip::new(SkipKind::Mismatch, error.to_string())))
            }
            Err(error) => Err(Setback::GiveUp(Skip::new(SkipKind::Malformed, error.to_string()))),
        }
    }

    /// The input tree of an action with what has changed, and with edits.
    pub(super) fn input_root(&mut self, id: ActId, base: &Action, edits: &Edits) -> Result<Digest, Setback> {
        let act = &self.tables[id];
        let (row, action) = (act.row, act.id);
        let root = self.tables[row].adaptation.input_root(action, base, &self.workshop.forest);
        let root = root.map_err(|error| self.setback(error))?;
        if edits.is_empty() {
            return Ok(root);
        }
        self.made.extend(self.tables[row].adaptation.take_directories());
        let mut substitution = Substitution::identity();
        for (path, node) in edits {
            match node {
                Some(node) => substitution.set(path, node.clone()),
                None => substitution.remove(path),
            }
        }
        loop {
            match substitution.apply(&self.workshop.forest, root) {
                Ok(rewritten) => {
                    self.made.extend(rewritten.new);
                    return Ok(rewritten.root);
                }
                Err(RewriteError::Missing(Missing(digest))) => match self.made.get(&digest).cloned() {
                    Some(blob) => self.workshop.take_directory(digest, Ok(blob.into_data())),
                    None if self.workshop.is_absent(&digest) => return Err(self.setback(Missing(digest).into())),
                    None => {
                        self.inspector.read_directory(digest);
                        self.inspector.park(id);
                        return Err(Setback::Parked);
                    }
                },
                Err(error) => return Err(self.setback(error)),
            }
        }
    }

    fn setback(&self, error: RewriteError) -> Setback {
        match error {
            RewriteError::Missing(Missing(digest)) => match self.workshop.absent.get(&digest) {
                Some(skip) => Setback::GiveUp(Skip { reason: format!("input tree: {}", skip.reason), ..*skip }),
                None => Setback::Requeue,
            },
            error => Setback::GiveUp(Skip::new(SkipKind::Malformed, error.to_string())),
        }
    }

    fn adapted(&mut self, id: ActId, adapted: Adapted) -> Result<(), Setback> {
        let Adapted { action, command, input_root, platforms } = adapted;
        let digest = action.digest();
        let act = &mut self.tables[id];
        if digest == act.base {
            self.keep(id);
            return Ok(());
        }
        if let Some(run) = act.run.filter(|run| act.adapted == Some(digest) && self.runs[*run].action == digest) {
            self.set_state(id, State::Adapted);
            self.catch_up(id, run);
            return Ok(());
        }
        act.adaptations += 1;
        if act.adaptations > MAX_ADAPTATIONS {
            return Err(Setback::GiveUp(unsettled()));
        }
        self.supersede(id);
        self.tell(id, super::tables::Told::Nothing);
        self.tables[id].adapted = Some(digest);
        self.set_state(id, State::Adapted);
        self.made.add(action);
        let recipe = Recipe { input_root, platforms, command: command.as_ref().map(Blob::digest) };
        self.made.extend(command);
        self.subscribe(id, digest, Some(recipe));
        Ok(())
    }
}

/// The action with what has changed about its element's commands.
fn with_lesson(adapted: Adapted, command: &Command, lesson: &CommandChange) -> Result<Option<Adapted>, RawError> {
    let command = match &adapted.command {
        Some(blob) => Command::parse(blob.data().clone())?,
        None => command.clone(),
    };
    let Some(bytes) = lesson.apply(&command)? else { return Ok(None) };
    let function = adapted.action.digest().function();
    let command = Blob::new(function, bytes);
    let edit = ActionEdit { command_digest: Some(command.digest()), input_root_digest: None, platform: Vec::new() };
    let action = Action::parse(adapted.action.into_data())?.splice(&edit)?;
    Ok(Some(Adapted { action: Blob::new(function, action), command: Some(command), ..adapted }))
}

/// Why an action was not adapted for now.
pub(super) enum Setback {
    /// Something is being read; it goes on from there.
    Parked,
    /// Something that an event will tell is not known.
    Wait(String),
    /// Something more must be fetched.
    Requeue,
    /// It is not as it was when it was queued.
    Reconsider,
    GiveUp(Skip),
}

fn unsettled() -> Skip {
    Skip::new(SkipKind::Mismatch, format!("its inputs changed {MAX_ADAPTATIONS} times"))
}

pub(super) fn do_not_cache() -> Skip {
    Skip::new(SkipKind::DoNotCache, "its result must not be cached")
}
