//! Finding the record of an element.

mod fit;
mod load;
mod needed;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;
use overlay::Record;
use overlay::graph::Element;
use reapi_proto::Digest;

pub(crate) use fit::Fit;
pub(crate) use load::Loaded;
pub(crate) use needed::{Outside, Unused, Wanted, load_needed};

/// Which records are good enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Lookup {
    /// Only one that was recorded under the element's weak key.
    Weak,
    /// Also one that was recorded under another weak key, if the element's
    /// sources differ from the recorded ones: that explains the other key, and
    /// SOURCE origins adapt to it. Equal sources under another key mean that
    /// commands or environment have changed, which no record can follow.
    #[default]
    Nearest,
}

/// A record that may be the one of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The `SpeculativeActions` message in CAS.
    pub message: Digest,
    /// The weak key that it is kept under. `None`: as the message says, if it does.
    pub weak_key: Option<String>,
}

/// Where records are kept.
#[async_trait]
pub trait RecordIndex: Debug + Display + Send + Sync + 'static {
    /// What may be used for each of `elements`, one list per element in their
    /// order; within a list the best first: what is kept under the element's
    /// own weak key, then, if `lookup` accepts it, the newest under others.
    ///
    /// # Errors
    /// When the index cannot answer; an element without records has an empty list.
    async fn find_records(&self, elements: &[&Element], lookup: Lookup) -> cas_client::Result<Vec<Vec<Candidate>>>;

    /// What this message says, if the index has it decoded: it is not read then. Several runs can share it.
    fn decoded(&self, message: &Digest) -> Option<Arc<Record>> {
        let _ = message;
        None
    }
}

/// The records that the graph itself names in `speculative_actions`: at most one per element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GraphRecords;

#[async_trait]
impl RecordIndex for GraphRecords {
    async fn find_records(&self, elements: &[&Element], _lookup: Lookup) -> cas_client::Result<Vec<Vec<Candidate>>> {
        let candidates = |element: &&Element| {
            let message = element.speculative_actions;
            message.map(|message| Candidate { message, weak_key: None }).into_iter().collect()
        };
        Ok(elements.iter().map(candidates).collect())
    }
}

impl Display for GraphRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GraphRecords")
    }
}
