//! What no schedule can beat.

use std::time::Duration;

use crate::project::Project;

/// Lower bounds of the makespan of everything that has to be executed: actions that are not as recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// The longest chain of actions, each of which takes the output of the one before.
    pub critical_path: Duration,
    /// The sum of all durations.
    pub work: Duration,
    /// Number of actions.
    pub actions: usize,
}

impl Bounds {
    pub(crate) fn of(project: &Project) -> Self {
        let mut bounds = Self::default();
        let mut ends: Vec<Vec<Duration>> = Vec::with_capacity(project.shape.elements.len());
        for (row, element) in project.shape.elements.iter().enumerate() {
            let mut own: Vec<Duration> = Vec::with_capacity(element.actions.len());
            for (turn, action) in element.actions.iter().enumerate() {
                let inputs = action.own.iter().map(|own_turn| own[*own_turn]);
                let inputs = inputs.chain(action.others.iter().map(|(below, other)| ends[*below][*other]));
                let start = inputs.max().unwrap_or_default();
                let duration = if project.is_as_recorded(row, turn) { Duration::ZERO } else { action.duration };
                if !project.is_as_recorded(row, turn) {
                    bounds.work += duration;
                    bounds.actions += 1;
                }
                own.push(start + duration);
                bounds.critical_path = bounds.critical_path.max(start + duration);
            }
            ends.push(own);
        }
        bounds
    }

    /// The bound for a number of workers: the longer of the critical path and each worker's share of the work.
    #[must_use]
    pub fn with_workers(&self, workers: usize) -> Duration {
        let share = Duration::from_secs_f64(self.work.as_secs_f64() / workers.max(1) as f64);
        self.critical_path.max(share)
    }
}
