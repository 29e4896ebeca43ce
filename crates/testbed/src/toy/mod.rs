//! A small build orchestrator over a small C project: what BuildStream with
//! recc does, in miniature, for tests and for `bst-sa demo`.
//!
//! Each element has sources; its build is a compile per C file and a link, one
//! action each, looked up in the action cache and executed on a miss; its
//! artifact is its headers and what it linked, at the paths where dependents
//! stage it. Actions are made from the current sources and artifacts alone:
//! nothing here knows about speculation, so a prediction that hits was right.

mod actions;
mod build;
mod demo;
mod graph;
mod includes;
mod project;
mod tree;

pub use actions::Toolchain;
pub use build::{ActionReport, Build, BuildReport, Built, ElementReport, Outcome, Services, State, run};
pub use graph::{graph_after, graph_before};
pub use project::{Element, Product, Project};
pub use tree::{File, FileTree};

use reapi_proto::Digest;

/// Why a toy build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A service failed.
    #[error("{element}: {source}")]
    Service {
        /// The element that was being built.
        element: String,
        /// What went wrong.
        source: cas_client::Error,
    },
    /// A command exited non-zero.
    #[error("{element}: action {action} exited with {exit_code}:\n{stderr}")]
    Command {
        /// The element that was being built.
        element: String,
        /// The action that failed.
        action: Box<Digest>,
        /// The command's exit code.
        exit_code: i32,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The project makes no sense, for example an unknown dependency.
    #[error("{element}: {reason}")]
    Project {
        /// The element in question.
        element: String,
        /// What is wrong.
        reason: String,
    },
    /// This machine has no C compiler in its PATH.
    #[error("there is no C compiler; install one that is called cc")]
    NoCompiler,
}

impl Error {
    fn service(element: &str, source: cas_client::Error) -> Self {
        Self::Service { element: element.to_owned(), source }
    }

    fn project(element: &str, reason: impl Into<String>) -> Self {
        Self::Project { element: element.to_owned(), reason: reason.into() }
    }
}
