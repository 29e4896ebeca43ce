//! Digests to and from their wire messages.

use crate::{Digest, DigestError, v2};

impl From<&Digest> for v2::Digest {
    fn from(digest: &Digest) -> Self {
        Self { hash: digest.to_hex(), size_bytes: digest.wire_size() }
    }
}

impl From<Digest> for v2::Digest {
    fn from(digest: Digest) -> Self {
        Self::from(&digest)
    }
}

impl TryFrom<&v2::Digest> for Digest {
    type Error = DigestError;

    /// The function is the one whose hashes have the length found, as in [`Digest::from_hex`].
    fn try_from(digest: &v2::Digest) -> Result<Self, DigestError> {
        Self::from_hex(digest.hash.as_bytes(), digest.size_bytes)
    }
}

impl TryFrom<Option<&v2::Digest>> for Digest {
    type Error = DigestError;

    /// [`DigestError::Absent`] for `None`.
    fn try_from(digest: Option<&v2::Digest>) -> Result<Self, DigestError> {
        digest.ok_or(DigestError::Absent)?.try_into()
    }
}

impl TryFrom<&Option<v2::Digest>> for Digest {
    type Error = DigestError;

    /// [`DigestError::Absent`] for `None`.
    fn try_from(digest: &Option<v2::Digest>) -> Result<Self, DigestError> {
        digest.as_ref().try_into()
    }
}
