//! Speculation against its physical limits, on generated workloads with all blobs in memory.
//!
//! Every figure is a ratio to the time of hashing, once, what cannot but be hashed, measured in the same process
//! right beside it: absolute times say little on shared machines.
//!
//! `cargo bench -p bst-sa-tests --bench speculate [-- SIZE…]`; all sizes by default.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]
#![allow(clippy::panic, reason = "figures of wrong results are worse than none")]

mod limits;

use std::time::{Duration, Instant};

use testbed::workload::{NextState, Size, Totals, Variant, Workload};

/// Runs of each measured function; the best one counts.
const RUNS: usize = 5;
/// The seed of all workloads.
const SEED: u64 = 1;

fn main() {
    let sizes: Vec<Size> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    for size in if sizes.is_empty() { Size::ALL.to_vec() } else { sizes } {
        run(size);
    }
}

fn run(size: Size) {
    let start = Instant::now();
    let workload = Workload::generate(size, SEED);
    println!("{size}: {} (made in {:.2?})", workload.totals(), start.elapsed());
    check_totals(size, &workload.totals());
    let unique = best(|| limits::hash_directories(&workload));
    println!("  hashing every unique directory once: {unique:.2?}");
    for variant in Variant::ALL {
        let next = workload.next(variant);
        let needed = best(|| limits::hash_needed(&next));
        println!("  {variant}: {}; hashing them once: {needed:.2?}", describe(&next));
    }
}

fn describe(next: &NextState) -> String {
    let changed = next.expected().iter().filter(|action| action.is_changed()).count();
    let chained = next.expected().iter().filter(|action| action.is_chained).count();
    format!(
        "{changed} actions change ({chained} of them behind outputs), {} blobs needed ({} before results)",
        next.needed().len(),
        next.needed_before_results().count()
    )
}

/// The figures that ratios from elsewhere refer to hold for workloads of these dimensions only.
fn check_totals(size: Size, totals: &Totals) {
    let meant = match size {
        Size::Small => [3_247, 1_580, 530, 223],
        Size::Medium => [285_755, 41_350, 12_168, 405],
        Size::Large => [2_074_699, 223_685, 65_217, 486],
    };
    let found =
        [totals.file_nodes, totals.directory_visits, totals.unique_directories, totals.mean_directory_bytes()];
    for (found, meant) in found.into_iter().zip(meant) {
        assert!(found.abs_diff(meant) * 10 <= meant, "{size} has {found} instead of about {meant}: {totals}");
    }
}

/// The shortest of several runs.
fn best(mut run: impl FnMut()) -> Duration {
    let time = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    std::iter::repeat_with(time).take(RUNS).min().unwrap_or_default()
}
