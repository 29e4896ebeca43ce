//! How often an in-memory store was asked for what.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one method was asked for so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MethodStats {
    /// Calls. One call is one round trip of a real service, at least.
    pub calls: u64,
    /// Blobs (action results, names) that those calls listed, repetitions included.
    pub blobs: u64,
    /// Bytes handed over: out of reads, into writes that succeeded, each blob once per call. 0 for look-ups.
    pub bytes: u64,
}

/// What an in-memory store was asked for so far, per trait method.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// [`BlobStore::find_missing`](crate::BlobStore::find_missing).
    pub find_missing: MethodStats,
    /// [`BlobStore::read_blobs`](crate::BlobStore::read_blobs).
    pub read_blobs: MethodStats,
    /// [`BlobStore::write_blobs`](crate::BlobStore::write_blobs).
    pub write_blobs: MethodStats,
    /// [`BlobStore::open_blob`](crate::BlobStore::open_blob).
    pub open_blob: MethodStats,
    /// [`BlobStore::write_chunks`](crate::BlobStore::write_chunks).
    pub write_chunks: MethodStats,
    /// [`ActionCache::fetch_action_result`](crate::ActionCache::fetch_action_result).
    pub fetch_action_result: MethodStats,
    /// [`ActionCacheWriter::store_action_result`](crate::ActionCacheWriter::store_action_result).
    pub store_action_result: MethodStats,
    /// [`AssetIndex::fetch_blob`](crate::AssetIndex::fetch_blob).
    pub fetch_asset: MethodStats,
    /// [`AssetIndex::push_blob`](crate::AssetIndex::push_blob).
    pub push_asset: MethodStats,
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    calls: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    pub(super) fn add(&self, blobs: usize, bytes: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.blobs.fetch_add(blobs as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self) -> MethodStats {
        MethodStats {
            calls: self.calls.swap(0, Ordering::Relaxed),
            blobs: self.blobs.swap(0, Ordering::Relaxed),
            bytes: self.bytes.swap(0, Ordering::Relaxed),
        }
    }

    fn read(&self) -> MethodStats {
        MethodStats {
            calls: self.calls.load(Ordering::Relaxed),
            blobs: self.blobs.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) find_missing: Counter,
    pub(super) read_blobs: Counter,
    pub(super) write_blobs: Counter,
    pub(super) open_blob: Counter,
    pub(super) write_chunks: Counter,
    pub(super) fetch_action_result: Counter,
    pub(super) store_action_result: Counter,
    pub(super) fetch_asset: Counter,
    pub(super) push_asset: Counter,
}

impl Counters {
    fn map(&self, f: impl Fn(&Counter) -> MethodStats) -> Stats {
        Stats {
            find_missing: f(&self.find_missing),
            read_blobs: f(&self.read_blobs),
            write_blobs: f(&self.write_blobs),
            open_blob: f(&self.open_blob),
            write_chunks: f(&self.write_chunks),
            fetch_action_result: f(&self.fetch_action_result),
            store_action_result: f(&self.store_action_result),
            fetch_asset: f(&self.fetch_asset),
            push_asset: f(&self.push_asset),
        }
    }

    pub(super) fn read(&self) -> Stats {
        self.map(Counter::read)
    }

    pub(super) fn take(&self) -> Stats {
        self.map(Counter::take)
    }
}
