//! What released BuildStream keeps about a project, and how to use it.
//!
//! This is the only crate that knows BuildStream.
//!
//! - [`names`]: cache keys, artifact names, names in asset indexes.
//! - [`artifact`], [`refs`]: the files in which BuildStream says what it built, read and edited without loss.
//! - [`records`]: an index of records over those files, for the priming engine.
//!
//! Not here: a terminal, a command line, process exit, environment variables;
//! running builds; recording and priming as such (`reapi-record`, `instantiate`).

pub mod artifact;
pub mod names;
pub mod records;
pub mod refs;
