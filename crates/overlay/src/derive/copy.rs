//! Copying actions with all that they refer to from one record's tables into another's.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{
    ActionId, ArtifactOverlay, Below, Derivation, DerivationId, ElementId, Input, InputId, LevelId, Making, Origin,
    OriginId, PropertyInput, Record, RecordedAction,
};
use crate::path::{NameId, PathId, index};
use reapi_proto::Digest;

impl Record {
    /// The actions that made inputs of this one, and the elements that they
    /// ran in: its ACTION origins, each once, in order.
    #[must_use]
    pub fn producers(&self, action: ActionId) -> Vec<(ElementId, Digest)> {
        let action = self.action(action);
        let mut inputs: Vec<InputId> = action.properties.iter().map(|p| p.input).collect();
        inputs.extend(&action.conditions);
        for level in levels_below(self, action.root) {
            inputs.extend(self.level(level).iter().filter_map(|(_, below)| match below {
                Below::Input(input) => Some(*input),
                Below::Level(_) => None,
            }));
        }
        let mut producers = Vec::new();
        let mut derived: FxHashSet<DerivationId> = FxHashSet::default();
        while let Some(input) = inputs.pop() {
            for id in &self.input(input).origins {
                match self.origin(*id) {
                    Origin::Action { element, base, .. } => producers.push((*element, *base)),
                    Origin::Derived(id) if derived.insert(*id) => inputs.extend(&self.derivation(*id).of),
                    Origin::Source { .. } | Origin::Artifact { .. } | Origin::Derived(_) => {}
                }
            }
        }
        producers.sort_unstable();
        producers.dedup();
        producers
    }

    /// Puts copies of another record's actions before this one's, in the order given.
    ///
    /// Elements are the same if they have the same name. What the actions
    /// are copied with keeps its meaning, the order of an input's origins included.
    pub fn copy_actions(&mut self, from: &Self, actions: &[ActionId]) {
        let mut copier = Copier::new(from, self);
        let copies = copier.actions(actions);
        self.actions.splice(0..0, copies);
    }

    /// The same record without rows that nothing refers to.
    pub(super) fn compacted(&self) -> Self {
        let mut compact = Self::new(self.digest_function, self.element(ElementId::SELF).clone());
        compact.weak_key.clone_from(&self.weak_key);
        compact.configuration.clone_from(&self.configuration);
        compact.by_digest = self.by_digest;
        let mut copier = Copier::new(self, &mut compact);
        let own_root = self.own_root.map(|path| copier.path(path));
        let actions: Vec<ActionId> = self.action_ids().collect();
        let actions = copier.actions(&actions);
        let artifact = self.artifact_overlays.iter();
        let artifact: Vec<ArtifactOverlay> =
            artifact.map(|o| ArtifactOverlay { path: copier.path(o.path), origin: copier.origin(o.origin) }).collect();
        compact.own_root = own_root;
        compact.actions = actions;
        compact.artifact_overlays = artifact;
        compact
    }
}

/// Levels and everything below them, each once, ascending: what refers comes after what it refers to.
fn levels_below(record: &Record, roots: impl IntoIterator<Item = LevelId>) -> Vec<LevelId> {
    let mut seen = vec![false; record.levels.len()];
    let mut pending: Vec<LevelId> = Vec::new();
    for root in roots {
        pending.push(root);
        while let Some(level) = pending.pop() {
            if std::mem::replace(&mut seen[level.index()], true) {
                continue;
            }
            pending.extend(record.level(level).iter().filter_map(|(_, below)| match below {
                Below::Level(level) if !seen[level.index()] => Some(*level),
                Below::Level(_) | Below::Input(_) => None,
            }));
        }
    }
    let rows = seen.into_iter().enumerate().filter(|(_, seen)| *seen);
    rows.map(|(row, _)| LevelId(index(row))).collect()
}

/// Which row of one table is which of another.
struct Rows(Vec<u32>);

impl Rows {
    const NONE: u32 = u32::MAX;

    fn new(len: usize) -> Self {
        Self(vec![Self::NONE; len])
    }

    fn get(&self, row: usize) -> Option<u32> {
        Some(self.0[row]).filter(|copy| *copy != Self::NONE)
    }

    fn set(&mut self, row: usize, copy: u32) {
        self.0[row] = copy;
    }
}

/// Rows of one record on the way to their counterparts in another.
struct Copier<'a> {
    from: &'a Record,
    to: &'a mut Record,
    /// Element and origin rows of `to`, by what they say.
    element_rows: FxHashMap<String, ElementId>,
    origin_rows: FxHashMap<Origin, OriginId>,
    elements: FxHashMap<ElementId, ElementId>,
    names: Rows,
    paths: Rows,
    origins: Rows,
    derivations: Rows,
    inputs: Rows,
    levels: Rows,
}

impl<'a> Copier<'a> {
    fn new(from: &'a Record, to: &'a mut Record) -> Self {
        let element_rows = to.element_ids().map(|id| (to.element(id).name.clone(), id)).collect();
        let origin_rows = to.origin_ids().map(|(id, origin)| (*origin, id)).collect();
        Self {
            from,
            to,
            element_rows,
            origin_rows,
            elements: FxHashMap::default(),
            names: Rows::new(from.paths.name_count()),
            paths: Rows::new(from.paths.path_count()),
            origins: Rows::new(from.origins.len()),
            derivations: Rows::new(from.derivations.len()),
            inputs: Rows::new(from.inputs.len()),
            levels: Rows::new(from.levels.len()),
        }
    }

