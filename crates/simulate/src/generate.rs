//! Projects made up by a seed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;

use crate::shape::{ActionShape, ElementShape, MAX_ACTIONS, MAX_DURATION, MAX_ELEMENTS, MAX_TREE_FILES, Shape};
use crate::{SimulationError, millis};

/// What a generated project is like.
///
/// One element at the bottom, on which all others build, with a header that every compile reads; above it, layers of
/// elements that build against elements of the layer below. Each element compiles, then links what it compiled
/// with the libraries of what it builds against. The header at the bottom has changed, so that all of it is rebuilt.
#[derive(Clone, PartialEq, Debug)]
pub struct Parameters {
    /// Elements, the one at the bottom included; at least 1.
    pub elements: usize,
    /// Actions per element: compiles, and one link if there are two or more; at least 1.
    pub actions: usize,
    /// Elements in the longest chain of dependencies, the one at the bottom included; at least 2 if there are 2 elements.
    pub depth: usize,
    /// How many elements of the layer below an element builds against.
    pub fan_out: usize,
    /// How long a compile takes.
    pub duration: Distribution,
    /// How long a link takes.
    pub link: Distribution,
    /// Files that a compile reads, its own source apart; at least 1.
    pub tree_size: usize,
    /// Elements whose own sources have changed, from the bottom upwards; at least 1.
    pub changed: usize,
    /// Everything that is drawn by lot follows from it.
    pub seed: u64,
}

impl Default for Parameters {
    /// 100 elements of 50 actions, 10 deep, building against 3 others each.
    fn default() -> Self {
        Self {
            elements: 100,
            actions: 50,
            depth: 10,
            fan_out: 3,
            duration: Distribution::LogNormal { median: Duration::from_secs(4), sigma: 0.7 },
            link: Distribution::Uniform(Duration::from_secs(2), Duration::from_secs(10)),
            tree_size: 40,
            changed: 1,
            seed: 1,
        }
    }
}

/// How long actions take. What is drawn is rounded to milliseconds, and at least one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Always this long.
    Constant(Duration),
    /// Anything from the first to the second, equally likely.
    Uniform(Duration, Duration),
    /// Half of them shorter than the median, and a few very much longer, though never ten times. Compile times are
    /// like this.
    LogNormal {
        /// The duration in the middle.
        median: Duration,
        /// The standard deviation of the natural logarithm.
        sigma: f64,
    },
}

/// How many times the median a [`Distribution::LogNormal`] may be.
const LONGEST: f64 = 10.0;

impl Distribution {
    fn draw(&self, rng: &mut Rng) -> Duration {
        let drawn = match *self {
            Self::Constant(duration) => duration,
            Self::Uniform(from, to) => from + to.saturating_sub(from).mul_f64(rng.f64()),
            Self::LogNormal { median, sigma } => {
                // Box and Muller; 1 - f64() is never 0.
                let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
                median.mul_f64((sigma * normal).exp().min(LONGEST))
            }
        };
        millis(drawn).max(Duration::from_millis(1))
    }

    fn longest(&self) -> Duration {
        match *self {
            Self::Constant(duration) => duration,
            Self::Uniform(from, to) => from.max(to),
            Self::LogNormal { median, .. } => median.saturating_mul(10),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(duration) => write!(f, "{}", duration.as_secs_f64()),
            Self::Uniform(from, to) => write!(f, "{}..{}", from.as_secs_f64(), to.as_secs_f64()),
            Self::LogNormal { median, sigma } => write!(f, "{}~{sigma}", median.as_secs_f64()),
        }
    }
}

/// Reads `SECONDS`, `FROM..TO` or `MEDIAN~SIGMA`.
impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((from, to)) = text.split_once("..") {
            let (from, to) = (seconds(from)?, seconds(to)?);
            return if from <= to {
                Ok(Self::Uniform(from, to))
            } else {
                Err(format!("{text}: the end is before the start"))
            };
        }
        if let Some((median, sigma)) = text.split_once('~') {
            let wrong = || format!("{sigma:?} is no spread; expected a number from 0 to 5");
            let sigma: f64 = sigma.parse().map_err(|_| wrong())?;
            return if (0.0..=5.0).contains(&sigma) {
                Ok(Self::LogNormal { median: seconds(median)?, sigma })
            } else {
                Err(wrong())
            };
        }
        Ok(Self::Constant(seconds(text)?))
    }
}

