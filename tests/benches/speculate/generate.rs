//! Recording the actions of `app.bst`.

use std::sync::Arc;
use std::time::Duration;

use cas_client::InMemory;
use overlay::graph::Graph;
use reapi_proto::Digest;
use record::{ElementReport, ExplicitList, Generator, Layout};
use testbed::workload::Workload;
use tokio::runtime::Runtime;

use crate::measure::best;

/// The record of `app.bst` and what it took to make it.
pub(crate) struct Generated {
    pub(crate) message: Digest,
    pub(crate) time: Duration,
    pub(crate) report: ElementReport,
}

/// Records all actions, from `store` and into it.
pub(crate) fn generate(runtime: &Runtime, workload: &Workload, store: &InMemory, layout: Layout) -> Generated {
    let graph = Graph::from_json(workload.graph().to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let generator =
        Generator::new(Arc::new(store.clone()), Arc::new(store.clone()), Arc::new(ExplicitList)).with_layout(layout);
    let mut last = None;
    let time = best(|| {
        let report =
            runtime.block_on(generator.generate(&graph, &["app.bst"])).unwrap_or_else(|error| panic!("{error}"));
        assert!(report.stopped.is_none() && report.action_cache.is_none(), "{report:?}");
        last = report.elements.into_iter().next();
    });
    let report = last.unwrap_or_else(|| panic!("no report on app.bst"));
    assert!(report.skipped.is_empty(), "actions were left out: {:?}", report.skipped.first());
    assert_eq!(report.actions, workload.base_actions().len());
    let message = report.speculative_actions.unwrap_or_else(|| panic!("nothing was recorded"));
    Generated { message, time, report }
}
