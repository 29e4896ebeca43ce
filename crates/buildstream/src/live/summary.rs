//! What a primed build came to.

use std::collections::BTreeMap;
use std::time::Duration;

use instantiate::{ExecutionReport, RecordReport, Report};
use reapi_proto::Digest;
use record::LoggedOutcome;
use rustc_hash::{FxHashMap, FxHashSet};

/// An action that the build asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The Action message's digest.
    pub action: Digest,
    /// What became of it.
    pub outcome: LoggedOutcome,
    /// The elements that it belongs to; none where that is not known.
    pub elements: Vec<String>,
}

/// What a build asked for and what priming had done about it, per element.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Elements that ran actions or for which actions were primed, in the order of the report, then by name.
    pub elements: Vec<ElementSummary>,
    /// Sums over all elements. An action of several elements counts for each.
    pub total: ElementSummary,
}

/// What became of one element.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ElementSummary {
    /// The element's name; empty in a sum, and for actions that belong to no known element.
    pub name: String,
    /// Distinct actions that its build asked for.
    pub actions: u64,
    /// Of these: found in the action cache without our doing.
    pub direct_hits: u64,
    /// Of these: found there because they were primed.
    pub primed_hits: u64,
    /// Of these: not found, and executed by the build.
    pub executed: u64,
    /// Actions that priming executed for an element that was built, and that the build did not find in the cache:
    /// it did not ask for them, or asked before they were done.
    pub wasted: u64,
    /// Sum of the recorded durations of the primed hits.
    pub saved: Duration,
    /// Recorded actions that were not predicted or not primed, by kind of reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Why no record of the element was used.
    pub no_record: Option<String>,
}

impl Summary {
    /// Puts what the build asked for beside what priming did. `report` is
    /// `None` where nothing was primed at all.
    #[must_use]
    pub fn new(asked: &[Asked], report: Option<&Report>) -> Self {
        let mut rows = Rows::default();
        let mut primed: FxHashMap<Digest, Option<Duration>> = FxHashMap::default();
        for element in report.iter().flat_map(|report| &report.elements) {
            rows.of(&element.name).no_record = match &element.record {
                RecordReport::None(skip) => Some(skip.to_string()),
                RecordReport::Exact | RecordReport::Nearest | RecordReport::Current => None,
            };
            for action in &element.actions {
                if let Some(kind) = action.skip {
                    *rows.of(&element.name).skipped.entry(kind.name()).or_default() += 1;
                }
                if action.execution == ExecutionReport::Executed {
                    primed.insert(action.adapted.unwrap_or(action.base), action.recorded_duration);
                }
            }
        }
        let nobody = [String::new()];
        let mut found: FxHashSet<Digest> = FxHashSet::default();
        let mut built: FxHashSet<&str> = FxHashSet::default();
        for Asked { action, outcome, elements } in asked {
            let elements = if elements.is_empty() { &nobody[..] } else { elements };
            // Without an answer in the log, what no execution follows was found.
            let hit = matches!(outcome, LoggedOutcome::Hit | LoggedOutcome::Asked);
            if hit {
                found.insert(*action);
            }
            for element in elements {
                built.insert(element);
                let row = rows.of(element);
                row.actions += 1;
                match primed.get(action).filter(|_| hit) {
                    Some(duration) => {
                        row.primed_hits += 1;
                        row.saved += duration.unwrap_or_default();
                    }
                    None if hit => row.direct_hits += 1,
                    None => row.executed += 1,
                }
            }
        }
        for element in report.iter().flat_map(|report| &report.elements) {
            if !built.contains(element.name.as_str()) {
                continue;
            }
            let executed = element.actions.iter().filter(|action| action.execution == ExecutionReport::Executed);
            let digests: FxHashSet<Digest> = executed.map(|action| action.adapted.unwrap_or(action.base)).collect();
            rows.of(&element.name).wasted += digests.difference(&found).count() as u64;
        }
        rows.into_summary()
    }
}

#[derive(Default)]
struct Rows {
    elements: Vec<ElementSummary>,
    numbers: FxHashMap<String, usize>,
}

