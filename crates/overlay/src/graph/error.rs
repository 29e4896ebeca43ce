//! What can be wrong with a graph.

/// Why a graph is refused. Names the element, the member and what is expected there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GraphError {
    /// Not JSON at all.
    #[error("the graph is not JSON: {0}")]
    Syntax(String),
    /// A member of the graph itself.
    #[error("the graph's `{member}` is {found}; expected {expected}")]
    Graph {
        /// The member.
        member: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A member of an element.
    #[error("{element}: `{member}` is {found}; expected {expected}")]
    Element {
        /// The element: its name, or its position where it has none.
        element: String,
        /// The member, with the position inside it where it is a list.
        member: String,
        /// What would have been right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A name that is not unique.
    #[error("{name}: `name` stands for more than one element; expected every name once")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A dependency that is not in the graph.
    #[error("{element}: `build_deps` lists {dependency:?}; expected names of elements of this graph")]
    UnknownDependency {
        /// Whose dependency.
        element: String,
        /// The name that nobody has.
        dependency: String,
    },
    /// Elements that depend on themselves.
    #[error("{}: `build_deps` lead back to it ({}); expected no cycle", .cycle[0], .cycle.join(" -> "))]
    Cycle {
        /// The way around, the first name repeated at the end.
        cycle: Vec<String>,
    },
}
