//! Who is who: elements, records and actions, and which origins each action feeds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay::graph::Graph;
use overlay::{ActionId, Adaptation, ElementId, Now, Origin, OriginId, Record, TreeKind};
use reapi_proto::Digest;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::runs::RunId;
use crate::lookup::{Fit, Loaded, Outside};
use crate::skip::Skip;

macro_rules! rows {
    ($($(#[$doc:meta])* $id:ident of $row:ident in $table:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub(super) struct $id(u32);

        impl $id {
            /// The id of what comes after so many. No machine has room for more than it can tell apart.
            fn after(count: usize) -> Self {
                Self(u32::try_from(count).unwrap_or(u32::MAX))
            }

            pub(super) fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::ops::Index<$id> for Tables {
            type Output = $row;
            fn index(&self, id: $id) -> &$row {
                &self.$table[id.index()]
            }
        }

        impl std::ops::IndexMut<$id> for Tables {
            fn index_mut(&mut self, id: $id) -> &mut $row {
                &mut self.$table[id.index()]
            }
        }
    )*};
}

rows! {
    /// An element by name, whether or not the graph has it.
    OwnerId of Owner in owners;
    /// A record.
    RowId of Row in rows;
    /// A distinct recorded action.
    ActId of Act in acts;
}

/// An element that the graph or a record knows.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    /// Position in topological order; elements outside of the graph come last.
    pub(super) rank: u32,
    /// The longest recorded path that begins when the element is built, and when its build begins.
    pub(super) behind: Duration,
    pub(super) ahead: Duration,
    pub(super) sources: Option<Digest>,
    pub(super) artifact: Option<Digest>,
    /// What it builds against directly.
    pub(super) build_deps: Vec<OwnerId>,
    /// Since when the build sets it up.
    pub(super) started: Option<Instant>,
    /// When the build is done with it, as far as its recorded actions tell.
    pub(super) done: Option<Instant>,
    /// The build works on it.
    pub(super) reached: bool,
    /// The records with origins in it, and what they call it.
    pub(super) mentions: Vec<(RowId, ElementId)>,
    /// The recorded actions that ran in it.
    pub(super) acts: Vec<ActId>,
}

impl Owner {
    pub(super) fn root(&mut self, kind: TreeKind) -> &mut Option<Digest> {
        match kind {
            TreeKind::Sources => &mut self.sources,
            TreeKind::Artifact => &mut self.artifact,
        }
    }
}

/// Whether a record's actions may be submitted.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    /// The element's sources decide.
    Undecided,
    Closed(Skip),
}

/// A record in use.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) adaptation: Adaptation,
    pub(super) gate: Gate,
    /// By row of the record's actions; `None` for copies that another record answers for, or that nobody will ask for.
    pub(super) acts: Vec<Option<ActId>>,
    /// The origins in each tree.
    pub(super) trees: FxHashMap<(ElementId, TreeKind), Vec<OriginId>>,
    /// The actions behind the ACTION origins.
    pub(super) producers: FxHashMap<OriginId, ActId>,
    /// Facts that the adaptation has not been told.
    pub(super) pending: Vec<(OriginId, Now)>,
    /// The element that the record belongs to.
    pub(super) owner: OwnerId,
    /// Whom the record means by its own numbers.
    pub(super) elements: Vec<OwnerId>,
    /// What is known of these without their own records.
    outside: Vec<Outside>,
    /// What is staged to build the element, in staging order.
    pub(super) staged: Vec<OwnerId>,
    /// What appeared in trees that are not as recorded; `None` while that is being found out.
    pub(super) news: Option<Arc<Vec<Bytes>>>,
    /// Actions that are as recorded unless something appeared.
    pub(super) undecided: Vec<ActId>,
}

impl Row {
    pub(super) fn owner_of(&self, element: ElementId) -> Option<OwnerId> {
        self.elements.get(element.index()).copied()
    }

    fn outside(&self, element: ElementId) -> Outside {
        self.outside.get(element.index()).copied().unwrap_or(Outside::Open)
    }
}