impl Rows {
    fn of(&mut self, name: &str) -> &mut ElementSummary {
        let row = match self.numbers.get(name) {
            Some(row) => *row,
            None => {
                self.numbers.insert(name.to_owned(), self.elements.len());
                self.elements.push(ElementSummary { name: name.to_owned(), ..ElementSummary::default() });
                self.elements.len() - 1
            }
        };
        &mut self.elements[row]
    }

    fn into_summary(self) -> Summary {
        let mut total = ElementSummary::default();
        let of_interest = |row: &ElementSummary| row.actions + row.wasted > 0 || !row.skipped.is_empty();
        for row in &self.elements {
            total.actions += row.actions;
            total.direct_hits += row.direct_hits;
            total.primed_hits += row.primed_hits;
            total.executed += row.executed;
            total.wasted += row.wasted;
            total.saved += row.saved;
            for (kind, count) in &row.skipped {
                *total.skipped.entry(kind).or_default() += count;
            }
        }
        Summary { elements: self.elements.into_iter().filter(of_interest).collect(), total }
    }
}

#[cfg(test)]
mod tests {
    use instantiate::{ActionReport, ElementReport, Outcome, SkipKind, Totals};

    use super::*;
    use crate::artifact::tests::sha;

    fn action(base: &str, adapted: Option<&str>, execution: ExecutionReport) -> ActionReport {
        ActionReport {
            base: sha(base),
            outcome: if adapted.is_some() { Outcome::Adapted } else { Outcome::Unchanged },
            adapted: adapted.map(sha),
            reason: None,
            skip: None,
            guess: false,
            confidence: None,
            execution,
            recorded_duration: Some(Duration::from_secs(3)),
        }
    }

    fn report(elements: Vec<(&str, Vec<ActionReport>)>) -> Report {
        let elements = elements.into_iter().map(|(name, actions)| ElementReport {
            name: name.to_owned(),
            record: RecordReport::Exact,
            actions,
        });
        Report { elements: elements.collect(), totals: Totals::default() }
    }

    fn asked(action: &str, outcome: LoggedOutcome, element: &str) -> Asked {
        Asked { action: sha(action), outcome, elements: vec![element.to_owned()] }
    }

    #[test]
    fn hits_are_ours_only_where_we_executed() {
        let report = report(vec![
            (
                "app",
                vec![
                    action("a", Some("a2"), ExecutionReport::Executed),
                    action("b", None, ExecutionReport::Cached),
                    action("c", Some("c2"), ExecutionReport::Executed),
                    action("d", Some("d2"), ExecutionReport::Executed),
                    ActionReport {
                        outcome: Outcome::Dropped,
                        skip: Some(SkipKind::InputLost),
                        ..action("e", None, ExecutionReport::NotRun)
                    },
                ],
            ),
            ("later", vec![action("f", Some("f2"), ExecutionReport::Executed)]),
        ]);
        let asked = [
            asked("a2", LoggedOutcome::Hit, "app"),
            asked("b", LoggedOutcome::Hit, "app"),
            // In time for nobody: the build executed it as well.
            asked("c2", LoggedOutcome::Executed, "app"),
            asked("x", LoggedOutcome::Missed, "app"),
        ];
        let summary = Summary::new(&asked, Some(&report));
        let [app] = &summary.elements[..] else { panic!("{summary:?}") };
        assert_eq!((app.actions, app.direct_hits, app.primed_hits, app.executed), (4, 1, 1, 2));
        assert_eq!(app.wasted, 2, "c2 and d2; the element that was not built may still ask for f2");
        assert_eq!(app.saved, Duration::from_secs(3));
        assert_eq!(app.skipped, BTreeMap::from([("input-lost", 1)]));
        assert_eq!(summary.total.actions, 4);
    }

    #[test]
    fn a_build_without_priming_has_a_summary_too() {
        let asked = [
            asked("a", LoggedOutcome::Asked, "app"),
            Asked { elements: vec![], ..asked("b", LoggedOutcome::Executed, "") },
        ];
        let summary = Summary::new(&asked, None);
        let counts: Vec<_> = summary.elements.iter().map(|e| (e.name.as_str(), e.direct_hits, e.executed)).collect();
        assert_eq!(counts, [("app", 1, 0), ("", 0, 1)]);
        assert_eq!(Summary::new(&[], None), Summary::default());
    }
}
