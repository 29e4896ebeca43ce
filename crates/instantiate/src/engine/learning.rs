//! Learning from what the build asks for.
//!
//! What has changed in an element's commands, or in files that its build makes
//! by itself, cannot be foretold. But the first action that the element asks for
//! shows it: the same step of the recorded build had other arguments, or
//! another generated header. What differs is done to the element's remaining
//! actions, the last ones first, so that build and priming meet in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::BlobStore;
use includes::CompileCommand;
use overlay::{CommandChange, Forest, InputId, Standing, Unlisted, files};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Directory, Node};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Priming;
use super::tables::{ActId, Gate, RowId, State};
use super::task::{Done, fetch};
use crate::skip::{Skip, SkipKind};

/// What is known of the build's requests.
#[derive(Default)]
pub(super) struct Learning {
    /// Everything that was asked for and could be read.
    known: FxHashSet<Digest>,
    /// Not looked at yet.
    queue: Vec<Digest>,
    busy: bool,
    /// Records about which something could be learned.
    doubtful: BTreeSet<RowId>,
    /// Records of which that is to be found out: something of theirs was dropped, or has become known since.
    unjudged: BTreeSet<RowId>,
    /// Records something of which may be dropped: of the others, nothing needs to be learned.
    dropped: FxHashSet<RowId>,
    /// The recorded steps of a record: where a command runs and what it makes.
    steps: FxHashMap<RowId, FxHashMap<Step, Vec<ActId>>>,
    /// What was learned of a record's compiles, and of its other steps.
    lessons: FxHashMap<(RowId, bool), Lesson>,
}

/// A working directory and outputs.
type Step = (Vec<u8>, Vec<Vec<u8>>);

/// What was learned of an element's commands.
#[derive(Clone)]
pub(super) enum Lesson {
    Change(Arc<CommandChange>),
    /// Two steps say different things.
    Unclear,
}

/// An action that was asked for.
pub(super) struct Request {
    digest: Digest,
    action: Action,
    command: Command,
}

/// Requests, and the recorded steps of the records that they may belong to.
pub(super) struct Requests {
    requests: Vec<Request>,
    steps: Vec<Recorded>,
}

/// A recorded action of a record, with its Command.
struct Recorded {
    row: RowId,
    act: ActId,
    action: Action,
    command: Command,
}

/// An action that was asked for, held against the recorded one in its place.
pub(super) struct Studied {
    row: RowId,
    act: ActId,
    request: Request,
    /// What stands where inputs were lost.
    seen: Vec<(InputId, Option<Node>)>,
    /// Whether it takes inputs at the same paths as the recorded one.
    same_paths: bool,
}

impl Learning {
    /// Whether nothing is compared with what was recorded.
    pub(super) fn is_idle(&self) -> bool {
        self.steps.is_empty() && !self.busy
    }
}

impl Priming {
    /// The build has asked for an action.
    pub(super) fn requested(&mut self, action: Digest) {
        if action.function() == self.services.blobs.digest_function() && !self.learning.known.contains(&action) {
            self.learning.queue.push(action);
        }
    }

    /// Whether an action can be predicted after its element was reached: it was learned how, and it was not asked for.
    pub(super) fn is_learned(&self, id: ActId) -> bool {
        let act = &self.tables[id];
        matches!(self.learning.lessons.get(&(act.row, act.compiles())), Some(Lesson::Change(_))) && !act.asked
    }

    /// What to do to the command of an action.
    pub(super) fn lesson(&self, id: ActId) -> Option<Arc<CommandChange>> {
        let act = &self.tables[id];
        match self.learning.lessons.get(&(act.row, act.compiles()))? {
            Lesson::Change(change) if !change.is_empty() => Some(Arc::clone(change)),
            Lesson::Change(_) | Lesson::Unclear => None,
        }
    }