/// A recorded action, once however many records hold a copy.
#[derive(Debug)]
pub(super) struct Act {
    pub(super) row: RowId,
    pub(super) id: ActionId,
    /// The element that it ran in.
    pub(super) owner: OwnerId,
    pub(super) base: Digest,
    pub(super) duration: Option<Duration>,
    /// The ACTION origins that it feeds.
    pub(super) consumers: Vec<(RowId, OriginId)>,
    /// Its duration and that of the longest path of recorded actions behind it, see [`super::order`].
    pub(super) critical: Duration,
    pub(super) state: State,
    /// The build has asked for it, or for what is in its place now.
    pub(super) asked: bool,
    /// A configure script runs it, and nothing else of the element before.
    pub(super) probe: bool,
    /// Whether it compiles, if that was asked.
    pub(super) compiles: Option<bool>,
    /// It is predicted from what the build has shown.
    pub(super) learned: bool,
    /// What it waits for that is no input of its record.
    pub(super) waits: Option<String>,
    /// What its consumers were told.
    pub(super) told: Told,
    /// The run whose result it wants.
    pub(super) run: Option<RunId>,
    /// Its last adaptation.
    pub(super) adapted: Option<Digest>,
    /// How often it was adapted to something new.
    pub(super) adaptations: u32,
}

impl Act {
    /// Whether it is known to compile.
    pub(super) fn compiles(&self) -> bool {
        self.compiles == Some(true)
    }
}

/// What is known of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Inputs are not known.
    Waiting,
    /// Being adapted.
    Preparing,
    /// As recorded.
    Unchanged,
    /// To another digest: `Act::adapted`.
    Adapted,
    /// Given up.
    Dropped(Skip),
}

/// What the consumers of an action believe about its outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Nothing,
    AsRecorded,
    Lost,
    /// The outputs of this run.
    OutputsOf(RunId),
}

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) owners: Vec<Owner>,
    pub(super) rows: Vec<Row>,
    pub(super) acts: Vec<Act>,
    names: FxHashMap<String, OwnerId>,
    /// The longest path of all.
    pub(super) longest: Duration,
}

