//! Speculation against its physical limits, on generated workloads with all blobs in memory.
//!
//! Every figure is a ratio to the time of hashing, once, what cannot but be hashed, measured in the same process
//! right beside it: absolute times say little on shared machines. Predictions are compared with the expected
//! actions digest for digest, and one wrong one ends the run.
//!
//! `cargo bench -p bst-sa-tests --bench speculate [-- SIZE… scale --quick]`; by default all sizes, and `scale`, which
//! is about projects of many elements. With `--quick`, what depends on the machine is not measured. With a service's
//! URL in `BST_SA_TEST_URL`, variant `one` is primed through it as well. `cargo xtask bench` makes a table of it.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]
#![allow(clippy::panic, reason = "figures of wrong results are worse than none")]

mod casd;
mod figures;
mod generate;
mod instantiate;
mod instructions;
mod limits;
mod measure;
mod memory;
mod replay;
mod scale;

use std::time::Instant;

use cas_client::grpc::{GrpcClient, GrpcConfig};
use cas_client::{Blob, BlobStoreExt as _, InMemory};
use reapi_proto::Digest;
use record::Layout;
use testbed::workload::{NextState, Size, Totals, Variant, Workload};
use tokio::runtime::{Builder, Runtime};

use figures::{Kind, figure};
use measure::{best, ratio};

/// The seed of all workloads.
const SEED: u64 = 1;

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| panic!("{error}"));
    let sizes: Vec<Size> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if std::env::args().any(|argument| argument == instructions::COUNTED) {
        return instructions::counted(&runtime);
    }
    if std::env::args().any(|argument| argument == scale::services::ALONE) {
        return scale::services::alone(&runtime);
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let effort = if quick { Effort::Counts } else { Effort::Everything };
    let scale = std::env::args().any(|argument| argument == "scale");
    let all = sizes.is_empty() && !scale;
    for size in if all { Size::ALL.to_vec() } else { sizes } {
        run(&runtime, size, effort);
        if size == Size::Small {
            instructions::run();
        }
    }
    if all || scale {
        scale::run(&runtime, effort);
    }
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Everything,
    /// What does not depend on the machine.
    Counts,
}

fn run(runtime: &Runtime, size: Size, effort: Effort) {
    let start = Instant::now();
    let workload = Workload::generate(size, SEED);
    println!("{size}: {} (made in {:.2?})", workload.totals(), start.elapsed());
    check_totals(size, &workload.totals());

    let store = stored(runtime, &workload);
    let limit = best(|| limits::hash_directories(&workload));
    let generated = generate::generate(runtime, &workload, &store, Layout::Compact);
    println!(
        "  generate: {:.2?}, {:.1} × hashing every unique directory once ({limit:.2?}; target ≤ 4); message {} bytes; {:.2?}",
        generated.time,
        ratio(generated.time, limit),
        generated.report.bytes,
        generated.report.timings,
    );
    if effort == Effort::Everything && size == Size::Large {
        let ratio = ratio(generated.time, limit);
        figure(Kind::Timed, "generate, large ÷ hashing every unique directory once", ratio, 4.0);
    }
    if size == Size::Large {
        let bytes = f64::from(u32::try_from(generated.report.bytes).unwrap_or(u32::MAX));
        figure(Kind::Counted, "message, large, bytes", bytes, 1_000_000.0);
    }
    for variant in Variant::ALL {
        let next = workload.next(variant);
        println!("  {variant}: {}", describe(&next));
        runtime.block_on(next.store(&store)).unwrap_or_else(|error| panic!("{error}"));
        for output in next.output_blobs().values() {
            store.put(output.clone());
        }
        let limit = best(|| limits::hash_needed(&next));
        let time = instantiate::dry_run(runtime, &workload, &next, &store, &generated.message);
        let stored = instantiate::prime(runtime, &next, &store, &generated.message);
        println!(
            "    instantiate: {time:.2?}, {:.1} × hashing what is needed once ({limit:.2?}; target ≤ 5); {stored} blobs stored",
            ratio(time, limit)
        );
        let name = format!("{size} {variant}");
        if effort == Effort::Everything {
            figure(Kind::Timed, &format!("instantiate, {name} ÷ hashing what is needed"), ratio(time, limit), 5.0);
        }
        let needed = next.needed().len();
        assert!(stored >= needed, "{stored} blobs stored, {needed} needed");
        figure(Kind::Counted, &format!("blobs stored beyond those needed, {name}"), count(stored - needed), 0.0);
        if size == Size::Large && variant == Variant::One && effort == Effort::Everything {
            memory::run(&workload, &next);
        }
        if let Some(client) = client().filter(|_| variant == Variant::One) {
            runtime.block_on(prepare(&workload, &next, &client, &store, &generated.message));
            let time = instantiate::prime_through(runtime, &next, &client, &generated.message);
            println!("    instantiate, upload and look-ups through {client}: {time:.2?}");
            if size == Size::Medium && effort == Effort::Everything {
                through_casd(runtime, &workload, &next, &client, &generated.message);
            }
        }
    }
}

fn through_casd(runtime: &Runtime, workload: &Workload, next: &NextState, client: &GrpcClient, message: &Digest) {
    let Some(casd::Times { upload, direct, through }) = casd::compare(runtime, workload, next, client, message) else {
        println!("    SKIPPED: {client} is no casd on this machine");
        return;
    };
    println!(
        "    plain upload {upload:.2?}; instantiate and upload {direct:.2?}, {through:.2?} without reading past casd"
    );
    figure(Kind::Timed, "through casd, medium one ÷ a plain upload of the same blobs", ratio(direct, upload), 1.3);
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A client of the service that is measured, if there is one.
fn client() -> Option<GrpcClient> {
    Some(connect(&std::env::var("BST_SA_TEST_URL").ok()?))
}

fn connect(url: &str) -> GrpcClient {
    let endpoint = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    GrpcClient::new(GrpcConfig::new(endpoint)).unwrap_or_else(|error| panic!("{error}"))
}

/// Brings the service to the state before priming.
async fn prepare(workload: &Workload, next: &NextState, client: &GrpcClient, store: &InMemory, message: &Digest) {
    let ready = async {
        workload.store(client, client).await?;
        next.store(client).await?;
        let outputs: Vec<Blob> =
            next.output_blobs().values().map(|o| Blob::new(message.function(), o.clone())).collect();
        client.upload_missing(&outputs).await?;
        client.write_blob(&Blob::new(message.function(), store.read_blob(message).await?)).await
    };
    ready.await.unwrap_or_else(|error| panic!("{error}"));
}

/// A store that holds the old state.
fn stored(runtime: &Runtime, workload: &Workload) -> InMemory {
    let store = InMemory::new();
    runtime.block_on(workload.store(&store, &store)).unwrap_or_else(|error| panic!("{error}"));
    store
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
    let found = [totals.file_nodes, totals.directory_visits, totals.unique_directories, totals.mean_directory_bytes()];
    for (found, meant) in found.into_iter().zip(meant) {
        assert!(found.abs_diff(meant) * 10 <= meant, "{size} has {found} instead of about {meant}: {totals}");
    }
}
