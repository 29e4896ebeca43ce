//! Which actions an element ran.

use std::fmt::{self, Debug, Display};

use async_trait::async_trait;
use cas_client::Result;
use overlay::graph::Element;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

/// An action that ran in the build of an element.
#[derive(Clone, PartialEq, Debug)]
pub struct Subaction {
    /// The Action message's digest.
    pub action: Digest,
    /// Its result, where the source came by it; otherwise the action cache is asked.
    pub result: Option<Box<ActionResult>>,
}

impl From<Digest> for Subaction {
    fn from(action: Digest) -> Self {
        Self { action, result: None }
    }
}

/// Tells which actions an element ran in its last build.
///
/// Its `Display` says where the knowledge comes from.
#[async_trait]
pub trait SubactionSource: Debug + Display + Send + Sync + 'static {
    /// The element's actions in the order in which they ran, repetitions
    /// included; `None` where the source knows nothing of the element, which
    /// is not the same as an element without actions.
    ///
    /// # Errors
    /// When the source cannot be read.
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>>;
}

/// The list in the graph: [`Element::subactions`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExplicitList;

impl Display for ExplicitList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the graph's subactions")
    }
}

#[async_trait]
impl SubactionSource for ExplicitList {
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        Ok(element.subactions.as_ref().map(|list| list.iter().copied().map(Subaction::from).collect()))
    }
}
