//! Remote Execution API messages.

mod digest;

pub use digest::{Digest, DigestError, DigestFunction, Hasher};