    fn actions(&mut self, ids: &[ActionId]) -> Vec<RecordedAction> {
        let from = self.from;
        for level in levels_below(from, ids.iter().filter_map(|id| from.action(*id).root)) {
            self.level(level);
        }
        ids.iter().map(|id| self.action(*id)).collect()
    }

    /// The levels of its tree must have been copied before.
    fn action(&mut self, id: ActionId) -> RecordedAction {
        let action = self.from.action(id);
        let property = |p: &PropertyInput| PropertyInput { name: self.name(p.name), input: self.input(p.input) };
        let properties = action.properties.iter().map(property).collect();
        let conditions = action.conditions.iter().map(|id| self.input(*id)).collect();
        let element = self.element(action.element);
        RecordedAction {
            element,
            root: action.root.and_then(|root| self.levels.get(root.index())).map(LevelId),
            properties,
            conditions,
            ..action.clone()
        }
    }

    /// Everything below must have been copied before.
    fn level(&mut self, id: LevelId) {
        let from = self.from;
        let mut entries = Vec::with_capacity(from.level(id).len());
        for (name, below) in from.level(id) {
            let below = match below {
                Below::Input(input) => Below::Input(self.input(*input)),
                Below::Level(level) => match self.levels.get(level.index()) {
                    Some(copy) => Below::Level(LevelId(copy)),
                    None => continue,
                },
            };
            entries.push((self.name(*name), below));
        }
        let copy = self.to.levels.push(entries);
        self.levels.set(id.index(), copy.0);
    }

    fn input(&mut self, id: InputId) -> InputId {
        if let Some(copy) = self.inputs.get(id.index()) {
            return InputId(copy);
        }
        let from = self.from.input(id);
        let origins = from.origins.iter().map(|id| self.origin(*id)).collect();
        self.to.inputs.push(Input { recorded: from.recorded.clone(), origins });
        let copy = InputId(index(self.to.inputs.len() - 1));
        self.inputs.set(id.index(), copy.0);
        copy
    }

    fn origin(&mut self, id: OriginId) -> OriginId {
        if let Some(copy) = self.origins.get(id.index()) {
            return OriginId(copy);
        }
        let origin = *self.from.origin(id);
        let origin = match origin {
            Origin::Source { element, path } => {
                Origin::Source { element: self.element(element), path: self.path(path) }
            }
            Origin::Artifact { element, path } => {
                Origin::Artifact { element: self.element(element), path: self.path(path) }
            }
            Origin::Action { element, base, path } => {
                Origin::Action { element: self.element(element), base, path: self.path(path) }
            }
            Origin::Derived(id) => Origin::Derived(self.derivation(id)),
        };
        let Self { origin_rows, to, .. } = self;
        let copy = *origin_rows.entry(origin).or_insert_with(|| {
            to.origins.push(origin);
            OriginId(index(to.origins.len() - 1))
        });
        self.origins.set(id.index(), copy.0);
        copy
    }

    /// What it is made of goes before it.
    fn derivation(&mut self, id: DerivationId) -> DerivationId {
        if let Some(copy) = self.derivations.get(id.index()) {
            return DerivationId(copy);
        }
        let Derivation { making, of } = self.from.derivation(id);
        let of = of.iter().map(|input| self.input(*input)).collect();
        let making = match making {
            Making::Merge => Making::Merge,
            Making::Archive(names) => Making::Archive(names.iter().map(|name| self.name(*name)).collect()),
            Making::Locally => Making::Locally,
        };
        self.to.derivations.push(Derivation { making, of });
        let copy = DerivationId(index(self.to.derivations.len() - 1));
        self.derivations.set(id.index(), copy.0);
        copy
    }

    fn element(&mut self, id: ElementId) -> ElementId {
        let Self { from, to, element_rows, elements, .. } = self;
        *elements.entry(id).or_insert_with(|| {
            let element = from.element(id);
            *element_rows.entry(element.name.clone()).or_insert_with(|| {
                to.elements.push(element.clone());
                ElementId(index(to.elements.len() - 1))
            })
        })
    }

    fn name(&mut self, id: NameId) -> NameId {
        if let Some(copy) = self.names.get(id.0 as usize) {
            return NameId(copy);
        }
        let copy = self.to.paths.name_id(self.from.paths.name(id));
        self.names.set(id.0 as usize, copy.0);
        copy
    }

    fn path(&mut self, id: PathId) -> PathId {
        let mut way = Vec::new();
        let mut at = id;
        let mut copy = loop {
            if let Some(copy) = self.paths.get(at.0 as usize) {
                break PathId(copy);
            }
            match self.from.paths.split(at) {
                Some((parent, name)) => {
                    way.push((at, name));
                    at = parent;
                }
                None => break PathId::ROOT,
            }
        };
        while let Some((from, name)) = way.pop() {
            let name = self.name(name);
            copy = self.to.paths.child(copy, name);
            self.paths.set(from.0 as usize, copy.0);
        }
        copy
    }
}
