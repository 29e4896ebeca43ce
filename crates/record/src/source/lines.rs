//! Lines of a text that arrives in pieces.

use memchr::memchr;

/// What is looked at of a line. casd's longest one, its configuration at the
/// start, is about 2,200 bytes; requests take about 300.
pub(super) const MAX_LINE_BYTES: usize = 64 << 10;

/// Splits bytes at newlines. What it does depends on the bytes alone, not on
/// the pieces in which they come; it holds at most one line.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// The unfinished line is longer than what is kept of it.
    cut: bool,
    /// Bytes taken in.
    offset: u64,
    /// Where the unfinished line starts.
    line_start: u64,
    pub(super) lines: u64,
    pub(super) overlong: u64,
}

impl Lines {
    pub(super) fn starting_at(offset: u64) -> Self {
        Self { offset, line_start: offset, ..Self::default() }
    }

    /// Calls `each` with every line that is complete now, without its newline
    /// and without what is beyond [`MAX_LINE_BYTES`].
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.offset += end as u64 + 1;
            if self.partial.is_empty() {
                let shown = line.len().min(MAX_LINE_BYTES);
                self.count(shown < line.len());
                each(&line[..shown]);
            } else {
                self.keep(line);
                self.end_line(&mut each);
            }
            self.line_start = self.offset;
            bytes = rest;
        }
        self.offset += bytes.len() as u64;
        self.keep(bytes);
    }

    /// Takes what is left for a line, although its newline never came.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            self.end_line(&mut each);
            self.line_start = self.offset;
        }
    }

    /// Where the unfinished line starts: from here on another reader would have to read.
    pub(super) fn resume_at(&self) -> u64 {
        self.line_start
    }

    fn end_line(&mut self, each: &mut impl FnMut(&[u8])) {
        self.count(self.cut);
        each(&self.partial);
        self.partial.clear();
        self.cut = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = bytes.len().min(MAX_LINE_BYTES - self.partial.len());
        self.partial.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }

    fn count(&mut self, cut: bool) {
        self.lines += 1;
        self.overlong += u64::from(cut);
    }
}

/// What stands between `open` and the next `close`, at or after `from`.
pub(super) fn between<'a>(text: &'a [u8], open: &[u8], close: u8) -> Option<&'a [u8]> {
    let start = memchr::memmem::find(text, open)? + open.len();
    let rest = &text[start..];
    Some(&rest[..memchr(close, rest)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64, u64) {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| seen.push(line.to_vec()));
        }
        let resume = lines.resume_at();
        lines.finish(|line| seen.push(line.to_vec()));
        (seen, resume, lines.overlong)
    }

    #[test]
    fn lines_come_whole() {
        let (lines, resume, _) = split(&[b"a", b"b\nc\n\n", b"d"]);
        assert_eq!(lines, [&b"ab"[..], b"c", b"", b"d"]);
        assert_eq!(resume, 6);
        assert_eq!(split(&[]).0, [[0u8; 0]; 0]);
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let piece = vec![b'x'; MAX_LINE_BYTES - 1];
        let (lines, resume, overlong) = split(&[&piece, &piece, b"\nnext\n"]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, 4]);
        assert_eq!((resume, overlong), (2 * piece.len() as u64 + 6, 1));
    }

    #[test]
    fn what_is_between() {
        assert_eq!(between(b"a=\"b\", c=\"d\"", b"c=\"", b'"'), Some(&b"d"[..]));
        assert_eq!(between(b"c=\"d", b"c=\"", b'"'), None);
        assert_eq!(between(b"", b"c=\"", b'"'), None);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            prop_assert_eq!(split(&pieces), split(&[&text]));
        }
    }
}
