//! The make rules that compilers write with `-M` and its relatives.

use bytes::Bytes;
use rustc_hash::FxHashSet;

/// How large a listing may be. The largest translation units read some ten
/// thousand files; this is room for a hundred times as many.
pub const MAX_BYTES: usize = 64 << 20;

/// Why a listing cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DepfileError {
    /// There is no rule in it.
    #[error("there is no rule in the dependency listing")]
    NoRule,
    /// A line that is not a rule.
    #[error("line {line} of the dependency listing is not a rule")]
    NotARule {
        /// Counted from one; continued lines count each.
        line: usize,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error("the dependency listing has {bytes} bytes, the limit is {MAX_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// The prerequisites of all rules in `text`, each once, in order of their first mention.
///
/// Understood is what gcc and clang write, not everything that make reads:
/// lines continued with a backslash, `\ ` and `\#` and `$$` for characters that
/// mean something to make, backslashes doubled before a space, several rules.
/// The rules without prerequisites that `-MP` adds contribute nothing.
///
/// # Errors
/// [`DepfileError`]: nothing in it, not a listing at all, or too large.
pub fn parse(text: &[u8]) -> Result<Vec<Bytes>, DepfileError> {
    if text.len() > MAX_BYTES {
        return Err(DepfileError::TooLarge { bytes: text.len() });
    }
    let mut words = Words { text, at: 0, line: 1 };
    let (mut seen, mut found) = (FxHashSet::default(), Vec::new());
    let (mut rules, mut targets, mut after_colon) = (0_usize, 0_usize, false);
    loop {
        match words.next() {
            Token::Word(word) if after_colon => {
                if seen.insert(word.clone()) {
                    found.push(word);
                }
            }
            Token::Word(_) => targets += 1,
            Token::Colon if targets > 0 => {
                after_colon = true;
                rules += 1;
            }
            Token::Colon => return Err(DepfileError::NotARule { line: words.line }),
            end @ (Token::Newline | Token::End) => {
                if targets > 0 && !after_colon {
                    let line = words.line - usize::from(matches!(end, Token::Newline));
                    return Err(DepfileError::NotARule { line });
                }
                (targets, after_colon) = (0, false);
                if matches!(end, Token::End) {
                    break;
                }
            }
        }
    }
    if rules == 0 { Err(DepfileError::NoRule) } else { Ok(found) }
}

enum Token {
    Word(Bytes),
    /// A colon that ends the targets: one at the end of a word.
    Colon,
    Newline,
    End,
}

struct Words<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Token {
        loop {
            match self.text.get(self.at) {
                None => return Token::End,
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                    return Token::Newline;
                }
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.continuation() > 0 => {
                    self.at += self.continuation();
                    self.line += 1;
                }
                Some(b':') if self.ends_word(self.at + 1) => {
                    self.at += 1;
                    return Token::Colon;
                }
                Some(_) => return Token::Word(self.word()),
            }
        }
    }

    /// How many bytes the backslash and line end at the cursor take; 0: there is none.
    fn continuation(&self) -> usize {
        match self.text[self.at..] {
            [b'\\', b'\n', ..] => 2,
            [b'\\', b'\r', b'\n', ..] => 3,
            _ => 0,
        }
    }

    fn ends_word(&self, at: usize) -> bool {
        matches!(self.text.get(at), None | Some(b' ' | b'\t' | b'\r' | b'\n'))
            || matches!(self.text[at..], [b'\\', b'\n', ..] | [b'\\', b'\r', b'\n', ..])
    }

    fn word(&mut self) -> Bytes {
        let mut word = Vec::new();
        while !self.ends_word(self.at) {
            let byte = self.text[self.at];
            if byte == b':' && self.ends_word(self.at + 1) {
                break;
            }
            self.at += 1;
            match (byte, self.text.get(self.at)) {
                (b'$', Some(b'$')) => self.at += 1,
                (b'\\', Some(b'#')) => {
                    self.at += 1;
                    word.push(b'#');
                    continue;
                }
                (b'\\', Some(b' ' | b'\t')) => {
                    // An escaped blank; the backslashes before it were doubled by the writer.
                    let doubled = word.iter().rev().take_while(|b| **b == b'\\').count();
                    word.truncate(word.len() - doubled.div_ceil(2));
                    word.push(self.text[self.at]);
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            word.push(byte);
        }
        Bytes::from(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found = parse(text.as_bytes()).unwrap();
        let found: Vec<_> = found.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn rules_are_read() {
        check("a.o: a.c b.h\n", &["a.c", "b.h"]);
        check("a.o: a.c \\\n b.h \\\r\n  c.h", &["a.c", "b.h", "c.h"]);
        check("a.o b.o : a.c\nc.o: d.h a.c\n", &["a.c", "d.h"]);
        check("a.o: a.c b.h\nb.h:\nc.h:\n", &["a.c", "b.h"]);
        check("a.o:\\\n a.c\n\n", &["a.c"]);
        check("a.o:", &[]);
    }

    #[test]
    fn escapes_are_undone() {
        check("c.o: c.c a\\ b\\#$$.h", &["c.c", "a b#$.h"]);
        check("c.o: a\\b.h c:d.h $x", &["a\\b.h", "c:d.h", "$x"]);
        check("c.o: a\\\\\\ b", &["a\\ b"]);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert_eq!(parse(b""), Err(DepfileError::NoRule));
        assert_eq!(parse(b"\n \n"), Err(DepfileError::NoRule));
        assert_eq!(parse(b"a.o: b\nnot a rule\n"), Err(DepfileError::NotARule { line: 2 }));
        assert_eq!(parse(b": b\n"), Err(DepfileError::NotARule { line: 1 }));
    }
}
