//! Names of blobs in the ByteStream service.
//!
//! The specification names blobs `INSTANCE/blobs/HASH/SIZE`, with a segment
//! for the digest function in front of the hash where the hash's length does
//! not tell it. For every function of [`DigestFunction`] the length does, and
//! the segment must then be left out; it is accepted when read, since some
//! servers and clients write it. An empty instance takes its slash with it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::v2::compressor::Value as Compressor;
use crate::v2::digest_function::Value as WireFunction;
use crate::{Digest, DigestError, DigestFunction};

/// Segments that end an instance name, since resource names continue with them.
const RESERVED: [&str; 7] =
    ["blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"];
/// Longest part of a name that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// Why a string does not name a blob.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceError {
    /// The segments are not those of such a name.
    #[error("{name:?} is not {expected}")]
    Form {
        /// The name, cut after 80 characters.
        name: String,
        /// The form that was expected.
        expected: &'static str,
    },
    /// An instance name with an empty or reserved segment.
    #[error("{0:?} cannot be an instance name: segments must not be empty, nor any of {RESERVED:?}")]
    Instance(String),
    /// A compression that the specification does not have.
    #[error("{0:?} is not a compression; known are zstd, deflate and brotli")]
    Compressor(String),
    /// An upload identifier that is empty or contains a slash.
    #[error("{0:?} cannot identify an upload: it must be one segment")]
    UploadId(String),
    /// The digest in the name.
    #[error("the digest in {0:?}: {1}")]
    Digest(String, DigestError),
}

/// The part of a service that a request is for: empty, or segments without
/// the words that resource names are made of. Clones are cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    /// Checks an instance name.
    ///
    /// # Errors
    /// [`ResourceError::Instance`].
    pub fn new(name: &str) -> Result<Self, ResourceError> {
        let bad = |segment: &str| segment.is_empty() || RESERVED.contains(&segment);
        if !name.is_empty() && name.split('/').any(bad) {
            return Err(ResourceError::Instance(cut(name)));
        }
        Ok(Self(name.into()))
    }

    /// The name as it stands in messages.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes the name and the slash that separates it from what follows.
    fn write_prefix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}/", self.0) }
    }
}

/// The empty instance.
impl Default for InstanceName {
    fn default() -> Self {
        Self("".into())
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = ResourceError;

    fn from_str(s: &str) -> Result<Self, ResourceError> {
        Self::new(s)
    }
}

/// The name that `ByteStream.Read` takes:
/// `[INSTANCE/]blobs/HASH/SIZE` or `[INSTANCE/]compressed-blobs/COMPRESSOR/HASH/SIZE`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReadName {
    /// The instance.
    pub instance: InstanceName,
    /// How the bytes are compressed on the way.
    pub compressor: Compressor,
    /// The blob; always of the uncompressed bytes.
    pub digest: Digest,
}

impl fmt::Display for ReadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instance.write_prefix(f)?;
        write_blob(f, self.compressor, &self.digest)
    }
}

impl FromStr for ReadName {
    type Err = ResourceError;

    fn from_str(name: &str) -> Result<Self, ResourceError> {
        let form = || form(name, "the name of a blob to read: [INSTANCE/]blobs/HASH/SIZE");
        let (instance, rest) = split_instance(name, &["blobs", "compressed-blobs"]).ok_or_else(form)?;
        let (compressor, digest, rest) = parse_blob(name, rest)?;
        if rest.is_some() {
            return Err(form());
        }
        Ok(Self { instance: InstanceName::new(instance)?, compressor, digest })
    }
}

/// The name that `ByteStream.Write` and `QueryWriteStatus` take:
/// `[INSTANCE/]uploads/ID/` and the blob as in a [`ReadName`]. Anything that
/// a client adds behind the size is accepted, and ignored as the specification says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WriteName {
    instance: InstanceName,
    upload_id: String,
    compressor: Compressor,
    digest: Digest,
}

