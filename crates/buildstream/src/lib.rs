//! What released BuildStream keeps about a project, and how to use it.
//!
//! This is the only crate that knows BuildStream.
//!
//! - [`introspect`](introspect()): the elements of a project, their keys and
//!   states, and the configuration, asked of BuildStream itself in the
//!   interpreter of the [`Installation`]; [`Introspection`] is the answer.
//! - [`Invocation`]: the global options of `bst` that decide about all that.
//! - [`names`]: cache keys, artifact names, names in asset indexes.
//! - [`artifact`], [`refs`]: the files in which BuildStream says what it built,
//!   read and edited without loss.
//! - [`remote`]: records on artifact servers, pulled and pushed.
//! - [`records`]: indexes of records, here and on servers, for the priming engine.
//!
//! Not here: a terminal, a command line, process exit, environment variables;
//! running builds; recording and priming as such (`reapi-record`, `instantiate`).

pub mod artifact;
mod installation;
pub mod introspect;
mod invocation;
pub mod names;
mod project;
pub mod records;
pub mod refs;
pub mod remote;
mod staging;

pub use installation::{Installation, InstallationError};
pub use introspect::{IntrospectError, Request, introspect};
pub use invocation::{Invocation, MissingValue, Strictness};
pub use project::{
    CacheState, Configuration, ElementState, Introspection, Project, Remote, RemoteKind, Servers, Versions,
};
