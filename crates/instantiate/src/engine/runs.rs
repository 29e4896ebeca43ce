//! Distinct actions whose results are wanted: looked up, executed if need be, and confirmed.
//!
//! A run is named by its Action's digest, so that whatever number of recorded
//! actions come out as the same action, it is looked up and submitted once.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use cas_client::{ExecutionStage, Lookup, Output, outputs};
use futures_util::stream::AbortHandle;
use hashbrown::HashTable;
use overlay::{PathId, Paths};
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use reapi_proto::v2::ActionResult;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Priming;
use super::confirmations::Confirmations;
use super::order::{Place, Queue};
use super::outputs::Outputs;
use super::products::hash;
use super::tables::{ActId, State, Told};
use super::task::{Answers, Done, Fetched, fetch, look_up_results};
use super::window::Ticket;
use super::workshop::do_not_cache;
use crate::observer::{ActionEvent, ActionKind, ActionStep};
use crate::report::ExecutionReport;
use crate::skip::{Skip, SkipKind};

/// Results looked up at a time. One look-up is a round trip of its own.
const LOOKUP_BATCH: usize = 1024;

/// What an adapted action consists of, apart from its own message.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) input_root: Digest,
    /// Root file systems that its properties name, if they are new.
    pub(super) platforms: Vec<Digest>,
    /// The Command, if it is new.
    pub(super) command: Option<Digest>,
}

/// A run, by its row in [`Runs`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RunId(u32);

/// An action whose result is wanted.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) action: Digest,
    /// Those that it is wanted for. A run that nobody wants is not submitted.
    pub(super) acts: SmallVec<[ActId; 4]>,
    /// Those that wait for what it says: a listing.
    pub(super) askers: Vec<ActId>,
    pub(super) place: Place,
    /// Nothing of it is ours.
    pub(super) as_recorded: bool,
    /// Until it has ended; `None` for an action as recorded.
    pub(super) recipe: Option<Box<Recipe>>,
    pub(super) stage: Stage,
    /// Bytes offered for upload for its sake.
    pub(super) upload_bytes: u64,
    /// How often missing inputs were supplied.
    pub(super) rounds: u32,
    /// How often the service had no room for it.
    pub(super) refusals: u32,
    pub(super) running: Option<Box<Running>>,
    /// Why it gives no result.
    pub(super) refusal: Option<Box<Skip>>,
    outputs: Option<Outputs>,
}

/// How far a run is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// In no queue.
    Idle,
    /// To be looked up in the action cache.
    Check,
    /// The base Action is read, to see whether it may be executed again.
    Base,
    /// Waits to be allowed and uploaded.
    Admit,
    /// Being uploaded.
    Uploading,
    /// Waits for a free job.
    Submit,
    /// Requested.
    Running,
    /// Missing inputs are being supplied.
    Restoring,
    /// Done; its result is looked up once more.
    Verify,
    /// Nothing more will be done.
    Done(Ended),
}

impl Stage {
    /// Whether it is only a matter of its turn until it is requested.
    fn is_in_line(&self) -> bool {
        matches!(self, Self::Admit | Self::Uploading | Self::Submit | Self::Restoring)
    }
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Cached,
    Executed,
    Submitted,
    /// It gave no result that can be used.
    Failed(String),
    /// It was not tried.
    Skipped,
}

/// A requested execution.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) watch: AbortHandle,
    pub(super) operation: Option<String>,
    /// What the service has said of it.
    pub(super) stage: ExecutionStage,
    /// To be cancelled as soon as it is known how, and that it is only queued.
    pub(super) unwanted: bool,
    pub(super) requested: Instant,
    pub(super) ticket: Ticket,
    /// The window has heard of its start.
    pub(super) started: bool,
}

impl Running {
    /// Whether taking it back saves work. A service that says nothing of a
    /// stage (buildbox-casd executes at once) is taken to be executing.
    pub(super) fn is_queued(&self) -> bool {
        self.operation.is_none() || self.stage == ExecutionStage::Queued
    }
}

