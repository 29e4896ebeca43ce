//! Putting a workload where a tool finds it: into stores through their traits, or onto disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cas_client::{ActionCacheWriter, Blob, BlobStore, Result};
use prost::Message as _;
use reapi_proto::Digest;
use reapi_proto::v2::ActionResult;

use super::{Blobs, DIGEST_FUNCTION, NextState, Workload};

/// Blobs per write: bounds what is in flight, not how the store splits it.
const BATCH_BLOBS: usize = 4096;

impl Workload {
    /// Writes all blobs and action results. Blobs first, so that a dropped future leaves no dangling results.
    ///
    /// # Errors
    /// The first failure of the stores.
    pub async fn store(&self, store: &dyn BlobStore, cache: &dyn ActionCacheWriter) -> Result<()> {
        store_blobs(store, self.blobs()).await?;
        store_results(cache, self.action_results()).await
    }

    /// Writes all blobs and action results in the on-disk layout of casd, and the graph as `graph.json`.
    ///
    /// Meant for a directory that nobody uses yet: files are neither replaced atomically nor synced.
    ///
    /// # Errors
    /// The first failure of the file system.
    pub fn write_directory(&self, path: &Path) -> io::Result<()> {
        write_blobs(path, self.blobs())?;
        write_results(path, self.action_results())?;
        fs::write(path.join("graph.json"), self.graph().to_string())
    }
}

impl NextState {
    /// Writes what rebuilding the dependencies added to CAS.
    ///
    /// # Errors
    /// The first failure of the store.
    pub async fn store(&self, store: &dyn BlobStore) -> Result<()> {
        store_blobs(store, self.blobs()).await
    }

    /// Writes the changed actions with everything they need, their results and outputs: the state after
    /// somebody has executed all of them.
    ///
    /// # Errors
    /// The first failure of the stores.
    pub async fn store_executed(&self, store: &dyn BlobStore, cache: &dyn ActionCacheWriter) -> Result<()> {
        store_blobs(store, self.needed()).await?;
        store_blobs(store, self.output_blobs()).await?;
        store_results(cache, self.action_results()).await
    }

    /// Writes what rebuilding the dependencies added in the on-disk layout of casd, the graph as
    /// `graph-VARIANT.json`, and the expected actions as `expected-VARIANT.json` (base to next).
    ///
    /// # Errors
    /// The first failure of the file system.
    pub fn write_directory(&self, path: &Path) -> io::Result<()> {
        write_blobs(path, self.blobs())?;
        let expected: serde_json::Map<String, serde_json::Value> =
            self.expected().iter().map(|action| (action.base.to_string(), action.next.to_string().into())).collect();
        fs::write(path.join(format!("graph-{}.json", self.variant())), self.graph().to_string())?;
        fs::write(
            path.join(format!("expected-{}.json", self.variant())),
            serde_json::Value::Object(expected).to_string(),
        )
    }

    /// Writes the results of the changed actions and their outputs in the on-disk layout of casd, but not the
    /// actions themselves: what a dry run looks up, with nothing of what it has to find out.
    ///
    /// # Errors
    /// The first failure of the file system.
    pub fn write_results_directory(&self, path: &Path) -> io::Result<()> {
        write_blobs(path, self.output_blobs())?;
        write_results(path, self.action_results())
    }
}

async fn store_blobs(store: &dyn BlobStore, blobs: &Blobs) -> Result<()> {
    let blobs: Vec<&Bytes> = blobs.values().collect();
    for batch in blobs.chunks(BATCH_BLOBS) {
        let batch: Vec<Blob> = batch.iter().map(|bytes| Blob::new(DIGEST_FUNCTION, Bytes::clone(bytes))).collect();
        for (_, written) in store.write_blobs(&batch).await? {
            written?;
        }
    }
    Ok(())
}

async fn store_results(cache: &dyn ActionCacheWriter, results: &[(Digest, ActionResult)]) -> Result<()> {
    for (action, result) in results {
        cache.store_action_result(action, result).await?;
    }
    Ok(())
}

fn write_blobs(path: &Path, blobs: &Blobs) -> io::Result<()> {
    let objects = Objects::create(path.join("cas/objects"))?;
    blobs.iter().try_for_each(|(digest, bytes)| objects.write(digest, bytes))
}

fn write_results(path: &Path, results: &[(Digest, ActionResult)]) -> io::Result<()> {
    let objects = Objects::create(path.join("actioncache/objects"))?;
    results.iter().try_for_each(|(action, result)| objects.write(action, &result.encode_to_vec()))
}

/// A directory of files named `HH/REST` by their hashes.
struct Objects(PathBuf);

impl Objects {
    fn create(path: PathBuf) -> io::Result<Self> {
        for first in 0..=u8::MAX {
            fs::create_dir_all(path.join(format!("{first:02x}")))?;
        }
        Ok(Self(path))
    }

    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let hash = digest.to_hex();
        let (first, rest) = hash.split_at(2);
        fs::write(self.0.join(first).join(rest), bytes)
    }
}
