//! Reading records, in one batch for all elements.

use std::sync::Arc;

use bytes::Bytes;
use cas_client::{BlobStore, Error, TreeBudget, read_trees};
use overlay::graph::{Element, Graph};
use overlay::layout::{ReferenceRecord, Stored, decode};
use overlay::{Forest, Record, RecordedElement};
use reapi_proto::raw::Action;
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Candidate, Fit, Lookup, Outside, RecordIndex};
use crate::skip::{Skip, SkipKind};

/// A record that is going to be used.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) record: Arc<Record>,
    /// Refused only where the commands may have changed: what the build asks for can show how.
    pub(crate) fit: Fit,
    /// Actions of a message in the reference layout whose trees are gone.
    pub(crate) unusable: Vec<(Digest, String)>,
    /// What is known of the record's elements without their own records, by row.
    pub(crate) outside: Vec<Outside>,
}

/// The record of each of `elements`, in their order, or why there is none.
///
/// One question to the index and one batch of reads, whatever the number of
/// elements; three more and one per level of depth if some messages are in the
/// reference layout, which cannot be used without the recorded trees.
pub(super) async fn load(
    blobs: &dyn BlobStore,
    index: &dyn RecordIndex,
    graph: &Graph,
    elements: &[&Element],
    lookup: Lookup,
) -> Vec<Result<Loaded, Skip>> {
    let candidates = match index.find_records(elements, lookup).await {
        Ok(candidates) => candidates,
        Err(error) => {
            let skip = Skip::new(SkipKind::Service, format!("records cannot be looked up: {error}"));
            return elements.iter().map(|_| Err(skip.clone())).collect();
        }
    };
    let unread = candidates.iter().flatten().map(|candidate| candidate.message);
    let messages = read(blobs, unread.filter(|message| index.decoded(message).is_none())).await;
    let mut chosen: Vec<Result<Chosen, Skip>> = Vec::with_capacity(elements.len());
    for (i, element) in elements.iter().enumerate() {
        let candidates = candidates.get(i).map_or(&[][..], Vec::as_slice);
        let found = Found { index, messages: &messages, lookup, function: blobs.digest_function() };
        chosen.push(choose(element, candidates, &found));
    }
    let trees = read_reference_trees(blobs, &chosen).await;
    let loaded = elements.iter().zip(chosen).map(|(element, chosen)| {
        let (record, fit, unusable) = match chosen? {
            Chosen::Ready(record, fit) => (record, fit, Vec::new()),
            Chosen::Reference(reference, fit) => {
                let (record, unusable) = upgrade(&reference, element, &trees);
                (record, fit, unusable)
            }
        };
        let outside = Outside::of(&record, graph);
        Ok(Loaded { record, fit, unusable, outside })
    });
    loaded.collect()
}

enum Chosen {
    Ready(Arc<Record>, Fit),
    Reference(ReferenceRecord, Fit),
}

/// What candidates are judged by.
#[derive(Clone, Copy)]
struct Found<'a> {
    index: &'a dyn RecordIndex,
    messages: &'a Messages,
    lookup: Lookup,
    function: DigestFunction,
}

/// The first candidate that can be read and fits; else the first one from which
/// something can be learned while the build goes on, or why the first one does not fit.
fn choose(element: &Element, candidates: &[Candidate], found: &Found<'_>) -> Result<Chosen, Skip> {
    let (mut refusal, mut learnable) = (None, None);
    for Candidate { message, weak_key } in candidates {
        match open(element, message, weak_key.as_deref(), found) {
            Ok(chosen @ Chosen::Ready(_, Fit::Refused(_))) => learnable = learnable.or(Some(chosen)),
            Ok(chosen) => return Ok(chosen),
            Err(skip) => refusal = refusal.or(Some(skip)),
        }
    }
    if let Some(chosen) = learnable {
        return Ok(chosen);
    }
    Err(refusal.unwrap_or_else(|| Skip::new(SkipKind::NoRecord, "nothing is recorded for the element")))
}

