//! Placeholder header.
mod blob;
mod error;
mod traits;

pub use blob::Blob;
pub use error::{Error, ErrorKind, Result};
pub use traits::*;
