//! Which element an action belongs to.

mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use cas_client::{ActionCache, BlobStore, Result};
use overlay::graph::{Element, Graph};
use overlay::{Prefetch, join};
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::{FxHashMap, FxHashSet};

use super::content::{OwnFiles, Score, SourceIndex};
use super::{Subaction, SubactionSource};
use crate::directories::Directories;
use crate::messages::{Candidate, read_actions};
use crate::own_root::{BUILD_ROOT, segments};
use crate::results::{Made, expand, fetch_results, read_output_directories};
use crate::{Budget, Skipped};

use rule::{Decision, Directory, Facts, decide};
pub use rule::{Grounds, Placement};

/// Actions whose messages are held at once, at about 2,000 bytes each.
const CHUNK: usize = 4096;

/// Finds the elements that actions belong to.
///
/// A log of all builds does not say which element an action is part of. In
/// this order, the first that says something decides:
///
/// 1. **Working directory.** BuildStream builds in `buildstream/PROJECT/ELEMENT`,
///    and recc passes that on as `Command.working_directory`, unless it rewrites
///    paths. One below another element's name is no element's of this graph.
/// 2. **Listing.** The elements that a source knows to have run the action:
///    the one whose buildtree has a log of it. See [`learn`](Self::learn).
/// 3. **Content.** With path rewriting the working directory is empty and own
///    files stand at the root of the input tree. The action belongs to the
///    element that has most of its files, without those that artifacts stage:
///    at their path in the sources, or as outputs of actions that were placed
///    before. Imports, whose artifacts are their sources, run nothing. Where a
///    build root has another name, every directory on the way to the working
///    directory is tried as the element's root.
///
/// Elements that are equal in that respect share the action, unless one of
/// its files speaks against them: two elements of the same sources ran it
/// both, or would have.
#[derive(Debug)]
pub struct Attributor {
    graph: Arc<Graph>,
    blobs: Arc<dyn BlobStore>,
    cache: Option<Arc<dyn ActionCache>>,
    budget: Budget,
    /// Rows of [`Graph::elements`] by the name that the element has in its own project.
    by_name: FxHashMap<String, Vec<usize>>,
    listed: FxHashMap<Digest, Vec<usize>>,
    /// What was placed for certain: nothing that is learned later changes it.
    certain: FxHashMap<Digest, Placement>,
    /// Where placed actions put their outputs, by content.
    outputs: FxHashMap<Digest, Vec<(Vec<u8>, usize)>>,
}

impl Attributor {
    /// An attributor for the elements of `graph`, which reads messages and trees from `blobs`.
    #[must_use]
    pub fn new(graph: Arc<Graph>, blobs: Arc<dyn BlobStore>) -> Self {
        let mut by_name: FxHashMap<String, Vec<usize>> = FxHashMap::default();
        for (row, element) in graph.elements().enumerate() {
            by_name.entry(local_name(element).to_owned()).or_default().push(row);
        }
        let (listed, certain, outputs) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        Self { graph, blobs, cache: None, budget: Budget::default(), by_name, listed, certain, outputs }
    }

    /// Goes on with another state of the same elements: their sources and
    /// artifacts may differ, while what was placed stays where it is. With
    /// other elements it begins anew.
    pub fn set_graph(&mut self, graph: Arc<Graph>) {
        let names = |graph: &Graph| graph.elements().map(|element| element.name.clone()).collect::<Vec<_>>();
        if names(&graph) == names(&self.graph) {
            self.graph = graph;
            return;
        }
        let fresh = Self::new(graph, Arc::clone(&self.blobs)).with_budget(self.budget);
        *self = Self { cache: self.cache.take(), ..fresh };
    }

