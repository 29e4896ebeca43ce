//! An execution service that is given the inputs that it lacks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Node};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::oneshot;

use crate::{
    BlobStore, Error, ErrorKind, ExecuteRequest, Execution, ExecutionUpdate, Result, TreeBudget, Trees, copy,
    read_trees,
};

const OPERATION: &str = "execute";

/// Uploads what an action needs and the service's storage lacks, then has it executed.
///
/// `store` reads from wherever blobs may be, while presence and writes are
/// those of the storage that the service reads from: a
/// [`Nearby`](super::Nearby), or a [`Backed`](super::Backed). Action, Command, input tree and
/// the trees that platform properties name are looked at. What was found or uploaded is not asked about again,
/// so a directory is read once, whatever the number of actions that have it.
/// Requests that come while an upload is going on are looked at together after it.
///
/// What `store` cannot read either is [`ErrorKind::MissingInputs`], and the service is not asked:
/// some take seconds to find out, and do not say what it is.
pub struct Supplying<E, S> {
    execution: E,
    store: S,
    known: Arc<Known>,
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    action: Digest,
    answer: oneshot::Sender<Result<()>>,
}

/// What the storage has. A directory that is in it has everything below it there, too.
#[derive(Default)]
struct Known(Mutex<FxHashSet<Digest>>);

