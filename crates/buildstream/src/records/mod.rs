//! Indexes of records, for the priming engine.
//!
//! [`RefRecords`] are those that this machine has attached to its artifacts,
//! [`RemoteRecords`](crate::remote::RemoteRecords) those on an artifact
//! server; [`Layered`] asks one after the other.

mod layered;
mod refs;

use overlay::graph::Element;

use crate::names::{CacheKey, ElementRef};
pub use layered::Layered;
pub use refs::RefRecords;

/// Under what the artifacts of an element are filed, and its weak key.
pub(crate) fn identify(element: &Element) -> Option<(ElementRef, CacheKey)> {
    let weak = element.weak_key.as_deref()?.parse().ok()?;
    Some((ElementRef::new(element.project.as_deref()?, &element.name).ok()?, weak))
}
