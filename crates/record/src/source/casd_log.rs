//! What BuildStream's casd logged of the builds.

use std::fmt::{self, Display};

use async_trait::async_trait;
use cas_client::Result;
use overlay::graph::Element;
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Attributor, Build, Grounds, LoggedAction, LoggedOutcome, Placement, Subaction, SubactionSource};
use crate::SkipReason;

/// The actions in logs of casd, by element. Hits and misses alike: an element
/// whose actions were all in the action cache ran them none the less.
///
/// Each log is one session, a run of `bst`. The newest session that has an
/// action of the element is taken for its last build. What older ones have is
/// marked as [`Build::Earlier`]: an incremental build runs only what changed,
/// and one that failed stops early. Requires nothing but logs of level INFO,
/// which is what BuildStream writes unless it is run with `--no-verbose`.
#[derive(Clone, Debug)]
pub struct CasdLog {
    lists: FxHashMap<String, Vec<Subaction>>,
    report: AttributionReport,
}

/// How the actions of logs were attributed to elements.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttributionReport {
    /// Logs that were given.
    pub sessions: usize,
    /// Distinct actions in them.
    pub actions: usize,
    /// Of these: found in the action cache whenever they were asked for, as far as the logs say.
    pub hits: usize,
    /// Of these: executed at least once.
    pub executed: usize,
    /// Placed by their working directory.
    pub by_working_directory: usize,
    /// Placed by what other sources list.
    pub by_listing: usize,
    /// Placed by their inputs.
    pub by_content: usize,
    /// Part of elements outside the graph.
    pub elsewhere: usize,
    /// Between several elements.
    pub ambiguous: usize,
    /// Connected with no element.
    pub unexplained: usize,
    /// Those that cannot be looked at, and why.
    pub unusable: Vec<(Digest, SkipReason)>,
}

impl CasdLog {
    /// Attributes the actions of logs, the oldest one first, to the elements that the attributor knows.
    ///
    /// # Errors
    /// Failures of the attributor's store as a whole.
    pub async fn attribute(attributor: &mut Attributor, sessions: &[Vec<LoggedAction>]) -> Result<Self> {
        let mut report = AttributionReport { sessions: sessions.len(), ..AttributionReport::default() };
        let mut outcomes: FxHashMap<Digest, (LoggedOutcome, LoggedOutcome)> = FxHashMap::default();
        let mut order = Vec::new();
        for LoggedAction { action, outcome } in sessions.iter().flatten() {
            let (worst, best) = outcomes.entry(*action).or_insert_with(|| {
                order.push(*action);
                (*outcome, *outcome)
            });
            (*worst, *best) = ((*worst).min(*outcome), (*best).max(*outcome));
        }
        report.actions = order.len();
        report.executed = outcomes.values().filter(|(_, most)| *most == LoggedOutcome::Executed).count();
        report.hits = outcomes.values().filter(|(_, most)| *most <= LoggedOutcome::Hit).count();

        let mut elements: FxHashMap<Digest, Vec<String>> = FxHashMap::default();
        for (action, placement) in attributor.place(&order).await? {
            match placement {
                Placement::Elements(names, grounds) => {
                    *match grounds {
                        Grounds::WorkingDirectory => &mut report.by_working_directory,
                        Grounds::Listing => &mut report.by_listing,
                        Grounds::Content => &mut report.by_content,
                    } += 1;
                    elements.insert(action, names);
                }
                Placement::Elsewhere => report.elsewhere += 1,
                Placement::Ambiguous => report.ambiguous += 1,
                Placement::Unexplained => report.unexplained += 1,
                Placement::Unusable(reason) => report.unusable.push((action, reason)),
            }
        }
        let AttributionReport { ambiguous, unexplained, .. } = report;
        if ambiguous + unexplained + report.unusable.len() > 0 {
            let unusable = report.unusable.len();
            tracing::info!(ambiguous, unexplained, unusable, "logged actions belong to no element");
        }
        Ok(Self { lists: by_element(sessions, &elements), report })
    }

    /// How the actions were attributed.
    #[must_use]
    pub fn report(&self) -> &AttributionReport {
        &self.report
    }
}

/// The actions of each element, oldest session first, those of its newest one marked as its last build.
fn by_element(
    sessions: &[Vec<LoggedAction>],
    elements: &FxHashMap<Digest, Vec<String>>,
) -> FxHashMap<String, Vec<Subaction>> {
    let mut lists: FxHashMap<String, Vec<Subaction>> = FxHashMap::default();
    // Newest first, each list reversed in the end.
    for session in sessions.iter().rev() {
        let built: FxHashSet<String> = lists.keys().cloned().collect();
        for LoggedAction { action, .. } in session.iter().rev() {
            for name in elements.get(action).into_iter().flatten() {
                let build = if built.contains(name) { Build::Earlier } else { Build::Last };
                let list = lists.entry(name.clone()).or_default();
                list.push(Subaction { build, ..Subaction::from(*action) });
            }
        }
    }
    for list in lists.values_mut() {
        list.reverse();
    }
    lists
}

impl Display for CasdLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} logs of casd", self.report.sessions)
    }
}

#[async_trait]
impl SubactionSource for CasdLog {
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        Ok(self.lists.get(&element.name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use reapi_proto::DigestFunction;

    use super::*;

    fn action(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    /// Actions are named after their elements: `a1` belongs to `a`, `ab` to both.
    #[track_caller]
    fn check(sessions: &[&[&str]], element: &str, expected: &[(&str, Build)]) {
        let mut elements: FxHashMap<Digest, Vec<String>> = FxHashMap::default();
        let sessions: Vec<Vec<LoggedAction>> = (sessions.iter())
            .map(|session| {
                let logged = session.iter().map(|name| {
                    let names = name.chars().filter(char::is_ascii_lowercase).map(String::from).collect();
                    elements.insert(action(name), names);
                    LoggedAction { action: action(name), outcome: LoggedOutcome::Hit }
                });
                logged.collect()
            })
            .collect();
        let lists = by_element(&sessions, &elements);
        let found: Vec<_> = lists.get(element).into_iter().flatten().map(|s| (s.action, s.build)).collect();
        assert_eq!(found, expected.iter().map(|(name, build)| (action(name), *build)).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_session_of_each_element_is_its_last_build() {
        use Build::{Earlier, Last};
        let sessions: &[&[&str]] = &[&["a1", "a2", "b1"], &["a1", "a3", "c1"], &["b2", "b1"], &[]];
        check(sessions, "a", &[("a1", Earlier), ("a2", Earlier), ("a1", Last), ("a3", Last)]);
        check(sessions, "b", &[("b1", Earlier), ("b2", Last), ("b1", Last)]);
        check(sessions, "c", &[("c1", Last)]);
        check(sessions, "d", &[]);
    }

    #[test]
    fn an_action_may_be_of_two_elements() {
        check(&[&["ab", "b1"]], "a", &[("ab", Build::Last)]);
        check(&[&["ab", "b1"]], "b", &[("ab", Build::Last), ("b1", Build::Last)]);
    }
}
