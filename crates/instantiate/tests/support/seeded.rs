//! What is drawn by lot, and yet the same again for the same seed.

use std::sync::{Arc, Mutex};

/// A small random number generator (SplitMix64). Clones share the sequence.
#[derive(Clone, Debug)]
pub struct Seeded(Arc<Mutex<u64>>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Ready after up to `limit` turns of whatever else runs.
    pub async fn turns(&self, limit: u64) {
        for _ in 0..self.below(limit) {
            tokio::task::yield_now().await;
        }
    }
}
