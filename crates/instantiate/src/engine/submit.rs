//! Getting actions executed: what is allowed, what has to be uploaded for it, and what the service says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cas_client::{
    Blob, CacheLookup, Error, ErrorKind, ExecuteRequest, ExecutionStage, ExecutionUpdate, Result, UploadStats,
};
use reapi_proto::Digest;
use reapi_proto::raw::{Directory, Node};
use reapi_proto::v2::ActionResult;
use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::Priming;
use super::order::Queue;
use super::products::{ProductId, Products};
use super::runs::{Ended, Run, RunId, Running, Stage};
use super::task::{Done, News, restore, upload};
use super::window::LONGEST_GRANTED;
use crate::observer::ActionStep;
use crate::options::{Budget, Completion, WhenReached};
use crate::skip::{Skip, SkipKind};

/// Actions uploaded at a time: enough for full batches of small blobs, few
/// enough that the first ones run soon.
const UPLOAD_BATCH: usize = 256;

/// How often missing inputs are supplied before giving up.
const MAX_ROUNDS: u32 = 3;

/// How often an action is submitted again that the service had no room for. The
/// rests in between add up to two minutes, or to what the service asks for.
const MAX_REFUSALS: u32 = 8;

/// What waits for its turn.
#[derive(Default)]
pub(super) struct Submissions {
    /// Not uploaded.
    admit: Queue<RunId>,
    uploading: bool,
    /// Uploaded.
    ready: Queue<RunId>,
    spent: Spent,
    /// Until when nothing is submitted, if that is being waited for.
    rests_until: Option<Instant>,
}

/// What of the [`Budget`] is used up.
#[derive(Clone, Copy, Default)]
struct Spent {
    actions: u64,
    work: Duration,
    upload_bytes: u64,
}

/// What takes no longer is tried whatever is expected. Chosen, not measured: between the actions of the sample project
/// (a tenth of a second or two), which are found though little time is left, and those of the shapes that
/// `cargo xtask integration beside` builds (0.7 s), which were executed in vain.
const SHORT: Duration = Duration::from_millis(500);

/// How many times as long an action takes while the build wants the same processors.
const BESIDE_A_BUILD: u32 = 2;

impl Spent {
    /// What is spent with this in addition; `None` if the budget does not allow it.
    fn with(mut self, budget: &Budget, work: Duration, upload_bytes: u64) -> Option<Self> {
        self.actions += 1;
        self.work = self.work.saturating_add(work);
        self.upload_bytes = self.upload_bytes.saturating_add(upload_bytes);
        let allowed = budget.actions.is_none_or(|limit| self.actions <= limit)
            && budget.work.is_none_or(|limit| self.work <= limit)
            && budget.upload_bytes.is_none_or(|limit| self.upload_bytes <= limit);
        allowed.then_some(self)
    }
}

impl Priming {
    /// A run has no result yet.
    pub(super) fn admit(&mut self, id: RunId) {
        self.set_stage(id, Stage::Admit);
        self.submissions.admit.push(self.runs[id].place, id);
    }

    /// Uploads for the next runs in the queue, not much further ahead than they can be started.
    pub(super) fn start_upload(&mut self) {
        let ahead = self.window.size().max(UPLOAD_BATCH);
        if self.submissions.uploading || self.submissions.ready.len() >= ahead {
            return;
        }
        let (mut runs, mut claimed) = (Vec::new(), Vec::new());
        while runs.len() < UPLOAD_BATCH {
            let Some(id) = self.submissions.admit.pop() else { break };
            if self.runs[id].stage != Stage::Admit {
                continue;
            }
            if !self.is_wanted(id) {
                self.lay_aside(id);
                continue;
            }
            let before = claimed.len();
            claim_needed(&mut self.made, &self.runs[id], &mut claimed);
            let upload_bytes = claimed[before..].iter().map(|(_, blob)| blob.digest().size_bytes()).sum();
            match self.allow(&self.runs[id], upload_bytes) {
                Err(skip) => {
                    self.made.unclaim(claimed.drain(before..).map(|(id, _)| id));
                    self.fail(id, &skip);
                }
                Ok(spent) => {
                    self.submissions.spent = spent;
                    self.runs[id].upload_bytes += upload_bytes;
                    runs.push(id);
                }
            }
        }
        if claimed.is_empty() {
            for run in runs {
                self.make_ready(run);
            }
            return;
        }
        for run in &runs {
            self.set_stage(*run, Stage::Uploading);
        }
        self.submissions.uploading = true;
        let (products, blobs) = claimed.into_iter().unzip();
        let store = Arc::clone(&self.services.blobs);
        self.tasks.push(async move {
            let outcome = upload(store, blobs).await;
            Done::Uploaded { runs, products, outcome }
        });
    }

