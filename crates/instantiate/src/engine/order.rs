//! Which action first: the one that the longest chain of others waits for.

use std::cmp::Reverse;
use std::time::Duration;

use overlay::graph::Graph;
use overlay::{Below, InputId, Origin};
use rustc_hash::FxHashMap;

use super::tables::{Act, ActId, OwnerId, Row, RowId, Tables};
use crate::options::PRIORITY_STEPS;

/// What an action counts for whose duration is not recorded: enough to prefer longer chains.
const UNKNOWN: Duration = Duration::from_millis(1);

/// Chains of more actions than this within one element are not told apart.
/// Compile, archive and link make three.
const MAX_PASSES: usize = 64;

/// Place in the queue for execution: the longest remaining path first, by
/// recorded durations, from the action through everything that cannot begin
/// before it: what takes its outputs, here and in other elements, and all
/// elements that are built on its own. Dependencies thus come before their
/// dependents, and of what is independent, what holds up most.
///
/// What a configure script runs comes in recorded order, before all else of
/// its element, since all of that waits for it. What is learned while its
/// element is being built goes the other way: the build comes towards it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    remaining: Reverse<Duration>,
    rank: usize,
    after_probes: bool,
    last_first: Reverse<usize>,
    act: ActId,
}

impl Place {
    pub(super) fn of(tables: &Tables, act: ActId) -> Self {
        let Act { owner, critical, probe, learned, .. } = tables[act];
        let remaining = match () {
            () if probe => tables[owner].ahead,
            () if learned => tables[owner].behind,
            () => critical,
        };
        let last_first = if learned { act.index() } else { 0 };
        Self {
            remaining: Reverse(remaining),
            rank: tables[owner].rank,
            after_probes: !probe,
            last_first: Reverse(last_first),
            act,
        }
    }

    /// How much later than the first element's the service may execute it, of `elements` in all.
    pub(super) fn priority(&self, elements: usize) -> i32 {
        let steps = usize::try_from(PRIORITY_STEPS).unwrap_or_default();
        i32::try_from(self.rank * steps / elements.max(1)).unwrap_or(PRIORITY_STEPS).min(PRIORITY_STEPS)
    }

    /// The recorded action whose place it is.
    pub(super) fn act(&self) -> ActId {
        self.act
    }
}

/// Finds the longest path from every action and from every element.
///
/// Elements come from the last one to be built to the first, so that what is
/// behind an element is known when its turn comes. Within an element it works
/// on directories, not on actions and inputs: each pass carries the longest
/// chain from all actions down through the shared directories that hold
/// outputs of actions.
pub(super) fn find_paths(tables: &mut Tables, graph: &Graph) {
    let rows: FxHashMap<OwnerId, RowId> = tables.row_ids().map(|row| (tables[row].owner, row)).collect();
    for element in graph.elements().rev() {
        let owner = tables.owner(&element.name);
        let behind = tables[owner].behind;
        let mut ahead = behind;
        for act in tables[owner].acts.clone() {
            let own = tables[act].duration.unwrap_or(UNKNOWN).saturating_add(behind);
            let act = &mut tables[act];
            act.critical = act.critical.max(own);
        }
        if let Some(row) = rows.get(&owner) {
            carry_all(tables, *row);
        }
        for act in &tables[owner].acts {
            ahead = ahead.max(tables[*act].critical);
        }
        tables[owner].ahead = ahead;
        for dependency in element.build_deps.iter().flatten() {
            let dependency = tables.owner(dependency);
            let behind = &mut tables[dependency].behind;
            *behind = (*behind).max(ahead);
        }
    }
}

/// Carries chains through one record until none becomes longer.
fn carry_all(tables: &mut Tables, row: RowId) {
    let chains = Chains::of(&tables[row]);
    if chains.is_empty() {
        return;
    }
    for _ in 0..MAX_PASSES {
        if !chains.carry(tables, row) {
            break;
        }
    }
}

