//! Deriving the record of one element.

use cas_client::Result;
use overlay::derive::{Dependency, DeriveError, Deriver, Observed, Observing};
use overlay::graph::Element;
use overlay::{Missing, Mode, Prefetch, Record};
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::contents::read_contents;
use crate::generator::Generator;
use crate::keep_alive::Base;
use crate::messages::{Candidate, read_actions};
use crate::own_root::own_root;
use crate::random::random_name;
use crate::results::{Expanded, Made, expand, fetch_results, read_output_directories};
use crate::run::{Listing, Run};
use crate::stale::{Current, Ran, Stale, stale};
use crate::stopwatch::Stopwatch;
use crate::{ElementReport, SkipReason, Skipped};

/// A record that has an action.
pub(crate) struct Derived {
    pub(crate) record: Record,
    pub(crate) bases: Vec<Base>,
}

impl Run<'_> {
    /// The record of these actions, or `None` if no action can be used. Only
    /// a failure of the store as a whole is an error.
    pub(crate) async fn derive(
        &mut self,
        element: &Element,
        listing: Listing,
        report: &mut ElementReport,
    ) -> Result<Option<Derived>> {
        let mut watch = Stopwatch::start();
        let Generator { blobs, budget, mode, .. } = self.generator;
        let store = &**blobs;
        self.directories.trim();
        let mut candidates = read_actions(store, budget, listing.subactions, &mut report.skipped).await?;
        candidates.retain(|candidate| {
            let Some(name) = random_name(&candidate.command) else { return true };
            let reason = SkipReason::RandomName(name);
            report.skipped.push(Skipped { action: candidate.subaction.action, reason });
            false
        });
        let (mut candidates, mut made) = self.with_results(candidates, report).await;
        self.refuse_trees(&mut candidates, &mut made, report).await?;
        let tree_roots = read_output_directories(store, budget, &mut self.directories, &made).await?;

        let dependencies = self.dependencies(element);
        let own_root = own_root(element, candidates.iter().map(|c| c.command.working_directory()));
        let roots = candidates.iter().map(|c| c.action.input_root_digest());
        let artifacts = dependencies.iter().filter_map(|d| d.artifact);
        let prefetch = Prefetch::new(roots, artifacts, element.sources, &own_root);
        self.directories.read_beside(store, prefetch).await?;
        report.timings.fetch += watch.lap();

        let platforms = self.platforms(element, candidates.iter().map(|c| &c.action)).await?;
        let observing = Observing {
            name: element.name.clone(),
            weak_key: element.weak_key.clone(),
            configuration: element.configuration.clone(),
            sources: element.sources,
            artifact: element.artifact,
            own_root: own_root.clone(),
            platforms,
        };
        let mut deriver = Deriver::new(*mode, self.graph.digest_function(), observing, dependencies);
        deriver.know_path_counts(self.directories.take_path_counts());
        let mut bases = Vec::new();
        let expanded: Vec<Expanded> = (made.iter())
            .map(|made| {
                let outputs = if let Made::Known { outputs, .. } = made { outputs.as_slice() } else { &[] };
                expand(outputs, &tree_roots, &self.directories, budget)
            })
            .collect();
        let verdicts = self.stale(element, &own_root, &candidates, &expanded, &listing.last);
        for (((candidate, made), expanded), stale) in candidates.into_iter().zip(made).zip(expanded).zip(verdicts) {
            let Candidate { subaction, action, command } = candidate;
            if let Some(Stale { path, superseded_by }) = stale {
                let reason = SkipReason::Stale { path, superseded_by };
                report.skipped.push(Skipped { action: subaction.action, reason });
                continue;
            }
            let duration = if let Made::Known { duration, .. } = made { duration } else { None };
            report.unread_outputs += expanded.unread;
            let base = Base {
                action: subaction.action,
                command: action.command_digest(),
                input_root: action.input_root_digest(),
            };
            let output_bytes = matches!(made, Made::Known { .. }).then_some(expanded.bytes);
            let base_digest = subaction.action;
            let observed =
                Observed { base: base_digest, action, command, outputs: expanded.outputs, duration, output_bytes };
            match deriver.observe(self.directories.forest(), &observed) {
                Ok(()) => bases.push(base),
                Err(error) => report.skipped.push(Skipped { action: base_digest, reason: self.skip_reason(&error) }),
            }
        }
        report.timings.derive += watch.lap();
        if bases.is_empty() {
            return Ok(None);
        }
        report.search_cut_short = !self.directories.read_whole(store, &deriver.wanted_trees()).await?;
        deriver.search(self.directories.forest());
        let contents = read_contents(store, &deriver).await?;
        report.timings.fetch += watch.lap();
        let record = deriver.finish(self.directories.forest(), &contents);
        report.timings.derive += watch.lap();
        Ok(Some(Derived { record, bases }))
    }

    /// Adds what the action cache knows, where the mode wants it, and drops
    /// the candidates that turn out not to be worth recording.
    async fn with_results(
        &mut self,
        candidates: Vec<Candidate>,
        report: &mut ElementReport,
    ) -> (Vec<Candidate>, Vec<Made>) {
        let mut made = Vec::new();
        if self.generator.mode >= Mode::IntraElement {
            made = fetch_results(&*self.generator.cache, &candidates, &mut self.report.action_cache).await;
        }
        made.resize_with(candidates.len(), || Made::Unknown);
        let mut kept = (Vec::with_capacity(candidates.len()), Vec::with_capacity(candidates.len()));
        for (candidate, made) in candidates.into_iter().zip(made) {
            let action = candidate.subaction.action;
            match made {
                Made::Nothing => report.skipped.push(Skipped { action, reason: SkipReason::NoResult }),
                Made::Unusable(reason) => report.skipped.push(Skipped { action, reason }),
                Made::Unknown | Made::Known { .. } => {
                    kept.0.push(candidate);
                    kept.1.push(made);
                }
            }
        }
        kept
    }

    /// Reads the input trees and drops the candidates whose trees are beyond the limits.
    async fn refuse_trees(
        &mut self,
        candidates: &mut Vec<Candidate>,
        made: &mut Vec<Made>,
        report: &mut ElementReport,
    ) -> Result<()> {
        let mut seen = FxHashSet::default();
        let roots = candidates.iter().map(|c| c.action.input_root_digest());
        let roots: Vec<Digest> = roots.filter(|root| seen.insert(*root)).collect();
        let refused = self.directories.read_inputs(&*self.generator.blobs, &roots).await?;
        if refused.is_empty() {
            return Ok(());
        }
        let all = std::mem::take(candidates).into_iter().zip(std::mem::take(made));
        for (candidate, result) in all {
            match refused.get(&candidate.action.input_root_digest()) {
                None => {
                    candidates.push(candidate);
                    made.push(result);
                }
                Some(reason) => {
                    report.skipped.push(Skipped { action: candidate.subaction.action, reason: reason.clone() });
                }
            }
        }
        Ok(())
    }

    /// Which candidates are left from older builds.
    fn stale(
        &self,
        element: &Element,
        own_root: &[u8],
        candidates: &[Candidate],
        expanded: &[Expanded],
        last: &FxHashMap<Digest, usize>,
    ) -> Vec<Option<Stale>> {
        let current = Current {
            forest: self.directories.forest(),
            own_root,
            sources: element.sources,
            artifacts: self.graph.staged(&element.name).iter().filter_map(|dependency| dependency.artifact).collect(),
        };
        let actions: Vec<Ran<'_>> = (candidates.iter().zip(expanded))
            .map(|(candidate, expanded)| Ran {
                action: candidate.subaction.action,
                build: candidate.subaction.build,
                last: last.get(&candidate.subaction.action).copied().unwrap_or_default(),
                input_root: candidate.action.input_root_digest(),
                command: &candidate.command,
                outputs: &expanded.outputs,
            })
            .collect();
        stale(&current, &actions)
    }

    fn dependencies(&self, element: &Element) -> Vec<Dependency> {
        let staged = self.graph.staged(&element.name).into_iter();
        let dependency = |dependency: &Element| Dependency {
            name: dependency.name.clone(),
            sources: dependency.sources,
            artifact: dependency.artifact,
            record: self.overviews.get(&dependency.name).cloned(),
        };
        staged.map(dependency).collect()
    }

    fn skip_reason(&self, error: &DeriveError) -> SkipReason {
        match error {
            DeriveError::Missing(Missing(digest)) => self.directories.reason(*digest),
            DeriveError::TooManyPaths { .. } | DeriveError::TooDeep => SkipReason::LimitExceeded(error.to_string()),
        }
    }
}
