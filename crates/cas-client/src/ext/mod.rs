//! What callers do with the capability traits, written once for all implementations.

mod blob_store;

pub use blob_store::{BlobStoreExt, UploadStats};
