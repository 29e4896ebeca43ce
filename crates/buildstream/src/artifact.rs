//! The messages in refs: what BuildStream stores about an artifact and about sources.

use bytes::Bytes;
use prost::Message;
use reapi_proto::raw::{RawError, set_message_field};
use reapi_proto::{Digest, DigestError, buildstream, v2};

use crate::names::{CacheKey, NameError};

/// The field of an Artifact that names its record.
const SPECULATIVE_ACTIONS: u32 = 19;

/// Why bytes are not a usable ref.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// Not the message that it should be.
    #[error("not {expected}: {reason}")]
    Malformed {
        /// The message that was expected.
        expected: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The message cannot be edited without loss.
    #[error("the artifact cannot be edited: {0}")]
    Edit(RawError),
    /// A digest in it is none.
    #[error("{field}: {reason}")]
    Digest {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: DigestError,
    },
    /// A key in it is none.
    #[error("{field}: {reason}")]
    Key {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: NameError,
    },
}

/// What BuildStream stores about a built element: the exact bytes, and what they say.
///
/// Equality is that of the bytes.
#[derive(Clone, Debug)]
pub struct Artifact {
    bytes: Bytes,
    message: buildstream::Artifact,
}

impl Artifact {
    /// Reads the content of a ref.
    ///
    /// # Errors
    /// [`MessageError::Malformed`].
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, MessageError> {
        let bytes = bytes.into();
        let malformed = |reason: String| MessageError::Malformed { expected: "an Artifact", reason };
        let message = buildstream::Artifact::decode(bytes.clone()).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { bytes, message })
    }

    /// The exact bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The fields. For reading: encoding them again loses what is not known here.
    #[must_use]
    pub fn message(&self) -> &buildstream::Artifact {
        &self.message
    }

    /// The key that covers everything.
    ///
    /// # Errors
    /// [`MessageError::Key`] where there is none.
    pub fn strong_key(&self) -> Result<CacheKey, MessageError> {
        self.message.strong_key.parse().map_err(|reason| MessageError::Key { field: "strong_key", reason })
    }

    /// The key that changes of dependencies do not change.
    ///
    /// # Errors
    /// [`MessageError::Key`] where there is none.
    pub fn weak_key(&self) -> Result<CacheKey, MessageError> {
        self.message.weak_key.parse().map_err(|reason| MessageError::Key { field: "weak_key", reason })
    }

    /// The root of what dependents get staged; `None` for a failed build.
    ///
    /// # Errors
    /// [`MessageError::Digest`].
    pub fn files(&self) -> Result<Option<Digest>, MessageError> {
        digest("files", self.message.files.as_ref())
    }

    /// The record that was attached to it.
    ///
    /// # Errors
    /// [`MessageError::Digest`].
    pub fn speculative_actions(&self) -> Result<Option<Digest>, MessageError> {
        digest("speculative_actions", self.message.speculative_actions.as_ref())
    }

    /// The artifact with another record or (`None`) without one; every other byte is kept.
    ///
    /// # Errors
    /// [`MessageError::Edit`] where the field occurs more than once: decoders would not agree what that means.
    pub fn with_speculative_actions(&self, record: Option<&Digest>) -> Result<Self, MessageError> {
        let value = record.map(|record| v2::Digest::from(record).encode_to_vec());
        let bytes =
            set_message_field(&self.bytes, SPECULATIVE_ACTIONS, value.as_deref()).map_err(MessageError::Edit)?;
        Self::parse(bytes)
    }

    /// Blobs that an artifact server must keep for this artifact, the record left out.
    ///
    /// # Errors
    /// [`MessageError::Digest`].
    pub fn referenced_blobs(&self) -> Result<Vec<Digest>, MessageError> {
        let Self { message: m, .. } = self;
        let meta = [
            ("low_diversity_meta", &m.low_diversity_meta),
            ("high_diversity_meta", &m.high_diversity_meta),
            ("public_data", &m.public_data),
        ];
        let logs = m.logs.iter().map(|log| ("logs", &log.digest));
        distinct(meta.into_iter().chain(logs).map(|(field, message)| (field, message.as_ref())))
    }

    /// Directory trees that an artifact server must keep for this artifact.
    ///
    /// # Errors
    /// [`MessageError::Digest`].
    pub fn referenced_directories(&self) -> Result<Vec<Digest>, MessageError> {
        let Self { message: m, .. } = self;
        let roots =
            [("files", &m.files), ("buildtree", &m.buildtree), ("sources", &m.sources), ("buildroot", &m.buildroot)];
        let roots = roots.into_iter().map(|(field, message)| (field, message.as_ref()));
        let sandboxes = m.buildsandbox.iter().flat_map(|sandbox| &sandbox.subsandbox_digests);
        distinct(roots.chain(sandboxes.map(|message| ("subsandbox_digests", Some(message)))))
    }
}

