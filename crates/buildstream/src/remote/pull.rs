//! Looking records up on an artifact server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::{BlobStore, BlobStoreExt, Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use instantiate::{Candidate, Lookup, RecordIndex};
use overlay::graph::Element;
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ArtifactServer;
use super::closure::Closure;
use crate::artifact::Artifact;
use crate::names::ArtifactName;
use crate::records::identify;

/// Names that are looked up at once: servers commonly allow 100 concurrent calls on a connection.
const CONCURRENT_LOOKUPS: usize = 32;

/// An Artifact message above this size is refused before it is read.
const MAX_ARTIFACT_BYTES: u64 = 64 << 20;

impl ArtifactServer {
    /// The artifacts of these names, in their order: metadata only, nothing that they refer to.
    ///
    /// `None` where the server does not know the name, or has lost the message
    /// that it stands for. One look-up per name and one batch of reads.
    ///
    /// # Errors
    /// Per name: `Protocol` where the message is no artifact, and failures of the
    /// look-up. For all: when the storage fails as a whole.
    pub async fn fetch_artifacts(&self, names: &[ArtifactName]) -> Result<Vec<Result<Option<Artifact>>>> {
        let look_up = |name: &ArtifactName| {
            let urn = name.urn();
            async move { self.index.fetch_blob(&[urn]).await }
        };
        let digests: Vec<Result<Option<Digest>>> =
            stream::iter(names.iter().map(look_up).collect::<Vec<_>>()).buffered(CONCURRENT_LOOKUPS).collect().await;
        let function = self.storage.digest_function();
        let readable = |digest: &Digest| digest.size_bytes() <= MAX_ARTIFACT_BYTES && digest.function() == function;
        let distinct: FxHashSet<Digest> = digests.iter().flatten().flatten().copied().filter(readable).collect();
        let distinct: Vec<Digest> = distinct.into_iter().collect();
        let read = if distinct.is_empty() { Vec::new() } else { self.storage.read_blobs(&distinct).await? };
        let parsed: FxHashMap<Digest, Result<Option<Artifact>, (ErrorKind, String)>> = read
            .into_iter()
            .map(|(digest, answer)| {
                let artifact = match answer {
                    Ok(bytes) => Artifact::parse(bytes).map(Some).map_err(|e| (ErrorKind::Protocol, e.to_string())),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err((error.kind(), error.reason().to_owned())),
                };
                (digest, artifact)
            })
            .collect();
        let answer = |digest: Result<Option<Digest>>| {
            let Some(digest) = digest? else { return Ok(None) };
            let failed = |kind, reason: &str| Error::new(kind, "fetch_artifacts", reason).with_digest(digest).at(self);
            match parsed.get(&digest) {
                Some(Ok(artifact)) => Ok(artifact.clone()),
                Some(Err((kind, reason))) => Err(failed(*kind, reason)),
                None => Err(failed(ErrorKind::Protocol, "the name stands for something that is no artifact")),
            }
        };
        Ok(digests.into_iter().map(answer).collect())
    }

    /// Copies records to `local` with the actions, commands and directories
    /// that they lead to, as far as `local` lacks them; no file contents.
    /// Not atomic, and idempotent.
    ///
    /// # Errors
    /// When a store fails as a whole, or something is beyond the limits of [`cas_client::TreeBudget`].
    pub async fn pull_records(&self, local: &dyn BlobStore, records: &[Digest]) -> Result<PullStats> {
        let closure = Closure::read(local, Some(&*self.storage), records).await?;
        let uploaded = local.upload_missing(&closure.new).await?;
        let bytes = closure.new.iter().map(|blob| blob.digest().size_bytes()).sum();
        let mut missing: Vec<Digest> = closure.missing.into_iter().collect();
        missing.sort_unstable();
        Ok(PullStats {
            actions: closure.bases.len(),
            read: closure.new.len(),
            bytes,
            stored: uploaded.uploaded,
            missing,
        })
    }
}

/// What a pull did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PullStats {
    /// Recorded actions whose Action message is there now.
    pub actions: usize,
    /// Messages that came from the server.
    pub read: usize,
    /// Their size.
    pub bytes: u64,
    /// Those of them that the local store has taken.
    pub stored: u64,
    /// Messages that neither has, sorted.
    pub missing: Vec<Digest>,
}

/// The records that an artifact server has under the elements' own weak keys.
///
/// What is found is copied to the local store before it is offered, with
/// everything that it takes to instantiate it.
#[derive(Clone, Debug)]
pub struct RemoteRecords {
    server: ArtifactServer,
    local: Arc<dyn BlobStore>,
    project: Option<String>,
}

impl RemoteRecords {
    /// The records of this server, to be copied to `local`.
    #[must_use]
    pub fn new(server: ArtifactServer, local: Arc<dyn BlobStore>) -> Self {
        Self { server, local, project: None }
    }

    /// Asks about elements of this project only: a server of one project is
    /// not to learn of the elements of another.
    #[must_use]
    pub fn of_project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }
}

#[async_trait]
impl RecordIndex for RemoteRecords {
    async fn find_records(&self, elements: &[&Element], _lookup: Lookup) -> Result<Vec<Vec<Candidate>>> {
        let mut found = vec![Vec::new(); elements.len()];
        let mut rows = Vec::new();
        let mut names = Vec::new();
        let asked = |element: &Element| self.project.is_none() || element.project == self.project;
        for (row, element) in elements.iter().enumerate().filter(|(_, element)| asked(element)) {
            if let Some((element, weak)) = identify(element) {
                rows.push(row);
                names.push(element.artifact(weak));
            }
        }
        let mut records = Vec::new();
        for ((row, name), answer) in rows.into_iter().zip(&names).zip(self.server.fetch_artifacts(&names).await?) {
            let record = match answer {
                Ok(Some(artifact)) if artifact.message().weak_key == name.key().as_str() => artifact
                    .speculative_actions()
                    .map_err(|e| Error::new(ErrorKind::Protocol, "find_records", e.to_string()).at(&self.server)),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            match record {
                Ok(Some(message)) => {
                    records.push(message);
                    found[row].push(Candidate { message, weak_key: Some(name.key().to_string()) });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(artifact = %name, %error, "an artifact on the server cannot be used"),
            }
        }
        if !records.is_empty() {
            let pulled = self.server.pull_records(&*self.local, &records).await?;
            tracing::debug!(server = %self.server, ?pulled, "records pulled");
        }
        Ok(found)
    }
}

impl fmt::Display for RemoteRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteRecords({}, to {})", self.server, self.local)
    }
}
