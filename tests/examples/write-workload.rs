//! Writes a workload to disk in casd's layout, to measure whole processes on it through `file:DIR`.
//!
//! `cargo run --release -p bst-sa-tests --example write-workload -- SIZE DIR [VARIANT…]`
//!
//! DIR gets `cas` and `actioncache` with the old state, `graph.json`, and for every variant the rebuilt
//! dependencies, the results of the actions that change (without the actions), `graph-VARIANT.json` and
//! `expected-VARIANT.json` (base action to next action).

#![allow(clippy::print_stderr, reason = "a program that talks to people")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use testbed::workload::{Size, Variant, Workload};

/// The seed that the benchmarks use.
const SEED: u64 = 1;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\nusage: write-workload SIZE DIR [VARIANT…]");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let size: Size = arguments.next().ok_or("no size")?.parse()?;
    let directory = PathBuf::from(arguments.next().ok_or("no directory")?);
    let variants = arguments.map(|name| name.parse()).collect::<Result<Vec<Variant>, _>>()?;
    let workload = Workload::generate(size, SEED);
    workload.write_directory(&directory)?;
    eprintln!("{size}: {}", workload.totals());
    for variant in if variants.is_empty() { Variant::ALL.to_vec() } else { variants } {
        let next = workload.next(variant);
        next.write_directory(&directory)?;
        next.write_results_directory(&directory)?;
        eprintln!("{variant}: {} blobs needed", next.needed().len());
    }
    Ok(())
}
