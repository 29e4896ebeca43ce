//! Several sources as one.

use std::fmt::{self, Display};
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::{Error, Result};
use overlay::graph::{Element, Graph};
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Subaction, SubactionSource};

/// The lists of several sources, merged in order of trust.
///
/// The most trusted source that knows an element gives its list and order.
/// What a less trusted one has in addition is put in behind the action that
/// stands before it there, since logs get lost: unless a more trusted source
/// knows the action as another element's and not as this one's. Every such
/// difference is [counted](Self::counts).
#[derive(Clone, Debug)]
pub struct Combined {
    names: String,
    lists: FxHashMap<String, Vec<Subaction>>,
    counts: Vec<MergeCounts>,
    failures: Arc<Vec<MergeFailure>>,
}

/// What one source contributed, over all elements. Actions count once per element.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MergeCounts {
    /// The source.
    pub source: String,
    /// Elements that it knows.
    pub elements: usize,
    /// Actions that it lists.
    pub listed: usize,
    /// Of these: listed by a more trusted source as well.
    pub confirmed: usize,
    /// Of these: of elements that no more trusted source knows.
    pub only: usize,
    /// Of these: of elements that a more trusted source knows, without this action.
    pub added: usize,
    /// Of these: left out, as a more trusted source lists them for other elements alone.
    pub contradicted: usize,
    /// Actions of more trusted sources, of elements that this one knows, that it does not list.
    pub lacking: usize,
}

/// A source that could not say what an element ran.
#[derive(Debug)]
pub struct MergeFailure {
    /// The source.
    pub source: String,
    /// The element's name.
    pub element: String,
    /// Why.
    pub error: Error,
}

impl Combined {
    /// Asks all sources, the most trusted one first, for every element of the graph.
    ///
    /// A source that fails for an element is left out there.
    pub async fn merge(graph: &Graph, sources: &[Arc<dyn SubactionSource>]) -> Self {
        let mut merged = Merge::default();
        let (mut counts, mut failures) = (Vec::new(), Vec::new());
        for source in sources {
            let mut lists = Vec::new();
            for element in graph.elements() {
                match source.subactions(element).await {
                    Ok(Some(list)) => lists.push((element.name.as_str(), list)),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(element = %element.name, %source, %error, "a source of subactions failed");
                        let (source, element) = (source.to_string(), element.name.clone());
                        failures.push(MergeFailure { source, element, error });
                    }
                }
            }
            counts.push(MergeCounts { source: source.to_string(), ..merged.take_in(lists) });
        }
        for MergeCounts { source, added, contradicted, lacking, .. } in &counts {
            if added + contradicted + lacking > 0 {
                tracing::info!(%source, added, contradicted, lacking, "sources of subactions differ");
            }
        }
        let names = counts.iter().map(|c| c.source.as_str()).collect::<Vec<_>>().join(", then ");
        Self { names, lists: merged.lists, counts, failures: Arc::new(failures) }
    }

    /// What each source contributed, in order of trust.
    #[must_use]
    pub fn counts(&self) -> &[MergeCounts] {
        &self.counts
    }

    /// Where sources failed.
    #[must_use]
    pub fn failures(&self) -> &[MergeFailure] {
        &self.failures
    }
}

impl Display for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names)
    }
}

#[async_trait]
impl SubactionSource for Combined {
    /// Fails where nobody knows the element and a source failed for it.
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        if let Some(list) = self.lists.get(&element.name) {
            return Ok(Some(list.clone()));
        }
        match self.failures.iter().find(|failure| failure.element == element.name) {
            Some(MergeFailure { source, error, .. }) => {
                Err(Error::new(error.kind(), "subactions", format!("{source}: {error}")))
            }
            None => Ok(None),
        }
    }
}

#[derive(Default)]
struct Merge {
    lists: FxHashMap<String, Vec<Subaction>>,
    /// The elements that the sources so far have each action in.
    owners: FxHashMap<Digest, FxHashSet<String>>,
}