    /// Starts to look at what was asked for, all in one go.
    pub(super) fn start_learning(&mut self) {
        if self.learning.busy || self.learning.queue.is_empty() {
            return;
        }
        for row in std::mem::take(&mut self.learning.unjudged) {
            if self.is_doubtful(row) {
                self.learning.doubtful.insert(row);
            } else {
                self.learning.doubtful.remove(&row);
            }
            if !self.has_dropped(row) {
                self.learning.dropped.remove(&row);
            }
        }
        let queue = std::mem::take(&mut self.learning.queue);
        if self.learning.doubtful.is_empty() {
            return;
        }
        let doubtful = self.learning.doubtful.iter().copied();
        let unknown = doubtful.filter(|row| !self.learning.steps.contains_key(row));
        let unknown: Vec<(RowId, Vec<(ActId, Digest)>)> = unknown
            .map(|row| (row, self.tables[row].acts.iter().flatten().map(|id| (*id, self.tables[*id].base)).collect()))
            .collect();
        self.learning.busy = true;
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Requested(read(blobs, queue, unknown).await) });
    }

    /// Something of a record was dropped, or is not any more.
    pub(super) fn judge_anew(&mut self, row: RowId) {
        self.learning.dropped.insert(row);
        self.learning.unjudged.insert(row);
    }

    /// More is known of a record.
    pub(super) fn judge_anew_if_dropped(&mut self, row: RowId) {
        if self.learning.dropped.contains(&row) {
            self.learning.unjudged.insert(row);
        }
    }

    fn has_dropped(&self, row: RowId) -> bool {
        let row = &self.tables[row];
        let dropped = |id: &ActId| matches!(self.tables[*id].state, State::Dropped(_));
        matches!(row.gate, Gate::Closed(_)) || row.acts.iter().flatten().any(dropped)
    }

    /// Whether something could be learned about a record.
    fn is_doubtful(&self, row: RowId) -> bool {
        let row = &self.tables[row];
        matches!(&row.gate, Gate::Closed(skip) if skip.kind == SkipKind::OtherKey)
            || row.acts.iter().flatten().any(|id| match &self.tables[*id].state {
                State::Dropped(skip) if skip.kind == SkipKind::BuildReached => {
                    let standing = row.adaptation.standing(self.tables[*id].id);
                    matches!(standing, Standing::Lost { changed: Some(_), .. })
                }
                State::Dropped(skip) => {
                    matches!(skip.kind, SkipKind::Commands | SkipKind::LocalInput | SkipKind::OtherKey)
                }
                _ => false,
            })
    }

    pub(super) fn take_requests(&mut self, Requests { requests, steps }: Requests) {
        for Recorded { row, act, action, command } in steps {
            self.learning.steps.entry(row).or_default().entry(step(&command)).or_default().push(act);
            self.tables[act].compiles = Some(CompileCommand::parse(command.arguments()).is_some());
            self.workshop.know(self.tables[act].base, &action, &command);
        }
        let mut studies = Vec::new();
        for request in requests {
            // A client asks before it stores the action; when it is heard of again, it can be read.
            if !self.learning.known.insert(request.digest) {
                continue;
            }
            let step = step(&request.command);
            let place = self.learning.steps.iter().find_map(|(row, steps)| Some((*row, steps.get(&step)?.clone())));
            let Some((row, acts)) = place else { continue };
            for id in &acts {
                self.tables[*id].asked = true;
            }
            // One output of many actions: which of them this one is cannot be told.
            let &[act] = acts.as_slice() else { continue };
            if is_probe(&request.command) {
                continue;
            }
            if self.tables[act].adapted == Some(request.digest) {
                continue;
            }
            let lost = self.tables[row].adaptation.lost_inputs(self.tables[act].id);
            studies.push((row, act, request, lost));
        }
        if studies.is_empty() {
            self.learning.busy = false;
            return;
        }
        let with_roots = studies.into_iter().filter_map(|(row, act, request, lost)| {
            let base = self.workshop.base(&self.tables[act].base)?.ok()?;
            Some((row, act, request, lost, base.input_root_digest()))
        });
        let studies: Vec<_> = with_roots.collect();
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move {
            let mut studied = Vec::new();
            for (row, act, request, lost, recorded) in studies {
                studied.push(study(&blobs, row, act, request, lost, recorded).await);
            }
            Done::Studied(studied.into_iter().flatten().collect())
        });
    }

    pub(super) fn studied(&mut self, studied: Vec<Studied>) {
        self.learning.busy = false;
        for Studied { row, act, request, seen, same_paths } in studied {
            let Some(Ok(base)) = self.workshop.base(&self.tables[act].base) else { continue };
            let Some(recorded) = self.workshop.command_of(&base) else { continue };
            tracing::debug!(action = %request.digest, same_paths, "was asked for, in place of a recorded action");
            // What reads other files is a case of its own, and says nothing of the others.
            let Some(change) = CommandChange::between(&recorded, &request.command).filter(|_| same_paths) else {
                continue;
            };
            let kind = (row, self.tables[act].compiles());
            let lesson = match self.learning.lessons.get(&kind) {
                Some(Lesson::Unclear) => Lesson::Unclear,
                Some(Lesson::Change(known)) if known.leads_to(&recorded, &request.command) => {
                    Lesson::Change(Arc::clone(known))
                }
                Some(Lesson::Change(_)) => Lesson::Unclear,
                None => Lesson::Change(Arc::new(change)),
            };
            let unclear = matches!(lesson, Lesson::Unclear);
            self.learning.lessons.insert(kind, lesson);
            if unclear {
                for id in self.tables[row].acts.iter().flatten().copied().collect::<Vec<_>>() {
                    let act = &self.tables[id];
                    if act.learned && !act.asked && act.compiles() == kind.1 {
                        let reason = "what the build asks for shows no common change of its commands";
                        self.give_up(id, Skip::new(SkipKind::Commands, reason));
                    }
                }
                continue;
            }
            tracing::info!(action = %request.digest, "shows what has changed about the commands of its element");
            self.totals.learned += 1;
            let row_ref = &mut self.tables[row];
            row_ref.gate = Gate::Open;
            let record = Arc::clone(row_ref.adaptation.record());
            let held = record.action(self.tables[act].id).conditions.clone();
            let held =
                held.into_iter().filter_map(|input| Some((input, record.input(input).recorded.whole()?.clone())));
            let seen = seen.into_iter().filter_map(|(input, node)| Some((input, node?)));
            let facts: Vec<(InputId, Node)> = held.chain(seen).collect();
            self.tables[row].adaptation.see(facts);
            self.judge_anew(row);
            let demands = self.tables[row].adaptation.take_demands();
            self.demands.extend(demands.into_iter().map(|demand| (row, demand)));
            self.touched.extend(self.tables[row].acts.iter().flatten());
        }
    }
}

