//! Reading whole blobs, on a blocking thread.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use reapi_proto::Digest;

use super::layout::Layout;
use crate::batch::preallocation;
use crate::{Error, Result};

/// Blobs up to this size are read through one reused buffer and then copied to
/// an allocation of their own size.
const SMALL_BYTES: usize = 64 << 10;

/// Allocated ahead of the data at most: a digest's size is a claim of whoever wrote it.
const MAX_PREALLOCATION_BYTES: usize = 1 << 20;

/// Reads blobs one after the other, reusing its buffers.
pub(super) struct Reader<'a> {
    layout: &'a Layout,
    path: PathBuf,
    scratch: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self { layout, path: PathBuf::new(), scratch: Vec::new() }
    }

    /// The verified blob, or `None` if it is absent.
    pub(super) fn read(&mut self, digest: &Digest) -> Result<Option<Bytes>> {
        if digest.is_empty() && digest.matches(&[]) {
            return Ok(Some(Bytes::new()));
        }
        self.layout.blobs.locate(digest, &mut self.path);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.layout.error("read", e).with_digest(*digest)),
        };
        let data = if digest.size_bytes() <= SMALL_BYTES as u64 {
            small(&mut file, digest, &mut self.scratch).map(Bytes::copy_from_slice)
        } else {
            large(&mut file, digest).map(Bytes::from)
        };
        let data = data.map_err(|e| self.layout.error("read", e).with_digest(*digest))?;
        if data.len() as u64 == digest.size_bytes() && digest.matches(&data) {
            return Ok(Some(data));
        }
        let reason = match data.len() as u64 {
            found if found < digest.size_bytes() => format!("the file is truncated to {found} bytes"),
            found if found > digest.size_bytes() => "the file is longer than the blob".to_owned(),
            _ => "the file's contents do not match".to_owned(),
        };
        Err(Error::corrupt("read", *digest, reason).at(self.layout))
    }
}

/// Reads up to one byte more than the blob has, so that a longer file is noticed.
///
/// A regular file returns less than asked for only at its end, which saves a
/// second call in nearly all cases; the digest is checked in any case.
fn small<'b>(file: &mut File, digest: &Digest, scratch: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let wanted = preallocation(digest.size_bytes(), SMALL_BYTES) + 1;
    if scratch.len() < wanted {
        scratch.resize(wanted.next_power_of_two(), 0);
    }
    let buffer = &mut scratch[..wanted];
    let mut filled = 0;
    while filled < wanted - 1 {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(&buffer[..filled])
}

fn large(file: &mut File, digest: &Digest) -> io::Result<Vec<u8>> {
    let wanted = digest.size_bytes().saturating_add(1);
    // Two bytes more than the blob: the extra byte of `wanted` and room to notice the end without growing.
    let mut data = Vec::with_capacity(preallocation(wanted.saturating_add(1), MAX_PREALLOCATION_BYTES));
    file.take(wanted).read_to_end(&mut data)?;
    Ok(data)
}
