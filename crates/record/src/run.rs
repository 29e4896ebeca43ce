//! One run over the wanted elements of a graph.

use std::sync::Arc;

use cas_client::{Blob, BlobStoreExt, Result};
use overlay::graph::{Element, Graph};
use overlay::layout::{self, ReferenceRecord, Stored};
use overlay::{ElementId, Mode, Record};
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::copies::{Unstored, embed};
use crate::derive::Derived;
use crate::directories::Directories;
use crate::generator::{Generator, Layout};
use crate::keep_alive::{Base, keep_alive, references};
use crate::messages::read_messages;
use crate::report::{ElementReport, GenerateReport, SkipReason, Skipped};
use crate::stopwatch::Stopwatch;
use crate::{Build, Subaction};

pub(crate) struct Run<'a> {
    pub(crate) generator: &'a Generator,
    pub(crate) graph: &'a Graph,
    pub(crate) directories: Directories,
    /// Unions of artifacts that were looked at, by the artifacts in staging order.
    pub(crate) unions: FxHashMap<Vec<Digest>, Option<Digest>>,
    /// What dependents see of records: those generated in this run and those stored before.
    pub(crate) overviews: FxHashMap<String, Arc<Record>>,
    /// Records that were derived to copy from, and what their actions stand on.
    unstored: Unstored,
    unstored_bases: FxHashMap<Digest, Base>,
    /// Blobs whose lifetime was extended.
    kept: FxHashSet<Digest>,
    pub(crate) report: GenerateReport,
}

impl<'a> Run<'a> {
    pub(crate) fn new(generator: &'a Generator, graph: &'a Graph) -> Self {
        Self {
            generator,
            graph,
            directories: Directories::new(graph.digest_function(), generator.budget.trees),
            unions: FxHashMap::default(),
            overviews: FxHashMap::default(),
            unstored: FxHashMap::default(),
            unstored_bases: FxHashMap::default(),
            kept: FxHashSet::default(),
            report: GenerateReport::default(),
        }
    }

    pub(crate) fn into_report(self) -> GenerateReport {
        self.report
    }

    /// Works on the wanted elements and, where records may refer to their
    /// actions, on those below them.
    pub(crate) async fn all(&mut self, wanted: &FxHashSet<&str>) -> Result<()> {
        let graph = self.graph;
        let mut below: FxHashSet<&str> = FxHashSet::default();
        if self.generator.mode == Mode::Full {
            for element in graph.elements().rev() {
                if wanted.contains(element.name.as_str()) || below.contains(element.name.as_str()) {
                    below.extend(element.build_deps.iter().flatten().map(String::as_str));
                }
            }
            below.retain(|name| !wanted.contains(name));
            self.load_records(&below).await?;
        }
        for element in graph.elements() {
            if wanted.contains(element.name.as_str()) {
                self.generate(element).await?;
            } else if below.contains(element.name.as_str()) && !self.overviews.contains_key(&element.name) {
                self.derive_to_copy(element).await?;
            }
        }
        Ok(())
    }

