//! The directives of a text, one by one, out of its comments, literals and line splices.

use bytes::Bytes;

/// The text of every directive after its `#`, comments gone, blanks collapsed to one space, trimmed.
pub(super) fn lines(text: &[u8]) -> Vec<Bytes> {
    let mut cursor = Cursor { text, at: 0 };
    let mut found = Vec::new();
    let mut line_start = true;
    let mut skipped = Vec::new();
    while let Some(c) = cursor.next() {
        match c {
            b'\n' => line_start = true,
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {}
            b'/' if cursor.peek() == Some(b'*') => cursor.block_comment(),
            b'/' if cursor.peek() == Some(b'/') => cursor.line_comment(),
            b'#' if line_start => found.push(directive(&mut cursor)),
            b'%' if line_start && cursor.peek() == Some(b':') => {
                cursor.next();
                found.push(directive(&mut cursor));
            }
            _ => {
                line_start = false;
                skipped.clear();
                cursor.code(c, &mut skipped);
            }
        }
    }
    found
}

fn directive(cursor: &mut Cursor<'_>) -> Bytes {
    let mut out: Vec<u8> = Vec::new();
    while let Some(c) = cursor.peek() {
        if c == b'\n' {
            break;
        }
        cursor.next();
        match c {
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => blank(&mut out),
            b'/' if cursor.peek() == Some(b'*') => {
                cursor.block_comment();
                blank(&mut out);
            }
            b'/' if cursor.peek() == Some(b'/') => cursor.line_comment(),
            b'<' | b'"' if names_header(&out) => {
                // A header's name: nothing in it is an escape or a comment.
                let end = if c == b'<' { b'>' } else { b'"' };
                out.push(c);
                while let Some(c) = cursor.peek().filter(|c| *c != b'\n') {
                    cursor.next();
                    out.push(c);
                    if c == end {
                        break;
                    }
                }
            }
            _ => cursor.code(c, &mut out),
        }
    }
    if out.last() == Some(&b' ') {
        out.pop();
    }
    Bytes::from(out)
}

fn blank(out: &mut Vec<u8>) {
    if out.last().is_some_and(|c| *c != b' ') {
        out.push(b' ');
    }
}

fn names_header(before: &[u8]) -> bool {
    let before = before.strip_suffix(b" ").unwrap_or(before);
    matches!(before, b"include" | b"include_next" | b"import" | b"embed")
}

/// Whether `c` can be part of an identifier. Bytes beyond ASCII and `$` are, as gcc has it.
pub(super) fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte, without line splices.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at) == Some(&b'\\') {
            // gcc takes blanks between the backslash and the line end, too.
            let rest = &self.text[self.at + 1..];
            let blanks = rest.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)).count();
            if rest.get(blanks) != Some(&b'\n') {
                break;
            }
            self.at += blanks + 2;
        }
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// The cursor is on the star.
    fn block_comment(&mut self) {
        self.next();
        while let Some(c) = self.next() {
            if c == b'*' && self.peek() == Some(b'/') {
                self.next();
                return;
            }
        }
    }

    fn line_comment(&mut self) {
        while self.peek().is_some_and(|c| c != b'\n') {
            self.next();
        }
    }

    /// A token that begins with `c`, which is behind the cursor: added to `out`.
    fn code(&mut self, c: u8, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(c);
        match c {
            b'"' | b'\'' => self.literal(c, out),
            b'0'..=b'9' => self.number(out),
            _ if is_word(c) => {
                while let Some(c) = self.peek().filter(|c| is_word(*c)) {
                    self.next();
                    out.push(c);
                }
                if matches!(out[start..], [b'R'] | [b'u' | b'U' | b'L', b'R'] | [b'u', b'8', b'R'])
                    && self.peek() == Some(b'"')
                {
                    self.next();
                    self.raw_string(out);
                }
            }
            _ => {}
        }
    }

    /// A string or character, ended by `quote` or, as gcc has it, by the end of the line.
    fn literal(&mut self, quote: u8, out: &mut Vec<u8>) {
        while let Some(c) = self.peek().filter(|c| *c != b'\n') {
            self.next();
            out.push(c);
            if c == quote {
                return;
            }
            if c == b'\\'
                && let Some(c) = self.peek().filter(|c| *c != b'\n')
            {
                self.next();
                out.push(c);
            }
        }
    }

    /// A preprocessing number, whose quotes separate digits.
    fn number(&mut self, out: &mut Vec<u8>) {
        while let Some(c) = self.peek() {
            let separates = c == b'\'' && self.text.get(self.at + 1).is_some_and(|c| is_word(*c));
            if !is_word(c) && c != b'.' && !separates {
                return;
            }
            self.next();
            out.push(c);
        }
    }

    /// The cursor is behind `R"`. There are no splices in a raw string.
    fn raw_string(&mut self, out: &mut Vec<u8>) {
        let rest = &self.text[self.at..];
        let delimiter = rest.iter().take(17).position(|c| *c == b'(').unwrap_or(usize::MAX);
        let valid = |c: &u8| !matches!(c, b' ' | b')' | b'\\' | b'\t' | b'\n' | b'\r' | b'"' | 0x0b | 0x0c);
        if delimiter > 16 || !rest[..delimiter].iter().all(valid) {
            return self.literal(b'"', out);
        }
        let end = [b")", &rest[..delimiter], b"\""].concat();
        let body = &rest[delimiter + 1..];
        let length = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
        let whole = (delimiter + 1 + length + end.len()).min(rest.len());
        out.push(b'"');
        // A line end would end the directive for whoever reads `out`.
        out.extend(rest[..whole].iter().map(|c| if *c == b'\n' { b' ' } else { *c }));
        self.at += whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found = lines(text.as_bytes());
        let found: Vec<_> = found.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn directives_are_found_where_lines_begin() {
        check(
            "#define A\n  # define  B\t1 \n/* x */ #define C\nint x; #define D\n",
            &["define A", "define B 1", "define C"],
        );
        check("%: include <a>\n%:x\n%d\n", &["include <a>", "x"]);
        check("#\n#!\n# 33 \"a.c\"", &["", "!", "33 \"a.c\""]);
    }

    #[test]
    fn comments_are_blanks() {
        check("// #define A\n/* \n#define B\n*/\n#define C/* x\n */2// y\n", &["define C 2"]);
        check("// spliced \\\n#define A\n#define /\\\n* x *\\\n/ B", &["define B"]);
        check("#include <a//b.h> // c\n#include \"a//b.h\"\n", &["include <a//b.h>", "include \"a//b.h\""]);
    }

    #[test]
    fn lines_are_spliced() {
        check("#inc\\\nlude \\\r\n\"a.h\"\n", &["include \"a.h\""]);
        check("#define A \\  \n 1\n", &["define A 1"]);
    }

    #[test]
    fn literals_hide_what_is_in_them() {
        check("char *a = \"/*\";\n#define A\nchar b = '\"';\n#define B '/*'\n", &["define A", "define B '/*'"]);
        check("a = R\"(\n#define A\n)\";\n#define B\n", &["define B"]);
        check("a = u8R\"x(\n)\"\n#define A\n)x\";\n#define B\n", &["define B"]);
        check("a = 1'000'000; /*\n#define A\n*/\n", &[]);
        check("don't /* here\n#define A\n", &["define A"]);
    }
}
