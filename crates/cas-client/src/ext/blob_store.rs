//! Reading single blobs and uploading what a store lacks.

use async_trait::async_trait;
use bytes::Bytes;
use reapi_proto::Digest;
use rustc_hash::FxHashSet;

use crate::{Blob, BlobStore, Error, ErrorKind, Result};

/// What [`BlobStoreExt::upload_missing`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UploadStats {
    /// Distinct non-empty blobs that the store was asked about.
    pub asked: u64,
    /// Blobs that it lacked and has now.
    pub uploaded: u64,
    /// The size of the uploaded blobs in bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for UploadStats {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.uploaded += other.uploaded;
        self.bytes += other.bytes;
    }
}

/// What callers want of a [`BlobStore`]; every implementation has it.
#[async_trait]
pub trait BlobStoreExt: BlobStore {
    /// Reads one metadata-sized blob. The empty blob is answered without asking the store.
    ///
    /// # Errors
    /// `NotFound` if the store lacks it, and whatever stops the read.
    async fn read_blob(&self, digest: &Digest) -> Result<Bytes> {
        if digest.is_empty() && *digest == self.digest_function().empty() {
            return Ok(Bytes::new());
        }
        let answers = self.read_blobs(std::slice::from_ref(digest)).await?;
        only_answer("read_blob", digest, answers)
    }

    /// Stores one metadata-sized blob, present or not. The empty blob needs no storing.
    ///
    /// # Errors
    /// Whatever stops the write; a complete blob may be there nevertheless.
    async fn write_blob(&self, blob: &Blob) -> Result<()> {
        if blob.data().is_empty() {
            return Ok(());
        }
        let answers = self.write_blobs(std::slice::from_ref(blob)).await?;
        only_answer("write_blob", &blob.digest(), answers)
    }

    /// Asks once which of `blobs` the store lacks and stores those.
    ///
    /// Repetitions and empty blobs are left out. Not atomic: blobs are stored
    /// independently, and a dropped future leaves some of them stored.
    ///
    /// # Errors
    /// When the store cannot answer; when some blobs could not be stored, one
    /// error of the first failure's kind that names all of them.
    async fn upload_missing(&self, blobs: &[Blob]) -> Result<UploadStats> {
        let mut seen = FxHashSet::default();
        let wanted: Vec<&Blob> = blobs.iter().filter(|b| !b.data().is_empty() && seen.insert(b.digest())).collect();
        if wanted.is_empty() {
            return Ok(UploadStats::default());
        }
        let digests: Vec<_> = wanted.iter().map(|b| b.digest()).collect();
        let missing: FxHashSet<Digest> = self.find_missing(&digests).await?.into_iter().collect();
        let lacking: Vec<Blob> = wanted.into_iter().filter(|b| missing.contains(&b.digest())).cloned().collect();
        let mut stats = UploadStats { asked: digests.len() as u64, ..UploadStats::default() };
        if lacking.is_empty() {
            return Ok(stats);
        }
        let mut failures = Vec::new();
        for (digest, outcome) in self.write_blobs(&lacking).await? {
            match outcome {
                Ok(()) => {
                    stats.uploaded += 1;
                    stats.bytes += digest.size_bytes();
                }
                Err(error) => failures.push((digest, error)),
            }
        }
        collect_failures("upload_missing", failures).map_or(Ok(stats), Err)
    }
}

impl<S: BlobStore + ?Sized> BlobStoreExt for S {}

fn only_answer<T>(operation: &'static str, digest: &Digest, answers: Vec<(Digest, Result<T>)>) -> Result<T> {
    answers.into_iter().find(|(answered, _)| answered == digest).map_or_else(
        || Err(Error::new(ErrorKind::Protocol, operation, "the store did not answer for the blob").with_digest(*digest)),
        |(_, outcome)| outcome,
    )
}

/// One error for all of `failures`, or `None` if there are none.
fn collect_failures(operation: &'static str, failures: Vec<(Digest, Error)>) -> Option<Error> {
    let digests: Vec<_> = failures.iter().map(|(digest, _)| *digest).collect();
    let (_, first) = failures.into_iter().next()?;
    let reason = match digests.len() {
        1 => "the blob could not be stored".to_owned(),
        count => format!("{count} blobs could not be stored; the first one's failure follows"),
    };
    Some(Error::new(first.kind(), operation, reason).with_digests(digests).caused_by(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;
    use reapi_proto::DigestFunction;

    fn blob(data: &str) -> Blob {
        Blob::new(DigestFunction::Sha256, data.to_owned())
    }

    #[tokio::test]
    async fn uploads_only_what_is_missing_once_and_never_the_empty_blob() {
        let store = InMemory::new();
        store.put("old");
        let blobs = [blob("new"), blob("old"), blob(""), blob("new"), blob("other")];
        let stats = store.upload_missing(&blobs).await.unwrap();
        assert_eq!(stats, UploadStats { asked: 3, uploaded: 2, bytes: 8 });
        let asked = store.take_stats();
        assert_eq!((asked.find_missing.calls, asked.write_blobs.calls, asked.write_blobs.blobs), (1, 1, 2));

        let again = store.upload_missing(&blobs).await.unwrap();
        assert_eq!(again, UploadStats { asked: 3, ..UploadStats::default() });
        assert_eq!(store.stats().write_blobs.calls, 0);
        assert_eq!(store.upload_missing(&[blob("")]).await.unwrap(), UploadStats::default());
    }

    #[tokio::test]
    async fn one_blob_is_read_or_refused() {
        let store: &dyn BlobStore = &InMemory::new();
        let data = blob("data");
        assert_eq!(store.read_blob(&data.digest()).await.unwrap_err().kind(), ErrorKind::NotFound);
        store.write_blob(&data).await.unwrap();
        assert_eq!(store.read_blob(&data.digest()).await.unwrap(), "data");
        assert_eq!(store.read_blob(&DigestFunction::Sha256.empty()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_foreign_empty_digest_is_not_answered_locally() {
        let store = InMemory::new();
        let foreign = DigestFunction::Sha512.empty();
        assert_eq!(store.read_blob(&foreign).await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn failures_become_one_error_that_names_all_blobs() {
        assert!(collect_failures("upload_missing", Vec::new()).is_none());
        let digests = [blob("a").digest(), blob("b").digest()];
        let failures = digests.map(|d| (d, Error::new(ErrorKind::Denied, "write_blobs", "no"))).into();
        let error = collect_failures("upload_missing", failures).unwrap();
        assert_eq!((error.kind(), error.digests()), (ErrorKind::Denied, &digests[..]));
    }
}
