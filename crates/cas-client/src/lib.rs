//! Placeholder header.
mod batch;
mod blob;
mod closure;
pub mod decorators;
mod error;
mod ext;
mod file;
#[cfg(feature = "grpc")]
pub mod grpc;
mod in_memory;
mod outputs;
#[cfg(feature = "grpc")]
mod retry;
mod shared;
mod traits;
mod tree;

pub use blob::Blob;
pub use error::{Error, ErrorKind, Result};
pub use ext::{ActionCacheExt, BlobStoreExt, Lookup, UploadStats};
pub use file::FileStore;
pub use in_memory::{InMemory, MethodStats, Stats};
pub use outputs::{Output, OutputKind, outputs};
pub use traits::*;
pub use tree::{TreeBudget, Trees, read_trees};
