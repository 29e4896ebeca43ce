//! Stopwatch and ratios.

use std::time::{Duration, Instant};

/// Runs of each measured function; the best one counts.
const RUNS: usize = 5;

/// The shortest of several runs.
pub(crate) fn best(mut run: impl FnMut()) -> Duration {
    let time = || {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    std::iter::repeat_with(time).take(RUNS).min().unwrap_or_default()
}

/// How many times `limit` fits into `time`.
pub(crate) fn ratio(time: Duration, limit: Duration) -> f64 {
    time.as_secs_f64() / limit.as_secs_f64()
}
