//! What every store does.

use std::task::Poll;

use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::{Either, join, join_all, select};
use futures_util::stream::{self, StreamExt};
use reapi_proto::{Digest, DigestFunction};

use super::material::{Material, chunks, drain, refused};
use super::report::{Checked, Failed, Report, ensure, ensure_eq};
use crate::{Blob, BlobStore, BlobStoreExt, Error, ErrorKind};

/// How much a run of [`blob_store`] moves.
#[derive(Clone, Debug)]
pub struct BlobStoreOptions {
    /// Sizes of the blobs that are written and read whole, in bytes. The
    /// default stands around the limits of common services and of gRPC.
    pub sizes: Vec<usize>,
    /// Digests of one large question. The default is above what fits in one request of common clients.
    pub digests: usize,
}

impl Default for BlobStoreOptions {
    fn default() -> Self {
        const BUILDBUDDY: usize = 4_000_000;
        const GRPC: usize = 4 << 20;
        Self { sizes: vec![1, BUILDBUDDY - 1, BUILDBUDDY, GRPC - 1, GRPC, GRPC + 1, 3 * GRPC], digests: 12_000 }
    }
}

/// Runs all checks of a [`BlobStore`] that may be written to.
pub async fn blob_store(store: &dyn BlobStore, options: &BlobStoreOptions) -> Report {
    let mut report = Report::new(store);
    let subject = &Subject { store, material: Material::new(store.digest_function()) };
    report.check("the_empty_blob_is_always_present", subject.empty_blob()).await;
    report.check("an_empty_request_is_answered", subject.empty_requests()).await;
    report.check("missing_blobs_are_listed_once_in_order", subject.missing()).await;
    report.check("written_blobs_are_read_back", subject.round_trip()).await;
    report.check("each_blob_of_a_batch_has_its_own_outcome", subject.mixed_batch()).await;
    report.check("blobs_around_message_limits_are_read_back", subject.sizes(&options.sizes)).await;
    report.check("many_blobs_above_the_limit_together_are_read_back", subject.heavy_batch()).await;
    report.check("a_question_about_many_digests_is_answered", subject.many_digests(options.digests)).await;
    report.check("streams_are_read_back_whatever_their_pieces", subject.streams()).await;
    report.check("an_absent_blob_is_not_found", subject.absent()).await;
    report.check("a_stream_of_wrong_bytes_is_refused", subject.wrong_bytes()).await;
    report.check("a_digest_of_wrong_size_is_refused", subject.wrong_size()).await;
    report.check("a_broken_stream_stores_nothing", subject.broken_stream()).await;
    report.check("an_abandoned_write_stores_nothing", subject.abandoned_write()).await;
    report.check("writing_again_changes_nothing", subject.write_again()).await;
    report.check("concurrent_writers_of_one_blob_all_succeed", subject.concurrent_writers()).await;
    report.check("digests_of_another_function_are_refused", subject.foreign_function()).await;
    report.check("upload_missing_leaves_nothing_missing", subject.upload_missing()).await;
    report
}

struct Subject<'a> {
    store: &'a dyn BlobStore,
    material: Material,
}

