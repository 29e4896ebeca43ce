//! Records on artifact servers.
//!
//! A server knows artifacts by name (Remote Asset) and keeps their content
//! (CAS). The name of an artifact leads to its `Artifact` message, the message
//! to the record, the record to actions, commands and input trees.
//!
//! *Pulling* fetches these messages and nothing else, no file contents: it
//! serves elements that this machine never built. *Pushing* attaches a record
//! to an artifact that BuildStream has pushed, and never publishes one by itself.

mod closure;
mod pull;
mod push;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use cas_client::{AssetIndex, BlobStore};

pub use pull::{PullStats, RemoteRecords};
pub use push::{NotPushed, Pushed};

/// An artifact server: where names are looked up, and where blobs are.
#[derive(Clone, Debug)]
pub struct ArtifactServer {
    /// The names.
    pub index: Arc<dyn AssetIndex>,
    /// The blobs.
    pub storage: Arc<dyn BlobStore>,
}

impl fmt::Display for ArtifactServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactServer({}, {})", self.index, self.storage)
    }
}
