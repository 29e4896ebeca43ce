//! From news about trees to facts about origins, and from facts to actions.

use std::sync::Arc;

use cas_client::BlobStore;
use overlay::{ActionId, ElementId, Forest, Now, OriginId, Record, Standing, TreeKind};
use reapi_proto::Digest;
use reapi_proto::raw::Directory;

use super::Priming;
use super::order::Place;
use super::tables::{ActId, Gate, OwnerId, RowId, State, Told};
use super::task::{Done, fetch};
use crate::lookup::Fit;
use crate::options::WhenReached;
use crate::skip::{Skip, SkipKind};

/// Paths to be looked up in a tree that differs from the recorded one.
pub(super) struct TreeLookup {
    row: RowId,
    owner: OwnerId,
    kind: TreeKind,
    root: Digest,
    record: Arc<Record>,
    origins: Vec<OriginId>,
}

/// What was found there.
pub(super) struct Found {
    row: RowId,
    owner: OwnerId,
    kind: TreeKind,
    root: Digest,
    facts: Vec<(OriginId, Now)>,
}

impl Priming {
    /// An element has this tree now. News that is none costs nothing.
    pub(super) fn learn_root(&mut self, owner: OwnerId, kind: TreeKind, root: Digest) {
        if self.tables[owner].root(kind).replace(root) == Some(root) {
            return;
        }
        self.touched.extend(self.inspector.take_waiting());
        let mentions = self.tables[owner].mentions.clone();
        for (row, element) in mentions {
            self.compare_tree(row, element, owner, kind, root);
        }
    }

    /// An origin in a tree that is the recorded one holds what it held;
    /// otherwise its path has to be looked up.
    fn compare_tree(&mut self, row: RowId, element: ElementId, owner: OwnerId, kind: TreeKind, root: Digest) {
        let record = Arc::clone(self.tables[row].adaptation.record());
        let recorded = match kind {
            TreeKind::Sources => record.element(element).sources,
            TreeKind::Artifact => record.element(element).artifact,
        };
        if element == ElementId::SELF && kind == TreeKind::Sources {
            self.open_gate(row, recorded, root);
        }
        if recorded.is_some_and(|recorded| recorded != root) {
            self.expect_news(row);
        }
        let Some(origins) = self.tables[row].trees.get(&(element, kind)).cloned() else { return };
        if recorded == Some(root) {
            self.learn(row, origins.into_iter().map(|origin| (origin, Now::AsRecorded)));
        } else {
            self.lookups.push(TreeLookup { row, owner, kind, root, record, origins });
        }
    }

    /// The sources of a record's own element decide whether a record of another weak key fits.
    fn open_gate(&mut self, row: RowId, recorded: Option<Digest>, current: Digest) {
        if !matches!(self.tables[row].gate, Gate::Undecided) {
            return;
        }
        let fit = recorded.map_or(Fit::Nearest, |recorded| Fit::of_sources(recorded, current));
        self.tables[row].gate = match fit {
            Fit::Refused(skip) => Gate::Closed(skip),
            Fit::Exact | Fit::Nearest | Fit::Undecided => Gate::Open,
        };
        self.judge_anew(row);
        self.touched.extend(self.tables[row].acts.iter().flatten());
    }

    pub(super) fn learn(&mut self, row: RowId, facts: impl IntoIterator<Item = (OriginId, Now)>) {
        let pending = &mut self.tables[row].pending;
        if pending.is_empty() {
            self.dirty.push(row);
        }
        pending.extend(facts);
    }

