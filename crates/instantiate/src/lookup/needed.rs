//! Which records are needed at all.
//!
//! An element that is current will not be built, so nobody asks for its
//! actions: its record is not even looked up. What others take from it is in its
//! artifact, or as they recorded it. Only where neither tells is its record read.

use std::collections::BTreeSet;

use cas_client::BlobStore;
use overlay::graph::{Element, Graph};
use overlay::{ElementId, Origin, Record};
use rustc_hash::FxHashMap;

use super::load::load;
use super::{Loaded, Lookup, RecordIndex};
use crate::skip::Skip;

/// An element to be primed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'g> {
    pub(crate) element: &'g Element,
    /// It was asked for by its name: its actions are primed even if it will not be built.
    pub(crate) named: bool,
}

/// Why no record of an element is in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unused {
    /// The element will not be built.
    Current,
    /// There is none, or none that can be used.
    Skip(Skip),
}

/// What a record's other elements made, as far as that is known without their records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outside {
    /// It may be built: only its record tells what its actions make.
    Open,
    /// It will not be built, and its artifact is the recorded one: what was taken from it is as it was.
    AsRecorded,
    /// It will not be built, and its artifact speaks for everything that was taken from it.
    InArtifact,
    /// It will not be built, but its artifact is another one and does not speak for all that was taken from it.
    Unclear,
}

impl Outside {
    /// What is known of each of a record's elements, by their rows there.
    pub(crate) fn of(record: &Record, graph: &Graph) -> Vec<Self> {
        let current = |id: ElementId| graph.get(&record.element(id).name).filter(|element| element.is_current());
        let judge = |id: ElementId| match current(id) {
            None => Self::Open,
            Some(_) if id == ElementId::SELF => Self::Open,
            Some(now) if now.artifact.is_some() && now.artifact == record.element(id).artifact => Self::AsRecorded,
            Some(_) => Self::InArtifact,
        };
        let mut outside: Vec<Self> = record.element_ids().map(judge).collect();
        let known: Vec<bool> =
            record.element_ids().map(|id| current(id).is_some_and(|now| now.artifact.is_some())).collect();
        for input in &record.inputs {
            let authority = input.origins.first().map(|origin| record.origin(*origin));
            if matches!(authority, Some(Origin::Artifact { element, .. }) if known[element.index()]) {
                continue;
            }
            for origin in &input.origins {
                if let Origin::Action { element, .. } = record.origin(*origin)
                    && outside[element.index()] == Self::InArtifact
                {
                    outside[element.index()] = Self::Unclear;
                }
            }
        }
        outside
    }

    /// Whether nothing that the element's actions make has to be found out.
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, Self::AsRecorded | Self::InArtifact)
    }
}

/// The record of each of `wanted` that is needed, in their order, or why none is used.
///
/// One question and one batch of reads, as in [`load`], for everything that will be built or was named; again for
/// current elements that those records leave [unclear](Outside::Unclear), and so on.
pub(crate) async fn load_needed(
    blobs: &dyn BlobStore,
    index: &dyn RecordIndex,
    graph: &Graph,
    wanted: &[Wanted<'_>],
    lookup: Lookup,
) -> Vec<Result<Loaded, Unused>> {
    let mut answers: Vec<Result<Loaded, Unused>> = wanted.iter().map(|_| Err(Unused::Current)).collect();
    let is_due = |wanted: &Wanted<'_>| wanted.named || !wanted.element.is_current();
    let mut due: BTreeSet<usize> = (0..wanted.len()).filter(|row| is_due(&wanted[*row])).collect();
    let rest = wanted.iter().enumerate().filter(|(row, _)| !due.contains(row));
    let mut unread: FxHashMap<&str, usize> = rest.map(|(row, wanted)| (wanted.element.name.as_str(), row)).collect();
    while !due.is_empty() {
        let elements: Vec<&Element> = due.iter().map(|row| wanted[*row].element).collect();
        let loaded = load(blobs, index, graph, &elements, lookup).await;
        let mut next = BTreeSet::new();
        for (row, loaded) in due.into_iter().zip(loaded) {
            if let Ok(Loaded { record, outside, .. }) = &loaded {
                let unclear = record.element_ids().zip(outside).filter(|(_, outside)| **outside == Outside::Unclear);
                next.extend(unclear.filter_map(|(id, _)| unread.remove(record.element(id).name.as_str())));
            }
            answers[row] = loaded.map_err(Unused::Skip);
        }
        due = next;
    }
    answers
}
