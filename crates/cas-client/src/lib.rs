//! Placeholder header.
mod batch;
mod blob;
mod error;
mod ext;
mod in_memory;
mod traits;

pub use blob::Blob;
pub use error::{Error, ErrorKind, Result};
pub use ext::{BlobStoreExt, UploadStats};
pub use in_memory::{InMemory, MethodStats, Stats};
pub use traits::*;
