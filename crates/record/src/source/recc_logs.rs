//! The logs that recc left in a cached buildtree.

use std::fmt::{self, Display};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cas_client::{BlobStore, Error, ErrorKind, Result, TreeBudget, read_trees};
use futures_util::StreamExt;
use overlay::graph::Element;
use reapi_proto::Digest;
use reapi_proto::raw::{Directory, Node};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{LoggedAction, ReccLogScanner, Subaction, SubactionSource};

/// The usual `RECC_LOG_DIRECTORY` of BuildStream projects: every file in one counts, whatever its name.
const LOG_DIRECTORY: &[u8] = b".recc-log";

/// Files up to this size are read several at once. At level `info` they have about 430 bytes, at `trace` about 5,000.
const SMALL_BYTES: u64 = 1 << 20;

/// Bytes of small files that are held at once.
const BATCH_BYTES: u64 = 16 << 20;

/// Bytes of logs that are read of one buildtree: at level `info`, those of five million processes.
const MAX_LOG_BYTES: u64 = 2 << 30;

/// What the recc processes of an element say that they did: see [`ReccLogScanner`] for what they write.
///
/// Needs `RECC_LOG_DIRECTORY` in the element's environment and buildtrees that
/// are kept (`bst --cache-buildtrees always`). A relative log directory is one
/// in every directory that a recc process is started in, so the whole tree is
/// searched: for directories named `.recc-log` and for files named as recc names its logs.
///
/// A log file that is absent or damaged is passed over with a warning, as is
/// what goes beyond 2 GiB of logs. A buildtree without any log says nothing.
#[derive(Clone, Debug)]
pub struct ReccLogs {
    store: Arc<dyn BlobStore>,
    buildtrees: FxHashMap<String, Digest>,
    budget: TreeBudget,
}

impl ReccLogs {
    /// `buildtrees` are the root directories of the elements' buildtrees, by the element's name.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, buildtrees: impl IntoIterator<Item = (String, Digest)>) -> Self {
        Self { store, buildtrees: buildtrees.into_iter().collect(), budget: TreeBudget::default() }
    }

    /// What a buildtree may cost.
    #[must_use]
    pub fn with_budget(mut self, budget: TreeBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The actions that the logs in a buildtree name, by the time of their
    /// first mention, each once. `None` where there are no logs.
    ///
    /// # Errors
    /// `LimitExceeded` for a tree beyond the budget; failures of the store as a whole.
    pub async fn read(&self, buildtree: &Digest) -> Result<Option<Vec<LoggedAction>>> {
        let trees = read_trees(&*self.store, &[*buildtree], |_| false, &self.budget).await?;
        if !trees.is_complete() {
            let (missing, unusable) = (trees.missing.len(), trees.invalid.len() + trees.failed.len());
            tracing::warn!(%buildtree, missing, unusable, "directories of the buildtree cannot be read");
        }
        let files = log_files(&trees.directories);
        if files.is_empty() {
            return Ok(None);
        }
        let mut logs = self.scan(buildtree, &files).await?;
        // Stable: what has the same time stays in the order of the files' names.
        logs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut rows: FxHashMap<Digest, usize> = FxHashMap::default();
        let mut actions: Vec<LoggedAction> = Vec::new();
        for (_, logged) in logs {
            match rows.get(&logged.action) {
                Some(row) => actions[*row].outcome = actions[*row].outcome.max(logged.outcome),
                None => {
                    rows.insert(logged.action, actions.len());
                    actions.push(logged);
                }
            }
        }
        Ok(Some(actions))
    }

    async fn scan(&self, buildtree: &Digest, files: &[Digest]) -> Result<Vec<(Vec<u8>, LoggedAction)>> {
        let (mut logs, mut unread, mut total) = (Vec::new(), 0_usize, 0_u64);
        let mut rest = files;
        while let Some((first, others)) = rest.split_first() {
            if total.saturating_add(first.size_bytes()) > MAX_LOG_BYTES {
                unread += 1;
                rest = others;
                continue;
            }
            if first.size_bytes() > SMALL_BYTES {
                total += first.size_bytes();
                rest = others;
                match self.scan_large(first, &mut logs).await {
                    Ok(()) => {}
                    Err(error) if is_about_one_blob(&error) => unread += 1,
                    Err(error) => return Err(error),
                }
                continue;
            }
            let mut bytes = 0;
            let batch = rest.iter().take_while(|file| {
                bytes += file.size_bytes();
                file.size_bytes() <= SMALL_BYTES && bytes <= BATCH_BYTES && total + bytes <= MAX_LOG_BYTES
            });
            let (batch, others) = rest.split_at(batch.count().max(1));
            total += batch.iter().map(Digest::size_bytes).sum::<u64>();
            rest = others;
            unread += self.scan_batch(batch, &mut logs).await?;
        }
        if unread > 0 {
            tracing::warn!(%buildtree, unread, read = files.len() - unread, "recc logs cannot be read");
        }
        Ok(logs)
    }

    /// Returns the number of files that could not be read.
    async fn scan_batch(&self, files: &[Digest], logs: &mut Vec<(Vec<u8>, LoggedAction)>) -> Result<usize> {
        let answers: FxHashMap<Digest, Result<Bytes>> = self.store.read_blobs(files).await?.into_iter().collect();
        let mut unread = 0;
        for file in files {
            match answers.get(file) {
                Some(Ok(bytes)) => {
                    let mut scanner = ReccLogScanner::new();
                    scanner.advance(bytes);
                    take(scanner, logs);
                }
                Some(Err(_)) | None => unread += 1,
            }
        }
        Ok(unread)
    }

    async fn scan_large(&self, file: &Digest, logs: &mut Vec<(Vec<u8>, LoggedAction)>) -> Result<()> {
        let mut chunks = self.store.open_blob(file).await?;
        let mut scanner = ReccLogScanner::new();
        while let Some(chunk) = chunks.next().await {
            scanner.advance(&chunk?);
        }
        take(scanner, logs);
        Ok(())
    }
}

