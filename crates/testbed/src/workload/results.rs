//! Action results as an action cache of their own.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use cas_client::{ActionCache, Result};
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

/// An action cache over given results, with no CAS behind it.
///
/// Real caches refuse a result whose action they do not hold. This one answers for actions that a tool has
/// yet to think of, so that what the tool stores can be counted from zero.
#[derive(Clone, Default)]
pub struct Results(HashMap<Digest, ActionResult>);

impl Results {
    /// A cache of all of `results`; later ones replace earlier ones.
    pub fn new<'a>(results: impl IntoIterator<Item = &'a (Digest, ActionResult)>) -> Self {
        Self(results.into_iter().cloned().collect())
    }
}

#[async_trait]
impl ActionCache for Results {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        Ok(self.0.get(action).cloned())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({})", self.0.len())
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
