//! Adapting recorded actions to what is there now.

mod derived;
mod inputs;
mod uses;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use reapi_proto::raw::{Action, ActionEdit, Command, Edit, Node, PropertyEdit, RawError};
use reapi_proto::{Blob, Digest};
use rustc_hash::{FxHashMap, FxHashSet};

pub use derived::Demand;
use derived::Derived;
use inputs::{ANYTHING, CHANGED, Difference, GUESS, InputState, Inputs, LOST, UNKNOWN};
use uses::{Lists, Uses};

use crate::forest::{Forest, Missing};
use crate::model::{ActionId, Below, DerivationId, InputId, LevelId, Origin, OriginId, Record};
use crate::path::{NameId, PathId};
use crate::recorded::{NodeKind, Recorded};
use crate::rewrite::{Change, EditTree, RewriteError, Rewriter};

/// What an origin holds now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Now {
    /// Not known yet.
    #[default]
    Unknown,
    /// Whatever it held when the input was recorded.
    AsRecorded,
    /// This.
    Is(Node),
    /// A symlink, and in the same tree this file behind it. Clients that take what is behind links see the file.
    Linked {
        /// The symlink.
        link: Node,
        /// The file.
        file: Node,
    },
    /// Nothing: the path is not there any more.
    Gone,
    /// It will not become known.
    Lost,
}

/// An input of an action that is not as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Its path in the input tree.
    pub path: Bytes,
    /// What stood there.
    pub recorded: Recorded,
    /// What stands there now; `None` if it is gone.
    pub now: Option<Node>,
}

/// What is known of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Inputs are not known yet; any of these origins could settle one.
    Waiting {
        /// The origins that it lacks, each once.
        on: Vec<OriginId>,
    },
    /// An input will never be known.
    Lost {
        /// One of its origins.
        origin: OriginId,
        /// Where that is made locally: what has changed of what it is made of.
        changed: Option<OriginId>,
    },
    /// Every input is known.
    Ready {
        /// Whether any input differs from the recorded one.
        changed: bool,
        /// Whether any input is known from an origin that is not its authority.
        guess: bool,
    },
}

/// An adapted action: the messages that must be stored, the new directories
/// apart (see [`Adaptation::take_directories`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adapted {
    /// The Action message.
    pub action: Blob,
    /// The Command message, where it had to change.
    pub command: Option<Blob>,
    /// Root of the input tree.
    pub input_root: Digest,
    /// Roots of other trees, named by platform properties, that are not the recorded ones.
    pub platforms: Vec<Digest>,
}

/// Why an action that is ready cannot be adapted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdaptError {
    /// The input tree cannot be rewritten.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// The Action or Command cannot be edited.
    #[error("the action cannot be edited: {0}")]
    Message(#[from] RawError),
    /// The record speaks of an input that the recorded action does not have.
    #[error("the record does not fit its action: {0}")]
    Mismatch(String),
}

/// When one input in so many changes at once, following each of them upwards
/// costs more than judging everything anew.
const WHOLESALE: usize = 8;

/// Judging everything anew this often costs as much as it takes to know who
/// refers to what, after which only what has changed is looked at.
const PASSES: u32 = 6;

/// The most places of one action that are looked at one by one. The large
/// workload has 400 inputs in an action; a whole distribution has 500,000 files.
const MAX_PLACES: usize = 500_000;

/// The state of one [`Record`] between two builds.
///
/// Facts go in through [`settle`](Self::settle), in any order and as often as
/// they change; [`standing`](Self::standing) says what follows for an action,
/// and [`adapt`](Self::adapt) rewrites one. Work is shared by all actions of
/// the record: each distinct directory is rewritten once per change.
#[derive(Debug)]
pub struct Adaptation {
    record: Arc<Record>,
    origins: Vec<Now>,
    inputs: Inputs,
    flags: Vec<u8>,
    origin_inputs: Lists<InputId>,
    /// What was seen, whatever the origins say.
    seen: FxHashMap<InputId, Node>,
    derived: Derived,
    uses: Option<Uses>,
    /// How often everything was judged anew.
    passes: u32,
    generation: u64,
    rewriter: Rewriter<LevelId>,
}

/// What a name that leads to something changed stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangedEntry<'a> {
    /// An input.
    Input {
        /// Which one.
        id: InputId,
        /// Its name in the directory.
        name: &'a Bytes,
        /// What stood there.
        recorded: &'a Recorded,
        /// What stands there now; `None` if it is gone.
        now: Option<&'a Node>,
    },
    /// A directory with changed entries below it.
    Level(LevelId),
}