    /// Loads the records that dependencies have from before.
    async fn load_records(&mut self, below: &FxHashSet<&str>) -> Result<()> {
        let stored: Vec<(&Element, Digest)> = (self.graph.elements())
            .filter(|element| below.contains(element.name.as_str()))
            .filter_map(|element| Some((element, element.speculative_actions?)))
            .collect();
        let Generator { blobs, budget, .. } = self.generator;
        let mut records = read_messages(&**blobs, budget, stored.iter().map(|s| s.1), SkipReason::RecordMissing, |b| {
            match layout::decode(&b) {
                Ok(Stored::Compact(record)) => Ok(Arc::new(overview(&record))),
                Ok(Stored::Reference(_)) => {
                    Err("the reference layout does not say where artifact files are".to_owned())
                }
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        for (element, digest) in stored {
            match records.get_mut(&digest) {
                Some(Ok(record)) => {
                    self.overviews.insert(element.name.clone(), Arc::clone(record));
                }
                Some(Err(reason)) => self.report.unusable_records.push((element.name.clone(), reason.clone())),
                None => {}
            }
        }
        Ok(())
    }

    /// Derives and stores the record of a wanted element.
    async fn generate(&mut self, element: &Element) -> Result<()> {
        let mut report = ElementReport { name: element.name.clone(), ..ElementReport::default() };
        let outcome = self.generate_into(element, &mut report).await;
        log_skips(element, &report);
        self.report.elements.push(report);
        outcome
    }

    async fn generate_into(&mut self, element: &Element, report: &mut ElementReport) -> Result<()> {
        let listing = self.listing(element, report).await;
        if listing.subactions.is_empty() {
            return Ok(());
        }
        let Some(Derived { mut record, mut bases }) = self.derive(element, listing, report).await? else {
            return Ok(());
        };
        let mut watch = Stopwatch::start();
        report.actions = record.actions.len();
        if !self.unstored.is_empty() {
            let order: Vec<String> = self.graph.closure(&element.name).iter().map(|e| e.name.clone()).collect();
            let embedded = embed(&mut record, &self.unstored, &order, self.generator.budget.max_copied_actions);
            report.copies = embedded.copied.len();
            report.not_copied = embedded.left_out;
            bases.extend(embedded.copied.iter().filter_map(|base| self.unstored_bases.get(base)));
        }
        report.overlays = record.overlay_count();
        let bytes = match self.generator.layout {
            Layout::Compact => layout::encode(&record),
            Layout::Reference => ReferenceRecord::from_record(&record, self.directories.forest()).encode(),
        };
        let blob = Blob::new(self.graph.digest_function(), bytes);
        report.timings.derive += watch.lap();
        self.generator.blobs.upload_missing(std::slice::from_ref(&blob)).await?;
        report.speculative_actions = Some(blob.digest());
        report.bytes = blob.digest().size_bytes();
        report.references = references(&bases);
        let store = &*self.generator.blobs;
        report.kept = keep_alive(store, &report.references, self.directories.forest(), &mut self.kept).await;
        report.timings.store += watch.lap();
        if self.generator.mode == Mode::Full {
            self.overviews.insert(element.name.clone(), Arc::new(overview(&record)));
        }
        Ok(())
    }

    /// Derives the record of an element that has none and will have none, for others to copy from.
    async fn derive_to_copy(&mut self, element: &Element) -> Result<()> {
        let mut report = ElementReport::default();
        let listing = self.listing(element, &mut report).await;
        if listing.subactions.is_empty() {
            return Ok(());
        }
        if self.report.derived >= self.generator.budget.max_derived_dependencies {
            self.report.not_derived += 1;
            return Ok(());
        }
        self.report.derived += 1;
        let derived = self.derive(element, listing, &mut report).await?;
        log_skips(element, &report);
        if let Some(Derived { record, bases }) = derived {
            self.unstored_bases.extend(bases.into_iter().map(|base| (base.action, base)));
            let record = Arc::new(record);
            self.overviews.insert(element.name.clone(), Arc::clone(&record));
            self.unstored.insert(element.name.clone(), record);
        }
        Ok(())
    }

    /// The element's actions, each once, as far as the budget goes.
    async fn listing(&self, element: &Element, report: &mut ElementReport) -> Listing {
        let subactions = match self.generator.source.subactions(element).await {
            Ok(listed) => {
                report.listed = listed.as_ref().map(Vec::len);
                listed.unwrap_or_default()
            }
            Err(error) => {
                tracing::warn!(element = %element.name, source = %self.generator.source, %error, "no subactions");
                report.source_failure = Some(error);
                Vec::new()
            }
        };
        let Listing { mut subactions, last } = Listing::of(subactions);
        report.listed = report.listed.map(|_| subactions.len());
        let limit = self.generator.budget.max_subactions;
        for beyond in subactions.drain(limit.min(subactions.len())..) {
            let reason = SkipReason::LimitExceeded(format!("the element has more than {limit} actions"));
            report.skipped.push(Skipped { action: beyond.action, reason });
        }
        Listing { subactions, last }
    }
}

/// What a source lists.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Each action once, in order of its first run.
    pub(crate) subactions: Vec<Subaction>,
    /// Position of its last run.
    pub(crate) last: FxHashMap<Digest, usize>,
}

impl Listing {
    fn of(list: Vec<Subaction>) -> Self {
        let mut listing = Self::default();
        let mut rows: FxHashMap<Digest, usize> = FxHashMap::default();
        for (position, subaction) in list.into_iter().enumerate() {
            listing.last.insert(subaction.action, position);
            match rows.get(&subaction.action) {
                None => {
                    rows.insert(subaction.action, listing.subactions.len());
                    listing.subactions.push(subaction);
                }
                Some(row) => {
                    let known = &mut listing.subactions[*row];
                    known.result = known.result.take().or(subaction.result);
                    if subaction.build == Build::Last {
                        known.build = Build::Last;
                    }
                }
            }
        }
        listing
    }
}

fn log_skips(element: &Element, report: &ElementReport) {
    for Skipped { action, reason } in &report.skipped {
        tracing::debug!(element = %element.name, %action, %reason, "action skipped");
    }
}

/// The part of a record that dependents look at.
fn overview(record: &Record) -> Record {
    let mut seen = Record::new(record.digest_function, record.element(ElementId::SELF).clone());
    if !record.artifact_overlays.is_empty() {
        seen.elements.clone_from(&record.elements);
        seen.paths = record.paths.clone();
        seen.origins.clone_from(&record.origins);
        seen.artifact_overlays.clone_from(&record.artifact_overlays);
    }
    seen
}
