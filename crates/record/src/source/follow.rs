//! Following a log that is still being written.

use std::io::{self, ErrorKind, Read};

use super::CasdLogScanner;

/// Read at once: enough that the calls do not matter, little enough to stay in the processor's cache.
const PIECE_BYTES: usize = 128 << 10;

/// Feeds a scanner from a reader, as far as there is something to read.
///
/// Meant for a `File`, whose end is only the end so far. The file is held
/// open, so a log that is rotated away meanwhile is still read to its end.
/// Reads block; on an asynchronous runtime, call from a thread that may.
#[derive(Debug)]
pub struct Follower<R> {
    reader: R,
    scanner: CasdLogScanner,
    piece: Vec<u8>,
}

impl<R: Read> Follower<R> {
    /// Follows `reader`, which stands where `scanner` is to continue.
    #[must_use]
    pub fn new(reader: R, scanner: CasdLogScanner) -> Self {
        Self { reader, scanner, piece: vec![0; PIECE_BYTES] }
    }

    /// Reads to the current end. Returns the number of actions that are new at the end of the scanner's list.
    ///
    /// # Errors
    /// The reader's. What was read before is taken in, and polling may go on.
    pub fn poll(&mut self) -> io::Result<usize> {
        let known = self.scanner.actions().len();
        loop {
            match self.reader.read(&mut self.piece) {
                Ok(0) => return Ok(self.scanner.actions().len() - known),
                Ok(read) => self.scanner.advance(&self.piece[..read.min(PIECE_BYTES)]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn scanner(&self) -> &CasdLogScanner {
        &self.scanner
    }

    /// The scanner, for a log that is complete: its last line is taken in even without a newline.
    #[must_use]
    pub fn finish(mut self) -> CasdLogScanner {
        self.scanner.finish();
        self.scanner
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use reapi_proto::{Digest, DigestFunction};

    use super::*;

    /// What each read returns; an end where the script says so.
    struct Script(VecDeque<io::Result<Vec<u8>>>);

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or(Ok(Vec::new()))?;
            into[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn request(action: &Digest) -> Vec<u8> {
        format!(
            "2026-11-22T10:48:28.830+0000 [1:2] [buildboxcasd_server.cpp:228] [INFO] GetActionResult request from \
             [peer=\"unix:\"]: [tool_name=\"recc\", tool_version=\"1.4.30\", action_id=\"{action}\", ]\n"
        )
        .into_bytes()
    }

    #[test]
    fn what_is_appended_is_found() {
        let [a, b, c] = ["a", "b", "c"].map(|name| DigestFunction::Sha256.digest(name.as_bytes()));
        let (b_line, mut c_line) = (request(&b), request(&c));
        c_line.pop();
        let script = [
            Ok(request(&a)),
            Err(ErrorKind::Interrupted.into()),
            Ok(b_line[..90].to_vec()),
            Ok(Vec::new()),
            Ok(b_line[90..].to_vec()),
            Ok(Vec::new()),
            Err(ErrorKind::StaleNetworkFileHandle.into()),
            Ok(c_line),
        ];
        let mut follower = Follower::new(Script(script.into()), CasdLogScanner::new());
        assert_eq!(follower.poll().unwrap(), 1);
        assert_eq!(follower.scanner().resume_at(), request(&a).len() as u64);
        assert_eq!(follower.poll().unwrap(), 1);
        assert_eq!(follower.poll().unwrap_err().kind(), ErrorKind::StaleNetworkFileHandle);
        assert_eq!(follower.poll().unwrap(), 0);
        assert_eq!(follower.poll().unwrap(), 0);
        let found = follower.finish().into_actions();
        assert_eq!(found.iter().map(|a| a.action).collect::<Vec<_>>(), [a, b, c]);
    }
}