    /// Starts the look-ups that are due, all in one walk.
    pub(super) fn start_lookups(&mut self) {
        if self.looking_up || self.lookups.is_empty() {
            return;
        }
        self.looking_up = true;
        let lookups = std::mem::take(&mut self.lookups);
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Facts(look_up(blobs, lookups).await) });
    }

    pub(super) fn looked_up(&mut self, found: Vec<Found>) {
        self.looking_up = false;
        for Found { row, owner, kind, root, facts } in found {
            // The tree may have changed again since.
            if *self.tables[owner].root(kind) == Some(root) {
                self.learn(row, facts);
            }
        }
    }

    /// Works off everything that was learned, until nothing follows from it.
    pub(super) fn settle(&mut self) {
        while !self.dirty.is_empty() || !self.touched.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for row_id in dirty.drain(..) {
                let row = &mut self.tables[row_id];
                let affected = row.adaptation.settle(row.pending.drain(..));
                self.demands.extend(row.adaptation.take_demands().into_iter().map(|demand| (row_id, demand)));
                self.touched.extend(affected.into_iter().filter_map(|id| row.acts[id.index()]));
                self.judge_anew_if_dropped(row_id);
            }
            let mut touched = std::mem::take(&mut self.touched);
            touched.drain(..).for_each(|act| self.reconsider(act));
            // The room is used again.
            reuse(dirty, &mut self.dirty);
            reuse(touched, &mut self.touched);
        }
    }

    /// Judges an action by what is known now.
    fn reconsider(&mut self, id: ActId) {
        let act = &self.tables[id];
        let reached = self.tables[act.owner].reached;
        let shown = |skip: &Skip| reached && matches!(skip.kind, SkipKind::BuildReached | SkipKind::OtherKey);
        let revocable = |skip: &Skip| skip.kind.is_revocable() || shown(skip);
        let learned = reached && self.is_learned(id);
        let gives_way = reached && !learned && self.options.when_reached == WhenReached::GiveWay;
        if gives_way || matches!(&act.state, State::Dropped(skip) if !revocable(skip)) {
            return;
        }
        if learned {
            self.tables[id].learned = true;
        }
        let act = &self.tables[id];
        let row = &self.tables[act.row];
        match &row.gate {
            Gate::Undecided => return self.wait(id),
            Gate::Closed(skip) => return self.give_up(id, skip.clone()),
            Gate::Open => {}
        }
        if !row.adaptation.is_settled(act.id) {
            return self.wait(id);
        }
        match row.adaptation.standing(act.id) {
            Standing::Waiting { .. } => self.wait(id),
            Standing::Lost { origin, changed } => {
                let skip = lost(row.adaptation.record(), act.id, origin, changed);
                self.give_up(id, skip);
            }
            Standing::Ready { changed: false, .. }
                if row.news.as_ref().is_some_and(|news| news.is_empty()) && self.lesson(id).is_none() =>
            {
                self.keep(id);
            }
            Standing::Ready { changed: false, .. } if row.news.is_none() => {
                let row = act.row;
                self.tables[row].undecided.push(id);
                self.wait(id);
            }
            Standing::Ready { .. } => {
                if self.tables[id].state != State::Preparing {
                    self.set_state(id, State::Preparing);
                    self.workshop.queue.push(Place::of(&self.tables, id), id);
                }
            }
        }
    }

    pub(super) fn wait(&mut self, id: ActId) {
        self.tables[id].waits = None;
        self.supersede(id);
        self.set_state(id, State::Waiting);
        self.tell(id, Told::Nothing);
    }

    /// The action stays as recorded.
    pub(super) fn keep(&mut self, id: ActId) {
        if self.tables[id].state == State::Unchanged {
            return;
        }
        self.supersede(id);
        self.set_state(id, State::Unchanged);
        self.tell(id, Told::AsRecorded);
        if self.services.execution.is_some() {
            self.subscribe_base(id);
        }
    }

    /// The action is not predicted.
    pub(super) fn give_up(&mut self, id: ActId, skip: Skip) {
        self.unsubscribe_unless_done(id);
        self.set_state(id, State::Dropped(skip));
        self.tell(id, Told::Lost);
    }

    /// An adaptation that was made before gives way.
    pub(super) fn supersede(&mut self, id: ActId) {
        self.unsubscribe(id);
        if self.tables[id].adapted.take().is_some() {
            self.totals.superseded += 1;
        }
    }

    /// Lets the consumers of an action know about its outputs.
    pub(super) fn tell(&mut self, id: ActId, told: Told) {
        if std::mem::replace(&mut self.tables[id].told, told) == told || self.tables[id].consumers.is_empty() {
            return;
        }
        let consumers = std::mem::take(&mut self.tables[id].consumers);
        for &(row, origin) in &consumers {
            let now = match told {
                Told::Nothing => Now::Unknown,
                Told::AsRecorded => Now::AsRecorded,
                Told::Lost => Now::Lost,
                Told::OutputsOf(run) => {
                    let record = self.tables[row].adaptation.record();
                    let output = self.runs[run].output_at(&record.paths, record.origin(origin).path());
                    output.map_or(Now::Lost, Now::Is)
                }
            };
            self.learn(row, [(origin, now)]);
        }
        self.tables[id].consumers = consumers;
    }
}

/// Goes on with the room of a list that was worked off.
fn reuse<T>(mut room: Vec<T>, list: &mut Vec<T>) {
    room.append(list);
    *list = room;
}

/// Why an action whose input will not become known is not predicted.
fn lost(record: &Record, action: ActionId, origin: OriginId, changed: Option<OriginId>) -> Skip {
    let Some(changed) = changed else {
        let reason = format!("{} will not become known", record.describe(record.origin(origin)));
        return Skip::new(SkipKind::InputLost, reason);
    };
    let changed = record.describe(record.origin(changed));
    let decides = |condition: &overlay::InputId| record.input(*condition).origins.first() == Some(&origin);
    if record.action(action).conditions.iter().any(decides) {
        return Skip::new(SkipKind::Commands, format!("its command may be another one: {changed} is not as it was"));
    }
    let what = record.describe(record.origin(origin));
    Skip::new(SkipKind::LocalInput, format!("an input is {what}, and {changed} is not as it was"))
}

/// Follows all paths of all look-ups in lock-step: one read per level, each directory once.
async fn look_up(blobs: Arc<dyn BlobStore>, wanted: Vec<TreeLookup>) -> Vec<Found> {
    let mut forest = Forest::new();
    let start = |w| {
        let TreeLookup { record, root, origins, .. }: &TreeLookup = w;
        overlay::Lookup::new(record, *root, origins.iter().copied())
    };
    let mut lookups: Vec<overlay::Lookup<'_>> = wanted.iter().map(start).collect();
    while lookups.iter().any(|lookup| !lookup.is_done()) {
        let needs: Vec<Digest> = lookups.iter().flat_map(|lookup| lookup.needs(&forest)).collect();
        for (digest, bytes) in fetch(Arc::clone(&blobs), needs).await {
            match bytes.map(Directory::parse) {
                Ok(Ok(directory)) => forest.insert(digest, directory),
                Ok(Err(error)) => tracing::warn!(%digest, %error, "a directory of a current tree is malformed"),
                Err(skip) => tracing::warn!(%digest, reason = %skip, "a directory of a current tree is not at hand"),
            }
        }
        for lookup in &mut lookups {
            lookup.advance(&forest);
        }
    }
    let found: Vec<_> = lookups.into_iter().map(overlay::Lookup::into_found).collect();
    let with_facts = wanted.iter().zip(found);
    with_facts.map(|(w, facts)| Found { row: w.row, owner: w.owner, kind: w.kind, root: w.root, facts }).collect()
}
