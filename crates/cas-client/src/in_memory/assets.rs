//! The in-memory asset index.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use reapi_proto::Digest;

use super::InMemory;
use crate::batch::require_function;
use crate::{AssetIndex, BlobStore, Error, ErrorKind, PushRequest, Result};

#[derive(Default)]
pub(super) struct Assets {
    map: RwLock<BTreeMap<String, Digest>>,
}

impl Assets {
    pub(super) fn all(&self) -> Vec<(String, Digest)> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(name, digest)| (name.clone(), *digest)).collect()
    }
}

#[async_trait]
impl AssetIndex for InMemory {
    async fn fetch_blob(&self, uris: &[String]) -> Result<Option<Digest>> {
        if uris.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "fetch_blob", "no name to look up").at(self));
        }
        self.inner.counters.fetch_asset.add(uris.len(), 0);
        let map = self.inner.assets.map.read().unwrap_or_else(PoisonError::into_inner);
        Ok(uris.iter().find_map(|uri| map.get(uri).copied()))
    }

    async fn push_blob(&self, request: &PushRequest) -> Result<()> {
        let PushRequest { uris, blob, references_blobs, references_directories, lifetime: _ } = request;
        if uris.is_empty() || uris.iter().any(String::is_empty) {
            return Err(Error::new(ErrorKind::Invalid, "push_blob", "no name to publish, or an empty one").at(self));
        }
        let referenced: Vec<_> =
            std::iter::once(blob).chain(references_blobs).chain(references_directories).copied().collect();
        require_function("push_blob", self.digest_function(), &referenced)?;
        let missing = self.inner.blobs.missing(&referenced);
        if !missing.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "push_blob", "the name refers to blobs that are not in CAS")
                .with_digests(missing)
                .at(self));
        }
        self.inner.counters.push_asset.add(uris.len(), 0);
        let mut map = self.inner.assets.map.write().unwrap_or_else(PoisonError::into_inner);
        for uri in uris {
            map.insert(uri.clone(), *blob);
        }
        Ok(())
    }
}
