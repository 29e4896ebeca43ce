//! Several indexes as one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::Result;
use instantiate::{Candidate, Lookup, RecordIndex};
use overlay::graph::Element;

/// Asks indexes one after the other.
///
/// An index is asked only about elements for which none before it had a record
/// under their own weak key. Such a record comes before any other, whichever
/// index it is from. An index that fails is left out, and logged: a build must not wait for
/// the records of a server that is down.
#[derive(Clone, Debug)]
pub struct Layered {
    indexes: Vec<Arc<dyn RecordIndex>>,
}

impl Layered {
    /// These indexes, the cheapest first.
    #[must_use]
    pub fn new(indexes: Vec<Arc<dyn RecordIndex>>) -> Self {
        Self { indexes }
    }
}

#[async_trait]
impl RecordIndex for Layered {
    async fn find_records(&self, elements: &[&Element], lookup: Lookup) -> Result<Vec<Vec<Candidate>>> {
        let mut own: Vec<Vec<Candidate>> = vec![Vec::new(); elements.len()];
        let mut others = own.clone();
        for index in &self.indexes {
            let rows: Vec<usize> = (0..elements.len()).filter(|row| own[*row].is_empty()).collect();
            if rows.is_empty() {
                break;
            }
            let asked: Vec<&Element> = rows.iter().map(|row| elements[*row]).collect();
            let found = match index.find_records(&asked, lookup).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%index, %error, "records cannot be looked up");
                    continue;
                }
            };
            for (row, candidates) in rows.into_iter().zip(found) {
                let is_own = |candidate: &Candidate| candidate.weak_key == elements[row].weak_key;
                let (exact, further): (Vec<_>, Vec<_>) = candidates.into_iter().partition(is_own);
                own[row].extend(exact);
                others[row].extend(further);
            }
        }
        for (own, others) in own.iter_mut().zip(others) {
            own.extend(others);
        }
        Ok(own)
    }
}

/// `Layered(FIRST, SECOND, …)`.
impl fmt::Display for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layered(")?;
        for (row, index) in self.indexes.iter().enumerate() {
            write!(f, "{}{index}", if row == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cas_client::{Error, ErrorKind};

    use super::*;
    use crate::artifact::tests::sha;

    /// Knows records as (element, weak key, message), and notes what it is asked; fails if it knows nothing.
    #[derive(Debug, Default)]
    struct Scripted {
        known: &'static [(&'static str, &'static str, &'static str)],
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl RecordIndex for Scripted {
        async fn find_records(&self, elements: &[&Element], _: Lookup) -> Result<Vec<Vec<Candidate>>> {
            self.asked.lock().unwrap().extend(elements.iter().map(|element| element.name.clone()));
            if self.known.is_empty() {
                return Err(Error::new(ErrorKind::Unavailable, "find_records", "down"));
            }
            let of = |element: &&Element| {
                let known = self.known.iter().filter(|(name, ..)| *name == element.name);
                known.map(|(_, weak, message)| candidate(weak, message)).collect()
            };
            Ok(elements.iter().map(of).collect())
        }
    }

    impl fmt::Display for Scripted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Scripted({})", self.known.len())
        }
    }

    fn candidate(weak: &str, message: &str) -> Candidate {
        Candidate { message: sha(message), weak_key: Some(weak.to_owned()) }
    }

    #[tokio::test]
    async fn later_indexes_are_asked_for_what_earlier_ones_lack() {
        let first = Arc::new(Scripted {
            known: &[("a", "own", "a1"), ("a", "old", "a0"), ("b", "old", "b0")],
            ..Default::default()
        });
        let down = Arc::new(Scripted::default());
        let last = Arc::new(Scripted {
            known: &[("a", "own", "never"), ("b", "own", "b1"), ("c", "own", "c1")],
            ..Default::default()
        });
        let layered = Layered::new(vec![first.clone(), down.clone(), last.clone()]);
        assert_eq!(layered.to_string(), "Layered(Scripted(3), Scripted(0), Scripted(3))");

        let elements = ["a", "b", "c", "d"].map(|name| Element { weak_key: Some("own".into()), ..Element::new(name) });
        let elements: Vec<_> = elements.iter().collect();
        let found = layered.find_records(&elements, Lookup::Nearest).await.unwrap();
        let expected = [
            vec![candidate("own", "a1"), candidate("old", "a0")],
            vec![candidate("own", "b1"), candidate("old", "b0")],
            vec![candidate("own", "c1")],
            vec![],
        ];
        assert_eq!(found, expected);
        assert_eq!(*last.asked.lock().unwrap(), ["b", "c", "d"]);
        assert_eq!(*down.asked.lock().unwrap(), ["b", "c", "d"]);

        last.asked.lock().unwrap().clear();
        layered.find_records(&elements[..1], Lookup::Weak).await.unwrap();
        assert!(last.asked.lock().unwrap().is_empty());
    }
}