impl WriteName {
    /// The name for one upload. `upload_id` is a fresh UUID for each upload; resuming one takes the same again.
    ///
    /// # Errors
    /// [`ResourceError::UploadId`].
    pub fn new(
        instance: InstanceName,
        upload_id: impl Into<String>,
        compressor: Compressor,
        digest: Digest,
    ) -> Result<Self, ResourceError> {
        let upload_id = upload_id.into();
        if upload_id.is_empty() || upload_id.contains('/') {
            return Err(ResourceError::UploadId(cut(&upload_id)));
        }
        Ok(Self { instance, upload_id, compressor, digest })
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// What tells this upload from others of the same blob.
    #[must_use]
    pub fn upload_id(&self) -> &str {
        &self.upload_id
    }

    /// How the bytes are compressed on the way.
    #[must_use]
    pub fn compressor(&self) -> Compressor {
        self.compressor
    }

    /// The blob; always of the uncompressed bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl fmt::Display for WriteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instance.write_prefix(f)?;
        write!(f, "uploads/{}/", self.upload_id)?;
        write_blob(f, self.compressor, &self.digest)
    }
}

impl FromStr for WriteName {
    type Err = ResourceError;

    fn from_str(name: &str) -> Result<Self, ResourceError> {
        let form = || form(name, "the name of an upload: [INSTANCE/]uploads/ID/blobs/HASH/SIZE");
        let (instance, rest) = split_instance(name, &["uploads"]).ok_or_else(form)?;
        let (upload_id, rest) = rest.strip_prefix("uploads/").and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
        let (compressor, digest, _) = parse_blob(name, rest)?;
        Self::new(InstanceName::new(instance)?, upload_id, compressor, digest)
    }
}

fn write_blob(f: &mut fmt::Formatter<'_>, compressor: Compressor, digest: &Digest) -> fmt::Result {
    match compressor {
        Compressor::Identity => write!(f, "blobs/{digest}"),
        Compressor::Zstd => write!(f, "compressed-blobs/zstd/{digest}"),
        Compressor::Deflate => write!(f, "compressed-blobs/deflate/{digest}"),
        Compressor::Brotli => write!(f, "compressed-blobs/brotli/{digest}"),
    }
}

/// Splits a name in front of its first reserved word, which must be one of `words`.
fn split_instance<'a>(name: &'a str, words: &[&str]) -> Option<(&'a str, &'a str)> {
    let mut start = 0_usize;
    for segment in name.split('/') {
        if RESERVED.contains(&segment) {
            // A leading slash (`start` is 1) would be an instance with one empty segment.
            let found = words.contains(&segment) && start != 1;
            return found.then(|| (&name[..start.saturating_sub(1)], &name[start..]));
        }
        start += segment.len() + 1;
    }
    None
}

/// Reads the part of a name that starts with `blobs` or `compressed-blobs`; returns what is behind the size too.
fn parse_blob<'a>(name: &str, part: &'a str) -> Result<(Compressor, Digest, Option<&'a str>), ResourceError> {
    if let Some(rest) = part.strip_prefix("blobs/") {
        let (digest, rest) = parse_digest(name, rest)?;
        return Ok((Compressor::Identity, digest, rest));
    }
    let (compressor, rest) = part
        .strip_prefix("compressed-blobs/")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| form(name, "the name of a blob"))?;
    let compressor = match compressor {
        "zstd" => Compressor::Zstd,
        "deflate" => Compressor::Deflate,
        "brotli" => Compressor::Brotli,
        other => return Err(ResourceError::Compressor(cut(other))),
    };
    let (digest, rest) = parse_digest(name, rest)?;
    Ok((compressor, digest, rest))
}

/// Reads `[FUNCTION/]HASH/SIZE` and returns what is behind it too.
pub(crate) fn parse_digest<'a>(name: &str, part: &'a str) -> Result<(Digest, Option<&'a str>), ResourceError> {
    let bad = |error| ResourceError::Digest(cut(name), error);
    let (first, behind_first) = part.split_once('/').ok_or_else(|| bad(DigestError::Form))?;
    let (function, part) = if WireFunction::from_str_name(&first.to_ascii_uppercase()).is_some() {
        (Some(first.parse::<DigestFunction>().map_err(bad)?), behind_first)
    } else {
        (None, part)
    };
    let hash_len = part.find('/').ok_or_else(|| bad(DigestError::Form))?;
    let end = part[hash_len + 1..].find('/').map(|size_len| hash_len + 1 + size_len);
    let digest: Digest = part[..end.unwrap_or(part.len())].parse().map_err(bad)?;
    if let Some(function) = function.filter(|function| *function != digest.function()) {
        return Err(bad(DigestError::Length { found: hash_len, expected: function.hash_bytes() * 2 }));
    }
    Ok((digest, end.map(|end| &part[end + 1..])))
}

pub(crate) fn form(name: &str, expected: &'static str) -> ResourceError {
    ResourceError::Form { name: cut(name), expected }
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