/// The directories of a record with outputs of actions at or below them, bottom-up.
struct Chains {
    levels: Vec<(usize, Vec<Step>)>,
    /// Actions behind trees that platform properties name.
    properties: Vec<(ActId, Vec<ActId>)>,
}

enum Step {
    Into(usize),
    To(ActId),
}

impl Chains {
    fn of(row: &Row) -> Self {
        let record = row.adaptation.record();
        let mut chains = Self { levels: Vec::new(), properties: Vec::new() };
        if row.producers.is_empty() {
            return chains;
        }
        let producers = Producers::of_row(row);
        let mut chained = vec![false; record.levels.len()];
        for (id, level) in record.levels.iter().enumerate() {
            let mut steps = Vec::new();
            for (_, below) in level {
                match below {
                    Below::Level(below) if chained[below.index()] => steps.push(Step::Into(below.index())),
                    Below::Level(_) => {}
                    Below::Input(input) => steps.extend(producers.of(*input).into_iter().map(Step::To)),
                }
            }
            if !steps.is_empty() {
                chained[id] = true;
                chains.levels.push((id, steps));
            }
        }
        for (action, act) in record.actions.iter().zip(&row.acts) {
            let behind: Vec<ActId> =
                action.properties.iter().flat_map(|property| producers.of(property.input)).collect();
            if let Some(act) = act.filter(|_| !behind.is_empty()) {
                chains.properties.push((act, behind));
            }
        }
        chains
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.properties.is_empty()
    }

    /// Says whether any action's chain has become longer.
    fn carry(&self, tables: &mut Tables, row: RowId) -> bool {
        let record = std::sync::Arc::clone(tables[row].adaptation.record());
        let mut behind = vec![Duration::ZERO; record.levels.len()];
        for (action, act) in record.actions.iter().zip(&tables[row].acts) {
            if let (Some(root), Some(act)) = (action.root, act) {
                behind[root.index()] = behind[root.index()].max(tables[*act].critical);
            }
        }
        let mut changed = false;
        let mut lengthen = |tables: &mut Tables, act: ActId, above: Duration| {
            let act = &mut tables[act];
            let longer = act.duration.unwrap_or(UNKNOWN).saturating_add(above);
            if longer > act.critical {
                act.critical = longer;
                changed = true;
            }
        };
        for (level, steps) in self.levels.iter().rev() {
            let above = behind[*level];
            for step in steps {
                match step {
                    Step::Into(below) => behind[*below] = behind[*below].max(above),
                    // A directory that no action of this record takes.
                    Step::To(_) if above.is_zero() => {}
                    Step::To(act) => lengthen(tables, *act, above),
                }
            }
        }
        for (act, producers) in &self.properties {
            let above = tables[*act].critical;
            for producer in producers {
                lengthen(tables, *producer, above);
            }
        }
        changed
    }
}

/// The actions that make an input: directly, or by making what it is derived from.
struct Producers<'a> {
    row: &'a Row,
    /// Behind each derivation.
    derived: Vec<Vec<ActId>>,
}

impl<'a> Producers<'a> {
    fn of_row(row: &'a Row) -> Self {
        let mut producers = Self { row, derived: Vec::new() };
        // What a derivation refers to has an earlier row.
        for derivation in &row.adaptation.record().derivations {
            let mut acts: Vec<ActId> = derivation.of.iter().flat_map(|input| producers.of(*input)).collect();
            acts.sort_unstable();
            acts.dedup();
            producers.derived.push(acts);
        }
        producers
    }

    fn of(&self, input: InputId) -> Vec<ActId> {
        let record = self.row.adaptation.record();
        let mut acts = Vec::new();
        for origin in &record.input(input).origins {
            match record.origin(*origin) {
                Origin::Derived(id) => acts.extend(self.derived.get(id.index()).into_iter().flatten()),
                _ => acts.extend(self.row.producers.get(origin)),
            }
        }
        acts
    }
}
