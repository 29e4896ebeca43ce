//! Moving many small blobs per call: what `BatchReadBlobs` and `BatchUpdateBlobs` have in common.
//!
//! A reply with status OK says nothing about any blob: every entry has its own
//! status. Entries that succeeded are kept, those that may succeed later are
//! asked for again without the others, and a batch that is too large for
//! somebody on the way is halved until it passes.

use std::collections::HashMap;
use std::future::Future;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reapi_proto::{Digest, DigestFunction, rpc, v2};

use super::capabilities::ServerCapabilities;
use super::packing::{Budget, pack};
use super::wire::{entry_bytes, from_wire};
use super::{GrpcClient, status};
use crate::retry::{Failure, Verdict};
use crate::{Error, ErrorKind, PerBlob, Result};

/// Budget where a service states no limit. Some refuse more without saying so in their capabilities.
const UNSTATED_BATCH_BYTES: u64 = 4_000_000;

/// What gRPC accepts by default (4 MiB), less room for the rest of the message.
const TRANSPORT_BATCH_BYTES: u64 = 4 * 1024 * 1024 - 64 * 1024;

/// Most entries per batch. With tiny blobs a larger batch keeps a server busy for minutes.
const MAX_ENTRIES: usize = 4000;

/// Bytes of an entry beside blob and digest: tags and lengths, and in a reply an empty status with its text.
const ENTRY_SLACK_BYTES: u64 = 32;

/// Batches in flight for one call; bounds its memory to eight batches.
const CONCURRENT: usize = 8;

/// One kind of batch.
pub(super) trait Batch: Sized + Send + Sync {
    /// What is asked for: a digest, or a blob to store.
    type Item: Clone + Send + Sync;
    /// What the entry of a reply carries besides its status.
    type Payload: Send;
    /// What the caller gets for each blob.
    type Output: Send;

    const METHOD: &'static str;

    fn digest(item: &Self::Item) -> Digest;