impl Adaptation {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(record: Arc<Record>) -> Self {
        let mut adaptation = Self {
            origins: vec![Now::Unknown; record.origins.len()],
            inputs: Inputs::new(record.inputs.len()),
            flags: vec![0; record.levels.len()],
            origin_inputs: uses::origin_inputs(&record),
            seen: FxHashMap::default(),
            derived: Derived::of(&record),
            uses: None,
            passes: 0,
            generation: 0,
            rewriter: Rewriter::new(record.digest_function),
            record,
        };
        let all = (0..crate::path::index(adaptation.inputs.len())).map(InputId);
        adaptation.judge_inputs(all);
        let derivations = (0..adaptation.record.derivations.len()).map(|row| DerivationId(crate::path::index(row)));
        adaptation.derive(derivations.collect());
        for (row, entries) in adaptation.record.levels.iter().enumerate() {
            adaptation.flags[row] = judge_level(&adaptation.inputs, &adaptation.flags, entries, ANYTHING);
        }
        adaptation
    }

    /// Another number whenever anything that is known of any action may be other than before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Takes facts in. Returns the actions whose standing or adaptation may
    /// differ from before, in order. An action of which only a guess has come
    /// true is not among them: its adaptation is what it was.
    pub fn settle(&mut self, facts: impl IntoIterator<Item = (OriginId, Now)>) -> Vec<ActionId> {
        let mut touched = Vec::new();
        for (origin, now) in facts {
            let state = &mut self.origins[origin.index()];
            if *state != now {
                *state = now;
                touched.extend_from_slice(self.origin_inputs.get(origin.index()));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let mut changed = self.judge_inputs(touched);
        let uses = &self.derived.uses;
        let derivations: BTreeSet<DerivationId> =
            changed.iter().filter_map(|(input, _)| uses.get(input)).flatten().copied().collect();
        changed.extend(self.derive(derivations));
        self.spread(&changed)
    }

    /// The inputs of an action that will not become known, with their paths; no more than a real action has.
    #[must_use]
    pub fn lost_inputs(&self, action: ActionId) -> Vec<(Bytes, InputId)> {
        let mut lost = Vec::new();
        let mut looked_at = 0;
        let mut pending: Vec<(Vec<u8>, LevelId)> =
            self.record.action(action).root.map(|level| (Vec::new(), level)).into_iter().collect();
        while let Some((path, level)) = pending.pop() {
            looked_at += self.record.level(level).len();
            if self.flags[level.index()] & LOST == 0 || looked_at > MAX_PLACES {
                continue;
            }
            for (name, below) in self.record.level(level) {
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                let here = || [path.as_slice(), separator, self.record.paths.name(*name)].concat();
                match below {
                    Below::Input(input) if self.inputs.flags(*input) & LOST != 0 => lost.push((here().into(), *input)),
                    Below::Input(_) => {}
                    Below::Level(level) => pending.push((here(), *level)),
                }
            }
        }
        lost
    }

    /// Takes in what was seen to stand where an input stood, or for a
    /// condition, that it holds; from now on, its origins do not matter. Returns what [`settle`](Self::settle) does.
    pub fn see(&mut self, seen: impl IntoIterator<Item = (InputId, Node)>) -> Vec<ActionId> {
        let seen: Vec<(InputId, Node)> = seen.into_iter().collect();
        let inputs: Vec<InputId> = seen.iter().map(|(input, _)| *input).collect();
        self.seen.extend(seen);
        let mut changed = self.judge_inputs(inputs);
        let uses = &self.derived.uses;
        let derivations = changed.iter().filter_map(|(input, _)| uses.get(input)).flatten().copied().collect();
        changed.extend(self.derive(derivations));
        self.spread(&changed)
    }

    /// What is known of an action.
    #[must_use]
    pub fn standing(&self, action: ActionId) -> Standing {
        let flags = self.action_flags(action);
        if flags & LOST != 0
            && let Some(origin) = self.find_inputs(action, LOST).first().and_then(|input| self.authority(*input))
        {
            return Standing::Lost { origin, changed: self.changed_part(origin) };
        }
        if flags & UNKNOWN != 0 {
            let mut on = Vec::new();
            let mut pending = self.find_inputs(action, UNKNOWN);
            let mut seen = FxHashSet::default();
            while let Some(input) = pending.pop() {
                for id in &self.record.input(input).origins {
                    match self.record.origin(*id) {
                        Origin::Derived(derivation) if seen.insert(*derivation) => {
                            let parts = &self.record.derivation(*derivation).of;
                            pending.extend(parts.iter().filter(|part| self.inputs.flags(**part) & UNKNOWN != 0));
                        }
                        Origin::Derived(_) => {}
                        _ if self.origins[id.index()] == Now::Unknown => on.push(*id),
                        _ => {}
                    }
                }
            }
            on.sort_unstable();
            on.dedup();
            return Standing::Waiting { on };
        }
        Standing::Ready { changed: flags & CHANGED != 0, guess: flags & GUESS != 0 }
    }

    /// Whether [`standing`](Self::standing) is anything but waiting. Takes the
    /// same short time however many inputs the action has.
    #[must_use]
    pub fn is_settled(&self, action: ActionId) -> bool {
        let flags = self.action_flags(action);
        flags & LOST != 0 || flags & UNKNOWN == 0
    }

    /// The levels of an action's tree that will be rewritten, to start [`descend`](Self::descend) with.
    #[must_use]
    pub fn changed_root(&self, action: ActionId) -> Option<LevelId> {
        self.record.action(action).root.filter(|root| self.flags[root.index()] & CHANGED != 0)
    }

    /// What has changed in a directory, its subdirectories unopened: the same for all actions that have it.
    pub fn changed_entries(&self, level: LevelId) -> impl Iterator<Item = ChangedEntry<'_>> {
        self.record.level(level).iter().filter_map(|(name, below)| match below {
            Below::Input(id) => {
                let now = self.inputs.changed(*id)?;
                let (name, recorded) = (self.record.paths.name(*name), &self.record.input(*id).recorded);
                Some(ChangedEntry::Input { id: *id, name, recorded, now })
            }
            Below::Level(level) => (self.flags[level.index()] & CHANGED != 0).then_some(ChangedEntry::Level(*level)),
        })
    }

    /// The entries of an action's input tree that will be replaced or removed, sorted by path. `None` where the
    /// record expands to more places than any real action has inputs.
    #[must_use]
    pub fn changes(&self, action: ActionId) -> Option<Vec<Changed>> {
        let mut changes = Vec::new();
        let mut looked_at = 0;
        let mut pending: Vec<(Vec<u8>, LevelId)> =
            self.changed_root(action).map(|level| (Vec::new(), level)).into_iter().collect();
        while let Some((path, level)) = pending.pop() {
            looked_at += self.record.level(level).len();
            if looked_at > MAX_PLACES {
                return None;
            }
            for (name, below) in self.record.level(level) {
                let here = || {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    [path.as_slice(), separator, self.record.paths.name(*name)].concat()
                };
                match below {
                    Below::Input(input) => {
                        if let Some(now) = self.inputs.changed(*input) {
                            let recorded = self.record.input(*input).recorded.clone();
                            changes.push(Changed { path: here().into(), recorded, now: now.cloned() });
                        }
                    }
                    Below::Level(level) if self.flags[level.index()] & CHANGED != 0 => pending.push((here(), *level)),
                    Below::Level(_) => {}
                }
            }
        }
        changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Some(changes)
    }

    /// Adds the next level below directories that will be rewritten to `below`.
    ///
    /// Call it with the directories' digests in step with the levels, starting
    /// at the input roots; what it adds must be at hand before [`adapt`](Self::adapt).
    ///
    /// # Errors
    /// [`AdaptError::Mismatch`] when the tree is not the one that was recorded,
    /// [`Missing`] (as a rewrite error) when `digest` is not at hand.
    pub fn descend(
        &self,
        forest: &Forest,
        level: LevelId,
        digest: &Digest,
        below: &mut Vec<(LevelId, Digest)>,
    ) -> Result<(), AdaptError> {
        let directory = forest.get(digest).ok_or(RewriteError::Missing(Missing(*digest)))?;
        for (name, entry) in self.record.level(level) {
            let name = self.record.paths.name(*name);
            let mismatch =
                || AdaptError::Mismatch(format!("{:?} in directory {digest}", String::from_utf8_lossy(name)));
            match entry {
                Below::Input(input)
                    if self.inputs.flags(*input) & CHANGED != 0
                        && !directory.get(name).is_some_and(|node| self.record.input(*input).recorded.is(&node)) =>
                {
                    return Err(mismatch());
                }
                Below::Level(child) if self.flags[child.index()] & CHANGED != 0 => {
                    below.push((*child, directory.subdirectory(name).ok_or_else(mismatch)?));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the Command of an action has to change too.
    #[must_use]
    pub fn needs_command(&self, action: ActionId) -> bool {
        self.changed_properties(action).next().is_some()
    }

    /// The root of an action's input tree with what has changed: the first half of [`adapt`](Self::adapt).
    ///
    /// # Errors
    /// [`RewriteError`]; the action is to be dropped then.
    pub fn input_root(&mut self, action: ActionId, base: &Action, forest: &Forest) -> Result<Digest, RewriteError> {
        let recorded = base.input_root_digest();
        let Some(level) = self.changed_root(action) else { return Ok(recorded) };
        let view = Edits { record: &self.record, inputs: &self.inputs, flags: &self.flags };
        self.rewriter.rewrite(&view, forest, level, recorded)
    }

    /// Rewrites an action whose inputs are all known. `command` is used only
    /// if [`needs_command`](Self::needs_command).
    ///
    /// # Errors
    /// [`AdaptError`]; the action is to be dropped then.
    pub fn adapt(
        &mut self,
        action: ActionId,
        base: &Action,
        command: Option<&Command>,
        forest: &Forest,
    ) -> Result<Adapted, AdaptError> {
        let input_root = self.input_root(action, base, forest)?;
        self.adapt_to(action, base, command, input_root)
    }

    /// As [`adapt`](Self::adapt), with this input tree, which is that of
    /// [`input_root`](Self::input_root) with edits that the record knows nothing of.
    ///
    /// # Errors
    /// [`AdaptError`]; the action is to be dropped then.
    pub fn adapt_to(
        &self,
        action: ActionId,
        base: &Action,
        command: Option<&Command>,
        input_root: Digest,
    ) -> Result<Adapted, AdaptError> {
        let function = self.record.digest_function;
        let platform: Vec<PropertyEdit> = self.changed_properties(action).collect();
        let mut new_command = None;
        if !platform.is_empty() {
            let command = command.ok_or_else(|| AdaptError::Mismatch("its command is not at hand".to_owned()))?;
            // The deprecated copy in the Command may be absent, or lack some of them.
            let held: Vec<PropertyEdit> = platform
                .iter()
                .filter(|edit| command.platform().any(|p| p.name == edit.name && p.value == edit.from))
                .cloned()
                .collect();
            if !held.is_empty() {
                new_command = Some(Blob::new(function, command.splice_platform(&held)?));
            }
        }
        let edit = ActionEdit {
            command_digest: new_command.as_ref().map(Blob::digest),
            input_root_digest: (input_root != base.input_root_digest()).then_some(input_root),
            platform,
        };
        let new_action = Blob::new(function, base.splice(&edit)?);
        let platforms = self.changed_platforms(action).collect();
        Ok(Adapted { action: new_action, command: new_command, input_root, platforms })
    }

    /// The directories that adapting made since the last call, children before parents, each once.
    pub fn take_directories(&mut self) -> Vec<Blob> {
        self.rewriter.take_new()
    }

    /// What an origin holds, as far as known.
    #[must_use]
    pub fn now(&self, origin: OriginId) -> &Now {
        &self.origins[origin.index()]
    }

    /// Judges inputs; returns those that are not as before.
    fn judge_inputs(&mut self, inputs: impl IntoIterator<Item = InputId>) -> Vec<(InputId, Difference)> {
        let mut changed = Vec::new();
        for input in inputs {
            let state = self.judge_input(input);
            changed.extend(self.inputs.set(input, state).map(|difference| (input, difference)));
        }
        changed
    }

    fn authority(&self, input: InputId) -> Option<OriginId> {
        self.record.input(input).origins.first().copied()
    }

    fn judge_input(&self, id: InputId) -> InputState {
        let input = self.record.input(id);
        if let Some(node) = self.seen.get(&id) {
            return match input.recorded.is(node) {
                true => InputState::Same { guess: false },
                false => InputState::Changed { node: Some(node.clone()), guess: false },
            };
        }
        let mut lost = true;
        for (i, origin) in input.origins.iter().enumerate() {
            let derived = match self.record.origin(*origin) {
                Origin::Derived(id) => Some(*id),
                _ => None,
            };
            let guess = i > 0 || derived.is_some_and(|id| self.derived.guess[id.index()]);
            match &self.origins[origin.index()] {
                Now::Lost => continue,
                Now::Unknown => lost = false,
                Now::AsRecorded => return InputState::Same { guess },
                Now::Is(_) | Now::Linked { .. } => {
                    let kind = input.recorded.kind();
                    let Some(mut node) = self.node_of(&self.origins[origin.index()], kind) else { continue };
                    if let Node::File { executable, .. } = &mut node
                        && kind.is_file()
                        && (guess || self.record.by_digest)
                    {
                        // Installing sets the bit anew: only the authority speaks for it.
                        *executable = kind == NodeKind::Executable;
                    }
                    if input.recorded.is(&node) {
                        return InputState::Same { guess };
                    }
                    return InputState::Changed { node: Some(node), guess };
                }
                Now::Gone => return InputState::Changed { node: None, guess },
            }
        }
        match input.recorded.kind() {
            _ if lost => InputState::Lost,
            // Links are made by installing, hardly ever from a source, and
            // hardly ever anew: the old target is the best guess.
            NodeKind::Symlink => InputState::Same { guess: true },
            _ => InputState::Unknown,
        }
    }

    /// What an input of this kind is, of what its origin holds.
    fn node_of(&self, now: &Now, recorded: NodeKind) -> Option<Node> {
        match (now, recorded) {
            (Now::Is(node), _) => Some(node.clone()),
            // Clients whose trees have no place for the element's own files flatten links as well.
            (Now::Linked { file, .. }, kind) if kind.is_file() && self.record.own_root == Some(PathId::ROOT) => {
                Some(file.clone())
            }
            (Now::Linked { link, .. }, _) => Some(link.clone()),
            _ => None,
        }
    }

    fn action_flags(&self, action: ActionId) -> u8 {
        let action = self.record.action(action);
        let tree = action.root.map_or(0, |level| self.flags[level.index()]);
        let properties = action.properties.iter().map(|property| property.input);
        properties.chain(action.conditions.iter().copied()).fold(tree, |flags, input| flags | self.inputs.flags(input))
    }

    /// The inputs of an action with this flag, each once.
    fn find_inputs(&self, action: ActionId, flag: u8) -> Vec<InputId> {
        let action = self.record.action(action);
        let mut found: Vec<InputId> = action.properties.iter().map(|p| p.input).collect();
        found.extend(&action.conditions);
        let mut pending: Vec<LevelId> = action.root.into_iter().collect();
        let mut seen = FxHashSet::default();
        while let Some(level) = pending.pop() {
            if self.flags[level.index()] & flag == 0 || !seen.insert(level) {
                continue;
            }
            for (_, below) in self.record.level(level) {
                match below {
                    Below::Input(input) => found.push(*input),
                    Below::Level(level) => pending.push(*level),
                }
            }
        }
        found.retain(|input| self.inputs.flags(*input) & flag != 0);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn changed_platforms(&self, action: ActionId) -> impl Iterator<Item = Digest> {
        let properties = self.record.action(action).properties.iter();
        properties.filter_map(|property| match self.inputs.changed(property.input)? {
            Some(Node::Directory { digest }) => Some(*digest),
            _ => None,
        })
    }

    fn changed_properties(&self, action: ActionId) -> impl Iterator<Item = PropertyEdit> {
        self.record.action(action).properties.iter().filter_map(|property| {
            let Some(Node::Directory { digest: to }) = self.inputs.changed(property.input)? else { return None };
            let recorded = self.record.input(property.input).recorded.whole()?;
            let Node::Directory { digest: from } = recorded else { return None };
            Some(PropertyEdit {
                name: self.record.paths.name(property.name).clone(),
                from: from.to_string().into(),
                to: to.to_string().into(),
            })
        })
    }

    /// Judges everything above changed inputs anew, bottom-up. Returns the
    /// actions that have any of them, where more than certainty has changed.
    fn spread(&mut self, inputs: &[(InputId, Difference)]) -> Vec<ActionId> {
        if inputs.is_empty() {
            return Vec::new();
        }
        if inputs.iter().any(|(_, difference)| *difference == Difference::Value) {
            self.generation += 1;
        }
        let many = inputs.len() * WHOLESALE >= self.inputs.len();
        if many || (self.uses.is_none() && self.passes < PASSES) {
            self.passes += 1;
            return self.spread_everywhere(inputs);
        }
        let uses = self.uses.take().unwrap_or_else(|| Uses::of(&self.record));
        let mut actions = Vec::new();
        let mut pending: BinaryHeap<Reverse<Touched>> = BinaryHeap::new();
        for (input, difference) in inputs {
            let flags = self.inputs.flags(*input);
            let levels = uses.input_levels.get(input.index()).iter();
            pending.extend(levels.map(|level| Reverse(Touched { level: *level, difference: *difference, flags })));
            if *difference == Difference::Value {
                actions.extend_from_slice(uses.property_actions.get(input.index()));
            }
        }
        // Parents have higher rows, so each level is judged after everything below it.
        while let Some(Reverse(Touched { level, mut difference, mut flags })) = pending.pop() {
            while let Some(Reverse(more)) = pending.peek().filter(|Reverse(next)| next.level == level) {
                (difference, flags) = (difference.max(more.difference), flags | more.flags);
                pending.pop();
            }
            let row = level.index();
            let limit = self.flags[row] | flags;
            let flags = judge_level(&self.inputs, &self.flags, self.record.level(level), limit);
            self.flags[row] = flags;
            let parents = uses.level_parents.get(row).iter();
            pending.extend(parents.map(|parent| Reverse(Touched { level: *parent, difference, flags })));
            if difference == Difference::Value {
                self.rewriter.forget(level);
                actions.extend_from_slice(uses.root_actions.get(row));
            }
        }
        self.uses = Some(uses);
        actions.sort_unstable();
        actions.dedup();
        actions
    }

    /// [`spread`](Self::spread) in one pass over all levels, which are in bottom-up order already.
    fn spread_everywhere(&mut self, inputs: &[(InputId, Difference)]) -> Vec<ActionId> {
        let is_other = |differences: u8| differences & Difference::Value.bit() != 0;
        let mut changed = vec![0; self.inputs.len()];
        for (input, difference) in inputs {
            changed[input.index()] |= difference.bit();
        }
        let mut above = vec![0; self.flags.len()];
        for (row, entries) in self.record.levels.iter().enumerate() {
            let below = entries.iter().fold(0, |all, (_, below)| {
                all | match below {
                    Below::Input(input) => changed[input.index()],
                    Below::Level(level) => above[level.index()],
                }
            });
            if below == 0 {
                continue;
            }
            above[row] = below;
            self.flags[row] = judge_level(&self.inputs, &self.flags, entries, ANYTHING);
            if is_other(below) {
                self.rewriter.forget(LevelId(crate::path::index(row)));
            }
        }
        let concerned = |id: &ActionId| {
            let action = self.record.action(*id);
            let inputs = action.properties.iter().map(|property| property.input);
            let mut inputs = inputs.chain(action.conditions.iter().copied());
            action.root.is_some_and(|root| is_other(above[root.index()]))
                || inputs.any(|input| is_other(changed[input.index()]))
        };
        self.record.action_ids().filter(concerned).collect()
    }
}

/// A level with something below it that is not as before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Touched {
    level: LevelId,
    difference: Difference,
    /// What it is now.
    flags: u8,
}

/// What is true of anything in a level. More than `limit` cannot be: there is nothing to look for once that is found.
fn judge_level(inputs: &Inputs, flags: &[u8], entries: &[(NameId, Below)], limit: u8) -> u8 {
    let mut all = 0;
    for (_, below) in entries {
        if all == limit {
            break;
        }
        all |= match below {
            Below::Input(input) => inputs.flags(*input),
            Below::Level(level) => flags[level.index()],
        };
    }
    all
}

/// The changed inputs of a record as a tree of edits.
struct Edits<'a> {
    record: &'a Record,
    inputs: &'a Inputs,
    flags: &'a [u8],
}

impl EditTree for Edits<'_> {
    type Node = LevelId;

    fn changes(&self, node: LevelId) -> Vec<(&Bytes, Change<LevelId>)> {
        let changed = self.record.level(node).iter().filter_map(|(name, below)| {
            let change = match below {
                Below::Input(input) => match self.inputs.changed(*input)? {
                    Some(node) => Change::of(Edit::Set(node.clone())),
                    None => Change::of(Edit::Remove),
                },
                Below::Level(level) if self.flags[level.index()] & CHANGED != 0 => {
                    Change { set: None, clear: false, below: Some(*level) }
                }
                Below::Level(_) => return None,
            };
            Some((self.record.paths.name(*name), change))
        });
        changed.collect()
    }
}
