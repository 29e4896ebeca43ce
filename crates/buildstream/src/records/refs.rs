//! The records that refs name.

use std::fmt;

use async_trait::async_trait;
use cas_client::{Error, ErrorKind, Result};
use instantiate::{Candidate, Lookup, RecordIndex};
use overlay::graph::Element;
use reapi_proto::Digest;

use super::identify;
use crate::names::{ArtifactName, CacheKey, ElementRef};
use crate::refs::{ArtifactRefs, RefError};

/// Records that are offered for one element. The first that fits is used, so
/// further ones only replace those that have expired from storage.
const MAX_CANDIDATES: usize = 4;

/// Refs of one element that are read in search of records: some thirty builds.
const MAX_REFS_READ: usize = 64;

/// The records attached to the artifacts in a BuildStream cache directory.
///
/// Under the element's own weak key, the last build comes first. It is the one
/// under the weak key's ref; where that has no record, for example because
/// nothing was recorded after it, builds with this weak key are still there
/// under their strong keys. After those, for [`Lookup::Nearest`], come records
/// under other weak keys, last used first.
///
/// Elements without a project, or without a weak key, have no records. A ref
/// that cannot be read is left out, and logged.
#[derive(Clone, Debug)]
pub struct RefRecords {
    refs: ArtifactRefs,
}

impl RefRecords {
    /// The records that these refs name.
    #[must_use]
    pub fn new(refs: ArtifactRefs) -> Self {
        Self { refs }
    }

    /// Notes in elements of a graph which record is kept under their own weak
    /// keys. Those that name one already keep it. Blocks on the file system.
    pub fn annotate(&self, elements: &mut [Element]) {
        for element in elements.iter_mut().filter(|element| element.speculative_actions.is_none()) {
            element.speculative_actions = self.candidates(element, Lookup::Weak).first().map(|found| found.message);
        }
    }

    /// What may be used for an element, best first. Blocks on the file system.
    #[must_use]
    pub fn candidates(&self, element: &Element, lookup: Lookup) -> Vec<Candidate> {
        let Some((element, weak)) = identify(element) else { return Vec::new() };
        self.search(&element, &weak, lookup).unwrap_or_else(|error| {
            tracing::warn!(%element, %error, "refs cannot be listed");
            Vec::new()
        })
    }

    fn search(&self, element: &ElementRef, weak: &CacheKey, lookup: Lookup) -> Result<Vec<Candidate>, RefError> {
        let mut own = Vec::new();
        let mut others = Vec::new();
        let mut search = |name| {
            let Some(found) = self.record(name) else { return };
            let candidates = if found.1 == *weak { &mut own } else { &mut others };
            let candidate = Candidate { message: found.0, weak_key: Some(found.1.to_string()) };
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        };
        let first = element.artifact(weak.clone());
        search(&first);
        for entry in self.refs.list(element)?.iter().filter(|entry| entry.name != first).take(MAX_REFS_READ) {
            search(&entry.name);
        }
        if lookup == Lookup::Nearest {
            own.append(&mut others);
        }
        own.truncate(MAX_CANDIDATES);
        Ok(own)
    }

    /// The record of one artifact, with the weak key that it was built with.
    fn record(&self, name: &ArtifactName) -> Option<(Digest, CacheKey)> {
        let read = || -> Result<_, RefError> {
            let Some(artifact) = self.refs.read(name)? else { return Ok(None) };
            let unusable = |source| RefError::Unusable { path: self.refs.folder().join(name.to_string()), source };
            let Some(record) = artifact.speculative_actions().map_err(unusable)? else { return Ok(None) };
            Ok(Some((record, artifact.weak_key().map_err(unusable)?)))
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(artifact = %name, %error, "a ref cannot be used");
            None
        })
    }
}

#[async_trait]
impl RecordIndex for RefRecords {
    async fn find_records(&self, elements: &[&Element], lookup: Lookup) -> Result<Vec<Vec<Candidate>>> {
        let elements: Vec<Element> = elements.iter().map(|element| (*element).clone()).collect();
        let index = self.clone();
        let search = move || elements.iter().map(|element| index.candidates(element, lookup)).collect();
        tokio::task::spawn_blocking(search).await.map_err(|stopped| {
            Error::new(ErrorKind::Cancelled, "find_records", "the blocking task was stopped").caused_by(stopped)
        })
    }
}

