//! What is made of changed inputs without an action: made here, in the same way.

use std::sync::Arc;

use bytes::Bytes;
use cas_client::BlobStore;
use overlay::{Demand, Forest, Making, Merge, Now};
use reapi_proto::raw::{Directory, Node};
use reapi_proto::{Blob, Digest, DigestFunction};
use rustc_hash::FxHashMap;

use super::Priming;
use super::tables::RowId;
use super::task::{Done, Fetched, fetch};

/// What is to be made.
struct Wanted {
    row: RowId,
    demand: Demand,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Merge,
    /// As this one was made of its members.
    Archive {
        recorded: Digest,
        executable: bool,
        names: Vec<Bytes>,
    },
}

/// What came of it.
pub(super) struct Made {
    row: RowId,
    demand: Demand,
    outcome: Result<New, String>,
}

/// Something new, and the blobs that it consists of.
#[derive(Clone)]
struct New {
    node: Node,
    blobs: Vec<Blob>,
}

impl Priming {
    /// Starts to make what has been demanded, all in one go.
    pub(super) fn start_derivations(&mut self) {
        if self.deriving || self.demands.is_empty() {
            return;
        }
        let wanted: Vec<Wanted> = std::mem::take(&mut self.demands)
            .into_iter()
            .filter_map(|(row, demand)| Some(Wanted { row, kind: self.kind(row, &demand)?, demand }))
            .collect();
        if wanted.is_empty() {
            return;
        }
        self.deriving = true;
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move { Done::Derived(make_all(blobs, wanted).await) });
    }

    fn kind(&self, row: RowId, demand: &Demand) -> Option<Kind> {
        let record = self.tables[row].adaptation.record();
        match &record.derivation(demand.derivation).making {
            Making::Merge => Some(Kind::Merge),
            Making::Archive(names) => match record.recorded_as(demand.derivation)? {
                Node::File { digest, executable } => Some(Kind::Archive {
                    recorded: *digest,
                    executable: *executable,
                    names: names.iter().map(|name| record.paths.name(*name).clone()).collect(),
                }),
                Node::Directory { .. } | Node::Symlink { .. } => None,
            },
            Making::Locally => None,
        }
    }

    pub(super) fn derived(&mut self, made: Vec<Made>) {
        self.deriving = false;
        for Made { row, demand, outcome } in made {
            let now = match outcome {
                Ok(New { node, blobs }) => {
                    if let Node::File { digest, .. } = &node {
                        self.made.add_file(*digest);
                    }
                    self.made.extend(blobs);
                    Now::Is(node)
                }
                Err(reason) => {
                    tracing::info!(reason, "what changed inputs make is not known");
                    Now::Lost
                }
            };
            let row_id = row;
            let row = &mut self.tables[row];
            let affected = row.adaptation.answer(&demand, now);
            self.demands.extend(row.adaptation.take_demands().into_iter().map(|demand| (row_id, demand)));
            self.touched.extend(affected.into_iter().filter_map(|id| row.acts[id.index()]));
            self.judge_anew_if_dropped(row_id);
        }
    }
}

/// Makes everything, what is the same once. Members and archives are read in one batch.
async fn make_all(blobs: Arc<dyn BlobStore>, wanted: Vec<Wanted>) -> Vec<Made> {
    let mut known: FxHashMap<(Kind, Vec<Node>), Result<New, String>> = FxHashMap::default();
    let mut forest = Forest::new();
    let files = wanted.iter().flat_map(|wanted| match &wanted.kind {
        Kind::Merge => Vec::new(),
        Kind::Archive { recorded, .. } => {
            let members = wanted.demand.of.iter().filter_map(file);
            members.chain([*recorded]).collect()
        }
    });
    let files: FxHashMap<Digest, Bytes> = readable(fetch(Arc::clone(&blobs), files.collect()).await);
    let mut made = Vec::with_capacity(wanted.len());
    for Wanted { row, demand, kind } in wanted {
        let key = (kind, demand.of.clone());
        let outcome = match known.get(&key) {
            Some(outcome) => outcome.clone(),
            None => {
                let outcome = match &key.0 {
                    Kind::Merge => merge(&blobs, &mut forest, &demand.of).await,
                    Kind::Archive { recorded, executable, names } => {
                        archive(blobs.digest_function(), &files, *recorded, names, &demand.of).map(|blob| {
                            let node = Node::File { digest: blob.digest(), executable: *executable };
                            New { node, blobs: vec![blob] }
                        })
                    }
                };
                known.insert(key, outcome.clone());
                outcome
            }
        };
        made.push(Made { row, demand, outcome });
    }
    made
}

async fn merge(blobs: &Arc<dyn BlobStore>, forest: &mut Forest, of: &[Node]) -> Result<New, String> {
    let mut roots = Vec::with_capacity(of.len());
    for node in of {
        match node {
            Node::Directory { digest } => roots.push(*digest),
            Node::File { .. } | Node::Symlink { .. } => return Err("an artifact is no directory".to_owned()),
        }
    }
    let mut merge = Merge::new(blobs.digest_function(), roots);
    while !merge.is_done() {
        let needs = merge.needs(forest);
        for (digest, bytes) in fetch(Arc::clone(blobs), needs).await {
            let bytes = bytes.map_err(|skip| format!("a directory of an artifact: {skip}"))?;
            let directory = Directory::parse(bytes);
            forest.insert(digest, directory.map_err(|error| format!("directory {digest} of an artifact: {error}"))?);
        }
        merge.advance(forest);
    }
    let merged = merge.finish(forest).map_err(|error| error.to_string())?;
    Ok(New { node: Node::Directory { digest: merged.root }, blobs: merged.directories })
}

/// The archive that is made of these members as the recorded one was of its own.
fn archive(
    function: DigestFunction,
    files: &FxHashMap<Digest, Bytes>,
    recorded: Digest,
    names: &[Bytes],
    of: &[Node],
) -> Result<Blob, String> {
    let read = |digest: &Digest| files.get(digest).ok_or_else(|| format!("{digest} cannot be read"));
    let mut members = Vec::with_capacity(of.len());
    for (name, node) in names.iter().zip(of) {
        let digest = file(node).ok_or_else(|| "a member is no file".to_owned())?;
        members.push((&name[..], &read(&digest)?[..]));
    }
    let recipe = archive::Recipe::of(read(&recorded)?).map_err(|error| error.to_string())?;
    let recipe = recipe.ok_or_else(|| format!("it is not known how archive {recorded} was written"))?;
    Ok(Blob::new(function, recipe.replay(&members).map_err(|error| error.to_string())?))
}

fn file(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } => Some(*digest),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    }
}

fn readable(fetched: Fetched) -> FxHashMap<Digest, Bytes> {
    let readable = fetched.into_iter().filter_map(|(digest, bytes)| match bytes {
        Ok(bytes) => Some((digest, bytes)),
        Err(skip) => {
            tracing::warn!(%digest, reason = %skip, "something to make inputs of cannot be read");
            None
        }
    });
    readable.collect()
}
