//! Distributing blobs over batches.

use std::collections::VecDeque;

/// What one batch may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Budget {
    /// Encoded bytes, entries with their overhead.
    pub(super) bytes: u64,
    /// Bytes that an entry takes beyond its blob.
    pub(super) overhead: u64,
    /// Entries.
    pub(super) entries: usize,
}

impl Budget {
    /// Whether a blob of `size_bytes` fits into a batch at all.
    pub(super) fn admits(&self, size_bytes: u64) -> bool {
        self.cost(size_bytes) <= self.bytes
    }

    fn cost(&self, size_bytes: u64) -> u64 {
        size_bytes.saturating_add(self.overhead)
    }
}

/// Packs items into batches: the largest first, the rest of the room filled
/// with the smallest. An item that no batch admits gets one of its own.
pub(super) fn pack<T>(mut items: Vec<T>, budget: Budget, size_bytes: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    items.sort_by_key(|item| std::cmp::Reverse(size_bytes(item)));
    let mut items = VecDeque::from(items);
    let mut batches = Vec::new();
    while let Some(largest) = items.pop_front() {
        let mut used = budget.cost(size_bytes(&largest));
        let mut batch = vec![largest];
        while let Some(smallest) = items.back() {
            used = used.saturating_add(budget.cost(size_bytes(smallest)));
            if used > budget.bytes || batch.len() >= budget.entries {
                break;
            }
            batch.extend(items.pop_back());
        }
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_items_fill_up_behind_large_ones() {
        let budget = Budget { bytes: 100, overhead: 10, entries: 3 };
        let batches = pack(vec![1, 80, 2, 300, 70, 3], budget, |n| *n);
        assert_eq!(batches, [vec![300], vec![80], vec![70, 1], vec![3, 2]]);
    }

    proptest! {
        #[test]
        fn every_item_is_packed_once_within_the_budget(
            sizes in prop::collection::vec(0_u64..200, 0..60), bytes in 0_u64..300, entries in 1_usize..6,
        ) {
            let budget = Budget { bytes, overhead: 5, entries };
            let batches = pack(sizes.clone(), budget, |n| *n);
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= entries);
                let cost: u64 = batch.iter().map(|n| n + 5).sum();
                prop_assert!(cost <= bytes || batch.len() == 1);
            }
            let mut packed: Vec<u64> = batches.into_iter().flatten().collect();
            let mut sizes = sizes;
            packed.sort_unstable();
            sizes.sort_unstable();
            prop_assert_eq!(packed, sizes);
        }
    }
}