/// Reads a number of seconds, which may have a fraction.
///
/// # Errors
/// Says what is expected.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no number of seconds from 0 to {}", MAX_DURATION.as_secs());
    let seconds = Duration::try_from_secs_f64(text.trim().parse().map_err(|_| wrong())?).map_err(|_| wrong())?;
    if seconds <= MAX_DURATION { Ok(seconds) } else { Err(wrong()) }
}

impl Parameters {
    /// The project. Equal parameters give equal projects.
    ///
    /// # Errors
    /// [`SimulationError::Shape`], naming the parameter that cannot be met.
    pub fn generate(&self) -> Result<Shape, SimulationError> {
        self.check()?;
        let mut rng = Rng::with_seed(self.seed);
        let layers = self.layers();
        let mut elements: Vec<ElementShape> = Vec::with_capacity(self.elements);
        let mut below = 0..0;
        for layer in layers {
            let start = elements.len();
            for _ in 0..layer {
                let row = elements.len();
                let dependencies = self.dependencies(row, &below, &mut rng);
                elements.push(self.element(row, dependencies, &mut rng));
            }
            below = start..elements.len();
        }
        let shape = Shape { elements };
        shape.check()?;
        Ok(shape)
    }

    fn check(&self) -> Result<(), SimulationError> {
        let Self { elements, actions, depth, fan_out, tree_size, changed, .. } = *self;
        let wrong = |reason: String| Err(SimulationError::Shape(reason));
        let check = |what: &str, value: usize, from: usize, to: usize| match (from..=to).contains(&value) {
            true => Ok(()),
            false => Err(SimulationError::Shape(format!("{value} {what}; from {from} to {to} are possible"))),
        };
        check("elements", elements, 1, MAX_ELEMENTS)?;
        check("actions per element", actions, 1, MAX_ACTIONS)?;
        check("levels of depth", depth, 1, elements)?;
        check("dependencies per element", fan_out, 1, 1000)?;
        check("files per compile", tree_size, 1, MAX_TREE_FILES)?;
        check("changed elements", changed, 1, elements)?;
        if elements.saturating_mul(actions) > MAX_ACTIONS {
            return wrong(format!("{elements} elements of {actions} actions; the limit is {MAX_ACTIONS} actions"));
        }
        if depth == 1 && elements > 1 {
            return wrong(format!("{elements} elements need a depth of 2 or more: all build on the one at the bottom"));
        }
        if self.duration.longest().max(self.link.longest()) > MAX_DURATION {
            return wrong(format!("actions may take up to {} s", MAX_DURATION.as_secs()));
        }
        Ok(())
    }

    /// Elements per layer: one at the bottom, the rest spread evenly.
    fn layers(&self) -> Vec<usize> {
        let mut layers = vec![1];
        let (rest, above) = (self.elements - 1, self.depth.saturating_sub(1).max(1));
        layers.extend((0..above).map(|layer| rest / above + usize::from(layer < rest % above)));
        layers
    }

    fn dependencies(&self, row: usize, below: &std::ops::Range<usize>, rng: &mut Rng) -> Vec<usize> {
        if row == 0 {
            return Vec::new();
        }
        let mut dependencies = vec![0];
        for _ in 0..self.fan_out.min(below.len()) {
            dependencies.push(rng.usize(below.clone()));
        }
        dependencies.sort_unstable();
        dependencies.dedup();
        dependencies
    }

    fn element(&self, row: usize, dependencies: Vec<usize>, rng: &mut Rng) -> ElementShape {
        let compiles = if self.actions > 1 { self.actions - 1 } else { 1 };
        let mut actions: Vec<ActionShape> = (0..compiles)
            .map(|_| ActionShape {
                duration: self.duration.draw(rng),
                headers: dependencies.clone(),
                ..ActionShape::default()
            })
            .collect();
        if self.actions > 1 {
            actions.push(ActionShape {
                duration: self.link.draw(rng),
                headers: Vec::new(),
                own: (0..compiles).collect(),
                others: dependencies.iter().map(|below| (*below, compiles)).collect(),
            });
        }
        ElementShape {
            name: format!("e{row:05}.bst"),
            // A compile reads the headers of its own element and of what that builds against.
            headers: (self.tree_size / (self.fan_out.min(self.elements) + 2)).max(1),
            changed: row < self.changed,
            dependencies,
            actions,
        }
    }
}
