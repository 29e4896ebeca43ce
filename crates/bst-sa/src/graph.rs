//! The graph file.

use std::path::Path;

use overlay::graph::Graph;

use crate::failure::Failure;
use crate::files::read_whole;

/// Reads the graph of `--graph FILE`.
pub(crate) fn read_graph(file: &Path) -> Result<Graph, Failure> {
    let bytes =
        read_whole(file).map_err(|e| Failure::usage(format!("{} cannot be read", file.display())).because(&e))?;
    Graph::from_json(&bytes).map_err(|e| {
        Failure::usage(format!("{} is not a usable graph", file.display()))
            .because(&e)
            .hint("the format is described in docs/graph.md")
    })
}
