//! Priming through casd against a plain upload of the same blobs.
//!
//! What is compared is instantiation with its reading and uploading; results of actions are known at once, since
//! looking them up takes the same round trips whoever asks.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cas_client::grpc::{Direct, GrpcClient, LocalServerDetails};
use cas_client::{ActionCache, ActionCacheWriter, Blob, BlobStore, BlobStoreExt as _, Result};
use instantiate::Services;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;
use testbed::workload::{NextState, Workload};
use tokio::runtime::Runtime;

use crate::instantiate::{Prediction, run_checked};
use crate::replay::Replay;

/// Rounds; of each kind the best one counts.
const ROUNDS: usize = 7;

/// The best times of each kind.
pub(crate) struct Times {
    /// Asking what is missing, and uploading it in batches.
    pub(crate) upload: Duration,
    /// Instantiating, reading from casd's directory.
    pub(crate) direct: Duration,
    /// Instantiating, reading through casd.
    pub(crate) through: Duration,
}

/// Measures all of them, in turns. `client` is that of a casd on this machine that has the old state and the
/// dependencies of the next one. `None` if it is another service, or one elsewhere.
pub(crate) fn compare(
    runtime: &Runtime,
    workload: &Workload,
    next: &NextState,
    client: &GrpcClient,
    message: &Digest,
) -> Option<Times> {
    let details = runtime.block_on(client.local_server_details()).unwrap_or_else(|error| panic!("{error}"))?;
    if !details.storage_root.is_dir() {
        return None;
    }
    let needed: Vec<Blob> = next.needed().values().map(|data| Blob::new(message.function(), data.clone())).collect();
    let round = |work: &dyn Fn()| {
        forget(&details, next);
        assert_eq!(missing(runtime, client, next), needed.len(), "casd has what was removed");
        let start = Instant::now();
        work();
        let time = start.elapsed();
        assert_eq!(missing(runtime, client, next), 0, "something needed was not uploaded");
        time
    };
    let upload = || {
        let stats = runtime.block_on(client.upload_missing(&needed)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(stats.uploaded, needed.len() as u64);
    };
    let prime = |blobs: Arc<dyn BlobStore>| {
        let cache = Arc::new(Known::new(workload));
        let execution = Some(Arc::new(Replay::new(Arc::clone(&cache) as _, next.action_results())) as _);
        run_checked(runtime, Services { blobs, cache, execution }, &Prediction { next, message });
    };
    let mut best = Times { upload: Duration::MAX, direct: Duration::MAX, through: Duration::MAX };
    for _ in 0..ROUNDS {
        best.upload = best.upload.min(round(&upload));
        best.direct =
            best.direct.min(round(&|| prime(Arc::new(Direct::new(client.clone(), details.hostname.clone())))));
        best.through = best.through.min(round(&|| prime(Arc::new(client.clone()))));
    }
    Some(best)
}

fn missing(runtime: &Runtime, client: &GrpcClient, next: &NextState) -> usize {
    let needed: Vec<Digest> = next.needed().keys().copied().collect();
    runtime.block_on(client.find_missing(&needed)).unwrap_or_else(|error| panic!("{error}")).len()
}

/// Removes what is needed from the service's directory.
fn forget(details: &LocalServerDetails, next: &NextState) {
    for digest in next.needed().keys() {
        let hex = digest.to_hex();
        let (directory, name) = hex.split_at(2);
        let path: PathBuf = [details.storage_root.as_path(), "objects".as_ref(), directory.as_ref(), name.as_ref()]
            .into_iter()
            .collect();
        if let Err(error) = std::fs::remove_file(&path) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display());
        }
    }
}

/// An action cache that answers at once.
struct Known(Mutex<HashMap<Digest, ActionResult>>);

impl Known {
    fn new(workload: &Workload) -> Self {
        Self(Mutex::new(workload.action_results().iter().cloned().collect()))
    }
}

#[async_trait]
impl ActionCache for Known {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(action).cloned())
    }
}

#[async_trait]
impl ActionCacheWriter for Known {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*action, result.clone());
        Ok(())
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