    pub(super) fn uploaded(&mut self, runs: Vec<RunId>, products: Vec<ProductId>, outcome: Result<UploadStats>) {
        self.submissions.uploading = false;
        match outcome {
            Ok(stats) => {
                self.count_upload(stats);
                self.made.stored(products);
                for run in runs {
                    if self.runs[run].stage == Stage::Uploading {
                        self.make_ready(run);
                    }
                }
            }
            Err(error) => {
                self.made.unclaim(products);
                let skip = Skip::new(SkipKind::Service, format!("it cannot be uploaded: {error}"));
                for run in runs {
                    self.fail(run, &skip);
                }
            }
        }
    }

    fn make_ready(&mut self, id: RunId) {
        self.set_stage(id, Stage::Submit);
        self.submissions.ready.push(self.runs[id].place, id);
    }

    fn count_upload(&mut self, stats: UploadStats) {
        self.totals.upload += stats;
        self.progress.uploaded_blobs += stats.uploaded;
        self.progress.uploaded_bytes += stats.bytes;
    }

    /// Whether a run is worth it and within the budget.
    fn allow(&self, run: &Run, upload_bytes: u64) -> Result<Spent, Skip> {
        let minimum = self.options.minimum_duration;
        let acts = || run.acts.iter().map(|id| &self.tables[*id]);
        if run.askers.is_empty()
            && acts().all(|act| {
                act.consumers.is_empty() && !act.probe && act.duration.is_some_and(|duration| duration < minimum)
            })
        {
            let reason = format!("it ran for less than {minimum:?} when it was recorded");
            return Err(Skip::new(SkipKind::TooCheap, reason));
        }
        let work = acts().filter_map(|act| act.duration).max().unwrap_or_default();
        self.submissions
            .spent
            .with(&self.options.budget, work, upload_bytes)
            .ok_or_else(|| Skip::new(SkipKind::Budget, "the budget does not allow it"))
    }

    /// A blob that we could supply: made here, or read on the way.
    fn held(&self, digest: &Digest) -> Option<Blob> {
        let recorded = || {
            let directory = self.workshop.forest.get(digest).map(Directory::bytes);
            let action = || self.workshop.base_bytes(digest);
            Blob::verified(*digest, directory.or_else(action)?.clone())
        };
        self.made.get(digest).cloned().or_else(recorded)
    }

    /// Requests executions while the window has room.
    pub(super) fn start_executions(&mut self) {
        let Some(execution) = self.services.execution.clone() else { return };
        self.progress.window = self.window.size() as u64;
        if self.submissions.ready.is_empty() {
            return;
        }
        let now = Instant::now();
        if let Some(until) = self.window.resting(now) {
            if self.submissions.rests_until.is_none_or(|known| known < until) {
                self.submissions.rests_until = Some(until);
                self.tasks.push(async move {
                    tokio::time::sleep_until(until).await;
                    Done::Rested
                });
            }
            return;
        }
        while self.progress.running < self.window.size() as u64 {
            let Some(id) = self.submissions.ready.pop() else { break };
            if self.runs[id].stage != Stage::Submit {
                continue;
            }
            if !self.is_wanted(id) {
                self.lay_aside(id);
                continue;
            }
            if self.comes_too_late(id, now) {
                for act in self.runs[id].acts.clone() {
                    self.give_way(act);
                }
                self.lay_aside(id);
                continue;
            }
            self.set_stage(id, Stage::Running);
            let run = &mut self.runs[id];
            let priority = self.options.priority.saturating_add(run.place.priority(self.tables.longest));
            let request = ExecuteRequest { action: run.action, cache_lookup: CacheLookup::Use, priority };
            let watch = self.tasks.execute(id, Arc::clone(&execution), request);
            if run.rounds == 0 && run.refusals == 0 {
                self.totals.executions += 1;
            }
            run.running = Some(Box::new(Running {
                watch,
                operation: None,
                stage: ExecutionStage::Unknown,
                unwanted: false,
                requested: now,
                ticket: self.window.ticket(),
                started: false,
            }));
            self.progress.running += 1;
            self.show(id, ActionStep::Submitted);
        }
    }

    /// Whether the build will ask for it, and execute it as well, before it is done.
    fn comes_too_late(&self, id: RunId, now: Instant) -> bool {
        let run = &self.runs[id];
        self.options.when_reached == WhenReached::GiveWay
            && run.askers.is_empty()
            && run.acts.iter().all(|id| {
                let act = &self.tables[*id];
                let expected = self.expected(act.owner).filter(|_| !self.tables[act.owner].reached);
                let left = expected.map(|expected| expected.saturating_duration_since(now));
                let takes = |duration: Duration| duration.saturating_mul(BESIDE_A_BUILD);
                left.is_some_and(|left| act.duration.is_some_and(|duration| duration > SHORT && takes(duration) > left))
            })
    }