impl Display for ReccLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recc's logs in buildtrees in {}", self.store)
    }
}

#[async_trait]
impl SubactionSource for ReccLogs {
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        let Some(buildtree) = self.buildtrees.get(&element.name) else { return Ok(None) };
        let actions = self.read(buildtree).await?;
        Ok(actions.map(|list| list.into_iter().map(|logged| Subaction::from(logged.action)).collect()))
    }
}

fn take(mut scanner: ReccLogScanner, logs: &mut Vec<(Vec<u8>, LoggedAction)>) {
    scanner.finish();
    logs.extend(scanner.actions().map(|(time, action)| (time.to_vec(), action)));
}

/// Whether a failure leaves the other blobs readable.
fn is_about_one_blob(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::LimitExceeded | ErrorKind::Invalid)
}

/// Distinct log files, sorted by name.
fn log_files(directories: &[(Digest, Directory)]) -> Vec<Digest> {
    let log_directories: FxHashSet<Digest> = (directories.iter())
        .flat_map(|(_, directory)| directory.directories())
        .filter(|(name, _)| *name == LOG_DIRECTORY)
        .map(|(_, digest)| digest)
        .collect();
    let mut files: Vec<(&[u8], Digest)> = Vec::new();
    for (digest, directory) in directories {
        let all = log_directories.contains(digest);
        for entry in directory.entries() {
            if let Node::File { digest, .. } = entry.node
                && !digest.is_empty()
                && (all || is_log_name(entry.name))
            {
                files.push((entry.name, digest));
            }
        }
    }
    files.sort_unstable();
    let mut seen = FxHashSet::default();
    files.into_iter().map(|(_, digest)| digest).filter(|digest| seen.insert(*digest)).collect()
}

/// `recc.HOST.USER.log.YYYYMMDD-HHMMSS.PID`
fn is_log_name(name: &[u8]) -> bool {
    let numbers = |part: &[u8]| !part.is_empty() && part.iter().all(|b| b.is_ascii_digit() || *b == b'-');
    let mut parts = name.rsplit(|b| *b == b'.');
    parts.next().is_some_and(numbers)
        && parts.next().is_some_and(numbers)
        && parts.next() == Some(b"log")
        && name.starts_with(b"recc.")
}

#[cfg(test)]
mod tests {
    use cas_client::InMemory;
    use reapi_proto::DigestFunction;