impl Subject<'_> {
    async fn require_missing(&self, what: &str, digest: Digest) -> Checked {
        ensure_eq!(self.store.find_missing(&[digest]).await?, [digest], "{what}");
        refused(what, self.store.read_blob(&digest).await, &[ErrorKind::NotFound])
    }

    async fn write(&self, blobs: &[Blob]) -> Checked {
        let outcomes = self.store.write_blobs(blobs).await?;
        let mut expected = Vec::new();
        for digest in blobs.iter().map(Blob::digest) {
            if !expected.contains(&digest) {
                expected.push(digest);
            }
        }
        let answered: Vec<_> = outcomes.iter().map(|(digest, _)| *digest).collect();
        ensure_eq!(answered, expected, "blobs answered for by write_blobs");
        outcomes.into_iter().try_for_each(|(_, outcome)| outcome.map_err(Failed::from))
    }

    async fn require_same(&self, blob: &Blob) -> Checked {
        let (digest, data) = (blob.digest(), blob.data());
        ensure_eq!(self.store.find_missing(&[digest]).await?, [], "missing after a write");
        // Blobs may be large, so what differs is not shown.
        ensure!(self.store.read_blob(&digest).await? == data, "{digest} read as a whole has other bytes");
        ensure!(drain(self.store, &digest).await? == data[..], "{digest} read as a stream has other bytes");
        Ok(())
    }

    async fn empty_blob(&self) -> Checked {
        let function = self.store.digest_function();
        let (empty, blob) = (function.empty(), Blob::new(function, Bytes::new()));
        ensure_eq!(self.store.find_missing(&[empty]).await?, [], "missing");
        let read = self.store.read_blobs(&[empty]).await?;
        ensure!(matches!(&read[..], [(d, Ok(data))] if *d == empty && data.is_empty()), "read_blobs: {read:?}");
        ensure_eq!(drain(self.store, &empty).await?, [0; 0], "stream");
        self.write(&[blob]).await?;
        self.store.write_chunks(&empty, stream::empty().boxed()).await?;
        Ok(())
    }

    async fn empty_requests(&self) -> Checked {
        ensure_eq!(self.store.find_missing(&[]).await?, [], "find_missing");
        ensure!(self.store.read_blobs(&[]).await?.is_empty(), "read_blobs of nothing answers something");
        ensure!(self.store.write_blobs(&[]).await?.is_empty(), "write_blobs of nothing answers something");
        Ok(())
    }

    async fn missing(&self) -> Checked {
        let blob = |i| self.material.blob(&format!("missing {i}"));
        self.write(&[blob(1), blob(3)]).await?;
        let [zero, one, two, three, four] = [0, 1, 2, 3, 4].map(|i| blob(i).digest());
        let empty = self.store.digest_function().empty();
        let asked = [four, one, zero, four, empty, three, two, zero];
        ensure_eq!(self.store.find_missing(&asked).await?, [four, zero, two], "missing");
        Ok(())
    }

    async fn round_trip(&self) -> Checked {
        let blobs: Vec<_> = (0..10).map(|i| self.material.blob(&format!("round trip {i}"))).collect();
        self.write(&blobs).await?;
        for blob in &blobs {
            self.require_same(blob).await?;
        }
        Ok(())
    }

    async fn mixed_batch(&self) -> Checked {
        let blob = |i| self.material.blob(&format!("mixed {i}"));
        let (first, second, absent) = (blob(1), blob(2), blob(3));
        self.write(&[second.clone(), first.clone(), second.clone()]).await?;
        let empty = self.store.digest_function().empty();
        let asked = [second.digest(), absent.digest(), empty, first.digest(), absent.digest(), second.digest()];
        let answers = self.store.read_blobs(&asked).await?;
        let order: Vec<_> = answers.iter().map(|(digest, _)| *digest).collect();
        ensure_eq!(order, [second.digest(), absent.digest(), empty, first.digest()], "blobs answered for");
        for (digest, outcome) in answers {
            if digest == absent.digest() {
                refused("the absent blob", outcome, &[ErrorKind::NotFound])?;
            } else {
                ensure!(digest.matches(&outcome?), "{digest} has other bytes");
            }
        }
        Ok(())
    }

    async fn sizes(&self, sizes: &[usize]) -> Checked {
        for size in sizes {
            let blob = self.material.sized(&format!("size {size}"), *size);
            self.write(std::slice::from_ref(&blob)).await?;
            self.require_same(&blob).await?;
        }
        Ok(())
    }

    async fn heavy_batch(&self) -> Checked {
        // Together 9.8 MB in parts that do not add up to any round limit.
        let blobs: Vec<_> = (0..70).map(|i| self.material.sized(&format!("heavy {i}"), 140_000 + i)).collect();
        self.write(&blobs).await?;
        let digests: Vec<_> = blobs.iter().map(Blob::digest).collect();
        let answers = self.store.read_blobs(&digests).await?;
        ensure_eq!(answers.len(), blobs.len(), "answers");
        for (blob, (digest, outcome)) in blobs.iter().zip(answers) {
            ensure_eq!(digest, blob.digest(), "order of answers");
            ensure!(outcome? == blob.data(), "{digest} has other bytes");
        }
        Ok(())
    }

    async fn many_digests(&self, count: usize) -> Checked {
        let blobs: Vec<_> = (0..count).map(|i| self.material.blob(&format!("many {i}"))).collect();
        let present: Vec<_> = blobs.iter().step_by(100).cloned().collect();
        self.write(&present).await?;
        let digests: Vec<_> = blobs.iter().map(Blob::digest).collect();
        let expected: Vec<_> = digests.iter().enumerate().filter(|(i, _)| i % 100 != 0).map(|(_, d)| *d).collect();
        let missing = self.store.find_missing(&digests).await?;
        ensure!(missing == expected, "{} of {count} missing, expected {}", missing.len(), expected.len());
        let answers = self.store.read_blobs(&digests).await?;
        let read = answers.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        ensure_eq!((answers.len(), read), (count, present.len()), "answers, and blobs among them");
        Ok(())
    }

    async fn streams(&self) -> Checked {
        for (size, piece) in [(1, 1), (1000, 1), (300_000, 70_001), (2 << 20, 1 << 20), (5_000_000, 5_000_000)] {
            let blob = self.material.sized(&format!("stream {size} {piece}"), size);
            self.store.write_chunks(&blob.digest(), chunks(blob.data(), piece)).await?;
            self.require_same(&blob).await?;
        }
        Ok(())
    }

    async fn absent(&self) -> Checked {
        let digest = self.material.blob("absent").digest();
        self.require_missing("read", digest).await?;
        refused("stream", drain(self.store, &digest).await, &[ErrorKind::NotFound])?;
        let large = self.material.sized("absent and large", 5_000_000).digest();
        self.require_missing("read of a large one", large).await?;
        refused("stream of a large one", drain(self.store, &large).await, &[ErrorKind::NotFound])
    }

    async fn wrong_bytes(&self) -> Checked {
        for size in [100, 5_000_000] {
            let good = self.material.sized(&format!("good {size}"), size);
            let mut bad = good.data().to_vec();
            bad[size / 2] ^= 1;
            let sent = self.store.write_chunks(&good.digest(), chunks(&bad.into(), 1 << 20)).await;
            refused("write_chunks", sent, &[ErrorKind::Corrupt])?;
            self.require_missing("after the refusal", good.digest()).await?;
        }
        Ok(())
    }

    async fn wrong_size(&self) -> Checked {
        let good = self.material.sized("right size", 100_000);
        for size in [1, 99_999, 100_001, i64::MAX as u64] {
            let wrong = Digest::from_raw(good.digest().function(), good.digest().hash(), size)
                .map_err(|e| Failed::new(e.to_string()))?;
            let sent = self.store.write_chunks(&wrong, chunks(good.data(), 30_000)).await;
            refused("write_chunks", sent, &[ErrorKind::Corrupt, ErrorKind::LimitExceeded])?;
            // A store may know the hash alone, but must not take the blob for another one.
            let kinds = [ErrorKind::NotFound, ErrorKind::Corrupt, ErrorKind::LimitExceeded, ErrorKind::Invalid];
            refused("stream", drain(self.store, &wrong).await, &kinds)?;
        }
        self.require_missing("the blob of the right size", good.digest()).await
    }

    async fn broken_stream(&self) -> Checked {
        let blob = self.material.sized("broken", 3 << 20);
        let broken = stream::iter([
            Ok(blob.data().slice(..2 << 20)),
            Err(Error::new(ErrorKind::Cancelled, "conformance", "the source broke")),
        ]);
        let sent = self.store.write_chunks(&blob.digest(), broken.boxed()).await;
        refused("write_chunks", sent, &[ErrorKind::Cancelled])?;
        self.require_missing("after the failure", blob.digest()).await
    }

    async fn abandoned_write(&self) -> Checked {
        let blob = self.material.sized("abandoned", 3 << 20);
        let (reached, stalled) = tokio::sync::oneshot::channel();
        let mut reached = Some(reached);
        let stalls = stream::iter([Ok(blob.data().slice(..2 << 20))]).chain(stream::poll_fn(move |_| {
            if let Some(reached) = reached.take() {
                // Nobody listens any more if the write ended by itself, which is found below.
                let _ = reached.send(());
            }
            Poll::Pending
        }));
        let digest = blob.digest();
        let writing = self.store.write_chunks(&digest, stalls.boxed());
        match select(writing, stalled).await {
            Either::Left((ended, _)) => refused("a write that does not have all bytes yet", ended, &[])?,
            Either::Right((_, abandoned)) => drop(abandoned),
        }
        self.require_missing("after the write was dropped", digest).await
    }

    async fn write_again(&self) -> Checked {
        let blob = self.material.sized("again", 5_000_000);
        for _ in 0..2 {
            self.write(std::slice::from_ref(&blob)).await?;
            self.store.write_chunks(&blob.digest(), chunks(blob.data(), 1 << 20)).await?;
        }
        self.require_same(&blob).await
    }

    async fn concurrent_writers(&self) -> Checked {
        let blob = self.material.sized("concurrent", 1 << 20);
        let (digest, one) = (blob.digest(), std::slice::from_ref(&blob));
        let whole = join_all((0..8).map(|_| self.write(one)));
        let pieces = join_all(
            (0..8).map(|_| self.store.write_chunks(&digest, chunks(blob.data(), 100_000)).map_err(Failed::from)),
        );
        let (whole, pieces) = join(whole, pieces).await;
        whole.into_iter().chain(pieces).collect::<Result<(), Failed>>()?;
        self.require_same(&blob).await
    }

    async fn foreign_function(&self) -> Checked {
        let own = self.store.digest_function();
        let Some(function) = DigestFunction::ALL.into_iter().find(|f| *f != own) else { return Ok(()) };
        let blob = Blob::new(function, "foreign");
        let (digest, kinds) = (blob.digest(), &[ErrorKind::Invalid]);
        refused("find_missing", self.store.find_missing(&[digest]).await, kinds)?;
        refused("read_blobs", self.store.read_blobs(&[digest]).await, kinds)?;
        refused("write_blobs", self.store.write_blobs(std::slice::from_ref(&blob)).await, kinds)?;
        refused("open_blob", self.store.open_blob(&digest).await, kinds)?;
        refused("write_chunks", self.store.write_chunks(&digest, chunks(blob.data(), 10)).await, kinds)
    }

    async fn upload_missing(&self) -> Checked {
        let blobs: Vec<_> = (0..100).map(|i| self.material.blob(&format!("upload {}", i % 60))).collect();
        self.write(&blobs[..10]).await?;
        let stats = self.store.upload_missing(&blobs).await?;
        ensure_eq!((stats.asked, stats.uploaded), (60, 50), "blobs asked for and uploaded");
        let digests: Vec<_> = blobs.iter().map(Blob::digest).collect();
        ensure_eq!(self.store.find_missing(&digests).await?, [], "missing after the upload");
        Ok(())
    }
}
