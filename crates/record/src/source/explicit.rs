//! What the orchestrator says itself.

use std::fmt::{self, Display};

use async_trait::async_trait;
use cas_client::Result;
use overlay::graph::Element;

use super::{Subaction, SubactionSource};

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
