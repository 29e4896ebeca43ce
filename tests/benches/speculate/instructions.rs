//! Instructions instead of time: they depend on the compiler alone, however busy the machine is.
//!
//! The benchmark runs itself under valgrind, once for what is measured and once for the limit. Valgrind has no
//! instructions for hashing, so hashing takes some ten times as many as it would, and the ratio is smaller than in time.

use std::process::{Command, Stdio};
use std::sync::Arc;

use instantiate::Services;
use record::Layout;
use testbed::workload::{Results, Size, Variant, Workload};
use tokio::runtime::Runtime;

use crate::figures::{Kind, figure};
use crate::{SEED, generate, instantiate as adapting, limits, stored};

/// The argument by which the benchmark knows that it runs under valgrind.
pub(crate) const COUNTED: &str = "counted";

/// What the ratio was when it was last made smaller, with some room for other compilers. There is no target for it;
/// this is to notice what makes it larger.
const KNOWN: f64 = 4.0;

/// Counts what all variants of the next state of a small workload take.
pub(crate) fn run() {
    if cfg!(debug_assertions) {
        return println!("SKIPPED: this is not optimised code; its instructions are NOT counted");
    }
    match (count("speculate::instantiate::run"), count("speculate::limits::hash_needed")) {
        (Some(run), Some(limit)) => {
            println!("instructions, small, all variants: {run} to instantiate, {limit} to hash what is needed");
            let name = "instantiate, small, all variants, instructions ÷ hashing what is needed";
            figure(Kind::Counted, name, run / limit, KNOWN);
        }
        _ => println!("SKIPPED: valgrind is not installed, or does not run this; instructions are NOT counted"),
    }
}

/// The instructions of all calls of a function of this benchmark.
fn count(function: &str) -> Option<f64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"]);
    valgrind.arg(format!("--toggle-collect={function}")).arg(std::env::current_exe().ok()?).arg(COUNTED);
    let output = valgrind.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let report = String::from_utf8_lossy(&output.stderr);
    let collected = report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|count| *count > 0.0)
}

/// What is counted.
pub(crate) fn counted(runtime: &Runtime) {
    let workload = Workload::generate(Size::Small, SEED);
    let store = stored(runtime, &workload);
    let message = generate::generate(runtime, &workload, &store, Layout::Compact).message;
    for variant in Variant::ALL {
        let next = workload.next(variant);
        runtime.block_on(next.store(&store)).unwrap_or_else(|error| panic!("{error}"));
        for output in next.output_blobs().values() {
            store.put(output.clone());
        }
        limits::hash_needed(&next);
        let results = workload.action_results().iter().chain(next.action_results());
        let services = Services::dry_run(Arc::new(store.clone()), Arc::new(Results::new(results)));
        adapting::run_checked(runtime, services, &adapting::Prediction { next: &next, message: &message });
    }
}
