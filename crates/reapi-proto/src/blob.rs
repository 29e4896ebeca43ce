//! A blob together with its digest.

use std::fmt;

use bytes::Bytes;

use crate::{Digest, DigestFunction};

/// Bytes and the digest that names them. The two always agree: a value can
/// only be made by hashing or by checking.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    digest: Digest,
    data: Bytes,
}

impl Blob {
    /// Hashes `data`.
    #[must_use]
    pub fn new(function: DigestFunction, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { digest: function.digest(&data), data }
    }

    /// Accepts `data` as the blob `digest` if it is.
    #[must_use]
    pub fn verified(digest: Digest, data: Bytes) -> Option<Self> {
        digest.matches(&data).then_some(Self { digest, data })
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The bytes, without the digest.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        self.data
    }
}

/// Shows the digest only: blob contents do not belong in logs.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({})", self.digest)
    }
}
