//! What a project looks like, apart from contents: elements, actions, durations, who takes what.

use std::time::Duration;

use crate::SimulationError;

/// The most elements of a simulated project: twice the largest distribution, and memory for their records.
pub const MAX_ELEMENTS: usize = 100_000;

/// The most actions of a simulated project. One takes about 6 kB, with its trees before and after the change.
pub const MAX_ACTIONS: usize = 2_000_000;

/// The most files in the input trees of one element's actions together.
pub const MAX_TREE_FILES: usize = 10_000;

/// The longest that an action may take: more than any build waits for, and far from the end of the clock.
pub const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);

/// A project: elements, dependencies before dependents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// The elements. References between them are rows of this list, and only lead to earlier rows.
    pub elements: Vec<ElementShape>,
}

/// An element: what is built as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ElementShape {
    /// Its name, unique.
    pub name: String,
    /// What it builds against directly: rows of earlier elements, ascending.
    pub dependencies: Vec<usize>,
    /// Number of headers in its sources, which it also installs.
    pub headers: usize,
    /// Its sources have changed since it was recorded: the first of its headers has.
    pub changed: bool,
    /// Its actions, in the order in which the build asks for them.
    pub actions: Vec<ActionShape>,
}

/// An action, with an own source file as an input besides what is said here, and one output.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ActionShape {
    /// How long it executes.
    pub duration: Duration,
    /// The elements whose installed headers it reads, ascending. An action that takes no outputs of others reads
    /// the headers of its own element as well.
    pub headers: Vec<usize>,
    /// The actions of the same element whose outputs it takes, ascending, all of them earlier.
    pub own: Vec<usize>,
    /// Outputs of other elements' actions that it takes, installed: element and action, ascending.
    pub others: Vec<(usize, usize)>,
}

impl ActionShape {
    /// Whether it takes no outputs of other actions: a compile.
    #[must_use]
    pub fn is_compile(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }
}

impl Shape {
    /// Number of actions of all elements.
    #[must_use]
    pub fn action_count(&self) -> usize {
        self.elements.iter().map(|element| element.actions.len()).sum()
    }

    /// For each element, whether it has to be rebuilt: it has changed, or something below it is rebuilt.
    #[must_use]
    pub fn rebuilt(&self) -> Vec<bool> {
        let mut rebuilt: Vec<bool> = Vec::with_capacity(self.elements.len());
        for element in &self.elements {
            let below = element.dependencies.iter().any(|row| rebuilt.get(*row).copied().unwrap_or(false));
            rebuilt.push(element.changed || below);
        }
        rebuilt
    }

    /// For each element, which elements it is built in: everything that it builds against, directly or not, ascending.
    pub(crate) fn closures(&self) -> Vec<Vec<usize>> {
        let mut closures: Vec<Vec<usize>> = Vec::with_capacity(self.elements.len());
        for element in &self.elements {
            let mut closure: Vec<usize> = element.dependencies.clone();
            for row in &element.dependencies {
                closure.extend(closures.get(*row).into_iter().flatten());
            }
            closure.sort_unstable();
            closure.dedup();
            closures.push(closure);
        }
        closures
    }

    /// Checks that references lead where they may, and that the whole is of a size that can be simulated.
    ///
    /// # Errors
    /// [`SimulationError::Shape`], naming the element.
    pub fn check(&self) -> Result<(), SimulationError> {
        let wrong = |reason: String| Err(SimulationError::Shape(reason));
        let (elements, actions) = (self.elements.len(), self.action_count());
        if elements == 0 || actions == 0 {
            return wrong("there is nothing to build: at least one element with one action is needed".to_owned());
        }
        if elements > MAX_ELEMENTS {
            return wrong(format!("{elements} elements; the limit is {MAX_ELEMENTS}"));
        }
        if actions > MAX_ACTIONS {
            return wrong(format!("{actions} actions; the limit is {MAX_ACTIONS}"));
        }
        let mut names = rustc_hash::FxHashSet::default();
        for (row, element) in self.elements.iter().enumerate() {
            let name = &element.name;
            if !names.insert(name) {
                return wrong(format!("two elements are called {name}"));
            }
            if element.headers == 0 || element.headers > MAX_TREE_FILES {
                return wrong(format!(
                    "{name} has {} headers; from 1 to {MAX_TREE_FILES} are possible",
                    element.headers
                ));
            }
            if !ascending(&element.dependencies) || element.dependencies.iter().any(|below| *below >= row) {
                return wrong(format!("{name} builds against something that comes after it"));
            }
            for (turn, action) in element.actions.iter().enumerate() {
                if action.duration > MAX_DURATION {
                    return wrong(format!(
                        "an action of {name} takes {} s; the limit is {} s",
                        action.duration.as_secs(),
                        MAX_DURATION.as_secs()
                    ));
                }
                let right = ascending(&action.headers)
                    && ascending(&action.own)
                    && ascending(&action.others)
                    && action.own.iter().all(|own| *own < turn)
                    && action.headers.iter().all(|below| *below < row)
                    && action
                        .others
                        .iter()
                        .all(|(below, other)| *below < row && self.elements[*below].actions.len() > *other);
                if !right {
                    return wrong(format!("action {turn} of {name} takes what is not made before it"));
                }
            }
        }
        Ok(())
    }
}

fn ascending<T: Ord>(list: &[T]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}
