//! Digests as messages carry them.

use reapi_proto::{Digest, DigestFunction, v2};

use crate::{Error, ErrorKind};

/// Reads a digest out of a reply to `method`: well formed and of `function`, or a protocol error.
pub(super) fn from_wire(
    method: &'static str,
    function: DigestFunction,
    digest: Option<&v2::Digest>,
) -> Result<Digest, Error> {
    let parsed = Digest::try_from(digest)
        .map_err(|e| Error::new(ErrorKind::Protocol, method, format!("a malformed digest in the reply: {e}")))?;
    if parsed.function() == function {
        Ok(parsed)
    } else {
        let found = parsed.function();
        Err(Error::new(ErrorKind::Protocol, method, format!("a {found} digest where {function} was asked for"))
            .with_digest(parsed))
    }
}

/// Most bytes that one digest takes as an element of a repeated field: the
/// hash, its size (up to 10 bytes), and the tags and lengths around them.
pub(super) const fn entry_bytes(function: DigestFunction) -> u64 {
    2 * function.hash_bytes() as u64 + 18
}