    /// Asks `cache` for the outputs of actions that no working directory
    /// places; without them, links that have no sources as inputs are not explained.
    #[must_use]
    pub fn with_action_cache(mut self, cache: Arc<dyn ActionCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What the work on one call of [`place`](Self::place) may cost.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The elements that it knows.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Takes a source's lists as evidence of which element ran what. One
    /// element that the source fails for leaves the others; the failures are
    /// returned, by the element's name.
    pub async fn learn(&mut self, source: &dyn SubactionSource) -> Vec<(String, cas_client::Error)> {
        let mut failures = Vec::new();
        for (row, element) in self.graph.elements().enumerate() {
            match source.subactions(element).await {
                Ok(listed) => {
                    for subaction in listed.into_iter().flatten() {
                        let rows = self.listed.entry(subaction.action).or_default();
                        if !rows.contains(&row) {
                            rows.push(row);
                        }
                    }
                }
                Err(error) => failures.push((element.name.clone(), error)),
            }
        }
        failures
    }

    /// Places actions, given in the order in which they ran. Answers in that
    /// order, one for each distinct action.
    ///
    /// What is placed is remembered as evidence for the actions of later
    /// calls, and what a working directory places costs nothing when it is
    /// asked for again. Actions and Commands are read in batches; input trees, results
    /// and sources only where working directory and listings say nothing.
    ///
    /// # Errors
    /// Failures of the store as a whole; nothing is remembered of the call's last batch then.
    pub async fn place(&mut self, actions: &[Digest]) -> Result<Vec<(Digest, Placement)>> {
        let mut seen = FxHashSet::default();
        let distinct: Vec<Digest> = actions.iter().filter(|action| seen.insert(**action)).copied().collect();
        let open: Vec<Digest> = distinct.iter().filter(|action| !self.certain.contains_key(*action)).copied().collect();
        let mut placements = FxHashMap::default();
        for chunk in open.chunks(CHUNK) {
            placements.extend(self.place_chunk(chunk).await?);
        }
        let placed = distinct.into_iter().map(|action| {
            let placement = placements.remove(&action).or_else(|| self.certain.get(&action).cloned());
            (action, placement.unwrap_or_else(|| Placement::Unusable(crate::messages::unanswered(action))))
        });
        Ok(placed.collect())
    }

    async fn place_chunk(&mut self, actions: &[Digest]) -> Result<FxHashMap<Digest, Placement>> {
        let mut skipped = Vec::new();
        let subactions = actions.iter().copied().map(Subaction::from).collect();
        let candidates = read_actions(&*self.blobs, &self.budget, subactions, &mut skipped).await?;
        let mut placements = FxHashMap::default();
        let mut silent = Vec::new();
        for candidate in candidates {
            let action = candidate.subaction.action;
            let directory = self.directory(candidate.command.working_directory());
            let listed = self.listed.get(&action).map_or(&[][..], Vec::as_slice);
            let certain = match &directory {
                Directory::Named(rows) => rows.len() == 1,
                Directory::Foreign => true,
                Directory::Silent => false,
            };
            if certain {
                let decision = decide(&Facts { directory, listed, scores: Vec::new() });
                let placement = self.placement(decision);
                self.certain.insert(action, placement.clone());
                placements.insert(action, placement);
            } else {
                silent.push((candidate, directory));
            }
        }
        self.place_silent(silent, &mut placements, &mut skipped).await?;
        placements.extend(skipped.into_iter().map(|s| (s.action, Placement::Unusable(s.reason))));
        Ok(placements)
    }

    /// Places what the working directory does not place.
    async fn place_silent(
        &mut self,
        silent: Vec<(Candidate, Directory)>,
        placements: &mut FxHashMap<Digest, Placement>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<()> {
        if silent.is_empty() {
            return Ok(());
        }
        let (candidates, directories): (Vec<Candidate>, Vec<Directory>) = silent.into_iter().unzip();
        let store = Arc::clone(&self.blobs);
        let mut made: Vec<Made> = Vec::new();
        if let Some(cache) = &self.cache {
            let mut unavailable = None;
            made = fetch_results(&**cache, &candidates, &mut unavailable).await;
            if let Some(error) = unavailable {
                tracing::warn!(%cache, %error, "actions are attributed without their outputs");
            }
        }
        made.resize_with(candidates.len(), || Made::Unknown);
        let mut trees = Directories::new(store.digest_function(), self.budget.trees);
        let roots: Vec<Digest> = candidates.iter().map(|c| c.action.input_root_digest()).collect();
        let refused = trees.read_inputs(&*store, &roots).await?;
        let tree_roots = read_output_directories(&*store, &self.budget, &mut trees, &made).await?;
        // What an import has is staged as it is; it runs nothing.
        let builds = |element: &Element| element.sources != element.artifact;
        let sources: Vec<(usize, Digest)> = (self.graph.elements().enumerate())
            .filter(|(_, element)| builds(element))
            .filter_map(|(row, element)| Some((row, element.sources?)))
            .collect();
        let artifacts: Vec<Digest> = self.graph.elements().filter_map(|element| element.artifact).collect();
        let beside = artifacts.iter().chain(sources.iter().map(|(_, root)| root)).copied();
        trees.read_beside(&*store, Prefetch::new(own_roots(&trees, &candidates), beside, None, b"")).await?;

        let index = SourceIndex::new(trees.forest(), &sources);
        let mut own = OwnFiles::new(trees.forest(), artifacts);
        for (i, candidate) in candidates.iter().enumerate() {
            let action = candidate.subaction.action;
            if let Some(reason) = refused.get(&roots[i]) {
                skipped.push(Skipped { action, reason: reason.clone() });
                continue;
            }
            let listed = self.listed.get(&action).map_or(&[][..], Vec::as_slice);
            let scores = if listed.is_empty() { self.scores(candidate, &mut own, &index) } else { Vec::new() };
            let decision = decide(&Facts { directory: directories[i].clone(), listed, scores });
            if let (Decision::Rows(rows, _), Made::Known { outputs, .. }) = (&decision, &made[i]) {
                let outputs = expand(outputs, &tree_roots, &trees, &self.budget).outputs;
                self.remember(candidate.command.working_directory(), &outputs, rows);
            }
            placements.insert(action, self.placement(decision));
        }
        Ok(())
    }

    /// How much of an action's own files each element has, as sources or as outputs of what was placed before.
    fn scores(&self, candidate: &Candidate, own: &mut OwnFiles<'_>, index: &SourceIndex<'_>) -> Vec<(usize, Score)> {
        let files: Vec<(Vec<u8>, Digest)> = (own.of(candidate.action.input_root_digest()).iter())
            .map(|(path, digest)| (own.path(*path), *digest))
            .collect();
        let mut best: FxHashMap<usize, Score> = FxHashMap::default();
        for root in roots_above(candidate.command.working_directory()) {
            let mut scores: FxHashMap<usize, Score> = FxHashMap::default();
            for (path, digest) in &files {
                let Some(below) = path.strip_prefix(root.as_slice()) else { continue };
                for (row, matching) in index.find(below, *digest) {
                    let score = scores.entry(row).or_default();
                    score.known += 1;
                    score.matching += usize::from(matching);
                }
            }
            for (row, score) in scores {
                let known = best.entry(row).or_default();
                *known = score.max(*known);
            }
        }
        for (path, digest) in &files {
            for (place, row) in self.outputs.get(digest).into_iter().flatten() {
                if place == path {
                    let score = best.entry(*row).or_default();
                    score.known += 1;
                    score.matching += 1;
                }
            }
        }
        let mut scores: Vec<(usize, Score)> = best.into_iter().collect();
        scores.sort_unstable_by_key(|(row, _)| *row);
        scores
    }

    fn remember(&mut self, working_directory: &[u8], outputs: &[(Bytes, Node)], rows: &[usize]) {
        for (path, node) in outputs {
            let (Node::File { digest, .. }, Some(place)) = (node, join(working_directory, path)) else { continue };
            if digest.is_empty() {
                continue;
            }
            let known = self.outputs.entry(*digest).or_default();
            for row in rows {
                let output = (place.clone(), *row);
                if !known.contains(&output) {
                    known.push(output);
                }
            }
        }
    }

    fn directory(&self, working_directory: &[u8]) -> Directory {
        let mut rest = segments(working_directory);
        if rest.next() != Some(BUILD_ROOT) {
            return Directory::Silent;
        }
        let Some(project) = rest.next() else { return Directory::Silent };
        let mut name = String::new();
        let mut found = Directory::Silent;
        for segment in rest {
            if found == Directory::Silent {
                found = Directory::Foreign;
            }
            let Ok(segment) = std::str::from_utf8(segment) else { break };
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(segment);
            let rows = self.by_name.get(&name).into_iter().flatten().copied();
            let of_project = |row: &usize| {
                let project_of = self.graph.elements().nth(*row).and_then(|e| e.project.as_ref());
                project_of.is_none_or(|of| of.as_bytes() == project)
            };
            let rows: Vec<usize> = rows.filter(of_project).collect();
            // The longest name wins: `a.bst` may be a directory of elements, too.
            if !rows.is_empty() {
                found = Directory::Named(rows);
            }
        }
        found
    }

    fn placement(&self, decision: Decision) -> Placement {
        match decision {
            Decision::Rows(rows, grounds) => {
                let name = |row: usize| self.graph.elements().nth(row).map(|e| e.name.clone());
                Placement::Elements(rows.into_iter().filter_map(name).collect(), grounds)
            }
            Decision::Elsewhere => Placement::Elsewhere,
            Decision::Ambiguous => Placement::Ambiguous,
            Decision::Unexplained => Placement::Unexplained,
        }
    }
}

/// An element of another project is named `JUNCTION:ELEMENT`; its project does not know the junction.
fn local_name(element: &Element) -> &str {
    element.name.rsplit(':').next().unwrap_or_default()
}

/// The working directory and those above it, as prefixes of the paths below them.
fn roots_above(working_directory: &[u8]) -> Vec<Vec<u8>> {
    let mut roots = vec![Vec::new()];
    let mut root = Vec::new();
    for segment in segments(working_directory) {
        root.extend_from_slice(segment);
        root.push(b'/');
        roots.push(root.clone());
    }
    roots
}

/// The directories of input trees that may be an element's root.
fn own_roots(trees: &Directories, candidates: &[Candidate]) -> Vec<Digest> {
    let mut found = Vec::new();
    for candidate in candidates {
        let mut at = candidate.action.input_root_digest();
        found.push(at);
        for segment in segments(candidate.command.working_directory()) {
            match trees.forest().get(&at).and_then(|directory| directory.get(segment)) {
                Some(Node::Directory { digest }) => at = digest,
                _ => break,
            }
            found.push(at);
        }
    }
    found
}