/// All runs, and those that wait for a look-up.
#[derive(Default)]
pub(super) struct Runs {
    all: Vec<Run>,
    by_action: HashTable<RunId>,
    /// In the order of execution: what is looked up late is executed late.
    check: Queue<RunId>,
    checking: bool,
    bases: Vec<RunId>,
    verify: Vec<RunId>,
    verifying: bool,
    confirmations: Confirmations,
}

impl Runs {
    /// The run of an action, which begins with this if it is new.
    pub(super) fn of(&mut self, action: Digest, place: Place) -> RunId {
        let Self { all, by_action, .. } = self;
        let new = RunId(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let is_it = |id: &RunId| all[id.0 as usize].action == action;
        let entry = by_action.entry(hash(&action), is_it, |id| hash(&all[id.0 as usize].action));
        let id = *entry.or_insert(new).get();
        if id == new {
            all.push(Run::new(action, place));
        }
        id
    }

    /// The run of an action, which is probably this one: answers come in the order of questions, as a rule.
    fn find(&self, probably: Option<RunId>, action: &Digest) -> Option<RunId> {
        let is_it = |id: &RunId| self[*id].action == *action;
        probably.filter(is_it).or_else(|| self.by_action.find(hash(action), is_it).copied())
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RunId> + use<> {
        (0..self.all.len()).filter_map(|row| u32::try_from(row).ok()).map(RunId)
    }
}

impl Index<RunId> for Runs {
    type Output = Run;

    fn index(&self, RunId(row): RunId) -> &Run {
        &self.all[row as usize]
    }
}

impl IndexMut<RunId> for Runs {
    fn index_mut(&mut self, RunId(row): RunId) -> &mut Run {
        &mut self.all[row as usize]
    }
}

impl Run {
    fn new(action: Digest, place: Place) -> Self {
        Self {
            action,
            acts: SmallVec::new(),
            askers: Vec::new(),
            place,
            as_recorded: true,
            recipe: None,
            stage: Stage::Idle,
            upload_bytes: 0,
            rounds: 0,
            refusals: 0,
            running: None,
            refusal: None,
            outputs: None,
        }
    }

    /// Takes in what it consists of, unless that is known, or it has ended.
    pub(super) fn keep(&mut self, recipe: Option<Recipe>) {
        let Some(recipe) = recipe else { return };
        self.as_recorded = false;
        if !matches!(self.stage, Stage::Done(_)) {
            self.recipe.get_or_insert_with(|| Box::new(recipe));
        }
    }

    /// The output at a path, once the outputs are known.
    pub(super) fn output(&self, path: &[u8]) -> Option<Node> {
        self.outputs.as_ref()?.find(path)
    }

    /// [`output`](Self::output) at a path of a record.
    pub(super) fn output_at(&self, paths: &Paths, path: PathId) -> Option<Node> {
        let outputs = self.outputs.as_ref()?;
        match outputs.only() {
            Some((place, node)) => paths.is(path, place).then(|| node.clone()),
            None => outputs.find(&paths.bytes(path)),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Verify | Stage::Done(_))
    }

    pub(super) fn report(&self) -> ExecutionReport {
        match &self.stage {
            Stage::Done(Ended::Cached) => ExecutionReport::Cached,
            Stage::Done(Ended::Executed) => ExecutionReport::Executed,
            Stage::Done(Ended::Submitted) => ExecutionReport::Submitted,
            Stage::Done(Ended::Failed(reason)) => ExecutionReport::Failed(reason.clone()),
            _ => ExecutionReport::NotRun,
        }
    }
}

impl Priming {
    /// An action as recorded: its result may have been evicted.
    pub(super) fn subscribe_base(&mut self, id: ActId) {
        self.subscribe(id, self.tables[id].base, None);
    }

    /// An action wants the result of this one.
    pub(super) fn subscribe(&mut self, id: ActId, action: Digest, recipe: Option<Recipe>) {
        let place = Place::of(&self.tables, id);
        let run_id = self.runs.of(action, place);
        let run = &mut self.runs[run_id];
        run.acts.push(id);
        run.place = run.place.min(place);
        run.keep(recipe);
        if let Some(running) = &mut run.running {
            running.unwanted = false;
        }
        if run.stage == Stage::Idle {
            self.check(run_id);
        }
        self.tables[id].run = Some(run_id);
        self.catch_up(id, run_id);
    }

    /// A run is to be looked up.
    pub(super) fn check(&mut self, id: RunId) {
        self.set_stage(id, Stage::Check);
        self.runs.check.push(self.runs[id].place, id);
        self.show(id, ActionStep::Wanted);
    }

    /// What became of a run before this action could be told.
    pub(super) fn catch_up(&mut self, id: ActId, run: RunId) {
        let adapted = self.tables[id].state == State::Adapted;
        match self.runs[run].refusal.clone().filter(|_| adapted) {
            Some(skip) => self.give_up(id, *skip),
            None => self.deliver(run, Some(id)),
        }
    }

    /// An action does not want its run's result any more.
    pub(super) fn unsubscribe(&mut self, id: ActId) {
        let Some(run) = self.tables[id].run.take() else { return };
        self.runs[run].acts.retain(|act| *act != id);
        if !self.is_wanted(run) {
            self.withdraw(run);
        }
    }

    /// Keeps the connection to a run that is over, for the report.
    pub(super) fn unsubscribe_unless_done(&mut self, id: ActId) {
        if self.tables[id].run.is_some_and(|run| !self.runs[run].is_over()) {
            self.unsubscribe(id);
        }
    }

    /// Starts the look-ups that are due.
    pub(super) fn start_checks(&mut self) {
        if !self.runs.bases.is_empty() {
            let runs = std::mem::take(&mut self.runs.bases);
            let needs = runs.iter().map(|run| self.runs[*run].action).collect();
            let blobs = Arc::clone(&self.services.blobs);
            self.tasks.push(async move { Done::Bases { runs, bases: fetch(blobs, needs).await } });
        }
        if !self.runs.checking {
            let due = self.due(|runs| runs.check.pop(), &Stage::Check);
            if !due.is_empty() {
                self.runs.checking = true;
                self.look_up(due, |runs, answers| Done::Checked { runs, answers });
            }
        }
        if !self.runs.verifying {
            let due = self.due(|runs| runs.verify.pop(), &Stage::Verify);
            if !due.is_empty() {
                self.runs.verifying = true;
                self.look_up(due, |runs, answers| Done::Verified { runs, answers });
            }
        }
    }

    fn look_up(&mut self, due: Vec<RunId>, done: fn(Vec<RunId>, Answers) -> Done) {
        self.progress.lookups += due.len() as u64;
        let actions = due.iter().map(|run| self.runs[*run].action).collect();
        let (cache, blobs) = (Arc::clone(&self.services.cache), Arc::clone(&self.services.blobs));
        self.tasks.push(async move { done(due, look_up_results(cache, blobs, actions).await) });
    }

    /// Takes a batch off a queue; what nobody wants any more is left idle.
    fn due(&mut self, next: fn(&mut Runs) -> Option<RunId>, stage: &Stage) -> Vec<RunId> {
        let mut due = Vec::new();
        while due.len() < LOOKUP_BATCH {
            let Some(id) = next(&mut self.runs) else { break };
            if self.runs[id].stage != *stage {
                continue;
            }
            if *stage == Stage::Check && !self.is_wanted(id) {
                self.lay_aside(id);
            } else {
                due.push(id);
            }
        }
        due
    }

    pub(super) fn checked(&mut self, runs: Vec<RunId>, answers: Answers) {
        self.runs.checking = false;
        let mut asked = runs.into_iter();
        for (action, answer) in answers {
            let Some(id) = self.runs.find(asked.next(), &action) else { continue };
            let as_recorded = self.runs[id].as_recorded;
            match answer {
                Err(skip) => self.fail(id, &skip),
                // The build will meet the failure again; nothing is gained by it.
                Ok(Lookup::Hit(result)) if result.exit_code != 0 && as_recorded => self.end(id, Ended::Skipped),
                Ok(Lookup::Hit(result)) if result.exit_code != 0 => {
                    self.failed_command(id, result.exit_code, "in the action cache");
                }
                Ok(Lookup::Hit(result)) => {
                    self.end(id, Ended::Cached);
                    self.take_result(id, &result);
                }
                Ok(Lookup::Miss | Lookup::Dangling { .. }) if self.services.execution.is_none() => {
                    self.end(id, Ended::Skipped);
                }
                Ok(Lookup::Miss | Lookup::Dangling { .. }) if as_recorded => self.check_base(id),
                Ok(Lookup::Miss | Lookup::Dangling { .. }) => self.admit(id),
            }
        }
    }

    /// Whether an action as recorded, whose result is gone, may be executed again.
    fn check_base(&mut self, id: RunId) {
        match self.workshop.base(&self.runs[id].action) {
            None => {
                self.set_stage(id, Stage::Base);
                self.runs.bases.push(id);
            }
            Some(Ok(base)) if base.do_not_cache() => self.fail(id, &do_not_cache()),
            Some(Ok(_)) => self.admit(id),
            Some(Err(skip)) => {
                let skip = Skip { reason: format!("its result is gone, and the action: {}", skip.reason), ..skip };
                self.fail(id, &skip);
            }
        }
    }

    pub(super) fn read_bases(&mut self, runs: Vec<RunId>, bases: Fetched) {
        self.workshop.take_bases(bases);
        for run in runs {
            self.check_base(run);
        }
    }

    pub(super) fn verified(&mut self, runs: Vec<RunId>, answers: Answers) {
        self.runs.verifying = false;
        let mut asked = runs.into_iter();
        for (action, answer) in answers {
            let Some(id) = self.runs.find(asked.next(), &action) else { continue };
            let ended = match answer {
                Ok(Lookup::Hit(result)) if result.exit_code == 0 => Ended::Executed,
                Ok(Lookup::Hit(result)) => {
                    Ended::Failed(format!("the action cache has exit code {}", result.exit_code))
                }
                Ok(Lookup::Miss) => Ended::Failed("the service did not keep the result".to_owned()),
                Ok(Lookup::Dangling { missing }) => {
                    Ended::Failed(format!("{} of its outputs are not in the store", missing.len()))
                }
                Err(skip) => Ended::Failed(skip.reason),
            };
            if ended != Ended::Executed {
                self.runs.confirmations.refuted();
            }
            self.end(id, ended);
        }
    }

    /// An execution is done, with a result that may have to be confirmed.
    pub(super) fn completed(&mut self, id: RunId, result: &ActionResult) {
        if result.exit_code != 0 {
            return self.failed_command(id, result.exit_code, "when executed");
        }
        if self.runs.confirmations.is_due() {
            self.set_stage(id, Stage::Verify);
            self.runs.verify.push(id);
        } else {
            self.end(id, Ended::Executed);
        }
        self.take_result(id, result);
    }

    /// Lets the outputs of a result be known.
    fn take_result(&mut self, id: RunId, result: &ActionResult) {
        let outputs = match outputs(result) {
            Ok(outputs) => outputs,
            Err(error) => {
                tracing::warn!(action = %self.runs[id].action, %error, "the result is malformed");
                Vec::new()
            }
        };
        match Outputs::without_directories(&outputs) {
            Some(outputs) => self.take_outputs(id, outputs),
            None => self.read_outputs(id, outputs),
        }
    }

    fn read_outputs(&self, run: RunId, outputs: Vec<Output>) {
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Outputs { run, outputs: Outputs::read(blobs, outputs).await } });
    }

