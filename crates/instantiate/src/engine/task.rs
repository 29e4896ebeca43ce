//! What is under way: everything that waits for a service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cas_client::{
    ActionCache, ActionCacheExt, Blob, BlobStore, BlobStoreExt, ExecuteRequest, Execution, ExecutionUpdate, Lookup,
    Result, UploadStats,
};
use futures_buffered::MergeUnbounded;
use futures_util::Stream;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{AbortHandle, Abortable, BoxStream, FuturesUnordered, StreamExt};
use reapi_proto::Digest;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::asking::{Candidates, Listed};
use super::derivations::Made;
use super::facts::Found;
use super::inspection::Read;
use super::learning::{Requests, Studied};
use super::outputs::Outputs;
use super::products::ProductId;
use super::runs::RunId;
use crate::skip::{Skip, SkipKind};

/// Blobs by digest; what is wrong with one stands in its entry.
pub(super) type Fetched = Vec<(Digest, Result<Bytes, Skip>)>;

/// What the action cache has, by action.
pub(super) type Answers = Vec<(Digest, Result<Lookup, Skip>)>;

/// What a task achieved.
pub(super) enum Done {
    /// Paths were looked up in current trees.
    Facts(Vec<Found>),
    /// What changed inputs make was made.
    Derived(Vec<Made>),
    /// What inspections lacked was read.
    Inspected(Read),
    /// What the build asked for was read.
    Requested(Requests),
    /// It was held against what was recorded.
    Studied(Vec<Studied>),
    /// Everything that a command could read was put together.
    Candidates(Candidates),
    /// The compiler has said what it reads.
    Listed(Listed),
    /// Messages and directories of recorded actions were read.
    Prepared(Fetched),
    /// Actions whose results are gone from the cache were read.
    Bases { runs: Vec<RunId>, bases: Fetched },
    /// The action cache was asked before anything is done.
    Checked { runs: Vec<RunId>, answers: Answers },
    /// The action cache was asked after execution.
    Verified { runs: Vec<RunId>, answers: Answers },
    /// What these runs need was uploaded.
    Uploaded { runs: Vec<RunId>, products: Vec<ProductId>, outcome: Result<UploadStats> },
    /// What the service said is missing for a run was stored again.
    Restored { run: RunId, outcome: Result<UploadStats> },
    /// Directories among a run's outputs were read.
    Outputs { run: RunId, outputs: Outputs },
    /// The service was asked to give an operation up.
    Cancelled,
    /// The service was left alone for as long as it needed.
    Rested,
}

/// News of a run; `None` is the last of them.
pub(super) type News = (RunId, Option<Result<ExecutionUpdate>>);

/// Everything under way. Dropping it stops all of it: nothing is spawned.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) futures: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) executions: MergeUnbounded<Abortable<Watch>>,
}

impl Tasks {
    pub(super) fn push(&self, task: impl Future<Output = Done> + Send + 'static) {
        self.futures.push(Box::pin(task));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.futures.is_empty() && self.executions.is_empty()
    }

    /// Requests an execution. The handle stops watching it, not the execution itself.
    pub(super) fn execute(
        &mut self,
        run: RunId,
        execution: Arc<dyn Execution>,
        request: ExecuteRequest,
    ) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        let asked = async move { (*execution).execute(request).await };
        let watch = Watch { run, stage: Following::Asked(asked.boxed()) };
        self.executions.push(Abortable::new(watch, registration));
        handle
    }
}

/// What the service says of an execution, from the request on.
pub(super) struct Watch {
    run: RunId,
    stage: Following,
}

enum Following {
    Asked(BoxFuture<'static, Result<Updates>>),
    Told(Updates),
    Refused,
    Over,
}

type Updates = BoxStream<'static, Result<ExecutionUpdate>>;

impl Stream for Watch {
    type Item = News;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<News>> {
        let Self { run, stage } = self.get_mut();
        loop {
            let said = match stage {
                Following::Asked(asked) => match ready!(asked.poll_unpin(context)) {
                    Ok(updates) => {
                        *stage = Following::Told(updates);
                        continue;
                    }
                    Err(error) => {
                        *stage = Following::Refused;
                        Some(Err(error))
                    }
                },
                Following::Told(updates) => ready!(updates.poll_next_unpin(context)),
                Following::Refused => None,
                Following::Over => return Poll::Ready(None),
            };
            if said.is_none() {
                *stage = Following::Over;
            }
            return Poll::Ready(Some((*run, said)));
        }
    }
}

/// Reads blobs. Never fails as a whole, and asks for each blob once.
pub(super) async fn fetch(blobs: Arc<dyn BlobStore>, mut digests: Vec<Digest>) -> Fetched {
    let mut seen = FxHashSet::with_capacity_and_hasher(digests.len(), FxBuildHasher);
    digests.retain(|digest| seen.insert(*digest));
    let function = blobs.digest_function();
    let foreign = digests.extract_if(.., |digest| digest.function() != function);
    let mut fetched: Fetched = foreign
        .map(|digest| {
            let reason = format!("{digest} is a {} digest, the store has {function}", digest.function());
            (digest, Err(Skip::new(SkipKind::Malformed, reason)))
        })
        .collect();
    if digests.is_empty() {
        return fetched;
    }
    match (*blobs).read_blobs(&digests).await {
        Ok(answers) => {
            // In the order of the question: that is how stores answer.
            let mut answers = answers.into_iter().peekable();
            fetched.extend(digests.into_iter().map(|digest| {
                let answer = match answers.next_if(|(answered, _)| *answered == digest) {
                    Some((_, Ok(bytes))) => Ok(bytes),
                    Some((_, Err(error))) => Err(Skip::unreadable(&digest.to_string(), &error)),
                    None => Err(Skip::new(SkipKind::Service, format!("the store did not answer for {digest}"))),
                };
                (digest, answer)
            }));
        }
        Err(error) => {
            let skip = Skip::new(SkipKind::Service, format!("the store cannot be read: {error}"));
            fetched.extend(digests.into_iter().map(|digest| (digest, Err(skip.clone()))));
        }
    }
    fetched
}

/// Looks results up, with all of their outputs. Never fails as a whole.
pub(super) async fn look_up_results(
    cache: Arc<dyn ActionCache>,
    blobs: Arc<dyn BlobStore>,
    actions: Vec<Digest>,
) -> Answers {
    let skip =
        |error: cas_client::Error| Skip::new(SkipKind::Service, format!("the result cannot be looked up: {error}"));
    // Of what is shared, not of the handle: each look-up is one call then, not two.
    match (*cache).fetch_usable_results(&*blobs, &actions).await {
        Ok(answers) => answers.into_iter().map(|(action, answer)| (action, answer.map_err(skip))).collect(),
        Err(error) => {
            let skip = skip(error);
            actions.into_iter().map(|action| (action, Err(skip.clone()))).collect()
        }
    }
}

/// Stores blobs whether or not the store believes to have them.
pub(super) async fn restore(blobs: Arc<dyn BlobStore>, lost: Vec<Blob>) -> Result<UploadStats> {
    let mut stats = UploadStats::default();
    for (digest, outcome) in blobs.write_blobs(&lost).await? {
        outcome?;
        stats.uploaded += 1;
        stats.bytes += digest.size_bytes();
    }
    Ok(stats)
}

/// Stores what the store lacks.
pub(super) async fn upload(blobs: Arc<dyn BlobStore>, all: Vec<Blob>) -> Result<UploadStats> {
    blobs.upload_missing(&all).await
}
