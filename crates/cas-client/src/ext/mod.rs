//! What callers do with the capability traits, written once for all implementations.

mod action_cache;
mod blob_store;

pub use action_cache::{ActionCacheExt, Lookup};
pub use blob_store::{BlobStoreExt, UploadStats};
