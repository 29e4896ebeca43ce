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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;

    #[test]
    fn digests_round_trip_through_messages() {
        for function in DigestFunction::ALL {
            let digest = function.digest(b"x");
            let message = v2::Digest::from(&digest);
            assert_eq!(message, v2::Digest::from(digest));
            assert_eq!((&message).try_into(), Ok(digest));
            assert_eq!(Some(&message).try_into(), Ok(digest));
            assert_eq!((&Some(message)).try_into(), Ok(digest));
        }
    }

    #[test]
    fn degenerate_messages_are_refused() {
        let refuse = |message: &Option<v2::Digest>| Digest::try_from(message).unwrap_err();
        assert_eq!(refuse(&None), DigestError::Absent);
        let empty = v2::Digest::default();
        assert_eq!(refuse(&Some(empty)), DigestError::Length { found: 0, expected: 64 });
        let negative = v2::Digest { hash: DigestFunction::Sha256.empty().to_hex(), size_bytes: -1 };
        assert_eq!(refuse(&Some(negative)), DigestError::Size("-1".into()));
    }
}