/// Reads what was asked for, and the recorded actions that it may stand in the place of.
async fn read(blobs: Arc<dyn BlobStore>, queue: Vec<Digest>, unknown: Vec<(RowId, Vec<(ActId, Digest)>)>) -> Requests {
    let bases = unknown.iter().flat_map(|(_, acts)| acts.iter().map(|(_, base)| *base));
    let wanted: Vec<Digest> = queue.iter().copied().chain(bases).collect();
    let mut actions: FxHashMap<Digest, Action> = FxHashMap::default();
    for (digest, bytes) in fetch(Arc::clone(&blobs), wanted).await {
        if let Some(action) = bytes.ok().and_then(|bytes| Action::parse(bytes).ok()) {
            actions.insert(digest, action);
        }
    }
    let mut commands: FxHashMap<Digest, Command> = FxHashMap::default();
    for (digest, bytes) in fetch(blobs, actions.values().map(Action::command_digest).collect()).await {
        if let Some(command) = bytes.ok().and_then(|bytes| Command::parse(bytes).ok()) {
            commands.insert(digest, command);
        }
    }
    let both = |digest: &Digest| {
        let action = actions.get(digest)?;
        Some((action.clone(), commands.get(&action.command_digest())?.clone()))
    };
    let requests = queue.into_iter().filter_map(|digest| {
        let (action, command) = both(&digest)?;
        Some(Request { digest, action, command })
    });
    let requests = requests.collect();
    let recorded = unknown.iter().flat_map(|(row, acts)| acts.iter().map(move |(act, base)| (*row, *act, base)));
    let steps = recorded.filter_map(|(row, act, base)| {
        let (action, command) = both(base)?;
        Some(Recorded { row, act, action, command })
    });
    Requests { requests, steps: steps.collect() }
}

/// Looks at the inputs of what was asked for. `None` where they cannot be read.
async fn study(
    blobs: &Arc<dyn BlobStore>,
    row: RowId,
    act: ActId,
    request: Request,
    lost: Vec<(Bytes, InputId)>,
    recorded: Digest,
) -> Option<Studied> {
    let mut forest = Forest::new();
    let now = list(blobs, &mut forest, request.action.input_root_digest()).await?;
    let then = list(blobs, &mut forest, recorded).await?;
    let same_paths = now.iter().map(|(path, _)| path).eq(then.iter().map(|(path, _)| path));
    let now: FxHashMap<&Bytes, &Node> = now.iter().map(|(path, node)| (path, node)).collect();
    let seen = lost.into_iter().map(|(path, input)| (input, now.get(&path).map(|node| (*node).clone()))).collect();
    Some(Studied { row, act, request, seen, same_paths })
}

async fn list(blobs: &Arc<dyn BlobStore>, forest: &mut Forest, root: Digest) -> Option<Vec<(Bytes, Node)>> {
    loop {
        match files(forest, &root) {
            Ok(files) => return Some(files),
            Err(Unlisted::TooLarge) => return None,
            Err(Unlisted::Missing(missing)) => {
                for (digest, bytes) in fetch(Arc::clone(blobs), missing).await {
                    forest.insert(digest, Directory::parse(bytes.ok()?).ok()?);
                }
            }
        }
    }
}

/// What a configure script compiles to learn about the compiler, by names of its own and with flags that it tries.
pub(super) fn is_probe(command: &Command) -> bool {
    let name = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b"conftest"));
    command.output_paths().any(name)
}

fn step(command: &Command) -> Step {
    let mut outputs: Vec<Vec<u8>> = command.output_paths().map(<[u8]>::to_vec).collect();
    outputs.sort_unstable();
    (command.working_directory().to_vec(), outputs)
}