    pub(super) fn take_outputs(&mut self, id: RunId, outputs: Outputs) {
        self.runs[id].outputs = Some(outputs);
        self.deliver(id, None);
        self.hear_listing(id);
    }

    /// Tells the consumers of one subscriber, or of all, what a run made.
    fn deliver(&mut self, id: RunId, only: Option<ActId>) {
        let run = &self.runs[id];
        let told = match (&run.outputs, &run.stage) {
            (Some(_), _) => Told::OutputsOf(id),
            (None, Stage::Done(Ended::Failed(_))) => Told::Lost,
            _ => return,
        };
        match only {
            Some(act) => self.hand_on(act, told),
            None => (0..run.acts.len()).for_each(|turn| self.hand_on(self.runs[id].acts[turn], told)),
        }
    }

    fn hand_on(&mut self, act: ActId, told: Told) {
        if self.tables[act].state == State::Adapted {
            self.tell(act, told);
        }
    }

    fn failed_command(&mut self, id: RunId, exit_code: i32, place: &str) {
        self.end(id, Ended::Failed(format!("exit code {exit_code} {place}")));
        self.deliver(id, None);
    }

    /// A run cannot, or should not, give a result.
    pub(super) fn fail(&mut self, id: RunId, skip: &Skip) {
        let tried = matches!(skip.kind, SkipKind::Service | SkipKind::MissingInputs | SkipKind::BaseMissing);
        self.end(id, if tried { Ended::Failed(skip.reason.clone()) } else { Ended::Skipped });
        let run = &mut self.runs[id];
        run.refusal = Some(Box::new(skip.clone()));
        for act in run.acts.clone() {
            if self.tables[act].state == State::Adapted {
                self.give_up(act, skip.clone());
            }
        }
    }