    use super::super::LoggedOutcome::{Executed, Hit};
    use super::*;
    use crate::tests::toy::Toys;

    fn action(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    fn executed(time: &str, name: &str) -> String {
        format!(
            "{time} [5:1] [executioncontext.cpp:951] [INFO] Executing action remotely... [actionDigest={}]\n",
            action(name)
        )
    }

    fn hit(time: &str, name: &str) -> String {
        format!("{time} [5:1] [executioncontext.cpp:544] [INFO] Action Cache hit for [{}]\n", action(name))
    }

    async fn read(toys: &Toys, files: &[(&str, &str)]) -> Option<Vec<LoggedAction>> {
        let logs = ReccLogs::new(Arc::new(toys.store.clone()), []);
        logs.read(&toys.tree(files)).await.unwrap()
    }

    #[tokio::test]
    async fn logs_are_found_anywhere_and_ordered_by_time() {
        let toys = Toys::default();
        let found = read(
            &toys,
            &[
                (".recc-log/recc.buildbox.user.log.20261122-105008.32", &executed("t2", "link")),
                ("sub/.recc-log/anything", &hit("t1", "sub")),
                ("CMakeFiles/x/recc.buildbox.user.log.20261122-105007.5", &executed("t0", "check")),
                ("again/recc.buildbox.user.log.20261122-105009.5", &hit("t3", "check")),
                ("recc.log", &executed("t0", "unrelated")),
                ("main.c", &executed("t0", "unrelated")),
            ],
        )
        .await
        .unwrap();
        let found: Vec<_> = found.iter().map(|a| (a.action, a.outcome)).collect();
        assert_eq!(found, [(action("check"), Executed), (action("sub"), Hit), (action("link"), Executed)]);
    }

    #[tokio::test]
    async fn a_buildtree_without_logs_says_nothing_and_empty_logs_say_that_nothing_ran() {
        let toys = Toys::default();
        assert_eq!(read(&toys, &[("main.c", "int main() {}")]).await, None);
        let local = "t0 [5:1] [recc.m.cpp:460] [INFO] Resolved \"gcc\" to \"/usr/bin/gcc\"\n";
        assert_eq!(read(&toys, &[(".recc-log/recc.h.u.log.20261122-105008.1", local)]).await, Some(Vec::new()));
    }

    #[tokio::test]
    async fn large_files_are_streamed_and_lost_ones_passed_over() {
        let toys = Toys::default();
        let padding = format!("{}\n", "x".repeat(2 << 20));
        let large = [padding.as_str(), &executed("t1", "large")].concat();
        let (lost, large_lost) = (hit("t2", "lost"), [padding.as_str(), &hit("t3", "lost")].concat());
        let files = [
            (".recc-log/a", large.as_str()),
            (".recc-log/b", &lost),
            (".recc-log/c", &large_lost),
            (".recc-log/d", &hit("t4", "kept")),
        ];
        let root = toys.tree(&files);
        for lost in [&lost, &large_lost] {
            toys.store.forget(&DigestFunction::Sha256.digest(lost.as_bytes()));
        }
        let logs = ReccLogs::new(Arc::new(toys.store.clone()), [("app.bst".to_owned(), root)]);
        let found = logs.subactions(&Element::new("app.bst")).await.unwrap().unwrap();
        assert_eq!(found.iter().map(|s| s.action).collect::<Vec<_>>(), [action("large"), action("kept")]);
        assert_eq!(logs.subactions(&Element::new("lib.bst")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_lost_buildtree_says_nothing() {
        let logs = ReccLogs::new(Arc::new(InMemory::new()), []);
        assert_eq!(logs.read(&action("gone")).await.unwrap(), None);
    }

    #[test]
    fn names_of_logs() {
        for (name, expected) in [
            ("recc.buildbox.tomjon.log.20261122-105008.32", true),
            ("recc.host.example.org.user.log.20261122-105008.1", true),
            ("recc.log", false),
            ("recc.log.1.", false),
            ("gcc.h.u.log.20261122-105008.1", false),
            ("", false),
        ] {
            assert_eq!(is_log_name(name.as_bytes()), expected, "{name}");
        }
    }
}
