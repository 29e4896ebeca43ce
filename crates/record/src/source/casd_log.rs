//! What BuildStream's casd logged of the builds.

use std::collections::BTreeMap;
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
/// Each log is one session, a run of `bst`, and [`Sessions`] says which of them
/// count for an element. Requires nothing but logs of level INFO, which is what
/// BuildStream writes unless it is run with `--no-verbose`.
#[derive(Clone, Debug)]
pub struct CasdLog {
    lists: FxHashMap<String, Vec<Subaction>>,
    report: AttributionReport,
}

/// The sessions in which an element came by the artifact that it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sessions {
    /// It was built from scratch: in the newest one of these, by their
    /// positions, that has an action of it. What others have belongs to other
    /// states of the element, whether they are older or newer: when it goes
    /// back to a state that is cached, nothing is built again.
    NewestOf(Vec<usize>),
    /// It was built on top of earlier builds: an incremental build runs only
    /// what changed. The newest session that has an action of it is taken for
    /// the last build; what older ones have is marked as [`Build::Earlier`].
    All,
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
    /// Attributes the actions of logs, the oldest one first, to the elements
    /// that the attributor knows. `counted` says by name which logs count for
    /// an element; for one that it lacks, the newest one that has an action of it does.
    ///
    /// # Errors
    /// Failures of the attributor's store as a whole.
    pub async fn attribute(
        attributor: &mut Attributor,
        sessions: &[Vec<LoggedAction>],
        counted: &BTreeMap<String, Sessions>,
    ) -> Result<Self> {
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
        Ok(Self { lists: by_element(sessions, &elements, counted), report })
    }

    /// How the actions were attributed.
    #[must_use]
    pub fn report(&self) -> &AttributionReport {
        &self.report
    }
}

/// The actions of each element in the sessions that count for it, oldest
/// session first, those of the newest one marked as its last build.
fn by_element(
    sessions: &[Vec<LoggedAction>],
    elements: &FxHashMap<Digest, Vec<String>>,
    counted: &BTreeMap<String, Sessions>,
) -> FxHashMap<String, Vec<Subaction>> {
    let mut lists: FxHashMap<String, Vec<Subaction>> = FxHashMap::default();
    // Newest first, each list reversed in the end.
    for (row, session) in sessions.iter().enumerate().rev() {
        let built: FxHashSet<String> = lists.keys().cloned().collect();
        for LoggedAction { action, .. } in session.iter().rev() {
            for name in elements.get(action).into_iter().flatten() {
                let build = match (counted.get(name), built.contains(name)) {
                    (Some(Sessions::NewestOf(rows)), _) if !rows.contains(&row) => continue,
                    (Some(Sessions::NewestOf(_)) | None, true) => continue,
                    (Some(Sessions::All), true) => Build::Earlier,
                    (_, false) => Build::Last,
                };
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
    fn check(sessions: &[&[&str]], element: &str, counted: Option<Sessions>, expected: &[(&str, Build)]) {
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
        let counted = counted.map(|counted| (element.to_owned(), counted)).into_iter().collect();
        let lists = by_element(&sessions, &elements, &counted);
        let found: Vec<_> = lists.get(element).into_iter().flatten().map(|s| (s.action, s.build)).collect();
        assert_eq!(found, expected.iter().map(|(name, build)| (action(name), *build)).collect::<Vec<_>>());
    }

    const SESSIONS: &[&[&str]] = &[&["a1", "a2", "b1"], &["a1", "a3", "c1"], &["b2", "b1"], &[]];

    #[test]
    fn of_incremental_builds_all_sessions_count_and_the_newest_is_the_last_build() {
        use Build::{Earlier, Last};
        let all = || Some(Sessions::All);
        check(SESSIONS, "a", all(), &[("a1", Earlier), ("a2", Earlier), ("a1", Last), ("a3", Last)]);
        check(SESSIONS, "b", all(), &[("b1", Earlier), ("b2", Last), ("b1", Last)]);
        check(SESSIONS, "c", all(), &[("c1", Last)]);
        check(SESSIONS, "d", all(), &[]);
    }

    #[test]
    fn of_a_build_from_scratch_one_session_counts() {
        use Build::Last;
        check(SESSIONS, "a", None, &[("a1", Last), ("a3", Last)]);
        check(SESSIONS, "b", None, &[("b2", Last), ("b1", Last)]);
        check(SESSIONS, "d", None, &[]);
    }

    /// Three states of an element, then the first one again: its artifact is
    /// cached, so nothing runs, and the newest session says what another state ran.
    #[test]
    fn a_newer_build_of_another_state_does_not_count() {
        use Build::Last;
        let newest_of = |rows: &[usize]| Some(Sessions::NewestOf(rows.to_vec()));
        check(SESSIONS, "a", newest_of(&[0]), &[("a1", Last), ("a2", Last)]);
        check(SESSIONS, "b", newest_of(&[0, 1]), &[("b1", Last)]);
        // It was built elsewhere, or its log is gone by now.
        check(SESSIONS, "a", newest_of(&[2, 3]), &[]);
        check(SESSIONS, "a", newest_of(&[]), &[]);
    }

    #[test]
    fn an_action_may_be_of_two_elements() {
        check(&[&["ab", "b1"]], "a", None, &[("ab", Build::Last)]);
        check(&[&["ab", "b1"]], "b", None, &[("ab", Build::Last), ("b1", Build::Last)]);
    }
}