fn open(element: &Element, message: &Digest, weak_key: Option<&str>, found: &Found<'_>) -> Result<Chosen, Skip> {
    let Found { index, messages, lookup, function } = *found;
    if message.size_bytes() > MAX_MESSAGE_BYTES {
        let reason = format!("the record {message} is larger than {MAX_MESSAGE_BYTES} bytes, the limit for a message");
        return Err(Skip::new(SkipKind::Malformed, reason));
    }
    let malformed = |reason: String| Skip::new(SkipKind::Malformed, format!("the record cannot be used: {reason}"));
    let judge = |recorded: Option<&str>, sources: Option<Digest>, configuration: Option<&str>| match Fit::judge(
        lookup,
        element,
        weak_key.or(recorded),
        sources,
        configuration,
    ) {
        Fit::Refused(skip) if lookup == Lookup::Weak || sources.is_none() => Err(skip),
        fit => Ok(fit),
    };
    let stored = match (index.decoded(message), messages.get(message)) {
        (Some(record), _) => Ok(record),
        (None, Some(Ok(bytes))) => match decode(bytes).map_err(|e| malformed(e.to_string()))? {
            Stored::Compact(record) => Ok(Arc::from(record)),
            Stored::Reference(reference) => Err(reference),
        },
        (None, Some(Err(error))) => return Err(unreadable(error)),
        (None, None) => return Err(Skip::new(SkipKind::Service, "the store did not answer for the record")),
    };
    match stored {
        Ok(record) => {
            if record.digest_function != function {
                return Err(malformed(format!("its digests are {}, the store's {function}", record.digest_function)));
            }
            let sources = record.elements.first().and_then(|own| own.sources);
            let fit = judge(record.weak_key.as_deref(), sources, record.configuration.as_deref())?;
            Ok(Chosen::Ready(record, fit))
        }
        Err(reference) => {
            if let Some(foreign) = reference.actions.iter().find(|a| a.base.function() != function) {
                return Err(malformed(format!("it has {} digests, the store {function}", foreign.base.function())));
            }
            Ok(Chosen::Reference(reference, judge(None, None, None)?))
        }
    }
}

fn unreadable(error: &Error) -> Skip {
    match error.kind() {
        cas_client::ErrorKind::NotFound => Skip::new(SkipKind::NoRecord, "the record is no longer in the store"),
        _ => Skip::new(SkipKind::Service, format!("the record cannot be read: {error}")),
    }
}

type Messages = FxHashMap<Digest, cas_client::Result<Bytes>>;

/// The largest message that is read: a record of 5,000 actions has 0.8 MB, and
/// its tables take some thirty times that in memory.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Reads blobs, each once. A failure of the whole request leaves its blobs out.
async fn read(blobs: &dyn BlobStore, digests: impl Iterator<Item = Digest>) -> Messages {
    let readable = |d: &Digest| d.function() == blobs.digest_function() && d.size_bytes() <= MAX_MESSAGE_BYTES;
    let distinct: FxHashSet<Digest> = digests.filter(readable).collect();
    let distinct: Vec<Digest> = distinct.into_iter().collect();
    if distinct.is_empty() {
        return Messages::default();
    }
    match blobs.read_blobs(&distinct).await {
        Ok(answers) => answers.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "records cannot be read");
            Messages::default()
        }
    }
}

#[derive(Default)]
struct Trees {
    actions: FxHashMap<Digest, Action>,
    forest: Forest,
}

/// The recorded actions of messages in the reference layout, with their whole input trees.
async fn read_reference_trees(blobs: &dyn BlobStore, chosen: &[Result<Chosen, Skip>]) -> Trees {
    let bases = chosen.iter().flatten().flat_map(|chosen| match chosen {
        Chosen::Reference(reference, _) => reference.actions.as_slice(),
        Chosen::Ready(..) => &[],
    });
    let messages = read(blobs, bases.map(|action| action.base)).await;
    let mut trees = Trees::default();
    trees
        .actions
        .extend(messages.into_iter().filter_map(|(digest, bytes)| Some((digest, Action::parse(bytes.ok()?).ok()?))));
    let function = blobs.digest_function();
    let roots = trees.actions.values().map(Action::input_root_digest).filter(|root| root.function() == function);
    let roots: Vec<Digest> = roots.collect();
    if roots.is_empty() {
        return trees;
    }
    match read_trees(blobs, &roots, |_| false, &TreeBudget::default()).await {
        Ok(read) => {
            for (digest, directory) in read.directories {
                trees.forest.insert(digest, directory);
            }
        }
        Err(error) => tracing::warn!(%error, "the input trees of recorded actions cannot be read"),
    }
    trees
}

/// A record, and the actions whose trees are gone.
fn upgrade(reference: &ReferenceRecord, element: &Element, trees: &Trees) -> (Arc<Record>, Vec<(Digest, String)>) {
    // The layout does not say what the trees were, so every origin is looked up.
    let own = RecordedElement { name: element.name.clone(), sources: None, artifact: None };
    let upgraded = reference.upgrade(own, &trees.actions, &trees.forest);
    let unusable = upgraded.skipped.into_iter().map(|(base, reason)| (base, reason.to_string())).collect();
    (Arc::new(upgraded.record), unusable)
}
