//! What actions made, as later actions will see it.

use std::time::Duration;

use bytes::Bytes;
use cas_client::{ActionCache, BlobStore, Error, ErrorKind, Output, OutputKind, Result, outputs};
use futures_util::{StreamExt, stream};
use overlay::MAX_DEPTH;
use reapi_proto::Digest;
use reapi_proto::raw::{Node, Tree};
use reapi_proto::v2::{ActionResult, ExecutedActionMetadata};
use rustc_hash::FxHashMap;

use crate::directories::Directories;
use crate::messages::{Candidate, read_messages};
use crate::{Budget, SkipReason};

/// Look-ups under way at once: below the 100 concurrent streams that servers
/// commonly allow on a connection.
const CONCURRENT_LOOKUPS: usize = 64;

/// What is known of an action's result.
#[derive(Debug)]
pub(crate) enum Made {
    /// Nothing: the cache was not asked, or could not answer.
    Unknown,
    /// The cache has no result.
    Nothing,
    /// The result is malformed.
    Unusable(SkipReason),
    /// This.
    Known { outputs: Vec<Output>, duration: Option<Duration> },
}

impl Made {
    fn of(action: Digest, result: &ActionResult) -> Self {
        match outputs(result) {
            Ok(outputs) => Self::Known { outputs, duration: result.execution_metadata.as_ref().and_then(duration) },
            Err(error) => Self::Unusable(SkipReason::Unusable { digest: action, reason: error.to_string() }),
        }
    }
}

/// Asks the cache for the results that the candidates do not bring along.
/// Answers in the order of the candidates. A cache that is out of reach is
/// not asked again: its failure is left in `unavailable`, and what it was not
/// asked for is unknown.
pub(crate) async fn fetch_results(
    cache: &dyn ActionCache,
    candidates: &[Candidate],
    unavailable: &mut Option<Error>,
) -> Vec<Made> {
    let mut made = Vec::with_capacity(candidates.len());
    let mut asked = stream::iter(candidates)
        .map(|candidate| async move {
            let action = candidate.subaction.action;
            match &candidate.subaction.result {
                Some(result) => Ok(Made::of(action, result)),
                None => match cache.fetch_action_result(&action).await {
                    Ok(Some(result)) => Ok(Made::of(action, &result)),
                    Ok(None) => Ok(Made::Nothing),
                    Err(error) if !is_out_of_reach(&error) => {
                        Ok(Made::Unusable(SkipReason::Unusable { digest: action, reason: error.to_string() }))
                    }
                    Err(error) => Err(error),
                },
            }
        })
        .buffered(CONCURRENT_LOOKUPS);
    while unavailable.is_none() {
        match asked.next().await {
            Some(Ok(next)) => made.push(next),
            Some(Err(error)) => *unavailable = Some(error),
            None => break,
        }
    }
    made.resize_with(candidates.len(), || Made::Unknown);
    // A cache that has nothing usable of the element knows nothing of its
    // build: absence then does not mean that the action failed.
    if !made.iter().any(|m| matches!(m, Made::Known { .. })) {
        for nothing in made.iter_mut().filter(|m| matches!(m, Made::Nothing)) {
            *nothing = Made::Unknown;
        }
    }
    made
}

/// Whether the cache as a whole failed, not the answer for one action.
fn is_out_of_reach(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Denied, Io, Unavailable, Unsupported};
    matches!(error.kind(), Unavailable | Denied | Unsupported | Io | Cancelled)
}

