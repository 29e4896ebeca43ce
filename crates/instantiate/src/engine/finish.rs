//! The report.

use std::time::Duration;

use overlay::Standing;
use rustc_hash::FxHashMap;

use super::Priming;
use super::runs::{Ended, Stage};
use super::tables::{ActId, Gate, RowId, State};
use crate::lookup::{Fit, Loaded, Unused, Wanted};
use crate::observer::Progress;
use crate::report::{ActionReport, Confidence, ElementReport, ExecutionReport, Outcome, RecordReport, Report, Totals};
use crate::skip::SkipKind;

/// Origins that a reason names; the others are counted.
const NAMED: usize = 3;

impl Priming {
    /// What became of everything.
    pub(super) fn finish(mut self: Box<Self>, elements: &[Wanted<'_>], loaded: Vec<Result<Loaded, Unused>>) -> Report {
        // What the report does not need makes room for it.
        (self.workshop, self.inspector, self.submissions, self.made) = Default::default();
        let mut totals = std::mem::take(&mut self.totals);
        let Progress { refused, lookups, listings, .. } = self.progress;
        (totals.refused, totals.lookups, totals.listings) = (refused, lookups, listings);
        let mut rows = self.tables.row_ids();
        let mut reports = Vec::with_capacity(elements.len());
        for (Wanted { element, .. }, loaded) in elements.iter().zip(loaded) {
            let (record, actions) = match loaded {
                Err(Unused::Current) => (RecordReport::Current, Vec::new()),
                Err(Unused::Skip(skip)) => (RecordReport::None(skip), Vec::new()),
                Ok(loaded) => match rows.next() {
                    Some(row) => (self.record_report(row, &loaded), self.actions_of(row, &loaded)),
                    None => continue,
                },
            };
            let report = ElementReport { name: element.name.clone(), record, actions };
            totals.add(&report);
            reports.push(report);
        }
        Report { elements: reports, totals }
    }

    fn record_report(&self, row: RowId, loaded: &Loaded) -> RecordReport {
        match (&loaded.fit, &self.tables[row].gate) {
            (_, Gate::Closed(skip)) => RecordReport::None(skip.clone()),
            (Fit::Exact, _) => RecordReport::Exact,
            (Fit::Nearest | Fit::Undecided | Fit::Refused(_), _) => RecordReport::Nearest,
        }
    }

    fn actions_of(&self, row: RowId, loaded: &Loaded) -> Vec<ActionReport> {
        if let (Fit::Refused(_), Gate::Closed(_)) = (&loaded.fit, &self.tables[row].gate) {
            return Vec::new();
        }
        let unusable = loaded.unusable.iter().map(|(base, reason)| ActionReport {
            base: *base,
            outcome: Outcome::Dropped,
            adapted: None,
            reason: Some(reason.clone()),
            skip: Some(SkipKind::BaseMissing),
            guess: false,
            confidence: None,
            execution: ExecutionReport::NotRun,
            recorded_duration: None,
        });
        let mut waits = FxHashMap::default();
        let acts = self.tables[row].acts.iter().flatten();
        let mut reports = Vec::with_capacity(acts.clone().count() + loaded.unusable.len());
        reports.extend(acts.map(|id| self.action_report(*id, &mut waits)).chain(unusable));
        reports
    }

    fn action_report(&self, id: ActId, waits: &mut Waits) -> ActionReport {
        let act = &self.tables[id];
        let run = act.run.map(|run| &self.runs[run]);
        let (outcome, skip) = match &act.state {
            State::Waiting | State::Preparing => (Outcome::Deferred, None),
            State::Unchanged => (Outcome::Unchanged, None),
            State::Adapted => (Outcome::Adapted, None),
            State::Dropped(skip) => (Outcome::Dropped, Some(skip)),
        };
        let execution = run.map_or(ExecutionReport::NotRun, super::runs::Run::report);
        let reason = match (outcome, skip) {
            (Outcome::Deferred, _) => Some(self.waits_for(id, waits)),
            (_, Some(skip)) => Some(skip.reason.clone()),
            _ => match run.map(|run| &run.stage) {
                Some(Stage::Done(Ended::Failed(reason))) => Some(reason.clone()),
                _ => run.and_then(|run| Some(run.refusal.as_ref()?.reason.clone())),
            },
        };
        let predicted = matches!(outcome, Outcome::Adapted | Outcome::Unchanged);
        ActionReport {
            base: act.base,
            outcome,
            adapted: act.adapted,
            reason,
            skip: skip.map(|skip| skip.kind),
            guess: predicted && self.is_guess(id),
            confidence: predicted.then(|| self.confidence(id)),
            execution,
            recorded_duration: act.duration,
        }
    }

    /// Whether any input is still known from something else than what speaks for it.
    fn is_guess(&self, id: ActId) -> bool {
        let act = &self.tables[id];
        matches!(self.tables[act.row].adaptation.standing(act.id), Standing::Ready { guess: true, .. })
    }

    fn confidence(&self, id: ActId) -> Confidence {
        let act = &self.tables[id];
        match () {
            () if self.is_guess(id) => Confidence::Guess,
            () if act.learned => Confidence::Learned,
            () if self.asks.contains_key(&id) => Confidence::Listed,
            () => Confidence::Known,
        }
    }

    /// Why an action is deferred. Actions with the same input tree wait for the same.
    fn waits_for(&self, id: ActId, waits: &mut Waits) -> String {
        let act = &self.tables[id];
        let row = &self.tables[act.row];
        let record = row.adaptation.record();
        if matches!(row.gate, Gate::Undecided) {
            return "waits for the sources of its element, which decide whether the record fits".to_owned();
        }
        if let Some(what) = &act.waits {
            return format!("waits for {what}");
        }
        let action = record.action(act.id);
        let inputs =
            (action.root.map(overlay::LevelId::index), action.properties.iter().map(|p| p.input.index()).collect());
        if let Some(reason) = waits.get(&inputs) {
            return reason.clone();
        }
        let reason = match row.adaptation.standing(act.id) {
            Standing::Waiting { on } => {
                let named: Vec<String> = on.iter().take(NAMED).map(|id| record.describe(record.origin(*id))).collect();
                let more = match on.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("waits for {}{more}", named.join(", "))
            }
            Standing::Lost { .. } | Standing::Ready { .. } => "was not finished".to_owned(),
        };
        waits.insert(inputs, reason.clone());
        reason
    }
}

/// Reasons by what an action's inputs are: the root level and the properties' inputs.
type Waits = FxHashMap<(Option<usize>, Vec<usize>), String>;

impl Totals {
    fn add(&mut self, element: &ElementReport) {
        self.elements += 1;
        match &element.record {
            RecordReport::Exact | RecordReport::Nearest => self.records += 1,
            RecordReport::Current => self.current += 1,
            RecordReport::None(skip) => *self.skips.entry(skip.kind).or_default() += 1,
        }
        for action in &element.actions {
            self.actions += 1;
            *match action.outcome {
                Outcome::Unchanged => &mut self.unchanged,
                Outcome::Adapted => &mut self.adapted,
                Outcome::Deferred => &mut self.deferred,
                Outcome::Dropped => &mut self.dropped,
            } += 1;
            if let Some(kind) = action.skip {
                *self.skips.entry(kind).or_default() += 1;
            }
            let adapted = action.outcome == Outcome::Adapted;
            self.guesses += u64::from(adapted && action.guess);
            let primed = match action.execution {
                ExecutionReport::NotRun => continue,
                ExecutionReport::Cached => (&mut self.cached, true),
                ExecutionReport::Executed => (&mut self.executed, true),
                ExecutionReport::Submitted => (&mut self.submitted, false),
                ExecutionReport::Failed(_) => (&mut self.failed, false),
            };
            *primed.0 += 1;
            if adapted && primed.1 {
                self.primed = self.primed.saturating_add(action.recorded_duration.unwrap_or(Duration::ZERO));
            }
        }
    }
}
