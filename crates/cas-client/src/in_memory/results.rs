//! The in-memory action cache.

use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;
use rustc_hash::FxHashMap;

use super::InMemory;
use crate::batch::require_function;
use crate::closure;
use crate::{ActionCache, ActionCacheWriter, BlobStore, Result};

#[derive(Default)]
pub(super) struct Results {
    map: RwLock<FxHashMap<Digest, ActionResult>>,
}

impl Results {
    pub(super) fn len(&self) -> usize {
        self.map.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn forget(&self, action: &Digest) -> bool {
        self.map.write().unwrap_or_else(PoisonError::into_inner).remove(action).is_some()
    }

    pub(super) fn all(&self) -> Vec<(Digest, ActionResult)> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = map.iter().map(|(action, result)| (*action, result.clone())).collect();
        all.sort_unstable_by_key(|(action, _)| *action);
        all
    }
}

impl InMemory {
    /// Stores a result that was checked already, uncounted.
    pub(crate) fn keep_action_result(&self, action: &Digest, result: &ActionResult) {
        self.inner.results.map.write().unwrap_or_else(PoisonError::into_inner).insert(*action, result.clone());
    }
}

#[async_trait]
impl ActionCache for InMemory {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        require_function("fetch_action_result", self.digest_function(), [action])?;
        self.inner.counters.fetch_action_result.add(1, 0);
        Ok(self.inner.results.map.read().unwrap_or_else(PoisonError::into_inner).get(action).cloned())
    }
}

#[async_trait]
impl ActionCacheWriter for InMemory {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        require_function("store_action_result", self.digest_function(), [action])?;
        self.inner.counters.store_action_result.add(1, 0);
        closure::require_complete(&self.inner.blobs, action, result).await?;
        self.keep_action_result(action, result);
        Ok(())
    }
}