impl PartialEq for Artifact {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Artifact {}

/// What BuildStream stores about the staged sources of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sources {
    /// Their root directory.
    pub files: Digest,
}

impl Sources {
    /// Reads the content of a ref.
    ///
    /// # Errors
    /// [`MessageError::Malformed`]; [`MessageError::Digest`] where it does not name a root.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let malformed = |reason: String| MessageError::Malformed { expected: "a Source", reason };
        let message = buildstream::Source::decode(bytes).map_err(|e| malformed(e.to_string()))?;
        let files = digest("files", message.files.as_ref())?;
        Ok(Self { files: files.ok_or(MessageError::Digest { field: "files", reason: DigestError::Absent })? })
    }
}

fn digest(field: &'static str, message: Option<&v2::Digest>) -> Result<Option<Digest>, MessageError> {
    let read = |message| Digest::try_from(message).map_err(|reason| MessageError::Digest { field, reason });
    message.map(read).transpose()
}

/// The digests among these, each once, in order of first occurrence.
fn distinct<'a>(
    fields: impl Iterator<Item = (&'static str, Option<&'a v2::Digest>)>,
) -> Result<Vec<Digest>, MessageError> {
    let mut digests = Vec::new();
    for (field, message) in fields {
        if let Some(digest) = digest(field, message)?.filter(|digest| !digests.contains(digest)) {
            digests.push(digest);
        }
    }
    Ok(digests)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use reapi_proto::DigestFunction;

    pub(crate) fn sha(text: &str) -> Digest {
        DigestFunction::Sha256.digest(text.as_bytes())
    }

    /// Some message with every kind of field that matters here.
    pub(crate) fn message(strong: &str, weak: &str) -> buildstream::Artifact {
        buildstream::Artifact {
            version: 2,
            build_success: true,
            strong_key: strong.to_owned(),
            weak_key: weak.to_owned(),
            files: Some(sha("files").into()),
            public_data: Some(sha("public").into()),
            low_diversity_meta: Some(sha("low").into()),
            high_diversity_meta: Some(sha("high").into()),
            logs: vec![buildstream::artifact::LogFile { name: "build.log".into(), digest: Some(sha("log").into()) }],
            buildsandbox: Some(buildstream::artifact::SandboxState {
                subsandbox_digests: vec![sha("chroot").into(), sha("files").into()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A field that nobody has heard of.
    const UNKNOWN: &[u8] = b"\xa2\x06\x05hello";

    #[test]
    fn the_record_is_one_field_among_others() {
        let plain = Artifact::parse([&message("s", "w").encode_to_vec()[..], UNKNOWN].concat()).unwrap();
        assert_eq!(plain.speculative_actions(), Ok(None));
        let with = plain.with_speculative_actions(Some(&sha("record"))).unwrap();
        assert_eq!(with.speculative_actions(), Ok(Some(sha("record"))));
        assert!(with.bytes().ends_with(UNKNOWN), "field 19 stands before field 100");
        assert_eq!(with.files(), Ok(Some(sha("files"))));
        assert_eq!(with.with_speculative_actions(None).unwrap(), plain);
    }

    #[test]
    fn references_are_those_of_a_push() {
        let artifact = Artifact::parse(message("s", "w").encode_to_vec()).unwrap();
        assert_eq!(artifact.referenced_blobs().unwrap(), ["low", "high", "public", "log"].map(sha));
        assert_eq!(artifact.referenced_directories().unwrap(), ["files", "chroot"].map(sha));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let malformed = Artifact::parse(&b"\x0a"[..]).unwrap_err();
        assert!(malformed.to_string().starts_with("not an Artifact: "), "{malformed}");
        let mut bad = message("s", "w");
        bad.files = Some(v2::Digest { hash: "x".into(), size_bytes: 1 });
        let bad = Artifact::parse(bad.encode_to_vec()).unwrap();
        assert!(matches!(bad.files(), Err(MessageError::Digest { field: "files", .. })));
        assert!(matches!(bad.referenced_directories(), Err(MessageError::Digest { field: "files", .. })));
        assert!(matches!(bad.strong_key(), Err(MessageError::Key { field: "strong_key", .. })));

        let digest = v2::Digest::from(sha("r")).encode_to_vec();
        let one = [&[0x9a, 0x01, u8::try_from(digest.len()).unwrap()][..], &digest].concat();
        let twice = Artifact::parse([&one[..], &one].concat()).unwrap();
        assert!(matches!(twice.with_speculative_actions(None), Err(MessageError::Edit(_))));
        assert!(matches!(Sources::parse(b""), Err(MessageError::Digest { field: "files", .. })));
    }

    fn arbitrary_message() -> impl Strategy<Value = Vec<u8>> {
        let record = option::of("[a-z]{1,8}");
        let known =
            ("[0-9a-f]{64}", "[0-9a-f]{64}", record, any::<bool>()).prop_map(|(strong, weak, record, success)| {
                let record = record.map(|text| sha(&text).into());
                let m = message(&strong, &weak);
                buildstream::Artifact { build_success: success, speculative_actions: record, ..m }.encode_to_vec()
            });
        // Unknown fields of any number from 20 on, in no particular order, before and after.
        let unknown = vec((20_u32..500, vec(any::<u8>(), 0..20)), 0..4).prop_map(|fields| {
            let mut bytes = Vec::new();
            for (number, payload) in fields {
                prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
                prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
                bytes.extend(payload);
            }
            bytes
        });
        (unknown.clone(), known, unknown).prop_map(|(before, known, after)| [before, known, after].concat())
    }

    proptest! {
        #[test]
        fn attaching_keeps_everything_else_and_is_idempotent(bytes in arbitrary_message(), record in "[a-z]{1,8}") {
            let record = sha(&record);
            let artifact = Artifact::parse(bytes).unwrap();
            let with = artifact.with_speculative_actions(Some(&record)).unwrap();
            prop_assert_eq!(with.speculative_actions().unwrap(), Some(record));
            let again = with.with_speculative_actions(Some(&record)).unwrap();
            prop_assert_eq!(again.bytes(), with.bytes());
            // Without the field, the two are the same bytes.
            let without = artifact.with_speculative_actions(None).unwrap();
            let stripped = with.with_speculative_actions(None).unwrap();
            prop_assert_eq!(stripped.bytes(), without.bytes());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Sources::parse(&bytes);
            if let Ok(artifact) = Artifact::parse(bytes) {
                let _ = (artifact.files(), artifact.speculative_actions(), artifact.strong_key(), artifact.weak_key());
                let _ = (artifact.referenced_blobs(), artifact.referenced_directories());
                let _ = artifact.with_speculative_actions(Some(&sha("r")));
            }
        }
    }
}
