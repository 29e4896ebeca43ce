//! Which action first: the one that the longest chain of others waits for.

use std::cmp::Reverse;
use std::time::Duration;

use overlay::Below;

use super::tables::{Act, ActId, Row, Tables};

/// What an action counts for whose duration is not recorded: enough to prefer longer chains.
const UNKNOWN: Duration = Duration::from_millis(1);

/// Chains of more actions than this are not told apart. Compile, archive and
/// link make three per element; only elements in a row make more.
const MAX_PASSES: usize = 64;

/// Place in the queue for execution: elements in topological order, what a
/// configure script runs in recorded order, since all else of the element waits
/// for that, then the longest remaining chain first, then in recorded order. What is learned while
/// its element is being built goes the other way: the build comes towards it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    rank: usize,
    after_probes: bool,
    critical: Reverse<Duration>,
    last_first: Reverse<usize>,
    act: ActId,
}

impl Place {
    pub(super) fn of(tables: &Tables, act: ActId) -> Self {
        let Act { owner, critical, probe, learned, .. } = tables[act];
        let critical = if probe || learned { Duration::ZERO } else { critical };
        let last_first = if learned { act.index() } else { 0 };
        Self {
            rank: tables[owner].rank,
            after_probes: !probe,
            critical: Reverse(critical),
            last_first: Reverse(last_first),
            act,
        }
    }
}

/// Every action's own duration and that of the longest chain of consumers behind it.
///
/// Works on directories, not on actions and inputs: each pass carries the
/// longest chain from all actions down through the shared directories that
/// hold outputs of actions.
pub(super) fn critical_paths(tables: &Tables) -> Vec<Duration> {
    let own: Vec<Duration> = tables.acts.iter().map(|act| act.duration.unwrap_or(UNKNOWN)).collect();
    let mut critical = own.clone();
    let chains: Vec<Chains> = tables.rows.iter().map(Chains::of).collect();
    for _ in 0..MAX_PASSES {
        let mut changed = false;
        for (row, chains) in tables.rows.iter().zip(&chains).rev() {
            changed |= chains.carry(row, &own, &mut critical);
        }
        if !changed {
            break;
        }
    }
    critical
}

/// The directories of a record with outputs of actions at or below them, bottom-up.
struct Chains {
    levels: Vec<(usize, Vec<Step>)>,
}

enum Step {
    Into(usize),
    To(ActId),
}

impl Chains {
    fn of(row: &Row) -> Self {
        let record = row.adaptation.record();
        let mut levels: Vec<(usize, Vec<Step>)> = Vec::new();
        if row.producers.is_empty() {
            return Self { levels };
        }
        let mut chained = vec![false; record.levels.len()];
        for (id, level) in record.levels.iter().enumerate() {
            let mut steps = Vec::new();
            for (_, below) in level {
                match below {
                    Below::Level(below) if chained[below.index()] => steps.push(Step::Into(below.index())),
                    Below::Level(_) => {}
                    Below::Input(input) => {
                        let producers = record.input(*input).origins.iter().filter_map(|id| row.producers.get(id));
                        steps.extend(producers.map(|act| Step::To(*act)));
                    }
                }
            }
            if !steps.is_empty() {
                chained[id] = true;
                levels.push((id, steps));
            }
        }
        Self { levels }
    }

    /// Says whether any action's chain has become longer.
    fn carry(&self, row: &Row, own: &[Duration], critical: &mut [Duration]) -> bool {
        if self.levels.is_empty() {
            return false;
        }
        let record = row.adaptation.record();
        let mut behind = vec![Duration::ZERO; record.levels.len()];
        for (action, act) in record.actions.iter().zip(&row.acts) {
            if let (Some(root), Some(act)) = (action.root, act) {
                behind[root.index()] = behind[root.index()].max(critical[act.index()]);
            }
        }
        let mut changed = false;
        for (level, steps) in self.levels.iter().rev() {
            let above = behind[*level];
            for step in steps {
                match step {
                    Step::Into(below) => behind[*below] = behind[*below].max(above),
                    Step::To(act) => {
                        let longer = own[act.index()].saturating_add(above);
                        if longer > critical[act.index()] {
                            critical[act.index()] = longer;
                            changed = true;
                        }
                    }
                }
            }
        }
        changed
    }
}
