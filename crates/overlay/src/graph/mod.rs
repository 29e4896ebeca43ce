//! What an orchestrator tells about its elements: the graph, JSON schema version 1.
//!
//! ```
//! use overlay::graph::Graph;
//!
//! let graph = Graph::from_json(
//!     br#"{ "version": 1, "elements": [
//!         { "name": "app.bst", "build_deps": ["lib.bst"] },
//!         { "name": "lib.bst", "cached": true }
//!     ] }"#,
//! )?;
//! let names: Vec<_> = graph.elements().map(|e| e.name.as_str()).collect();
//! assert_eq!(names, ["lib.bst", "app.bst"]);
//! # Ok::<(), overlay::graph::GraphError>(())
//! ```

mod error;
mod json;
mod order;
#[cfg(test)]
mod tests;

use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

pub use error::GraphError;

/// A unit of the orchestrator. Whatever is `None` is unknown, which is not the same as empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Element {
    /// The element's name, unique in its graph and never empty.
    pub name: String,
    /// The project that it belongs to.
    pub project: Option<String>,
    /// The key that changes of its dependencies do not change.
    pub weak_key: Option<String>,
    /// A key of what it is built by: commands, environment, whatever else its
    /// weak key covers besides sources and names of dependencies. Equal for builds
    /// that run the same commands on the same sources.
    pub configuration: Option<String>,
    /// The key that covers everything.
    pub strong_key: Option<String>,
    /// Whether `artifact` is the one of `strong_key` as it is now.
    pub cached: Option<bool>,
    /// Root directory of its sources.
    pub sources: Option<Digest>,
    /// Root directory of its artifact.
    pub artifact: Option<Digest>,
    /// Names of the elements that it builds against directly, in staging order.
    pub build_deps: Option<Vec<String>>,
    /// Names of exactly the elements whose artifacts are staged to build it,
    /// in staging order. Where this is unknown, the closure of `build_deps` is taken for it.
    pub staged: Option<Vec<String>>,
    /// Root file systems that its actions name by digest in platform
    /// properties: each is the union of these elements' artifacts, in staging order.
    pub platforms: Option<Vec<Vec<String>>>,
    /// The actions that its last build ran, in order.
    pub subactions: Option<Vec<Digest>>,
    /// The message that an earlier generation stored for it.
    pub speculative_actions: Option<Digest>,
}

impl Element {
    /// An element of which nothing else is known.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Whether its artifact is final: it will not be rebuilt.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.cached == Some(true)
    }
}

/// Elements and what they build against; free of cycles and dangling names.
#[derive(Clone, Debug)]
pub struct Graph {
    digest_function: DigestFunction,
    /// Dependencies before dependents.
    elements: Vec<Element>,
    rows: FxHashMap<String, usize>,
    /// Rows of the direct dependencies of each element, in staging order, each once.
    dependencies: Vec<Vec<usize>>,
    /// Rows of the direct dependents of each element, ascending.
    dependents: Vec<Vec<usize>>,
}

impl Graph {
    /// Puts elements in order and checks what they say of each other.
    ///
    /// # Errors
    /// [`GraphError`] for an empty or repeated name, an unknown dependency, a
    /// digest of another function, or a cycle.
    pub fn new(digest_function: DigestFunction, elements: Vec<Element>) -> Result<Self, GraphError> {
        order::sorted(digest_function, elements)
    }

    /// Reads schema version 1.
    ///
    /// Unknown members are ignored; `null` means unknown, as absence does. A
    /// graph that does not state its version is taken for version 1, one that
    /// does not name its digest function for SHA256.
    ///
    /// # Errors
    /// [`GraphError`]; it names the element and the member, and what is expected there.
    pub fn from_json(bytes: &[u8]) -> Result<Self, GraphError> {
        json::read(bytes)
    }

    /// Writes schema version 1, elements in topological order, without unknown members.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// The function of every digest in the graph.
    #[must_use]
    pub fn digest_function(&self) -> DigestFunction {
        self.digest_function
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// All elements, dependencies before dependents. The order depends on the
    /// input alone: depth-first along `build_deps`, starting from the elements as they were listed.
    pub fn elements(&self) -> impl DoubleEndedIterator<Item = &Element> + ExactSizeIterator + Clone {
        self.elements.iter()
    }

    /// The element of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Element> {
        Some(&self.elements[*self.rows.get(name)?])
    }

    /// Everything that an element builds against, directly or not, each once,
    /// in staging order: dependencies before dependents, depth-first along
    /// `build_deps`. Without the element itself; empty for an unknown name.
    #[must_use]
    pub fn closure(&self, name: &str) -> Vec<&Element> {
        let Some(&row) = self.rows.get(name) else { return Vec::new() };
        let mut rows = order::depth_first(row, &self.dependencies);
        rows.pop();
        rows.into_iter().map(|row| &self.elements[row]).collect()
    }

    /// What is staged to build an element, in staging order: what the element
    /// says itself, otherwise its [`closure`](Self::closure).
    #[must_use]
    pub fn staged(&self, name: &str) -> Vec<&Element> {
        match self.get(name).and_then(|element| element.staged.as_ref()) {
            Some(names) => names.iter().filter_map(|name| self.get(name)).collect(),
            None => self.closure(name),
        }
    }

    /// The unions of artifacts that may stand in platform properties of an
    /// element's actions, each in staging order: what the element says itself,
    /// otherwise each direct dependency with its closure, and all of them together.
    #[must_use]
    pub fn platforms(&self, name: &str) -> Vec<Vec<&Element>> {
        let Some(element) = self.get(name) else { return Vec::new() };
        if let Some(platforms) = &element.platforms {
            let platform = |names: &Vec<String>| names.iter().filter_map(|name| self.get(name)).collect();
            return platforms.iter().map(platform).collect();
        }
        let direct = element.build_deps.iter().flatten().filter_map(|name| self.get(name));
        let mut platforms: Vec<Vec<&Element>> = direct
            .map(|dependency| {
                let mut together = self.closure(&dependency.name);
                together.push(dependency);
                together
            })
            .collect();
        platforms.push(self.staged(name));
        platforms.retain(|platform| !platform.is_empty());
        platforms
    }

    /// Everything that builds against an element, directly or not, each once,
    /// in the order of [`elements`](Self::elements). Without the element
    /// itself; empty for an unknown name.
    #[must_use]
    pub fn dependents(&self, name: &str) -> Vec<&Element> {
        let Some(&row) = self.rows.get(name) else { return Vec::new() };
        let mut rows = order::depth_first(row, &self.dependents);
        rows.pop();
        rows.sort_unstable();
        rows.into_iter().map(|row| &self.elements[row]).collect()
    }
}

/// Equal if they say the same of the same elements in the same order.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.digest_function == other.digest_function && self.elements == other.elements
    }
}

impl Eq for Graph {}