    /// Makes one attempt at a batch.
    fn send(
        client: &GrpcClient,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Entry<Self::Payload>>, Failure>> + Send;

    /// Judges the status of an entry; `None` when it succeeded.
    fn judge(status: Option<&rpc::Status>) -> Option<Failure> {
        status.filter(|s| !status::is_ok(Some(s))).map(|s| status::inner_failure(Self::METHOD, s))
    }

    /// Turns a successful entry into the caller's result, checking it.
    fn accept(item: Self::Item, payload: Self::Payload) -> Result<Self::Output>;

    /// Moves a blob that fits into no batch.
    fn alone(client: &GrpcClient, item: Self::Item) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// One entry of a reply.
pub(super) struct Entry<P> {
    pub(super) digest: Option<v2::Digest>,
    pub(super) status: Option<rpc::Status>,
    pub(super) payload: P,
}

/// A reply sorted out: what is settled, and what to ask for again.
struct Sorted<B: Batch> {
    settled: PerBlob<B::Output>,
    again: Vec<(B::Item, Failure)>,
}

/// Results by digest.
pub(super) type ByDigest<T> = HashMap<Digest, Result<T>>;

/// The budget of batches for a service with these capabilities.
pub(super) fn budget(client: &GrpcClient, capabilities: &ServerCapabilities) -> Budget {
    let bytes = capabilities
        .max_batch_total_size_bytes
        .unwrap_or(UNSTATED_BATCH_BYTES)
        .min(TRANSPORT_BATCH_BYTES)
        .min(client.config().limits.batch_bytes)
        .saturating_sub(client.config().instance_name.len() as u64 + ENTRY_SLACK_BYTES);
    Budget { bytes, overhead: entry_bytes(client.function()) + ENTRY_SLACK_BYTES, entries: MAX_ENTRIES }
}

/// Moves distinct, non-empty `items`, in batches or alone as their sizes ask for.
pub(super) async fn transfer<B: Batch>(client: &GrpcClient, items: Vec<B::Item>) -> Result<ByDigest<B::Output>> {
    let mut results = HashMap::with_capacity(items.len());
    if items.is_empty() {
        return Ok(results);
    }
    let budget = budget(client, &*client.capabilities().await?);
    let size = |item: &B::Item| B::digest(item).size_bytes();
    let (small, large): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| budget.admits(size(item)));

    let batches: Vec<_> =
        pack(small, budget, size).into_iter().map(|batch| transfer_batch::<B>(client, batch)).collect();
    let mut batches = stream::iter(batches).buffer_unordered(CONCURRENT);
    while let Some(settled) = batches.try_next().await? {
        results.extend(settled);
    }
    let large: Vec<_> = large.into_iter().map(|item| alone::<B>(client, item)).collect();
    let mut large = stream::iter(large).buffer_unordered(CONCURRENT);
    while let Some((digest, result)) = large.next().await {
        results.insert(digest, result);
    }
    Ok(results)
}

async fn alone<B: Batch>(client: &GrpcClient, item: B::Item) -> (Digest, Result<B::Output>) {
    (B::digest(&item), B::alone(client, item).await)
}

async fn transfer_batch<B: Batch>(client: &GrpcClient, batch: Vec<B::Item>) -> Result<PerBlob<B::Output>> {
    let mut settled = Vec::with_capacity(batch.len());
    let mut work = vec![batch];
    while let Some(mut items) = work.pop() {
        let mut attempts = client.retrier().attempts();
        loop {
            let failure = match B::send(client, &items).await {
                Ok(entries) => {
                    let Sorted { settled: now, again } = sort::<B>(client, items, entries)?;
                    if !now.is_empty() {
                        attempts.progressed();
                    }
                    settled.extend(now);
                    if again.is_empty() {
                        break;
                    }
                    let failure = summary::<B>(&again);
                    if attempts.again(failure).await.is_err() {
                        let made = attempts.made();
                        settled.extend(again.into_iter().map(|(item, f)| (B::digest(&item), Err(f.error.after(made)))));
                        break;
                    }
                    items = again.into_iter().map(|(item, _)| item).collect();
                    continue;
                }
                Err(failure) => failure,
            };
            if failure.error.kind() != ErrorKind::LimitExceeded {
                attempts.again(failure).await?;
                continue;
            }
            // Too large for somebody on the way, in either direction: the same again would be, too.
            if items.len() > 1 {
                let rest = items.split_off(items.len() / 2);
                work.push(rest);
                work.push(items);
            } else {
                for item in items {
                    settled.push(alone::<B>(client, item).await);
                }
            }
            break;
        }
    }
    Ok(settled)
}

/// Matches the entries of a reply with what was asked for.
fn sort<B: Batch>(client: &GrpcClient, items: Vec<B::Item>, entries: Vec<Entry<B::Payload>>) -> Result<Sorted<B>> {
    let mut open: HashMap<Digest, B::Item> = items.into_iter().map(|item| (B::digest(&item), item)).collect();
    let mut sorted = Sorted { settled: Vec::with_capacity(entries.len()), again: Vec::new() };
    let located = |e: Error| e.at(&client.config().endpoint);
    for entry in entries {
        let digest = from_wire(B::METHOD, client.function(), entry.digest.as_ref()).map_err(located)?;
        let Some(item) = open.remove(&digest) else {
            let reason = "the reply has an entry for a blob that was not asked for, or two for one blob";
            return Err(client.error(ErrorKind::Protocol, B::METHOD, reason).with_digest(digest));
        };
        match B::judge(entry.status.as_ref()).map(|f| f.map(|e| located(e).with_digest(digest))) {
            None => sorted.settled.push((digest, B::accept(item, entry.payload).map_err(located))),
            Some(failure) if failure.is_fatal() => sorted.settled.push((digest, Err(failure.error))),
            Some(failure) => sorted.again.push((item, failure)),
        }
    }
    for digest in open.into_keys() {
        let error = client.error(ErrorKind::Protocol, B::METHOD, "the reply has no entry for this blob");
        sorted.settled.push((digest, Err(error.with_digest(digest))));
    }
    Ok(sorted)
}

/// One failure for several entries: waits as long as the most patient of them asks for.
fn summary<B: Batch>(again: &[(B::Item, Failure)]) -> Failure {
    let at_least = again
        .iter()
        .filter_map(|(_, failure)| match failure.verdict {
            Verdict::Retry { at_least } => at_least,
            Verdict::Fatal | Verdict::Renewed => None,
        })
        .max();
    let error =
        Error::new(ErrorKind::Unavailable, B::METHOD, format!("{} blobs of a batch failed for now", again.len()));
    Failure { error, verdict: Verdict::Retry { at_least } }
}

/// Puts results into the order of `digests`. A digest without a result would be a bug here; it is reported as such.
pub(super) fn in_order<T>(method: &'static str, digests: Vec<Digest>, mut results: ByDigest<T>) -> PerBlob<T> {
    digests
        .into_iter()
        .map(|digest| {
            let lost = || Err(Error::new(ErrorKind::Protocol, method, "no result for this blob").with_digest(digest));
            (digest, results.remove(&digest).unwrap_or_else(lost))
        })
        .collect()
}

/// What the empty blob of `function` is called, and whether `digest` is it, or claims to be.
pub(super) fn emptiness(function: DigestFunction, digest: &Digest) -> Emptiness {
    if !digest.is_empty() {
        Emptiness::Not
    } else if *digest == function.empty() {
        Emptiness::Empty
    } else {
        Emptiness::Impossible
    }
}

/// Whether a digest names the empty blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Emptiness {
    /// Any other blob.
    Not,
    /// The empty blob: always there.
    Empty,
    /// Size 0 with a hash that the empty blob does not have: no such blob.
    Impossible,
}
