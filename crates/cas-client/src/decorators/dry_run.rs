//! Writes stay in memory; everything else is as it would be.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::v2::ActionResult;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::batch::{distinct, require_function};
use crate::{ActionCache, ActionCacheWriter, Blob, BlobStore, Chunks, Error, InMemory, PerBlob, Result, closure};

/// Writes go to memory only; reads find them there and fall through to the
/// real store otherwise. So everything that is to be written can be computed,
/// read back and reported, and nothing is changed.
///
/// Executions are not for a dry run, so there is no `Execution` here.
#[derive(Clone, Debug)]
pub struct DryRun<S> {
    inner: S,
    written: InMemory,
}

impl<S: BlobStore> DryRun<S> {
    /// Keeps writes away from `inner`.
    pub fn new(inner: S) -> Self {
        let written = InMemory::with_function(inner.digest_function());
        Self { inner, written }
    }

    /// What would have been written.
    #[must_use]
    pub fn written(&self) -> &InMemory {
        &self.written
    }
}

impl<S: fmt::Display> fmt::Display for DryRun<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DryRun({})", self.inner)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore> BlobStore for DryRun<S> {
    fn digest_function(&self) -> DigestFunction {
        self.inner.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let not_written = self.written.find_missing(digests).await?;
        if not_written.is_empty() { Ok(not_written) } else { self.inner.find_missing(&not_written).await }
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        require_function("read_blobs", self.digest_function(), digests)?;
        let digests = distinct(digests);
        let below: Vec<Digest> = self.written.find_missing(&digests).await?;
        let mut answers: FxHashMap<Digest, Result<Bytes>> = if below.is_empty() {
            FxHashMap::default()
        } else {
            self.inner.read_blobs(&below).await?.into_iter().collect()
        };
        let own: Vec<Digest> = digests.iter().filter(|d| !answers.contains_key(d)).copied().collect();
        answers.extend(self.written.read_blobs(&own).await?);
        let answer = |digest| {
            let outcome = answers.remove(&digest).unwrap_or_else(|| Err(Error::not_found("read_blobs", digest)));
            (digest, outcome)
        };
        Ok(digests.into_iter().map(answer).collect())
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        self.written.write_blobs(blobs).await
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        if self.written.find_missing(std::slice::from_ref(digest)).await?.is_empty() {
            self.written.open_blob(digest).await
        } else {
            self.inner.open_blob(digest).await
        }
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        self.written.write_chunks(digest, chunks).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore + ActionCache> ActionCache for DryRun<S> {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        match self.written.fetch_action_result(action).await? {
            None => self.inner.fetch_action_result(action).await,
            written => Ok(written),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: BlobStore + ActionCache> ActionCacheWriter for DryRun<S> {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        // What the result needs may be in either place.
        closure::require_complete(self, action, result).await?;
        self.written.keep_action_result(action, result);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlobStoreExt;
    use reapi_proto::v2::{Action, Command};

    #[tokio::test]
    async fn writes_are_seen_here_and_nowhere_else() {
        let below = InMemory::new();
        let old = below.put("old");
        let store = DryRun::new(below.clone());
        assert_eq!(store.to_string(), "DryRun(InMemory)");
        let new = Blob::new(DigestFunction::Sha256, "new");
        assert_eq!(store.find_missing(&[old, new.digest()]).await.unwrap(), [new.digest()]);
        store.upload_missing(std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(store.find_missing(&[old, new.digest()]).await.unwrap(), []);
        let read = store.read_blobs(&[new.digest(), old]).await.unwrap();
        let read: Vec<_> = read.into_iter().map(|(digest, data)| (digest, data.unwrap())).collect();
        assert_eq!(read, [(new.digest(), "new".into()), (old, "old".into())]);
        assert_eq!(below.digests(), [old]);
        assert_eq!(store.written().digests(), [new.digest()]);
    }

    #[tokio::test]
    async fn a_result_may_need_blobs_of_both_places() {
        let below = InMemory::new();
        let command = below.put_message(&Command { arguments: vec!["true".into()], ..Command::default() });
        let store = DryRun::new(below.clone());
        let action = Action {
            command_digest: Some(command.into()),
            input_root_digest: Some(DigestFunction::Sha256.empty().into()),
            ..Action::default()
        };
        let action = Blob::new(DigestFunction::Sha256, prost::Message::encode_to_vec(&action));
        store.write_blob(&action).await.unwrap();
        let result = ActionResult::default();
        store.store_action_result(&action.digest(), &result).await.unwrap();
        assert_eq!(store.fetch_action_result(&action.digest()).await.unwrap(), Some(result));
        assert_eq!(below.action_results(), []);
    }
}