    /// The service has said something about a run.
    pub(super) fn take_news(&mut self, (id, news): News) {
        let Some(running) = &mut self.runs[id].running else { return };
        match news {
            Some(Ok(ExecutionUpdate::Accepted { operation })) => {
                running.operation = Some(operation);
                if running.unwanted {
                    self.withdraw(id);
                } else if self.options.completion == Completion::Detach {
                    let accepted_after = running.requested.elapsed();
                    self.started(id, Some(accepted_after));
                    self.leave(id);
                }
            }
            Some(Ok(ExecutionUpdate::Delayed { retry_after })) => {
                self.window.refused(running.ticket, retry_after, Instant::now());
                self.progress.refused += 1;
            }
            Some(Ok(ExecutionUpdate::Stage(stage))) => {
                running.stage = stage;
                let unwanted = running.unwanted;
                if stage == ExecutionStage::Executing {
                    self.started(id, None);
                    self.show(id, ActionStep::Executing);
                }
                if unwanted {
                    self.withdraw(id);
                }
            }
            Some(Ok(ExecutionUpdate::Done(outcome))) => {
                running.watch.abort();
                let times = if outcome.cached { Times::default() } else { Times::of(&outcome.result) };
                self.started(id, times.queued.filter(|_| !outcome.cached));
                let Times { queued, executed } = times;
                self.show(id, ActionStep::Completed { cached: outcome.cached, queued, executed });
                self.completed(id, &outcome.result);
            }
            Some(Err(error)) => {
                running.watch.abort();
                match error.kind() {
                    ErrorKind::MissingInputs => self.supply(id, &error),
                    ErrorKind::Exhausted => self.put_off(id, &error),
                    kind => {
                        if kind == ErrorKind::Unavailable {
                            self.window.failed(running.ticket);
                        }
                        self.fail(id, &Skip::new(SkipKind::Service, format!("it cannot be executed: {error}")));
                    }
                }
            }
            None => {
                self.fail(id, &Skip::new(SkipKind::Service, "the service ended the execution without a result"));
            }
        }
    }

    /// An execution has begun, and the service said so or is even done with
    /// it; `queued` is how long it says that the action waited.
    fn started(&mut self, id: RunId, queued: Option<Duration>) {
        let in_flight = usize::try_from(self.progress.running).unwrap_or(usize::MAX);
        let Some(running) = &mut self.runs[id].running else { return };
        if std::mem::replace(&mut running.started, true) {
            return;
        }
        let waited = match (queued, running.stage) {
            (Some(queued), _) => queued,
            (None, ExecutionStage::Executing) => running.requested.elapsed(),
            // Done without a word: how much of the time was waiting is not known.
            (None, _) => Duration::ZERO,
        };
        self.window.started(running.ticket, waited, in_flight);
    }

    /// The service has no room for a run, and the client has asked for long enough: later, after a rest for all.
    fn put_off(&mut self, id: RunId, error: &Error) {
        let run = &mut self.runs[id];
        let Some(running) = &run.running else { return };
        self.window.refused(running.ticket, error.retry_after(), Instant::now());
        self.progress.refused += 1;
        run.refusals += 1;
        if run.refusals > MAX_REFUSALS || error.retry_after().is_some_and(|wait| wait > LONGEST_GRANTED) {
            self.fail(id, &Skip::new(SkipKind::Service, format!("it cannot be executed: {error}")));
        } else if self.is_wanted(id) {
            self.make_ready(id);
        } else {
            self.lay_aside(id);
        }
    }

    /// Detached: the service has it, and nobody waits for the result.
    fn leave(&mut self, id: RunId) {
        if let Some(running) = &self.runs[id].running {
            running.watch.abort();
        }
        self.end(id, Ended::Submitted);
    }

