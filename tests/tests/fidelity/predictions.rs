//! What priming says that it did, over several runs of it.

use std::collections::{BTreeMap, BTreeSet};

use reapi_proto::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::actions::{Actions, Unfolded, some_of};
use super::{Outcome, because};

#[derive(Deserialize)]
struct Report {
    elements: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    name: String,
    actions: Vec<Action>,
}

/// What became of one recorded action.
#[derive(Deserialize, Clone)]
struct Action {
    base: String,
    outcome: String,
    adapted: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    executed: bool,
    #[serde(default)]
    failed: bool,
}

/// Everything that priming said until each element was built.
#[derive(Default)]
pub(crate) struct Predictions {
    /// Actions that priming executed, and that have a result.
    executed: BTreeSet<Digest>,
    /// Actions that it executed in vain: they have none.
    failed: BTreeSet<Digest>,
    /// The last word before the element was built, by element and recorded action.
    last: BTreeMap<(String, String), Action>,
    built: BTreeSet<String>,
}

/// Why an action of the rebuild was not predicted.
pub(crate) struct Explanation {
    pub(crate) element: String,
    pub(crate) reason: String,
    pub(crate) differences: Vec<String>,
}

impl Predictions {
    /// Takes in what `prime --json` printed.
    pub(crate) fn add(&mut self, report: &Value) -> Outcome<()> {
        let report = Report::deserialize(report).map_err(because("the report of priming"))?;
        for element in report.elements {
            for action in element.actions {
                let ran = action.adapted.as_ref().unwrap_or(&action.base);
                let ran: Digest = ran.parse().map_err(because(ran))?;
                if action.executed {
                    self.executed.insert(ran);
                } else if action.failed {
                    self.failed.insert(ran);
                }
                if !self.built.contains(&element.name) {
                    self.last.insert((element.name.clone(), action.base.clone()), action);
                }
            }
        }
        Ok(())
    }

    /// The element is built: what is said of it from now on is no prediction.
    pub(crate) fn is_built(&mut self, element: &str) {
        self.built.insert(element.to_owned());
    }

    pub(crate) fn executed(&self) -> &BTreeSet<Digest> {
        &self.executed
    }

    /// What priming had executed although nobody asked for it.
    pub(crate) fn wasted(&self, requested: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        self.executed.union(&self.failed).filter(|digest| !requested.contains(digest)).copied().collect()
    }

    /// Why an action was not predicted, from what was said of the recorded
    /// action in its place: of those with the same outputs in the same
    /// directory the most similar one.
    pub(crate) fn explain(
        &self,
        actual: &Unfolded,
        requested: &BTreeSet<Digest>,
        actions: &Actions,
    ) -> Outcome<Explanation> {
        let place = actual.place();
        let mut best: Option<(usize, &str, &Action, Vec<String>)> = None;
        for ((element, base), action) in &self.last {
            let base: Digest = base.parse().map_err(because(base))?;
            let recorded = actions.read(&base)?;
            if recorded.place() != place {
                continue;
            }
            let differences = actions.differences(&recorded, actual)?;
            // One that is still asked for as it is was not replaced by another.
            let distance = differences.len() + if requested.contains(&base) { 10_000 } else { 0 };
            if best.as_ref().is_none_or(|best| distance < best.0) {
                best = Some((distance, element, action, differences));
            }
        }
        let Some((_, element, action, differences)) = best else {
            let element = place.0.split('/').nth(2).unwrap_or("?").to_owned();
            return Ok(Explanation { element, reason: "new action".into(), differences: vec![] });
        };
        let said = action.reason.as_deref().unwrap_or("no reason given");
        let (reason, differences) = match action.outcome.as_str() {
            "unchanged" => ("taken for unchanged".to_owned(), differences),
            "adapted" if action.failed => (format!("failed when primed: {said}"), differences),
            "adapted" => {
                let adapted: Digest =
                    action.adapted.as_deref().unwrap_or_default().parse().map_err(because("adapted"))?;
                match actions.read(&adapted) {
                    Ok(adapted) => {
                        let wrong = actions.differences(&adapted, actual)?;
                        let reason = if wrong.is_empty() { "adapted, but not executed" } else { "adapted wrongly" };
                        (reason.to_owned(), wrong)
                    }
                    Err(_) => ("adapted, but not stored".to_owned(), differences),
                }
            }
            other => (format!("{other}: {}", without_digests(said)), differences),
        };
        Ok(Explanation { element: element.to_owned(), reason, differences: some_of(differences) })
    }
}

/// So that equal reasons are counted together.
fn without_digests(text: &str) -> String {
    let is_digest = |word: &str| word.split('/').next().is_some_and(|hash| hash.len() == 64);
    let words = text
        .split(' ')
        .map(|word| if is_digest(word.trim_matches(|c: char| !c.is_alphanumeric())) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
