//! Which action first: the one that the longest chain of others waits for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use overlay::graph::Graph;
use overlay::{Below, Input, InputId, Origin};
use rustc_hash::FxHashMap;

use super::tables::{Act, ActId, OwnerId, Row, RowId, Tables};
use crate::options::PRIORITY_STEPS;

/// What an action counts for whose duration is not recorded: enough to prefer longer chains.
const UNKNOWN: Duration = Duration::from_millis(1);

/// What the build of an element takes besides its actions, staging above all: about this long for BuildStream, whatever
/// the element. Counts for elements that would otherwise be built at once.
pub(super) const ELEMENT: Duration = Duration::from_secs(1);

/// Chains of more actions than this within one element are not told apart.
/// Compile, archive and link make three.
const MAX_PASSES: usize = 64;

/// Place in the queue for execution: the longest remaining path first, by
/// recorded durations, from the action through everything that cannot begin
/// before it: what takes its outputs, here and in other elements; what is known
/// only when its element is built; and the builds of the elements above, each of
/// which waits for those below. Of what is independent, what holds up most
/// comes first, then what is built first.
///
/// What a configure script runs comes in recorded order, before all else of
/// its element, since all of that waits for it. What is learned while its
/// element is being built goes the other way: the build comes towards it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// Nanoseconds. Queues are long, so that it matters how much room a place takes.
    remaining: Reverse<u64>,
    rank: u32,
    /// Among what is equal so far, the greater one first: probes, then what is learned, then the rest.
    within: Reverse<u32>,
    act: ActId,
}

/// What makes a probe greater than whatever is no probe.
const PROBE: u32 = 1 << 31;

/// Runs or actions, the one first whose place is first. Gives back what room it does not need any more.
pub(super) struct Queue<T>(BinaryHeap<Reverse<(Place, T)>>);

/// Room that is not worth giving back.
const LITTLE_ROOM: usize = 1024;

