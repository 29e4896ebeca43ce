//! What the engine may use of the outside world.

use std::sync::Arc;

use cas_client::{ActionCache, BlobStore, Execution};

/// The services that priming goes through.
#[derive(Clone, Debug)]
pub struct Services {
    /// Where records, recorded actions and trees are, and where adapted ones go.
    pub blobs: Arc<dyn BlobStore>,
    /// Where results are looked up.
    pub cache: Arc<dyn ActionCache>,
    /// Who executes. `None` is the dry run: nothing is executed and nothing is
    /// uploaded, but results of adapted actions are still looked up, so that
    /// what depends on them can be adapted in turn.
    pub execution: Option<Arc<dyn Execution>>,
}

impl Services {
    /// Services that execute nothing: [`execution`](Self::execution) is `None`.
    #[must_use]
    pub fn dry_run(blobs: Arc<dyn BlobStore>, cache: Arc<dyn ActionCache>) -> Self {
        Self { blobs, cache, execution: None }
    }
}
