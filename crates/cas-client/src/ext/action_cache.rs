//! Results that can really be used.

use async_trait::async_trait;
use futures_buffered::BufferedStreamExt;
use futures_util::{StreamExt, stream};
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

use crate::batch::distinct;
use crate::{ActionCache, BlobStore, Error, ErrorKind, PerBlob, Result, closure};

/// Look-ups under way at once: below the 100 concurrent streams that servers
/// commonly allow on a connection.
const CONCURRENT_LOOKUPS: usize = 64;

/// What an action cache and CAS together have of an action.
#[derive(Clone, PartialEq, Debug)]
pub enum Lookup {
    /// No result.
    Miss,
    /// A result whose outputs are partly gone, so that it is none: the action has to run again.
    Dangling {
        /// The blobs that CAS lacks, sorted.
        missing: Vec<Digest>,
    },
    /// A result, all of whose outputs were in CAS.
    Hit(Box<ActionResult>),
}

impl Lookup {
    /// The result of a hit.
    #[must_use]
    pub fn hit(self) -> Option<ActionResult> {
        match self {
            Self::Hit(result) => Some(*result),
            Self::Miss | Self::Dangling { .. } => None,
        }
    }
}

/// What callers want of an [`ActionCache`]; every implementation has it.
#[async_trait]
pub trait ActionCacheExt: ActionCache {
    /// The result of an action if every blob that it leads to is in `store`:
    /// output files, Tree messages with the files below them, directories
    /// given by their root, stdout and stderr. Contents sent along with the
    /// result are verified.
    ///
    /// A failed action (`exit_code` not 0) is a hit like any other.
    ///
    /// # Errors
    /// `Protocol` or `Corrupt` for a result that is malformed or contradicts
    /// itself; failures of the cache and the store.
    async fn fetch_usable_result(&self, store: &dyn BlobStore, action: &Digest) -> Result<Lookup> {
        match self.fetch_usable_results(store, std::slice::from_ref(action)).await?.pop() {
            Some((_, lookup)) => lookup,
            None => Err(Error::new(ErrorKind::Protocol, "fetch_usable_result", "no answer").with_digest(*action)),
        }
    }

    /// [`fetch_usable_result`](Self::fetch_usable_result) of many actions: as
    /// many look-ups as distinct actions, but one question to the store about
    /// the outputs of all of them.
    ///
    /// # Errors
    /// Failures of the store as a whole; what is wrong with one result stands in its own entry.
    async fn fetch_usable_results(&self, store: &dyn BlobStore, actions: &[Digest]) -> Result<PerBlob<Lookup>> {
        let look_up = |action: Digest| async move { (action, self.fetch_action_result(&action).await) };
        let fetched: Vec<_> = stream::iter(distinct(actions).into_iter().map(look_up))
            .buffered_ordered(CONCURRENT_LOOKUPS)
            .collect()
            .await;
        let found: Vec<&ActionResult> = fetched.iter().filter_map(|(_, r)| r.as_ref().ok()?.as_ref()).collect();
        let mut judged = closure::missing(store, &found).await?.into_iter();
        let lookups = fetched.into_iter().map(|(action, fetched)| {
            let lookup = match fetched {
                Err(error) => Err(error),
                Ok(None) => Ok(Lookup::Miss),
                Ok(Some(result)) => match judged.next() {
                    Some(Ok(missing)) if missing.is_empty() => Ok(Lookup::Hit(Box::new(result))),
                    Some(Ok(missing)) => Ok(Lookup::Dangling { missing }),
                    Some(Err(error)) => Err(error),
                    None => Err(Error::new(ErrorKind::Protocol, "fetch_usable_results", "the result was not judged")),
                },
            };
            (action, lookup)
        });
        Ok(lookups.collect())
    }
}

impl<C: ActionCache + ?Sized> ActionCacheExt for C {}
