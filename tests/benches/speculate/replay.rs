//! An execution service that knows every result beforehand.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::{
    ActionCacheWriter, Error, ErrorKind, ExecuteRequest, Execution, ExecutionOutcome, ExecutionUpdate, Result,
};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

/// Answers with the results of a next build and enters them into the action cache.
pub(crate) struct Replay {
    cache: Arc<dyn ActionCacheWriter>,
    results: HashMap<Digest, ActionResult>,
}

impl Replay {
    pub(crate) fn new(cache: Arc<dyn ActionCacheWriter>, results: &[(Digest, ActionResult)]) -> Self {
        Self { cache, results: results.iter().cloned().collect() }
    }
}

#[async_trait]
impl Execution for Replay {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let unexpected = || Error::new(ErrorKind::Invalid, "execute", "no build runs this").with_digest(request.action);
        let result = self.results.get(&request.action).ok_or_else(unexpected)?.clone();
        self.cache.store_action_result(&request.action, &result).await?;
        let outcome = ExecutionOutcome { result, cached: false, message: String::new() };
        Ok(stream::iter([Ok(ExecutionUpdate::Done(Box::new(outcome)))]).boxed())
    }

    async fn cancel(&self, _operation: &str) -> Result<()> {
        Ok(())
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({})", self.results.len())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
