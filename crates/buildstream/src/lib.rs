//! What released BuildStream keeps about a project, and how to use it.
//!
//! This is the only crate that knows BuildStream.
//!
//! - [`introspect`](introspect()): the elements of a project, their keys and
//!   states, and the configuration, asked of BuildStream itself in the
//!   interpreter of the [`Installation`]; [`Introspection`] is the answer.
//! - [`Invocation`]: the global options of `bst` that decide about all that.
//! - [`Stamps`]: whether anything that decides about it has been touched.
//! - [`names`]: cache keys, artifact names, names in asset indexes.
//! - [`artifact`], [`refs`]: the files in which BuildStream says what it built,
//!   read and edited without loss.
//! - [`remote`]: records on artifact servers, pulled and pushed.
//! - [`records`]: indexes of records, here and on servers, for the priming engine.
//!
//! - [`daemon`]: the casd of a running `bst`, or one of our own on its cache directory.
//! - [`live`]: a build while it goes on: what is available, reached, built;
//!   and what it came to, beside what priming did.
//!
//! Not here: a terminal, a command line, process exit, environment variables;
//! running builds; recording and priming as such (`reapi-record`, `instantiate`);
//! gRPC. What is read from caches and servers is checked before it is used:
//! names that become paths, digests, keys.
//!
//! A record is attached to an artifact of which a newer BuildStream has said
//! something that this crate has never heard of:
//!
//! ```
//! use buildstream::artifact::Artifact;
//! use buildstream::names::ElementRef;
//! use reapi_proto::DigestFunction;
//!
//! let key = "5eef975976ee2673cde444089d9324d2b3bc3b3e852a2b486b1e340e014f6a02".parse()?;
//! let name = ElementRef::new("demo", "junction.bst:sub/app.bst")?.artifact(key);
//! assert!(name.urn().starts_with("urn:fdc:buildstream.build:2020:artifact:demo/sub-app/5eef9759"));
//!
//! let unknown = b"\xa2\x06\x05hello";
//! let artifact = Artifact::parse(&unknown[..])?;
//! let record = DigestFunction::Sha256.digest(b"a SpeculativeActions message");
//! let with_record = artifact.with_speculative_actions(Some(&record))?;
//! assert_eq!(with_record.speculative_actions()?, Some(record));
//! assert!(with_record.bytes().ends_with(unknown));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod artifact;
pub mod daemon;
mod history;
mod installation;
pub mod introspect;
mod invocation;
pub mod live;
pub mod names;
mod project;
pub mod records;
pub mod refs;
pub mod remote;
mod staging;
mod stamps;

pub use installation::{Installation, InstallationError};
pub use introspect::{IntrospectError, Request, introspect};
pub use invocation::{Invocation, MissingValue, Strictness};
pub use project::{
    CacheState, Configuration, ElementState, Introspection, Project, Remote, RemoteKind, Servers, Versions,
};
pub use stamps::{StampError, Stamps};