/// Brings the contents of output directories to hand: one call for all Trees,
/// and a walk over the directories that come without one. Returns the root of each Tree.
pub(crate) async fn read_output_directories(
    store: &dyn BlobStore,
    budget: &Budget,
    directories: &mut Directories,
    made: &[Made],
) -> Result<FxHashMap<Digest, Digest>> {
    let (mut trees, mut roots) = (Vec::new(), Vec::new());
    for made in made {
        let Made::Known { outputs, .. } = made else { continue };
        for output in outputs {
            match output.kind {
                OutputKind::Directory { tree: Some(tree), .. } => trees.push(tree),
                OutputKind::Directory { root: Some(root), .. } => roots.push(root),
                _ => {}
            }
        }
    }
    let unread = |digest| SkipReason::Unusable { digest, reason: "the Tree is not in CAS".to_owned() };
    let trees = read_messages(store, budget, trees.into_iter(), unread, Tree::parse).await?;
    let tree_roots = trees.into_iter().filter_map(|(digest, tree)| Some((digest, directories.add_tree(&tree.ok()?))));
    let tree_roots = tree_roots.collect();
    directories.read_whole(store, &roots).await?;
    Ok(tree_roots)
}

/// The outputs of one action, files in output directories one by one.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    pub(crate) outputs: Vec<(Bytes, Node)>,
    /// Total size of the files.
    pub(crate) bytes: u64,
    /// Output directories that are not at hand in full.
    pub(crate) unread: usize,
}

pub(crate) fn expand(
    outputs: &[Output],
    tree_roots: &FxHashMap<Digest, Digest>,
    directories: &Directories,
    budget: &Budget,
) -> Expanded {
    let mut expanded = Expanded::default();
    for output in outputs {
        let path = output.path.as_bytes();
        match &output.kind {
            OutputKind::File { digest, is_executable } => {
                expanded.add(path, Node::File { digest: *digest, executable: *is_executable });
            }
            OutputKind::Symlink { target } => {
                expanded.add(path, Node::Symlink { target: Bytes::copy_from_slice(target.as_bytes()) });
            }
            OutputKind::Directory { tree, root } => {
                let root = tree.and_then(|tree| tree_roots.get(&tree).copied()).or(*root);
                let complete = root.is_some_and(|root| expanded.add_directory(path, root, directories, budget));
                expanded.unread += usize::from(!complete);
            }
        }
    }
    expanded
}

impl Expanded {
    fn add(&mut self, path: &[u8], node: Node) {
        if let Node::File { digest, .. } = &node {
            self.bytes = self.bytes.saturating_add(digest.size_bytes());
        }
        self.outputs.push((Bytes::copy_from_slice(path), node));
    }

    /// Adds every file below a directory; says whether all of it is at hand.
    fn add_directory(&mut self, path: &[u8], root: Digest, directories: &Directories, budget: &Budget) -> bool {
        if directories.forest().path_count(&root, &mut FxHashMap::default()) > budget.max_output_files {
            return false;
        }
        let mut complete = true;
        let mut pending = vec![(path.to_vec(), root, 0)];
        while let Some((at, digest, depth)) = pending.pop() {
            let Some(directory) = directories.forest().get(&digest).filter(|_| depth <= MAX_DEPTH) else {
                complete = false;
                continue;
            };
            for entry in directory.entries() {
                let path = if at.is_empty() { entry.name.to_vec() } else { [&at, entry.name].join(&b'/') };
                match entry.node {
                    Node::Directory { digest } => pending.push((path, digest, depth + 1)),
                    node => self.add(&path, node),
                }
            }
        }
        complete
    }
}

/// How long the action executed; without that, how long a worker was busy with it.
fn duration(metadata: &ExecutedActionMetadata) -> Option<Duration> {
    let time = |seconds: i64, nanos: i32| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let at = |stamp: &Option<_>| stamp.as_ref().map(|t: &prost_types::Timestamp| time(t.seconds, t.nanos));
    let between = |start: Option<i128>, end: Option<i128>| u64::try_from(end?.checked_sub(start?)?).ok();
    let executed = between(at(&metadata.execution_start_timestamp), at(&metadata.execution_completed_timestamp));
    let worked = || between(at(&metadata.worker_start_timestamp), at(&metadata.worker_completed_timestamp));
    executed.or_else(worked).map(Duration::from_nanos)
}