impl Known {
    fn has(&self, digest: &Digest) -> bool {
        digest.is_empty() || self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn extend(&self, digests: impl IntoIterator<Item = Digest>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(digests);
    }

    /// The service lacks inputs after all: storage forgets, and may have lost more than it says.
    fn doubt(&self, error: &Error) {
        if error.kind() == ErrorKind::MissingInputs {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// What one action needs directly.
struct Needs {
    action: Digest,
    command: Digest,
    input_root: Digest,
    /// Digests that may be those of trees.
    properties: Vec<Digest>,
}

impl<E: Execution, S: BlobStore> Supplying<E, S> {
    /// Executes through `execution`, which reads its inputs from where `store` writes to.
    pub fn new(execution: E, store: S) -> Self {
        let (known, waiting) = (Arc::default(), Mutex::default());
        Self { execution, store, known, waiting, turn: tokio::sync::Mutex::default() }
    }

    /// Returns when the storage has what `action` needs. Whose turn it is does the work for all that wait.
    async fn supply(&self, action: Digest) -> Result<()> {
        loop {
            let (answer, mut answered) = oneshot::channel();
            self.waiting().push(Waiting { action, answer });
            let turn = self.turn.lock().await;
            match answered.try_recv() {
                Ok(outcome) => return outcome,
                Err(oneshot::error::TryRecvError::Empty) => {
                    let batch = std::mem::take(&mut *self.waiting());
                    self.supply_all(batch).await;
                    if let Ok(outcome) = answered.try_recv() {
                        return outcome;
                    }
                }
                // Whoever did it was dropped in the middle.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
            drop(turn);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn supply_all(&self, batch: Vec<Waiting>) {
        let actions: FxHashSet<Digest> = batch.iter().map(|waiting| waiting.action).collect();
        let actions: Vec<Digest> = actions.into_iter().collect();
        let outcome = self.look_at(&actions).await;
        for Waiting { action, answer } in batch {
            let outcome = match &outcome {
                Ok(missing) => match missing.get(&action) {
                    None => Ok(()),
                    Some(missing) => {
                        let reason = format!("{} inputs are nowhere to be had", missing.len());
                        let missing = missing.iter().copied();
                        Err(Error::new(ErrorKind::MissingInputs, OPERATION, reason)
                            .with_digests(missing)
                            .at(&self.store))
                    }
                },
                Err(error) => {
                    let reason = format!("its inputs cannot be uploaded: {error}");
                    let digests = error.digests().iter().copied();
                    Err(Error::new(error.kind(), OPERATION, reason).with_digests(digests).at(&self.store))
                }
            };
            // Nobody waits for the answer where the request was dropped.
            drop(answer.send(outcome));
        }
    }

    /// Uploads what these actions need. Returns what cannot be had, for the actions that this is true of.
    async fn look_at(&self, actions: &[Digest]) -> Result<FxHashMap<Digest, Vec<Digest>>> {
        let mut lacking: FxHashMap<Digest, Vec<Digest>> = FxHashMap::default();
        let mut all = Vec::with_capacity(actions.len());
        for (action, read) in self.store.read_blobs(actions).await? {
            match read.map(Action::parse) {
                Ok(Ok(parsed)) => all.push(Needs {
                    action,
                    command: parsed.command_digest(),
                    input_root: parsed.input_root_digest(),
                    properties: digests(&parsed).filter(|d| d.function() == self.store.digest_function()).collect(),
                }),
                Ok(Err(error)) => {
                    tracing::debug!(%action, %error, "not an Action; the service will say so");
                }
                Err(error) => {
                    tracing::debug!(%action, %error, "not to be read");
                    lacking.insert(action, vec![action]);
                }
            }
        }
        let roots: Vec<Digest> = all
            .iter()
            .flat_map(|needs| [needs.input_root].into_iter().chain(needs.properties.iter().copied()))
            .collect();
        let known = Arc::clone(&self.known);
        let trees = read_trees(&self.store, &roots, move |digest| known.has(digest), &TreeBudget::default()).await?;
        let Looked { below, mut unreadable } = Looked::from(trees);
        // A property that only looks like the digest of a tree.
        let inputs: FxHashSet<Digest> = all.iter().map(|needs| needs.input_root).collect();
        for property in all.iter().flat_map(|needs| &needs.properties).filter(|digest| !inputs.contains(digest)) {
            unreadable.remove(property);
        }

        let mut wanted: FxHashSet<Digest> = all.iter().flat_map(|needs| [needs.action, needs.command]).collect();
        wanted.extend(below.keys());
        wanted.extend(below.values().flatten());
        wanted.retain(|digest| !self.known.has(digest) && !unreadable.contains(digest));
        let wanted: Vec<Digest> = wanted.into_iter().collect();
        let copied = copy(&self.store, &self.store, &wanted).await?;
        if copied.blobs > 0 {
            tracing::debug!(blobs = copied.blobs, bytes = copied.bytes, to = %self.store, "inputs were uploaded");
        }
        unreadable.extend(copied.unavailable);
        if unreadable.is_empty() {
            self.known.extend(wanted);
            return Ok(lacking);
        }
        self.known
            .extend(wanted.into_iter().filter(|digest| !below.contains_key(digest) && !unreadable.contains(digest)));
        for needs in all {
            let missing = needs.among(&unreadable, &below);
            if !missing.is_empty() {
                lacking.insert(needs.action, missing);
            }
        }
        Ok(lacking)
    }
}

impl Needs {
    /// What of `lost` the action needs.
    fn among(&self, lost: &FxHashSet<Digest>, below: &FxHashMap<Digest, Vec<Digest>>) -> Vec<Digest> {
        let mut seen = FxHashSet::default();
        let mut pending = vec![self.action, self.command, self.input_root];
        pending.extend(&self.properties);
        while let Some(digest) = pending.pop() {
            if seen.insert(digest) {
                pending.extend(below.get(&digest).into_iter().flatten());
            }
        }
        let mut found: Vec<Digest> = seen.into_iter().filter(|digest| lost.contains(digest)).collect();
        found.sort_unstable();
        found
    }
}

/// What a walk has found.
struct Looked {
    /// What directories refer to.
    below: FxHashMap<Digest, Vec<Digest>>,
    unreadable: FxHashSet<Digest>,
}

impl From<Trees> for Looked {
    fn from(trees: Trees) -> Self {
        let mut unreadable: FxHashSet<Digest> = trees.missing.into_iter().collect();
        unreadable.extend(trees.invalid.into_iter().map(|(digest, _)| digest));
        unreadable.extend(trees.failed.into_iter().map(|(digest, _)| digest));
        let below = trees.directories.into_iter().map(|(digest, directory)| {
            let entries = directory.entries().filter_map(|entry| match entry.node {
                Node::File { digest, .. } | Node::Directory { digest } => Some(digest),
                Node::Symlink { .. } => None,
            });
            (digest, entries.collect())
        });
        Self { below: below.collect(), unreadable }
    }
}

/// The platform properties that are digests.
fn digests(action: &Action) -> impl Iterator<Item = Digest> {
    action.platform().filter_map(|property| std::str::from_utf8(property.value).ok()?.parse().ok())
}

impl<E: fmt::Display, S: fmt::Display> fmt::Display for Supplying<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Supplying({}, {})", self.store, self.execution)
    }
}

impl<E: fmt::Debug, S: fmt::Debug> fmt::Debug for Supplying<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supplying")
            .field("execution", &self.execution)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<E: Execution, S: BlobStore> Execution for Supplying<E, S> {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        self.supply(request.action).await?;
        let updates = self.execution.execute(request).await.inspect_err(|error| self.known.doubt(error))?;
        let known = Arc::clone(&self.known);
        let watched = updates.inspect(move |update| {
            if let Err(error) = update {
                known.doubt(error);
            }
        });
        Ok(watched.boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        self.execution.cancel(operation).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use reapi_proto::DigestFunction;
    use reapi_proto::v2::{self, command, platform::Property};

    use super::*;
    use crate::InMemory;
    use crate::decorators::Nearby;
    use crate::testing::MockExecution;

    /// A service that does nothing, so often.
    fn idle(times: usize) -> MockExecution {
        let mut execution = MockExecution::new();
        execution.expect_execute().times(times).returning(|_| Ok(stream::empty().boxed()));
        execution
    }

    fn directory(store: &InMemory, files: &[(&str, Digest)], directories: &[(&str, Digest)]) -> Digest {
        let files = files.iter().map(|(name, digest)| v2::FileNode {
            name: (*name).to_owned(),
            digest: Some((*digest).into()),
            ..v2::FileNode::default()
        });
        let directories = directories
            .iter()
            .map(|(name, digest)| v2::DirectoryNode { name: (*name).to_owned(), digest: Some((*digest).into()) });
        store.put_message(&v2::Directory {
            files: files.collect(),
            directories: directories.collect(),
            ..v2::Directory::default()
        })
    }

    fn action(store: &InMemory, root: Digest, property: &str) -> Digest {
        let variable = command::EnvironmentVariable { name: "ROOT".into(), value: root.to_string() };
        let command = v2::Command { environment_variables: vec![variable], ..v2::Command::default() };
        let property = Property { name: "chrootRootDigest".into(), value: property.to_owned() };
        store.put_message(&v2::Action {
            command_digest: Some(store.put_message(&command).into()),
            input_root_digest: Some(root.into()),
            platform: Some(v2::Platform { properties: vec![property] }),
            ..v2::Action::default()
        })
    }

    fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
        digests.sort_unstable();
        digests
    }

    #[tokio::test]
    async fn what_is_only_near_is_uploaded_once() {
        let (near, far) = (InMemory::new(), InMemory::new());
        let (header, source) = (near.put("header"), near.put("source"));
        let include = directory(&near, &[("x.h", header)], &[]);
        let platform = directory(&near, &[("gcc", near.put("gcc"))], &[]);
        let first = action(&near, directory(&near, &[], &[("include", include)]), &platform.to_string());
        let second =
            action(&near, directory(&near, &[("x.c", source)], &[("include", include)]), &platform.to_string());
        let service = Supplying::new(idle(2), Nearby::new(near.clone(), far.clone()));
        assert!(service.to_string().starts_with("Supplying(Nearby("), "{service}");

        drop(service.execute(ExecuteRequest::new(first)).await.unwrap());
        assert!(far.peek(&header).is_some() && far.peek(&source).is_none());
        near.take_stats();
        drop(service.execute(ExecuteRequest::new(second)).await.unwrap());
        assert_eq!(sorted(far.digests()), sorted(near.digests()));
        assert!(far.peek(&include).is_some());
    }

    #[tokio::test]
    async fn what_is_nowhere_is_said_and_the_service_is_not_asked() {
        let (near, far) = (InMemory::new(), InMemory::new());
        let (lost, kept) = (near.put("lost"), near.put("kept"));
        let good = action(&near, directory(&near, &[("kept", kept)], &[]), "no digest");
        let bad = action(
            &near,
            directory(&near, &[("lost", lost)], &[]),
            &DigestFunction::Sha256.digest(b"no tree").to_string(),
        );
        near.forget(&lost);
        let service = Supplying::new(idle(2), Nearby::new(near.clone(), far.clone()));
        let (bad_outcome, good_outcome) =
            tokio::join!(service.execute(ExecuteRequest::new(bad)), service.execute(ExecuteRequest::new(good)));
        let error = bad_outcome.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::MissingInputs, &[lost][..]));
        drop(good_outcome.unwrap());
        assert!(far.peek(&kept).is_some());

        // It turns up, and the directory above it is looked at again.
        far.put("lost");
        drop(service.execute(ExecuteRequest::new(bad)).await.unwrap());
    }

    #[tokio::test]
    async fn an_action_that_is_nowhere_is_missing_itself() {
        let service = Supplying::new(idle(0), Nearby::new(InMemory::new(), InMemory::new()));
        let absent = DigestFunction::Sha256.digest(b"absent");
        let error = service.execute(ExecuteRequest::new(absent)).await.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::MissingInputs, &[absent][..]));
    }

    #[tokio::test]
    async fn what_the_service_misses_is_looked_at_again() {
        let (near, far) = (InMemory::new(), InMemory::new());
        let file = near.put("file");
        let only = action(&near, directory(&near, &[("file", file)], &[]), "");
        let mut execution = MockExecution::new();
        let lacks = move |_| Ok(stream::iter([Err(Error::new(ErrorKind::MissingInputs, "execute", "gone"))]).boxed());
        execution.expect_execute().times(1).returning(lacks);
        execution.expect_execute().times(1).returning(|_| Ok(stream::empty().boxed()));
        let service = Supplying::new(execution, Nearby::new(near, far.clone()));
        let updates: Vec<_> = service.execute(ExecuteRequest::new(only)).await.unwrap().collect().await;
        assert!(updates[0].is_err());
        far.forget(&file);
        drop(service.execute(ExecuteRequest::new(only)).await.unwrap());
        assert!(far.peek(&file).is_some());
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_whose_turn_it_is_is_dropped() {
        let (near, far) = (InMemory::new(), InMemory::new());
        let only = action(&near, directory(&near, &[("file", near.put("file"))], &[]), "");
        let service = Supplying::new(idle(1), Nearby::new(near, far));
        let turn = service.turn.lock().await;
        let mut dropped = service.execute(ExecuteRequest::new(only));
        let mut waits = service.execute(ExecuteRequest::new(only));
        assert!(dropped.as_mut().now_or_never().is_none() && waits.as_mut().now_or_never().is_none());
        // As if the batch had been taken, and never come to an end.
        service.waiting().clear();
        drop(dropped);
        drop(turn);
        drop(waits.await.unwrap());
    }
}
