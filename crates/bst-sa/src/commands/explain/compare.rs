//! What was predicted in place of an action that was not.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::BlobStore;
use overlay::{Difference, Forest, difference, same_step};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command, Directory, Node};
use rustc_hash::FxHashMap;

use super::{Prediction, Shown};
use crate::failure::Failure;
use crate::journal::{self, Outcome};

/// Reads messages and directories, as far as they are needed and there.
pub(super) struct Reader {
    blobs: Arc<dyn BlobStore>,
    messages: FxHashMap<Digest, Bytes>,
    forest: Forest,
}

impl Reader {
    pub(super) fn new(blobs: &Arc<dyn BlobStore>) -> Self {
        Self { blobs: Arc::clone(blobs), messages: FxHashMap::default(), forest: Forest::new() }
    }

    /// Reads Actions and their Commands. What is not there stays unknown.
    pub(super) async fn read_actions(&mut self, actions: BTreeSet<Digest>) -> Result<(), Failure> {
        self.read(actions.iter().copied().collect()).await?;
        let commands = actions.iter().filter_map(|digest| Some(self.action(digest)?.command_digest()));
        self.read(commands.collect()).await
    }

    async fn read(&mut self, digests: Vec<Digest>) -> Result<(), Failure> {
        let function = self.blobs.digest_function();
        let new: Vec<Digest> =
            digests.into_iter().filter(|d| !self.messages.contains_key(d) && d.function() == function).collect();
        if new.is_empty() {
            return Ok(());
        }
        for (digest, bytes) in self.blobs.read_blobs(&new).await? {
            match bytes {
                Ok(bytes) => drop(self.messages.insert(digest, bytes)),
                Err(error) => tracing::debug!(%digest, %error, "not at hand"),
            }
        }
        Ok(())
    }

    fn action(&self, digest: &Digest) -> Option<Action> {
        Action::parse(self.messages.get(digest)?.clone()).ok()
    }

    fn with_command(&self, digest: &Digest) -> Option<(Action, Command)> {
        let action = self.action(digest)?;
        let command = Command::parse(self.messages.get(&action.command_digest())?.clone()).ok()?;
        Some((action, command))
    }

    /// What was predicted in place of an action that was not.
    pub(super) async fn compare(
        &mut self,
        actual: &Digest,
        open: &[&journal::Action],
        no_record: Option<String>,
    ) -> Result<(Prediction, Option<String>), Failure> {
        let none = |base, reason: &str| Ok((Prediction::None { base }, Some(reason.to_owned())));
        let Some((action, command)) = self.with_command(actual) else {
            return none(None, "the action itself is no longer in storage");
        };
        if open.is_empty() {
            let reason = no_record.unwrap_or_else(|| "nothing else was recorded for the element".to_owned());
            return none(None, &reason);
        }
        let bases: Vec<(usize, Command)> =
            (0..open.len()).filter_map(|i| Some((i, self.with_command(&open[i].base)?.1))).collect();
        let commands: Vec<&Command> = bases.iter().map(|(_, command)| command).collect();
        let Some(row) = same_step(&command, &commands).map(|i| open[bases[i].0]) else {
            return none(None, "no recorded action makes the same outputs");
        };
        let base = row.base;
        let Some(predicted) = row.predicted().or(row.adapted) else {
            let reason = row.reason.as_deref().unwrap_or("it was not adapted");
            return none(Some(base), reason);
        };
        let prediction = |difference| Prediction::Different { base, predicted, difference };
        let Some((predicted_action, predicted_command)) = self.with_command(&predicted) else {
            let reason = row.reason.as_deref().unwrap_or("it was never stored");
            return Ok((prediction(None), Some(format!("the predicted action cannot be looked at: {reason}"))));
        };
        let found = loop {
            match difference((&predicted_action, &predicted_command), (&action, &command), &self.forest) {
                Ok(found) => break found,
                Err(missing) => {
                    if let Some(reason) = self.read_directory(missing.0).await? {
                        return Ok((prediction(None), Some(reason)));
                    }
                }
            }
        };
        let reason = row.reason.clone().filter(|_| row.outcome != Outcome::Adapted);
        let shown = match found {
            Some(found) => Some(self.show(found, &base).await?),
            None => None,
        };
        Ok((prediction(shown), reason))
    }

    /// Puts a directory into the forest; says why that is not possible.
    async fn read_directory(&mut self, digest: Digest) -> Result<Option<String>, Failure> {
        self.read(vec![digest]).await?;
        let Some(bytes) = self.messages.get(&digest) else {
            return Ok(Some(format!("directory {digest} is no longer in storage")));
        };
        match Directory::parse(bytes.clone()) {
            Ok(directory) => {
                self.forest.insert(digest, directory);
                Ok(None)
            }
            Err(error) => Ok(Some(format!("directory {digest} cannot be read: {error}"))),
        }
    }

    async fn show(&mut self, found: Difference, base: &Digest) -> Result<Shown, Failure> {
        let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match found {
            Difference::Field { name, first, second } => {
                Ok(Shown { kind: "field", place: name, old: None, predicted: text(first), actual: text(second) })
            }
            Difference::Input { path, first, second } => {
                let old = match self.action(base).map(|action| action.input_root_digest()) {
                    Some(root) => self.find(root, &path).await?,
                    None => None,
                };
                Ok(Shown {
                    kind: "input",
                    place: String::from_utf8_lossy(&path).into_owned(),
                    old: old.as_ref().map(node),
                    predicted: first.as_ref().map(node),
                    actual: second.as_ref().map(node),
                })
            }
        }
    }

    async fn find(&mut self, root: Digest, path: &[u8]) -> Result<Option<Node>, Failure> {
        loop {
            match self.forest.find(&root, path) {
                Ok(found) => return Ok(found),
                Err(missing) => {
                    if self.read_directory(missing.0).await?.is_some() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

fn node(node: &Node) -> String {
    match node {
        Node::File { digest, executable: false } => digest.to_string(),
        Node::File { digest, executable: true } => format!("{digest}, executable"),
        Node::Directory { digest } => format!("directory {digest}"),
        Node::Symlink { target } => format!("link to {:?}", String::from_utf8_lossy(target)),
    }
}
