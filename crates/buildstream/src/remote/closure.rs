//! Everything that a record stands on.

use bytes::Bytes;
use cas_client::{Blob, BlobStore, ErrorKind, Result, TreeBudget, read_trees};
use overlay::layout::{Stored, decode};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Directory, Node};
use rustc_hash::{FxHashMap, FxHashSet};

/// The digests that a recorded action stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base {
    pub(super) action: Digest,
    pub(super) command: Digest,
    pub(super) root: Digest,
}

/// Records, and the messages that they lead to: actions, commands, directories.
#[derive(Debug, Default)]
pub(super) struct Closure {
    pub(super) bases: Vec<Base>,
    pub(super) directories: FxHashMap<Digest, Directory>,
    /// Every message that was found, directories left out.
    pub(super) messages: FxHashMap<Digest, Bytes>,
    /// What was found in the second store only.
    pub(super) new: Vec<Blob>,
    /// What is in neither store, or cannot be used.
    pub(super) missing: FxHashSet<Digest>,
}

impl Closure {
    /// Reads what `records` lead to, from `first` or, what that lacks, from `second`.
    ///
    /// Three batches of reads and one per level of the trees, from each store
    /// that is needed. What is in neither is noted, and the rest usable.
    ///
    /// # Errors
    /// When a store fails as a whole, or the trees go beyond the default [`TreeBudget`].
    pub(super) async fn read(
        first: &dyn BlobStore,
        second: Option<&dyn BlobStore>,
        records: &[Digest],
    ) -> Result<Self> {
        let mut closure = Self::default();
        closure.read_messages(first, second, records).await?;
        let actions: Vec<Digest> = records.iter().flat_map(|record| closure.actions_of(record)).collect();
        closure.read_messages(first, second, &actions).await?;
        for action in distinct(&actions) {
            let Some(bytes) = closure.messages.get(&action) else { continue };
            match Action::parse(bytes.clone()) {
                Ok(parsed) => closure.bases.push(Base {
                    action,
                    command: parsed.command_digest(),
                    root: parsed.input_root_digest(),
                }),
                Err(error) => {
                    tracing::debug!(%action, %error, "a recorded action cannot be used");
                    closure.missing.insert(action);
                }
            }
        }
        let commands: Vec<Digest> = closure.bases.iter().map(|base| base.command).collect();
        closure.read_messages(first, second, &commands).await?;
        let roots: Vec<Digest> = closure.bases.iter().map(|base| base.root).collect();
        closure.read_directories(first, second, &roots).await?;
        Ok(closure)
    }

    /// The actions that a record that was read is about; none if it is no record.
    fn actions_of(&mut self, record: &Digest) -> Vec<Digest> {
        let Some(bytes) = self.messages.get(record) else { return Vec::new() };
        match decode(bytes) {
            Ok(Stored::Compact(stored)) => stored.actions.iter().map(|action| action.base).collect(),
            Ok(Stored::Reference(stored)) => stored.actions.iter().map(|action| action.base).collect(),
            Err(error) => {
                tracing::debug!(%record, %error, "a record cannot be used");
                self.missing.insert(*record);
                Vec::new()
            }
        }
    }

    async fn read_messages(
        &mut self,
        first: &dyn BlobStore,
        second: Option<&dyn BlobStore>,
        digests: &[Digest],
    ) -> Result<()> {
        let function = first.digest_function();
        let mut wanted = distinct(digests);
        self.missing.extend(wanted.extract_if(.., |digest| digest.function() != function));
        wanted.retain(|digest| !self.messages.contains_key(digest));
        for (row, store) in [Some(first), second].into_iter().enumerate() {
            let Some(store) = store.filter(|_| !wanted.is_empty()) else { continue };
            let mut absent = Vec::new();
            for (digest, answer) in store.read_blobs(&wanted).await? {
                match answer {
                    Ok(bytes) => {
                        if row == 1 {
                            self.new.extend(Blob::verified(digest, bytes.clone()));
                        }
                        self.messages.insert(digest, bytes);
                    }
                    Err(error) => {
                        if error.kind() != ErrorKind::NotFound {
                            tracing::debug!(%error, "a message cannot be read");
                        }
                        absent.push(digest);
                    }
                }
            }
            wanted = absent;
        }
        self.missing.extend(wanted);
        Ok(())
    }

    async fn read_directories(
        &mut self,
        first: &dyn BlobStore,
        second: Option<&dyn BlobStore>,
        roots: &[Digest],
    ) -> Result<()> {
        let function = first.digest_function();
        let mut wanted = distinct(roots);
        self.missing.extend(wanted.extract_if(.., |digest| digest.function() != function));
        for (row, store) in [Some(first), second].into_iter().enumerate() {
            let Some(store) = store.filter(|_| !wanted.is_empty()) else { continue };
            let known = |digest: &Digest| self.directories.contains_key(digest);
            let trees = read_trees(store, &wanted, known, &TreeBudget::default()).await?;
            for (digest, directory) in trees.directories {
                if row == 1 {
                    self.new.extend(Blob::verified(digest, directory.bytes().clone()));
                }
                self.directories.insert(digest, directory);
            }
            let unusable = trees.invalid.into_iter().map(|(digest, _)| digest);
            wanted = trees.missing;
            wanted.extend(trees.failed.into_iter().map(|(digest, _)| digest).chain(unusable));
        }
        self.missing.extend(wanted);
        Ok(())
    }

    /// Every blob that must be in CAS for the actions to be executable: messages, directories and files.
    pub(super) fn everything(&self) -> Vec<Digest> {
        let mut all: FxHashSet<Digest> = self.messages.keys().chain(self.directories.keys()).copied().collect();
        all.extend(self.directories.values().flat_map(files));
        all.extend(&self.missing);
        let mut all: Vec<Digest> = all.into_iter().filter(|digest| !digest.is_empty()).collect();
        all.sort_unstable();
        all
    }

    /// The actions, without those for which one of these blobs is needed.
    pub(super) fn bases_without(&self, unavailable: &FxHashSet<Digest>) -> Vec<Base> {
        let lacks = |digest: &Digest| unavailable.contains(digest) || self.missing.contains(digest);
        let mut broken: FxHashMap<Digest, bool> = FxHashMap::default();
        let mut usable = Vec::new();
        for base in &self.bases {
            let is_broken =
                lacks(&base.action) || lacks(&base.command) || self.is_broken(base.root, &lacks, &mut broken);
            if !is_broken {
                usable.push(*base);
            }
        }
        usable
    }

    /// Whether something below a directory is lacking. Depth is bounded by the [`TreeBudget`] of the read.
    fn is_broken(&self, root: Digest, lacks: &dyn Fn(&Digest) -> bool, known: &mut FxHashMap<Digest, bool>) -> bool {
        if let Some(answer) = known.get(&root) {
            return *answer;
        }
        let answer = lacks(&root)
            || self.directories.get(&root).is_some_and(|directory| {
                files(directory).any(|file| lacks(&file))
                    || directory.directories().any(|(_, child)| self.is_broken(child, lacks, known))
            });
        known.insert(root, answer);
        answer
    }
}

fn files(directory: &Directory) -> impl Iterator<Item = Digest> {
    directory.entries().filter_map(|entry| match entry.node {
        Node::File { digest, .. } => Some(digest),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    })
}

/// Each once, in order of first occurrence.
fn distinct(digests: &[Digest]) -> Vec<Digest> {
    let mut seen = FxHashSet::default();
    digests.iter().copied().filter(|digest| seen.insert(*digest)).collect()
}
