//! Attaching records to artifacts on a server.

use cas_client::{Blob, BlobStore, BlobStoreExt, Copied, Error, ErrorKind, PushRequest, Result, copy};
use reapi_proto::Digest;
use rustc_hash::FxHashSet;

use super::ArtifactServer;
use super::closure::Closure;
use crate::artifact::{Artifact, MessageError};
use crate::names::ArtifactName;

/// A record that is on the server now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pushed {
    /// The names that lead to it.
    pub names: Vec<ArtifactName>,
    /// What was copied to the server's storage.
    pub copied: Copied,
    /// Actions of the record that the server can serve; all of them, unless
    /// something of them is available nowhere.
    pub actions: usize,
}

/// Why a record was not pushed. Nothing is wrong then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NotPushed {
    /// The artifact itself is not there: BuildStream has not pushed it.
    NoArtifact,
    /// The artifact there names this record already.
    AlreadyThere,
}

impl ArtifactServer {
    /// Attaches a record to the artifact of this strong key, under its strong
    /// and its weak key, and sees to it that the server has what the record refers to.
    ///
    /// It is the server's own message that is edited, every other byte of it
    /// kept. The weak key's name is left alone where it stands for another
    /// build by now. The names are published after all blobs are there; a
    /// dropped future leaves blobs at most.
    ///
    /// # Errors
    /// `NotFound` where `local` lacks the record, `Protocol` where the
    /// artifact there is not one that it can be attached to, and failures of the stores.
    pub async fn push_record(
        &self,
        local: &dyn BlobStore,
        strong: &ArtifactName,
        record: &Digest,
    ) -> Result<Result<Pushed, NotPushed>> {
        let Some(artifact) = self.fetch_artifact(strong).await? else { return Ok(Err(NotPushed::NoArtifact)) };
        let wrong = |e: MessageError| Error::new(ErrorKind::Protocol, "push_record", e.to_string()).at(self);
        let edited = artifact.with_speculative_actions(Some(record)).map_err(wrong)?;
        let mut names = vec![strong.clone()];
        let weak = strong.element().artifact(artifact.weak_key().map_err(wrong)?);
        let mut is_there = edited == artifact;
        if weak != *strong {
            match self.fetch_artifact(&weak).await? {
                Some(other) if other.message().strong_key != artifact.message().strong_key => {}
                other => {
                    is_there &= other.is_some_and(|other| other == edited);
                    names.push(weak);
                }
            }
        }
        if is_there {
            return Ok(Err(NotPushed::AlreadyThere));
        }

        let closure = Closure::read(local, None, &[*record]).await?;
        if closure.missing.contains(record) {
            return Err(Error::not_found("push_record", *record).at(local));
        }
        let copied = copy(local, &*self.storage, &closure.everything()).await?;
        let unavailable: FxHashSet<Digest> = copied.unavailable.iter().copied().collect();
        let bases = closure.bases_without(&unavailable);

        let message = Blob::new(self.storage.digest_function(), edited.bytes().clone());
        self.storage.write_blob(&message).await?;
        let mut references_blobs = artifact.referenced_blobs().map_err(wrong)?;
        references_blobs.push(*record);
        references_blobs.extend(bases.iter().flat_map(|base| [base.action, base.command]));
        let mut references_directories = artifact.referenced_directories().map_err(wrong)?;
        references_directories.extend(bases.iter().map(|base| base.root));
        let request = PushRequest {
            uris: names.iter().map(ArtifactName::urn).collect(),
            blob: message.digest(),
            references_blobs: distinct(references_blobs),
            references_directories: distinct(references_directories),
            lifetime: None,
        };
        self.index.push_blob(&request).await?;
        Ok(Ok(Pushed { names, copied, actions: bases.len() }))
    }

    async fn fetch_artifact(&self, name: &ArtifactName) -> Result<Option<Artifact>> {
        self.fetch_artifacts(std::slice::from_ref(name)).await?.pop().unwrap_or(Ok(None))
    }
}

/// Each once, in order of first occurrence.
fn distinct(digests: Vec<Digest>) -> Vec<Digest> {
    let mut seen = FxHashSet::default();
    digests.into_iter().filter(|digest| seen.insert(*digest)).collect()
}
