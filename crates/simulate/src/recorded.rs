//! The shape of what was recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use overlay::graph::Graph;
use overlay::{Below, ElementId, Origin, Record};
use reapi_proto::Digest;
use rustc_hash::FxHashMap;

use crate::shape::{ActionShape, ElementShape, Shape};
use crate::{SimulationError, millis};

/// What an action counts for whose duration is not recorded.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Headers per element: contents do not matter, only that there are some.
const HEADERS: usize = 4;

/// The shape of recorded builds: the elements of `graph`, with the actions, durations and origins of inputs that
/// `records` tell, by names of elements. What has changed is what the graph says is to be rebuilt with nothing
/// below it that is, or where that is nothing, the elements with actions that build against none.
///
/// # Errors
/// [`SimulationError::Shape`] where no element has an action, or the whole is too large.
pub fn shape_of(graph: &Graph, records: &FxHashMap<String, Arc<Record>>) -> Result<Shape, SimulationError> {
    let rows: FxHashMap<&str, usize> = graph.elements().enumerate().map(|(row, e)| (e.name.as_str(), row)).collect();
    let mut known: FxHashMap<(usize, Digest), usize> = FxHashMap::default();
    let mut elements: Vec<ElementShape> = Vec::with_capacity(graph.len());
    for (row, element) in graph.elements().enumerate() {
        let dependencies = element.build_deps.iter().flatten().filter_map(|name| rows.get(name.as_str()).copied());
        let dependencies: BTreeSet<usize> = dependencies.collect();
        let mut shape = ElementShape {
            name: element.name.clone(),
            dependencies: dependencies.into_iter().collect(),
            headers: HEADERS,
            changed: false,
            actions: Vec::new(),
        };
        if let Some(record) = records.get(&element.name) {
            let mut reader = Reader { record, row, rows: &rows, levels: FxHashMap::default() };
            for action in record.actions.iter().filter(|action| action.element == ElementId::SELF) {
                let taken = action.root.map(|root| reader.taken(root)).unwrap_or_default();
                let turn = shape.actions.len();
                shape.actions.push(reader.action(&taken, action.duration, &known));
                known.entry((row, action.base)).or_insert(turn);
            }
        }
        elements.push(shape);
    }
    let mut shape = Shape { elements };
    let current: Vec<bool> = graph.elements().map(overlay::graph::Element::is_current).collect();
    mark_changed(&mut shape, &current);
    shape.check()?;
    Ok(shape)
}

fn mark_changed(shape: &mut Shape, current: &[bool]) {
    let lowest = |of: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let mut covered = vec![false; shape.elements.len()];
        let mut lowest = Vec::new();
        for (row, element) in shape.elements.iter().enumerate() {
            let below = element.dependencies.iter().any(|below| covered[*below]);
            covered[row] = below || of(row);
            if of(row) && !below {
                lowest.push(row);
            }
        }
        lowest
    };
    let mut changed = lowest(&|row| !current[row]);
    if changed.is_empty() {
        changed = lowest(&|row| !shape.elements[row].actions.is_empty());
    }
    for row in changed {
        shape.elements[row].changed = true;
    }
}

/// What actions take, by their recorded levels.
#[derive(Clone, Default)]
struct Taken {
    /// Elements whose artifacts or sources are among the inputs.
    elements: BTreeSet<usize>,
    /// Outputs: the element, and the action as recorded.
    outputs: BTreeSet<(usize, Digest)>,
}

struct Reader<'a> {
    record: &'a Record,
    row: usize,
    rows: &'a FxHashMap<&'a str, usize>,
    levels: FxHashMap<overlay::LevelId, Arc<Taken>>,
}

impl Reader<'_> {
    /// What is taken at and below a level. Levels refer to earlier ones only, so this ends.
    fn taken(&mut self, level: overlay::LevelId) -> Arc<Taken> {
        let mut pending = vec![(level, false)];
        while let Some((level, below_done)) = pending.pop() {
            if self.levels.contains_key(&level) {
                continue;
            }
            let record = self.record;
            let entries = record.level(level);
            if !below_done {
                pending.push((level, true));
                pending.extend(entries.iter().filter_map(|(_, below)| match *below {
                    Below::Level(below) => Some((below, false)),
                    Below::Input(_) => None,
                }));
                continue;
            }
            let mut taken = Taken::default();
            for (_, below) in entries {
                match *below {
                    Below::Level(below) => {
                        if let Some(below) = self.levels.get(&below) {
                            taken.elements.extend(&below.elements);
                            taken.outputs.extend(&below.outputs);
                        }
                    }
                    Below::Input(input) => self.add(input, &mut taken),
                }
            }
            self.levels.insert(level, Arc::new(taken));
        }
        self.levels.get(&level).cloned().unwrap_or_default()
    }

    fn add(&self, input: overlay::InputId, taken: &mut Taken) {
        for origin in &self.record.input(input).origins {
            let origin = self.record.origin(*origin);
            let element = match origin.element() {
                ElementId::SELF => Some(self.row),
                other => self.rows.get(self.record.element(other).name.as_str()).copied(),
            };
            let Some(element) = element else { continue };
            match origin {
                Origin::Action { base, .. } => {
                    taken.outputs.insert((element, *base));
                }
                Origin::Derived(derivation) => {
                    self.record.derivation(*derivation).of.iter().for_each(|part| self.add(*part, taken));
                }
                Origin::Source { .. } | Origin::Artifact { .. } if element != self.row => {
                    taken.elements.insert(element);
                }
                Origin::Source { .. } | Origin::Artifact { .. } => {}
            }
        }
    }

    fn action(
        &self,
        taken: &Taken,
        duration: Option<Duration>,
        known: &FxHashMap<(usize, Digest), usize>,
    ) -> ActionShape {
        let mut action = ActionShape { duration: millis(duration.unwrap_or(UNKNOWN)), ..ActionShape::default() };
        // What comes later, or from above, cannot be an input of a build in this order.
        action.headers = taken.elements.iter().copied().filter(|below| *below < self.row).collect();
        let mut others = BTreeSet::new();
        let mut own = BTreeSet::new();
        for (element, base) in &taken.outputs {
            let Some(turn) = known.get(&(*element, *base)) else { continue };
            if *element == self.row {
                own.insert(*turn);
            } else if *element < self.row {
                others.insert((*element, *turn));
            }
        }
        action.own = own.into_iter().collect();
        action.others = others.into_iter().collect();
        action
    }
}