    /// Inputs are missing: those that we hold are stored again.
    fn supply(&mut self, id: RunId, error: &Error) {
        let missing = error.digests();
        let run = &mut self.runs[id];
        run.rounds += 1;
        let (action, too_often) = (run.action, run.rounds > MAX_ROUNDS);
        let held = missing.iter().all(|digest| self.held(digest).is_some());
        let start = if missing.is_empty() { &[action][..] } else { missing };
        let lost = self.at_and_below(id, start);
        if too_often || !held || lost.is_empty() {
            return self.fail(id, &Skip::new(SkipKind::MissingInputs, describe(missing, error)));
        }
        self.set_stage(id, Stage::Restoring);
        let store = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Restored { run: id, outcome: restore(store, lost).await } });
    }

    /// The blobs that we hold among `start`, and those that we made of what
    /// they refer to: a service cannot see what is missing below a directory
    /// that is missing.
    fn at_and_below(&self, id: RunId, start: &[Digest]) -> Vec<Blob> {
        let mut found = Vec::new();
        let mut seen = FxHashSet::default();
        let mut pending = start.to_vec();
        while let Some(digest) = pending.pop() {
            let Some(blob) = self.held(&digest).filter(|_| seen.insert(digest)) else { continue };
            if digest == self.runs[id].action {
                if let Some(recipe) = &self.runs[id].recipe {
                    pending.extend(recipe.command);
                    pending.push(recipe.input_root);
                    pending.extend(&recipe.platforms);
                }
            } else if let Ok(directory) = Directory::parse(blob.data().clone()) {
                let children = directory.entries().filter_map(|entry| match entry.node {
                    Node::Directory { digest } | Node::File { digest, .. } => Some(digest),
                    Node::Symlink { .. } => None,
                });
                pending.extend(children.filter(|child| self.made.contains(child)));
            }
            found.push(blob);
        }
        found
    }

    pub(super) fn restored(&mut self, run: RunId, outcome: Result<UploadStats>) {
        match outcome {
            Ok(stats) => {
                self.count_upload(stats);
                if self.runs[run].stage == Stage::Restoring {
                    self.make_ready(run);
                }
            }
            Err(error) => {
                let reason = format!("its missing inputs cannot be uploaded: {error}");
                self.fail(run, &Skip::new(SkipKind::Service, reason));
            }
        }
    }

    /// Nobody wants a run any more. What is queued at the service is taken
    /// back; what executes is left to finish, unless everything is cancelled.
    pub(super) fn withdraw(&mut self, id: RunId) {
        let Some(running) = &mut self.runs[id].running else { return };
        running.unwanted = true;
        if !running.is_queued() && !self.cancelled {
            return;
        }
        let operation = running.operation.take();
        if operation.is_none() && !self.cancelled {
            return;
        }
        running.watch.abort();
        if let (Some(operation), Some(execution)) = (operation, self.services.execution.clone()) {
            self.totals.cancelled += 1;
            self.tasks.push(async move {
                if let Err(error) = execution.cancel(&operation).await {
                    tracing::debug!(operation, %error, "not cancelled");
                }
                Done::Cancelled
            });
        }
        self.lay_aside(id);
    }
}

/// What a service says of an execution's times.
#[derive(Clone, Copy, Default)]
struct Times {
    /// From the request until a worker took it.
    queued: Option<Duration>,
    /// What the command took.
    executed: Option<Duration>,
}

impl Times {
    fn of(result: &ActionResult) -> Self {
        let Some(metadata) = &result.execution_metadata else { return Self::default() };
        let at = |stamp: &Option<prost_types::Timestamp>| SystemTime::try_from((*stamp)?).ok();
        let between = |from, to| at(to)?.duration_since(at(from)?).ok();
        Self {
            queued: between(&metadata.queued_timestamp, &metadata.worker_start_timestamp),
            executed: between(&metadata.execution_start_timestamp, &metadata.execution_completed_timestamp),
        }
    }
}

/// Which inputs are missing, in words.
fn describe(missing: &[Digest], error: &Error) -> String {
    const SHOWN: usize = 3;
    if missing.is_empty() {
        return format!("inputs are missing from the store: {error}");
    }
    let shown: Vec<String> = missing.iter().take(SHOWN).map(Digest::to_string).collect();
    let more = match missing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("inputs are missing from the store: {}{more}", shown.join(", "))
}

/// Adds to `batch` the blobs of a run that the store may lack and that are in no upload.
fn claim_needed(made: &mut Products, run: &Run, batch: &mut Vec<(ProductId, Blob)>) {
    let Some(recipe) = &run.recipe else { return };
    batch.extend(made.claim(&run.action));
    batch.extend(recipe.command.and_then(|command| made.claim(&command)));
    let mut pending = vec![recipe.input_root];
    pending.extend(&recipe.platforms);
    while let Some(digest) = pending.pop() {
        // Below a directory that is as recorded, everything is.
        let Some((id, blob)) = made.claim(&digest) else { continue };
        pending.extend(Directory::subdirectories(blob.data()));
        if made.has_files()
            && let Ok(directory) = Directory::parse(blob.data().clone())
        {
            for entry in directory.entries() {
                match entry.node {
                    Node::File { digest, .. } if made.is_file(&digest) => batch.extend(made.claim(&digest)),
                    _ => {}
                }
            }
        }
        batch.push((id, blob));
    }
}