impl Merge {
    /// Merges the lists of the next source.
    fn take_in(&mut self, lists: Vec<(&str, Vec<Subaction>)>) -> MergeCounts {
        let mut counts = MergeCounts { elements: lists.len(), ..MergeCounts::default() };
        let mut new_owners = Vec::new();
        for (name, list) in lists {
            let known = self.lists.contains_key(name);
            let distinct: FxHashSet<Digest> = list.iter().map(|s| s.action).collect();
            counts.listed += distinct.len();
            let mut contradicted = FxHashSet::default();
            for action in &distinct {
                match self.owners.get(action) {
                    Some(owners) if owners.contains(name) => counts.confirmed += 1,
                    Some(_) => {
                        contradicted.insert(*action);
                    }
                    None if known => counts.added += 1,
                    None => counts.only += 1,
                }
            }
            counts.contradicted += contradicted.len();
            new_owners.extend(distinct.difference(&contradicted).map(|action| (*action, name.to_owned())));
            let list = list.into_iter().filter(|s| !contradicted.contains(&s.action));
            match self.lists.get_mut(name) {
                Some(trusted) => {
                    let listed: FxHashSet<Digest> = trusted.iter().map(|s| s.action).collect();
                    counts.lacking += listed.difference(&distinct).count();
                    merge_into(trusted, list);
                }
                None => {
                    self.lists.insert(name.to_owned(), list.collect());
                }
            }
        }
        for (action, name) in new_owners {
            self.owners.entry(action).or_default().insert(name);
        }
        counts
    }
}

/// Adds what `trusted` lacks behind what stands before it in `list`, each action once per [`Build`](super::Build).
fn merge_into(trusted: &mut Vec<Subaction>, list: impl Iterator<Item = Subaction>) {
    let mut rows: FxHashMap<Digest, usize> = FxHashMap::default();
    for (row, subaction) in trusted.iter().enumerate() {
        rows.entry(subaction.action).or_insert(row);
    }
    // What comes before all of them, and then what comes behind each.
    let mut inserted: Vec<Vec<Subaction>> = (0..=trusted.len()).map(|_| Vec::new()).collect();
    let mut seen = FxHashSet::default();
    let mut anchor = 0;
    for subaction in list {
        match rows.get(&subaction.action) {
            Some(row) => {
                anchor = anchor.max(row + 1);
                let known = &mut trusted[*row];
                known.result = known.result.take().or(subaction.result);
            }
            None if seen.insert((subaction.action, subaction.build)) => inserted[anchor].push(subaction),
            None => {}
        }
    }
    let mut inserted = inserted.into_iter();
    let mut merged = inserted.next().unwrap_or_default();
    for (subaction, behind) in std::mem::take(trusted).into_iter().zip(inserted) {
        merged.push(subaction);
        merged.extend(behind);
    }
    *trusted = merged;
}

#[cfg(test)]
mod tests {
    use cas_client::ErrorKind;
    use overlay::graph::Graph;
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;
    use reapi_proto::v2::ActionResult;

    use super::*;
    use crate::Build;

    fn action(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    /// Lists by element; an element that is to fail has none.
    #[derive(Debug)]
    struct Fixed(&'static str, Vec<(&'static str, Option<Vec<Subaction>>)>);

