//! Reading Action, Command, Tree and record messages in batches.

use std::fmt::Display;

use bytes::Bytes;
use cas_client::{BlobStore, ErrorKind, Result};
use reapi_proto::Digest;
use reapi_proto::raw::{Action, Command};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{Budget, SkipReason, Skipped, Subaction};

/// Parsed messages by digest; for those that cannot be used, why.
pub(crate) type Messages<T> = FxHashMap<Digest, std::result::Result<T, SkipReason>>;

/// Reads messages of one kind: one call, each distinct one once.
pub(crate) async fn read_messages<T, E: Display>(
    store: &dyn BlobStore,
    budget: &Budget,
    digests: impl Iterator<Item = Digest>,
    missing: impl Fn(Digest) -> SkipReason,
    parse: impl Fn(Bytes) -> std::result::Result<T, E>,
) -> Result<Messages<T>> {
    let mut messages = FxHashMap::default();
    let mut wanted = Vec::new();
    let mut seen = FxHashSet::default();
    let mut total: u64 = 0;
    for digest in digests.filter(|digest| seen.insert(*digest)) {
        let refused = if digest.function() != store.digest_function() {
            let reason = format!("a {} digest among {} ones", digest.function(), store.digest_function());
            Some(SkipReason::Unusable { digest, reason })
        } else if digest.size_bytes() > budget.max_message_bytes {
            let limit = budget.max_message_bytes;
            Some(SkipReason::LimitExceeded(format!("message {digest} is larger than {limit} bytes")))
        } else if total + digest.size_bytes() > budget.max_messages_bytes {
            let limit = budget.max_messages_bytes;
            Some(SkipReason::LimitExceeded(format!("message {digest} was not read: all together exceed {limit} bytes")))
        } else {
            None
        };
        match refused {
            Some(reason) => {
                messages.insert(digest, Err(reason));
            }
            None => {
                total += digest.size_bytes();
                wanted.push(digest);
            }
        }
    }
    if wanted.is_empty() {
        return Ok(messages);
    }
    for (digest, answer) in store.read_blobs(&wanted).await? {
        let unusable = |reason: String| SkipReason::Unusable { digest, reason };
        let message = match answer {
            Ok(bytes) => parse(bytes).map_err(|e| unusable(e.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(digest)),
            Err(error) => Err(unusable(error.to_string())),
        };
        messages.insert(digest, message);
    }
    Ok(messages)
}

/// An action whose messages are at hand.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) subaction: Subaction,
    pub(crate) action: Action,
    pub(crate) command: Command,
}

/// The actions of an element in order, each once, with their Commands: two calls.
pub(crate) async fn read_actions(
    store: &dyn BlobStore,
    budget: &Budget,
    subactions: Vec<Subaction>,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Candidate>> {
    let digests = subactions.iter().map(|s| s.action);
    let mut actions = read_messages(store, budget, digests, |_| SkipReason::ActionMissing, Action::parse).await?;
    let mut usable = Vec::with_capacity(subactions.len());
    for subaction in subactions {
        let reason = match actions.remove(&subaction.action) {
            Some(Ok(action)) if !action.do_not_cache() => {
                usable.push((subaction, action));
                continue;
            }
            Some(Ok(_)) => SkipReason::DoNotCache,
            Some(Err(reason)) => reason,
            None => unanswered(subaction.action),
        };
        skipped.push(Skipped { action: subaction.action, reason });
    }
    let digests = usable.iter().map(|(_, action)| action.command_digest());
    let commands = read_messages(store, budget, digests, SkipReason::CommandMissing, Command::parse).await?;
    let mut candidates = Vec::with_capacity(usable.len());
    for (subaction, action) in usable {
        let reason = match commands.get(&action.command_digest()) {
            Some(Ok(command)) => {
                candidates.push(Candidate { subaction, action, command: command.clone() });
                continue;
            }
            Some(Err(reason)) => reason.clone(),
            None => unanswered(action.command_digest()),
        };
        skipped.push(Skipped { action: subaction.action, reason });
    }
    Ok(candidates)
}

/// For a store that leaves a digest out of its answer, against its contract.
pub(crate) fn unanswered(digest: Digest) -> SkipReason {
    SkipReason::Unusable { digest, reason: "the store did not answer for it".to_owned() }
}