    pub(super) fn end(&mut self, id: RunId, ended: Ended) {
        if matches!(ended, Ended::Cached | Ended::Executed | Ended::Submitted) {
            self.progress.finished += 1;
        }
        let without_result = matches!(ended, Ended::Failed(_) | Ended::Skipped | Ended::Submitted);
        self.set_stage(id, Stage::Done(ended));
        let run = &mut self.runs[id];
        if run.recipe.take().is_some() {
            // Of its message nothing else is made.
            self.made.remove(&run.action);
        }
        if self.observer.is_some() {
            self.show(id, ActionStep::Ended(&self.runs[id].report()));
        }
        if without_result {
            self.hear_listing(id);
        }
    }

    /// Nobody wants a run any more; when somebody does again, it begins anew.
    pub(super) fn lay_aside(&mut self, id: RunId) {
        self.set_stage(id, Stage::Idle);
        self.show(id, ActionStep::Withdrawn);
    }

    /// The one place where a run's stage changes.
    pub(super) fn set_stage(&mut self, id: RunId, stage: Stage) {
        let run = &mut self.runs[id];
        if stage != Stage::Running && run.running.take().is_some() {
            self.progress.running -= 1;
        }
        self.progress.ready -= u64::from(run.stage.is_in_line());
        self.progress.ready += u64::from(stage.is_in_line());
        run.stage = stage;
    }

    /// Tells the observer about a run.
    pub(super) fn show(&self, id: RunId, step: ActionStep<'_>) {
        let Some(observer) = &self.observer else { return };
        let run = &self.runs[id];
        let act = &self.tables[run.place.act()];
        let kind = match (run.as_recorded, run.acts.is_empty() && !run.askers.is_empty()) {
            (_, true) => ActionKind::Listing,
            (true, _) => ActionKind::Recorded,
            (false, _) => ActionKind::Adapted,
        };
        let element = &self.tables[act.owner].name;
        observer.action(&ActionEvent { action: run.action, element, kind, upload_bytes: run.upload_bytes, step });
    }
}
