//! What no implementation can do without.

use std::hint::black_box;

use testbed::workload::{DIGEST_FUNCTION, NextState, Workload};

/// Hashes every distinct directory of the recorded input trees once: the least that generation has to do.
pub(crate) fn hash_directories(workload: &Workload) {
    for digest in workload.input_directories() {
        if let Some(bytes) = workload.blobs().get(digest) {
            black_box(DIGEST_FUNCTION.digest(bytes));
        }
    }
}

/// Hashes every blob that instantiation has to make once: the least that it has to do. Not inlined, to be
/// [counted](crate::instructions) by its name.
#[inline(never)]
pub(crate) fn hash_needed(next: &NextState) {
    for bytes in next.needed().values() {
        black_box(DIGEST_FUNCTION.digest(bytes));
    }
}