impl<T: Ord> Default for Queue<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Ord> Queue<T> {
    pub(super) fn push(&mut self, place: Place, one: T) {
        self.0.push(Reverse((place, one)));
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let Reverse((_, one)) = self.0.pop()?;
        if self.0.capacity() > LITTLE_ROOM && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(one)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Place {
    pub(super) fn of(tables: &Tables, act: ActId) -> Self {
        let Act { owner, critical, probe, learned, .. } = tables[act];
        let remaining = match () {
            () if probe => tables[owner].ahead,
            () if learned => tables[owner].behind,
            () => critical,
        };
        let last_first = if learned { u32::try_from(act.index()).unwrap_or(u32::MAX).min(PROBE - 1) } else { 0 };
        let within = if probe { PROBE | last_first } else { last_first };
        let remaining = u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX);
        Self { remaining: Reverse(remaining), rank: tables[owner].rank, within: Reverse(within), act }
    }

    /// How much later the service may execute it than what has the `longest` remaining path.
    pub(super) fn priority(&self, longest: Duration) -> i32 {
        let Reverse(remaining) = self.remaining;
        let shorter =
            longest.saturating_sub(Duration::from_nanos(remaining)).as_millis() * PRIORITY_STEPS.unsigned_abs() as u128;
        let steps = shorter.checked_div(longest.as_millis()).unwrap_or_default();
        i32::try_from(steps).unwrap_or(PRIORITY_STEPS)
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
        for act in tables[owner].acts.clone() {
            let own = tables[act].duration.unwrap_or(UNKNOWN).saturating_add(behind);
            let act = &mut tables[act];
            act.critical = act.critical.max(own);
        }
        if let Some(row) = rows.get(&owner) {
            carry_all(tables, *row);
        }
        let acts = tables[owner].acts.iter().map(|act| tables[*act].critical);
        tables[owner].ahead = acts.max().unwrap_or_default().max(behind);
        for dependency in element.build_deps.iter().flatten() {
            let dependency = tables.owner(dependency);
            hold_up(tables, dependency, behind.saturating_add(ELEMENT));
        }
    }
}

/// As long a path begins when an element is built. Says whether that is news.
fn hold_up(tables: &mut Tables, owner: OwnerId, path: Duration) -> bool {
    let behind = &mut tables[owner].behind;
    let longer = path > *behind;
    *behind = (*behind).max(path);
    longer
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

/// The directories of a record at or below which there is something to wait for, bottom-up.
struct Chains {
    /// Each with the end of its steps, which lie end to end.
    levels: Vec<(usize, usize)>,
    steps: Vec<Step>,
    /// What is behind trees that platform properties name.
    properties: Vec<(ActId, Source)>,
}

enum Step {
    Into(usize),
    To(Source),
}

/// What has to be done before an input is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Action(ActId),
    /// The whole of an element.
    Element(OwnerId),
}

impl Chains {
    fn of(row: &Row) -> Self {
        let record = row.adaptation.record();
        let mut chains = Self { levels: Vec::new(), steps: Vec::new(), properties: Vec::new() };
        let producers = Producers::of_row(row);
        let mut chained = vec![false; record.levels.len()];
        for (id, level) in record.levels.iter().enumerate() {
            let start = chains.steps.len();
            for (_, below) in level {
                match below {
                    Below::Level(below) if chained[below.index()] => chains.steps.push(Step::Into(below.index())),
                    Below::Level(_) => {}
                    Below::Input(input) => chains.steps.extend(producers.of(*input).iter().copied().map(Step::To)),
                }
            }
            if chains.steps.len() > start {
                chained[id] = true;
                chains.levels.push((id, chains.steps.len()));
            }
        }
        for (action, act) in record.actions.iter().zip(&row.acts) {
            let behind = action.properties.iter().flat_map(|property| producers.of(property.input)).copied();
            if let Some(act) = act {
                chains.properties.extend(behind.map(|source| (*act, source)));
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
        let mut lengthen = |tables: &mut Tables, source: Source, above: Duration| {
            let act = match source {
                Source::Action(act) => &mut tables[act],
                // Dependencies are not looked at yet: nothing follows from it here.
                Source::Element(owner) => {
                    hold_up(tables, owner, above);
                    return;
                }
            };
            let longer = act.duration.unwrap_or(UNKNOWN).saturating_add(above);
            if longer > act.critical {
                act.critical = longer;
                changed = true;
            }
        };
        for (place, (level, end)) in self.levels.iter().enumerate().rev() {
            let above = behind[*level];
            let start = place.checked_sub(1).map_or(0, |before| self.levels[before].1);
            for step in &self.steps[start..*end] {
                match step {
                    Step::Into(below) => behind[*below] = behind[*below].max(above),
                    // A directory that no action of this record takes.
                    Step::To(_) if above.is_zero() => {}
                    Step::To(source) => lengthen(tables, *source, above),
                }
            }
        }
        for (act, source) in &self.properties {
            let above = tables[*act].critical;
            lengthen(tables, *source, above);
        }
        changed
    }
}

/// What inputs wait for: the actions that make them, or what they are derived from; an element, if only its artifact
/// tells.
struct Producers {
    /// The end of each input's, which lie end to end.
    ends: Vec<usize>,
    sources: Vec<Source>,
}

impl Producers {
    fn of_row(row: &Row) -> Self {
        let record = row.adaptation.record();
        let mut producers = Self { ends: Vec::with_capacity(record.inputs.len()), sources: Vec::new() };
        let mut known = Derived { row, derived: Vec::new() };
        // What a derivation refers to has an earlier row.
        for derivation in &record.derivations {
            let mut sources = Vec::new();
            derivation.of.iter().for_each(|input| known.add(record.input(*input), &mut sources));
            sources.sort_unstable();
            sources.dedup();
            known.derived.push(sources);
        }
        for input in &record.inputs {
            known.add(input, &mut producers.sources);
            producers.ends.push(producers.sources.len());
        }
        producers
    }

    fn of(&self, input: InputId) -> &[Source] {
        let start = input.index().checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sources[start..self.ends[input.index()]]
    }
}

/// What is behind the derivations of a record.
struct Derived<'a> {
    row: &'a Row,
    derived: Vec<Vec<Source>>,
}

impl Derived<'_> {
    /// Adds what an input waits for.
    fn add(&self, input: &Input, sources: &mut Vec<Source>) {
        let record = self.row.adaptation.record();
        let start = sources.len();
        let mut element = None;
        for origin in &input.origins {
            match record.origin(*origin) {
                // Known early, whatever else is behind it.
                Origin::Source { .. } => return sources.truncate(start),
                Origin::Derived(id) => sources.extend(self.derived.get(id.index()).into_iter().flatten()),
                Origin::Action { .. } => sources.extend(self.row.producers.get(origin).map(|act| Source::Action(*act))),
                Origin::Artifact { element: of, .. } => element = self.row.owner_of(*of),
            }
        }
        if sources.len() == start {
            sources.extend(element.filter(|element| *element != self.row.owner).map(Source::Element));
        }
    }
}
