//! Making a record self-sufficient.
//!
//! An ACTION origin in another element resolves through that element's own
//! record. Where there is none, the producing action, and what produced its
//! inputs in turn, is copied from a record that was derived for the purpose.

use std::collections::VecDeque;
use std::sync::Arc;

use overlay::{ActionId, ElementId, Origin, Record};
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

/// Records that nobody stores, by the element's name.
pub(crate) type Unstored = FxHashMap<String, Arc<Record>>;

#[derive(Debug, Default)]
pub(crate) struct Embedded {
    /// The copied actions, in no particular order.
    pub(crate) copied: Vec<Digest>,
    /// Number of actions beyond the limit, not counting what they would have needed.
    pub(crate) left_out: usize,
}

/// Copies what `record` needs from records that nobody stores, nearest first,
/// `limit` actions at most. `order` names the element's dependencies, each before its dependents.
pub(crate) fn embed(record: &mut Record, unstored: &Unstored, order: &[String], limit: usize) -> Embedded {
    let mut wanted: VecDeque<(&str, Digest)> = VecDeque::new();
    for (_, origin) in record.origin_ids() {
        if let Origin::Action { element, base, .. } = origin
            && *element != ElementId::SELF
            && let Some((name, _)) = unstored.get_key_value(&record.element(*element).name)
        {
            wanted.push_back((name, *base));
        }
    }
    let mut embedded = Embedded::default();
    let mut rows: FxHashMap<&str, FxHashMap<Digest, ActionId>> = FxHashMap::default();
    let mut chosen: FxHashMap<&str, Vec<ActionId>> = FxHashMap::default();
    let mut seen = FxHashSet::default();
    while let Some((name, base)) = wanted.pop_front() {
        if !seen.insert((name, base)) {
            continue;
        }
        let from = &unstored[name];
        let by_base = || from.action_ids().map(|id| (from.action(id).base, id)).collect();
        let Some(&id) = rows.entry(name).or_insert_with(by_base).get(&base) else { continue };
        if embedded.copied.len() >= limit {
            embedded.left_out += 1;
            continue;
        }
        embedded.copied.push(base);
        chosen.entry(name).or_default().push(id);
        wanted.extend(from.producers(id).into_iter().filter_map(|(element, base)| {
            let (name, _) = unstored.get_key_value(&from.element(element).name)?;
            Some((name.as_str(), base))
        }));
    }
    // Copies go to the front, so the first dependencies come last.
    for name in order.iter().rev() {
        if let Some(mut ids) = chosen.remove(name.as_str()) {
            ids.sort_unstable();
            record.copy_actions(&unstored[name], &ids);
        }
    }
    embedded
}
