//! How a build is reported.

use std::process::ExitStatus;

use buildstream::live::ElementSummary;
use serde_json::{Value, json};

use super::session::Ended;
use crate::failure::Failure;
use crate::output;

/// A build that is over.
pub(super) struct Outcome {
    /// What went on beside it, if anything did.
    pub(super) ended: Option<Ended>,
    /// Why nothing did.
    pub(super) without: Option<String>,
    pub(super) status: ExitStatus,
}

impl Outcome {
    /// Why nothing was primed.
    fn unprimed(&self) -> Option<&str> {
        self.ended.as_ref().map_or(self.without.as_deref(), |ended| ended.unprimed.as_deref())
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let Some(ended) = &self.ended else { return Vec::new() };
        let mut rows: Vec<Row<'_>> =
            ended.summary.elements.iter().map(|summary| Row::new(summary.clone(), ended)).collect();
        for (name, record) in &ended.records {
            // Elements that run no actions have nothing to record.
            if !matches!(record, Ok(None)) && rows.iter().all(|row| row.summary.name != *name) {
                rows.push(Row::new(ElementSummary { name: name.clone(), ..ElementSummary::default() }, ended));
            }
        }
        rows
    }
}

/// One element.
struct Row<'a> {
    summary: ElementSummary,
    record: Option<String>,
    not_recorded: Option<&'a Failure>,
}

impl<'a> Row<'a> {
    fn new(summary: ElementSummary, ended: &'a Ended) -> Self {
        let (record, not_recorded) = match ended.records.get(&summary.name) {
            Some(Ok(record)) => (record.map(|digest| digest.to_string()), None),
            Some(Err(failure)) => (None, Some(failure)),
            None => (None, None),
        };
        Self { summary, record, not_recorded }
    }
}

pub(super) fn print(outcome: &Outcome, as_json: bool) -> Result<(), Failure> {
    if as_json { output::print_json(&json(outcome)) } else { tables(outcome) }
}

fn json(outcome: &Outcome) -> Value {
    let skipped = |summary: &ElementSummary| -> Vec<Value> {
        summary.skipped.iter().map(|(reason, count)| json!({ "reason": reason, "actions": count })).collect()
    };
    let counts = |summary: &ElementSummary| {
        json!({
            "actions": summary.actions,
            "direct_hits": summary.direct_hits,
            "primed_hits": summary.primed_hits,
            "executed": summary.executed,
            "wasted": summary.wasted,
            "seconds_saved": summary.saved.as_secs_f64(),
            "skipped": skipped(summary),
        })
    };
    let elements: Vec<Value> = (outcome.rows().iter())
        .map(|row| {
            let mut value = counts(&row.summary);
            value["name"] = row.summary.name.clone().into();
            value["no_record"] = row.summary.no_record.clone().into();
            value["recorded"] = row.record.clone().into();
            value["not_recorded"] = row.not_recorded.map(Failure::summary).into();
            value
        })
        .collect();
    let totals = outcome.ended.as_ref().map(|ended| ended.summary.total.clone()).unwrap_or_default();
    let mut totals = counts(&totals);
    totals["pushed"] = outcome.ended.as_ref().map_or(0, |ended| ended.pushed).into();
    json!({
        "elements": elements,
        "totals": totals,
        "unprimed": outcome.unprimed(),
        "status": outcome.status.code(),
    })
}

fn tables(outcome: &Outcome) -> Result<(), Failure> {
    let rows = outcome.rows();
    if !rows.is_empty() {
        let heads =
            ["element", "actions", "direct hits", "primed hits", "executed", "wasted", "seconds saved", "record"];
        let mut table = output::table(&heads, 1);
        let mut add = |summary: &ElementSummary, name: &str, record: &str| {
            table.add_row([
                name.to_owned(),
                summary.actions.to_string(),
                summary.direct_hits.to_string(),
                summary.primed_hits.to_string(),
                summary.executed.to_string(),
                summary.wasted.to_string(),
                format!("{:.1}", summary.saved.as_secs_f64()),
                record.to_owned(),
            ]);
        };
        for row in &rows {
            let name = if row.summary.name.is_empty() { "(of no element)" } else { &row.summary.name };
            let record = match (&row.record, row.not_recorded) {
                (Some(_), _) => "new",
                (None, Some(_)) => "failed",
                (None, None) => "",
            };
            add(&row.summary, name, record);
        }
        if let Some(ended) = outcome.ended.as_ref().filter(|_| rows.len() > 1) {
            add(&ended.summary.total, "total", "");
        }
        output::print(&table.trim_fmt())?;
    }
    for row in &rows {
        let name = &row.summary.name;
        if let Some(failure) = row.not_recorded {
            output::print(&format!("{name}: not recorded: {}", failure.summary()))?;
        }
        if let Some(reason) = row.summary.no_record.as_ref().filter(|_| row.summary.executed > 0) {
            output::print(&format!("{name}: not primed: {reason}"))?;
        }
        for (reason, count) in &row.summary.skipped {
            output::print(&format!("{name}: {count} recorded actions not primed: {reason}"))?;
        }
    }
    if let Some(reason) = outcome.unprimed() {
        output::print(&format!("nothing was primed: {reason}"))?;
    } else if rows.is_empty() {
        output::print("the build ran no actions, and nothing was built")?;
    }
    match outcome.ended.as_ref().map_or(0, |ended| ended.pushed) {
        0 => Ok(()),
        pushed => output::print(&format!("{pushed} records pushed")),
    }
}
