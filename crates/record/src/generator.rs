//! Generation: from the actions that elements ran to stored records.

use std::sync::Arc;

use cas_client::{ActionCache, BlobStore};
use overlay::Mode;
use overlay::graph::Graph;
use reapi_proto::DigestFunction;
use rustc_hash::FxHashSet;

use crate::run::Run;
use crate::{Budget, GenerateReport, SubactionSource};

/// The form in which records are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Layout {
    /// Everything, in a field that readers of the reference layout ignore.
    #[default]
    Compact,
    /// What the reference layout can express.
    Reference,
}

/// Why there is nothing to report.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GenerateError {
    /// A wanted element is not in the graph.
    #[error("{0:?} is not an element of the graph")]
    UnknownElement(String),
    /// The graph's digests are not the store's.
    #[error("the graph has {graph} digests, {store} has {function} ones")]
    DigestFunction {
        /// The graph's function.
        graph: DigestFunction,
        /// The store.
        store: String,
        /// The store's function.
        function: DigestFunction,
    },
}

/// Records the actions of elements after their build.
#[derive(Clone, Debug)]
pub struct Generator {
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) cache: Arc<dyn ActionCache>,
    pub(crate) source: Arc<dyn SubactionSource>,
    pub(crate) mode: Mode,
    pub(crate) layout: Layout,
    pub(crate) budget: Budget,
}

impl Generator {
    /// A generator of mode `full` and compact layout, with the default budget.
    #[must_use]
    pub fn new(blobs: Arc<dyn BlobStore>, cache: Arc<dyn ActionCache>, source: Arc<dyn SubactionSource>) -> Self {
        let (mode, layout, budget) = (Mode::default(), Layout::default(), Budget::default());
        Self { blobs, cache, source, mode, layout, budget }
    }

    /// How much is recorded. Below [`Mode::SourceArtifact`] nothing is done at all.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The form in which records are stored.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// What the work on one element may cost.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Records the named elements, dependencies first, and stores each record
    /// that has an action.
    ///
    /// Only reads, and writes one blob per element; where that fails, the run
    /// ends and the report says so. Whatever is wrong with an action leaves
    /// out that action, with the reason. Round trips per element depend on
    /// the depth of its trees, not on their number or size (action cache
    /// look-ups apart). The work between reads is done in place: on a runtime
    /// that must stay responsive, give it a thread.
    ///
    /// Dropping the future leaves complete records of some elements behind.
    ///
    /// # Errors
    /// [`GenerateError`] before any work is done.
    pub async fn generate<S: AsRef<str> + Sync>(
        &self,
        graph: &Graph,
        names: &[S],
    ) -> Result<GenerateReport, GenerateError> {
        let mut wanted = FxHashSet::default();
        for name in names {
            let unknown = || GenerateError::UnknownElement(name.as_ref().to_owned());
            wanted.insert(graph.get(name.as_ref()).ok_or_else(unknown)?.name.as_str());
        }
        if graph.digest_function() != self.blobs.digest_function() {
            return Err(GenerateError::DigestFunction {
                graph: graph.digest_function(),
                store: self.blobs.to_string(),
                function: self.blobs.digest_function(),
            });
        }
        if self.mode < Mode::SourceArtifact || wanted.is_empty() {
            return Ok(GenerateReport::default());
        }
        let mut run = Run::new(self, graph);
        let failure = Box::pin(run.all(&wanted)).await.err();
        let mut report = run.into_report();
        if let Some(error) = &failure {
            tracing::warn!(store = %self.blobs, %error, "generation ended early");
        }
        report.stopped = failure;
        Ok(report)
    }
}