impl fmt::Display for RefRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefRecords({})", self.refs.folder().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::tests::sha;
    use crate::refs::tests::{Cache, element, key};

    fn graph_element(weak: char) -> Element {
        Element {
            project: Some("demo".into()),
            weak_key: Some(key(weak).to_string()),
            ..Element::new("junction.bst:sub/app.bst")
        }
    }

    /// Two builds under weak key `w` (a, then b), one under `x` (c) and one under `y` (d), each younger than the one before.
    fn history() -> Cache {
        let cache = Cache::new();
        let app = element("sub/app.bst");
        for (hours, strong, weak) in [(4, 'a', '1'), (3, 'b', '1'), (2, 'c', '2'), (1, 'd', '3')] {
            let name = cache.build(&app, strong, weak);
            cache.refs().attach(&name, &sha(&strong.to_string())).unwrap();
            for key in [key(strong), key(weak)] {
                cache.age(&app.artifact(key), hours);
            }
        }
        cache
    }

    #[track_caller]
    fn check(cache: &Cache, weak: char, lookup: Lookup, expected: &[(char, char)]) {
        let found = RefRecords::new(cache.refs()).candidates(&graph_element(weak), lookup);
        let expected = expected.iter().map(|(record, weak)| Candidate {
            message: sha(&record.to_string()),
            weak_key: Some(key(*weak).to_string()),
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_own_weak_key_comes_first_then_the_newest_of_others() {
        let cache = history();
        check(&cache, '1', Lookup::Weak, &[('b', '1'), ('a', '1')]);
        check(&cache, '1', Lookup::Nearest, &[('b', '1'), ('a', '1'), ('d', '3'), ('c', '2')]);
        check(&cache, '2', Lookup::Weak, &[('c', '2')]);
        check(&cache, '2', Lookup::Nearest, &[('c', '2'), ('d', '3'), ('b', '1'), ('a', '1')]);
        check(&cache, '9', Lookup::Weak, &[]);
        check(&cache, '9', Lookup::Nearest, &[('d', '3'), ('c', '2'), ('b', '1'), ('a', '1')]);
    }

    #[test]
    fn a_build_that_was_not_recorded_does_not_hide_the_one_before() {
        let cache = history();
        cache.build(&element("sub/app.bst"), 'e', '1');
        check(&cache, '1', Lookup::Weak, &[('b', '1'), ('a', '1')]);
    }

    #[test]
    fn elements_of_a_graph_get_the_record_of_their_own_weak_key() {
        let noted = Element { speculative_actions: Some(sha("mine")), ..graph_element('1') };
        let mut elements = [graph_element('1'), graph_element('9'), noted];
        let cache = history();
        RefRecords::new(cache.refs()).annotate(&mut elements);
        let records = elements.map(|element| element.speculative_actions);
        assert_eq!(records, [Some(sha("b")), None, Some(sha("mine"))]);
    }

    #[test]
    fn no_more_are_offered_than_are_useful() {
        let cache = history();
        let app = element("sub/app.bst");
        let name = cache.build(&app, 'e', '4');
        cache.refs().attach(&name, &sha("e")).unwrap();
        assert_eq!(
            RefRecords::new(cache.refs()).candidates(&graph_element('9'), Lookup::Nearest).len(),
            MAX_CANDIDATES
        );
    }

    #[tokio::test]
    async fn what_cannot_be_identified_or_read_has_no_records() {
        let cache = history();
        let index = RefRecords::new(cache.refs());
        let nameless = Element { project: None, ..graph_element('1') };
        let keyless = Element { weak_key: None, ..graph_element('1') };
        let hostile = Element { project: Some("..".into()), ..graph_element('1') };
        let known = graph_element('2');
        std::fs::write(cache.refs().folder().join(format!("demo/sub-app/{}", key('2'))), b"\x0a").unwrap();
        let found = index.find_records(&[&nameless, &keyless, &hostile, &known], Lookup::Weak).await.unwrap();
        let counts: Vec<_> = found.iter().map(Vec::len).collect();
        assert_eq!(counts, [0, 0, 0, 1], "the damaged ref is left out, the strong one is there");
        assert!(index.to_string().ends_with("artifacts/refs)"), "{index}");
    }
}