    impl Display for Fixed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    #[async_trait]
    impl SubactionSource for Fixed {
        async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
            match self.1.iter().find(|(name, _)| *name == element.name) {
                Some((_, Some(list))) => Ok(Some(list.clone())),
                Some((_, None)) => Err(Error::new(ErrorKind::Io, "subactions", "it burns")),
                None => Ok(None),
            }
        }
    }

    fn fixed(name: &'static str, lists: &[(&'static str, &str)]) -> Arc<dyn SubactionSource> {
        let list = |text: &str| text.split_whitespace().map(|name| Subaction::from(action(name))).collect();
        let lists = lists.iter().map(|(element, text)| (*element, (*text != "fail").then(|| list(text))));
        Arc::new(Fixed(name, lists.collect()))
    }

    async fn merge(sources: &[Arc<dyn SubactionSource>]) -> Combined {
        let elements = ["a.bst", "b.bst", "c.bst"].map(Element::new).to_vec();
        Combined::merge(&Graph::new(DigestFunction::Sha256, elements).unwrap(), sources).await
    }

    async fn list(combined: &Combined, element: &str) -> Vec<Digest> {
        let found = combined.subactions(&Element::new(element)).await.unwrap().unwrap();
        found.into_iter().map(|s| s.action).collect()
    }

    fn actions(text: &str) -> Vec<Digest> {
        text.split_whitespace().map(action).collect()
    }

    #[tokio::test]
    async fn what_is_trusted_less_fills_the_gaps_in_its_place() {
        let logs = fixed("logs", &[("a.bst", "1 3 5 7"), ("b.bst", "")]);
        let casd = fixed("casd", &[("a.bst", "0 1 2 2 3 5 1 6"), ("c.bst", "8 9 8")]);
        let combined = merge(&[logs, casd]).await;
        assert_eq!(list(&combined, "a.bst").await, actions("0 1 2 3 5 6 7"));
        assert_eq!(list(&combined, "b.bst").await, []);
        assert_eq!(list(&combined, "c.bst").await, actions("8 9 8"));
        assert_eq!(combined.to_string(), "logs, then casd");
        let [first, second] = combined.counts() else { panic!("two sources") };
        let expected = MergeCounts { source: "logs".into(), elements: 2, listed: 4, only: 4, ..MergeCounts::default() };
        assert_eq!(*first, expected);
        let expected = MergeCounts { confirmed: 3, only: 2, added: 3, lacking: 1, listed: 8, ..expected };
        assert_eq!(*second, MergeCounts { source: "casd".into(), ..expected });
    }

    /// Which of them it was decides whether it has to be explained.
    #[test]
    fn what_ran_in_an_earlier_build_and_in_the_last_one_is_of_both() {
        let subaction = |name, build| Subaction { build, ..Subaction::from(action(name)) };
        let mut merged = vec![subaction("2", Build::Last)];
        let list = [("1", Build::Earlier), ("1", Build::Earlier), ("2", Build::Last), ("1", Build::Last)];
        merge_into(&mut merged, list.map(|(name, build)| subaction(name, build)).into_iter());
        let found: Vec<_> = merged.iter().map(|s| (s.action, s.build)).collect();
        let expected = [("1", Build::Earlier), ("2", Build::Last), ("1", Build::Last)];
        assert_eq!(found, expected.map(|(name, build)| (action(name), build)));
    }

    #[tokio::test]
    async fn a_trusted_source_decides_whose_an_action_is() {
        let logs = fixed("logs", &[("a.bst", "1 2"), ("b.bst", "2 3")]);
        let casd = fixed("casd", &[("a.bst", "2 3 4"), ("b.bst", "1 2"), ("c.bst", "1 5")]);
        let combined = merge(&[logs, casd]).await;
        assert_eq!(list(&combined, "a.bst").await, actions("1 2 4"));
        assert_eq!(list(&combined, "b.bst").await, actions("2 3"));
        assert_eq!(list(&combined, "c.bst").await, actions("5"));
        let counts = &combined.counts()[1];
        assert_eq!((counts.contradicted, counts.confirmed, counts.added, counts.only), (3, 2, 1, 1));
        assert_eq!(counts.lacking, 2);
    }

    #[tokio::test]
    async fn two_elements_of_one_source_may_share_an_action() {
        let combined = merge(&[fixed("casd", &[("a.bst", "1"), ("b.bst", "1")])]).await;
        assert_eq!((list(&combined, "a.bst").await, list(&combined, "b.bst").await), (actions("1"), actions("1")));
    }

    #[tokio::test]
    async fn a_failing_source_leaves_the_others() {
        let bad = fixed("bad", &[("a.bst", "fail"), ("b.bst", "fail")]);
        let combined = merge(&[bad, fixed("good", &[("a.bst", "1")])]).await;
        assert_eq!(list(&combined, "a.bst").await, actions("1"));
        let error = combined.subactions(&Element::new("b.bst")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.reason().contains("bad"), "{error}");
        assert_eq!(combined.subactions(&Element::new("c.bst")).await.unwrap(), None);
        assert_eq!(combined.failures().len(), 2);
    }

    #[tokio::test]
    async fn results_are_taken_from_whoever_has_them() {
        let result = Some(Box::new(ActionResult { exit_code: 7, ..ActionResult::default() }));
        let with = Subaction { result: result.clone(), ..Subaction::from(action("1")) };
        let knows: Arc<dyn SubactionSource> = Arc::new(Fixed("nested", vec![("a.bst", Some(vec![with]))]));
        let combined = merge(&[fixed("logs", &[("a.bst", "1")]), knows]).await;
        let found = combined.subactions(&Element::new("a.bst")).await.unwrap().unwrap();
        assert_eq!(found[0].result, result);
    }

    proptest! {
        #[test]
        fn merging_keeps_the_trusted_order_and_everything_once(
            trusted in prop::collection::vec("[a-h]", 0..8),
            other in prop::collection::vec("[a-h]", 0..8),
        ) {
            let subactions = |names: &[String]| names.iter().map(|n| Subaction::from(action(n))).collect::<Vec<_>>();
            let mut merged = subactions(&trusted);
            merge_into(&mut merged, subactions(&other).into_iter());
            let listed: FxHashSet<Digest> = trusted.iter().map(|n| action(n)).collect();
            let (old, new): (Vec<Digest>, Vec<Digest>) =
                merged.iter().map(|s| s.action).partition(|action| listed.contains(action));
            prop_assert_eq!(old, trusted.iter().map(|n| action(n)).collect::<Vec<_>>());
            let mut seen = FxHashSet::default();
            let expected: Vec<Digest> = (other.iter().map(|n| action(n)))
                .filter(|action| !listed.contains(action) && seen.insert(*action))
                .collect();
            // In the other's order as far as the trusted order allows: an anchor never moves back.
            prop_assert_eq!(new, expected);
        }
    }
}