impl Tables {
    /// Tables of records, each with the name of its element.
    pub(super) fn new<'a>(graph: &Graph, records: impl Iterator<Item = (&'a str, &'a Loaded)>) -> Self {
        let mut tables = Self {
            owners: Vec::new(),
            rows: Vec::new(),
            acts: Vec::new(),
            names: FxHashMap::default(),
            longest: Duration::ZERO,
        };
        for element in graph.elements() {
            let id = tables.owner(&element.name);
            tables[id].rank = id.0;
            // Dependencies come first in the graph.
            let known = element.build_deps.iter().flatten().filter_map(|below| tables.names.get(below).copied());
            tables[id].build_deps = known.collect();
        }
        for (name, loaded) in records {
            tables.add_record(graph, name, loaded);
        }
        let known = tables.add_actions();
        tables.link(&known);
        super::order::find_paths(&mut tables, graph);
        tables.longest = tables.acts.iter().map(|act| act.critical).max().unwrap_or_default();
        tables
    }

    pub(super) fn act_ids(&self) -> impl Iterator<Item = ActId> + use<> {
        (0..self.acts.len()).map(ActId::after)
    }

    pub(super) fn row_ids(&self) -> impl Iterator<Item = RowId> + use<> {
        (0..self.rows.len()).map(RowId::after)
    }

    /// The element of a name, made known if it is not.
    pub(super) fn owner(&mut self, name: &str) -> OwnerId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = OwnerId::after(self.owners.len());
        self.names.insert(name.to_owned(), id);
        self.owners.push(Owner {
            name: name.to_owned(),
            rank: u32::MAX,
            behind: Duration::ZERO,
            ahead: Duration::ZERO,
            sources: None,
            artifact: None,
            build_deps: Vec::new(),
            started: None,
            done: None,
            reached: false,
            mentions: Vec::new(),
            acts: Vec::new(),
        });
        id
    }

    fn add_record(&mut self, graph: &Graph, name: &str, loaded: &Loaded) {
        let said = graph.get(name).is_some_and(|element| element.platforms.is_some());
        let platforms = if said { graph.platforms(name) } else { Vec::new() };
        let platforms: Vec<Vec<&str>> =
            platforms.iter().map(|platform| platform.iter().map(|element| element.name.as_str()).collect()).collect();
        let record = &loaded.record.with_platforms(&platforms).map_or_else(|| Arc::clone(&loaded.record), Arc::new);
        let row = RowId::after(self.rows.len());
        let mut elements = Vec::with_capacity(record.elements.len());
        for element in record.element_ids() {
            let owner = match element {
                ElementId::SELF => self.owner(name),
                other => self.owner(&record.element(other).name),
            };
            self[owner].mentions.push((row, element));
            elements.push(owner);
        }
        let staged = graph.staged(name).into_iter().map(|element| self.owner(&element.name)).collect();
        let mut trees: FxHashMap<_, Vec<OriginId>> = FxHashMap::default();
        for (id, origin) in used_origins(record) {
            if let Some(kind) = origin.tree_kind() {
                trees.entry((origin.element(), kind)).or_default().push(id);
            }
        }
        let gate = match &loaded.fit {
            Fit::Exact | Fit::Nearest => Gate::Open,
            Fit::Undecided => Gate::Undecided,
            Fit::Refused(skip) => Gate::Closed(skip.clone()),
        };
        self.rows.push(Row {
            acts: vec![None; record.actions.len()],
            adaptation: Adaptation::new(Arc::clone(record)),
            gate,
            trees,
            producers: FxHashMap::default(),
            pending: Vec::new(),
            owner: elements[0],
            elements,
            outside: loaded.outside.clone(),
            staged,
            news: Some(Arc::default()),
            undecided: Vec::new(),
        });
    }

    /// Every action once: in its own element's record if that has it, else in the first that copied it. Copies of what
    /// ran in an element that will not be built are left out, unless only they tell what it made.
    fn add_actions(&mut self) -> FxHashMap<(OwnerId, Digest), ActId> {
        let actions = self.rows.iter().map(|row| row.adaptation.record().actions.len()).sum();
        let mut known = FxHashMap::with_capacity_and_hasher(actions, rustc_hash::FxBuildHasher);
        self.acts.reserve(actions);
        for copies in [false, true] {
            for row in self.row_ids() {
                let record = Arc::clone(self[row].adaptation.record());
                for (id, action) in record.action_ids().zip(&record.actions) {
                    let Some(owner) = self[row].owner_of(action.element) else { continue };
                    if (action.element != ElementId::SELF) != copies || known.contains_key(&(owner, action.base)) {
                        continue;
                    }
                    if copies && self[row].outside(action.element).is_settled() {
                        continue;
                    }
                    let act = ActId::after(self.acts.len());
                    known.insert((owner, action.base), act);
                    self[row].acts[id.index()] = Some(act);
                    self[owner].acts.push(act);
                    self.acts.push(Act {
                        row,
                        id,
                        owner,
                        base: action.base,
                        duration: action.duration,
                        consumers: Vec::new(),
                        critical: Duration::ZERO,
                        state: State::Waiting,
                        asked: false,
                        probe: false,
                        compiles: None,
                        learned: false,
                        waits: None,
                        told: Told::Nothing,
                        run: None,
                        adapted: None,
                        adaptations: 0,
                    });
                }
            }
        }
        known
    }

    /// Who consumes what. An origin that no recorded action feeds is lost from the start, unless its element will
    /// not be built and is as recorded.
    fn link(&mut self, known: &FxHashMap<(OwnerId, Digest), ActId>) {
        for row in self.row_ids() {
            let record = Arc::clone(self[row].adaptation.record());
            for (id, origin) in used_origins(&record) {
                let Origin::Action { element, base, .. } = origin else { continue };
                match self[row].owner_of(*element).and_then(|owner| known.get(&(owner, *base))) {
                    Some(&act) => {
                        self[act].consumers.push((row, id));
                        self[row].producers.insert(id, act);
                    }
                    None => {
                        let as_recorded = self[row].outside(*element) == Outside::AsRecorded;
                        let now = if as_recorded { Now::AsRecorded } else { Now::Lost };
                        self[row].pending.push((id, now));
                    }
                }
            }
        }
    }
}

/// The origins that inputs of actions have. Others only explain the element's own artifact.
fn used_origins(record: &Record) -> impl Iterator<Item = (OriginId, &Origin)> {
    let mut used = vec![false; record.origins.len()];
    for origin in record.inputs.iter().flat_map(|input| &input.origins) {
        used[origin.index()] = true;
    }
    record.origin_ids().filter(move |(id, _)| used[id.index()])
}
