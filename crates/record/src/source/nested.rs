//! What a patched server writes into the results of elements.

use std::fmt::{self, Display};
use std::sync::Arc;

use async_trait::async_trait;
use cas_client::{ActionCache, Error, ErrorKind, Result};
use overlay::graph::Element;
use reapi_proto::Digest;
use rustc_hash::FxHashMap;

use super::{Subaction, SubactionSource};

/// `ActionResult.subactions` (field 99) of the actions that elements are built by.
///
/// The field is not part of the published interface. Released servers leave
/// it empty, which is taken for not knowing.
#[derive(Clone, Debug)]
pub struct NestedResults {
    cache: Arc<dyn ActionCache>,
    builds: FxHashMap<String, Digest>,
}

impl NestedResults {
    /// `builds` says for each element, by name, which action built it.
    #[must_use]
    pub fn new(cache: Arc<dyn ActionCache>, builds: impl IntoIterator<Item = (String, Digest)>) -> Self {
        Self { cache, builds: builds.into_iter().collect() }
    }
}

impl Display for NestedResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the subactions of results in {}", self.cache)
    }
}

#[async_trait]
impl SubactionSource for NestedResults {
    async fn subactions(&self, element: &Element) -> Result<Option<Vec<Subaction>>> {
        let Some(build) = self.builds.get(&element.name) else { return Ok(None) };
        let Some(result) = self.cache.fetch_action_result(build).await? else { return Ok(None) };
        if result.subactions.is_empty() {
            return Ok(None);
        }
        let digests = result.subactions.iter().map(|digest| {
            Digest::try_from(digest).map(Subaction::from).map_err(|e| {
                let reason = format!("the result's subactions have {:?}/{}", digest.hash, digest.size_bytes);
                Error::new(ErrorKind::Protocol, "subactions", reason).with_digest(*build).caused_by(e)
            })
        });
        digests.collect::<Result<Vec<_>>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use cas_client::{ActionCacheWriter, BlobStore, InMemory};
    use reapi_proto::v2::{self, Action, ActionResult, Command};

    use super::*;

    async fn check(subactions: &[v2::Digest]) -> Result<Option<Vec<Digest>>> {
        let store = InMemory::new();
        let build = |element: &str| {
            let directory = Some(store.digest_function().empty().into());
            let command = Command { arguments: vec![element.to_owned()], ..Command::default() };
            let command_digest = Some(store.put_message(&command).into());
            store.put_message(&Action { command_digest, input_root_digest: directory, ..Action::default() })
        };
        let (build, evicted) = (build("app.bst"), build("lib.bst"));
        let result = ActionResult { subactions: subactions.to_vec(), ..ActionResult::default() };
        store.store_action_result(&build, &result).await.unwrap();
        let source = NestedResults::new(Arc::new(store), [("app.bst".into(), build), ("lib.bst".into(), evicted)]);
        for unknown in ["lib.bst", "other.bst"] {
            assert_eq!(source.subactions(&Element::new(unknown)).await.unwrap(), None);
        }
        let found = source.subactions(&Element::new("app.bst")).await?;
        Ok(found.map(|list| list.into_iter().map(|s| s.action).collect()))
    }

    #[tokio::test]
    async fn the_field_is_read_when_present() {
        let store = InMemory::new();
        let [a, b] = ["a", "b"].map(|text| store.put(text));
        assert_eq!(check(&[b.into(), a.into(), b.into()]).await.unwrap(), Some(vec![b, a, b]));
        assert_eq!(check(&[]).await.unwrap(), None, "a released server");
        let bad = v2::Digest { hash: "not a hash".into(), size_bytes: 1 };
        assert_eq!(check(&[a.into(), bad]).await.unwrap_err().kind(), ErrorKind::Protocol);
    }
}
