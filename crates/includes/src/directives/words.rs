//! Words in the text of a directive.

use bytes::Bytes;

use super::Operand;
use super::lines::is_word;

/// The identifiers in `text`, in order, without what is in quotes and without `defined`.
pub(crate) fn identifiers(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&c) = text.get(at) {
            let start = at;
            if c == b'"' || c == b'\'' {
                at = after_literal(text, at);
            } else if is_word(c) {
                while text.get(at).is_some_and(|c| is_word(*c)) {
                    at += 1;
                }
                let word = &text[start..at];
                if !c.is_ascii_digit() && word != b"defined" {
                    return Some(word);
                }
            } else {
                at += 1;
            }
        }
        None
    })
}

fn after_literal(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&c) = text.get(at) {
        at += 1;
        match c {
            b'\\' => at += 1,
            _ if c == text[start] => break,
            _ => {}
        }
    }
    at.min(text.len())
}

/// The first word of `text`, and the rest behind blanks.
pub(super) fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !is_word(*c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.strip_prefix(b" ").unwrap_or(rest))
}

/// `text` without the blanks that separate nothing.
pub(super) fn condense(text: &[u8]) -> Vec<u8> {
    let operator = |c: u8| !is_word(c) && c != b'(' && c != b')' && c != b' ';
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        if c == b'"' || c == b'\'' {
            let end = after_literal(text, at);
            out.extend_from_slice(&text[at..end]);
            at = end;
            continue;
        }
        at += 1;
        if c == b' '
            && let (Some(&before), Some(&after)) = (out.last(), text.get(at))
            && !(is_word(before) && is_word(after) || operator(before) && operator(after) && after != b'!')
        {
            continue;
        }
        out.push(c);
    }
    out
}

/// What an include or `__has_include` names.
pub(super) fn operand(text: &[u8]) -> Operand {
    let name = |end: u8| {
        let length = text[1..].iter().position(|c| *c == end)?;
        (length > 0).then(|| Bytes::copy_from_slice(&text[1..=length]))
    };
    let named = match text.first() {
        Some(b'"') => name(b'"').map(Operand::Quote),
        Some(b'<') => name(b'>').map(Operand::Angle),
        _ => None,
    };
    named.unwrap_or_else(|| Operand::Computed(Bytes::copy_from_slice(text)))
}

/// What the uses of `__has_include` and its relatives in `text` ask for.
pub(super) fn probes(text: &[u8]) -> Vec<Operand> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].windows(6).position(|window| window == b"__has_") {
        let (word, rest) = first_word(&text[from + at..]);
        from += at + word.len();
        match (word, rest.first()) {
            (b"__has_include", Some(b'(')) => {
                let inside = &rest[1..];
                found.push(operand(inside.strip_prefix(b" ").unwrap_or(inside)));
            }
            (b"__has_include_next" | b"__has_embed" | b"__has_include__" | b"__has_include_next__", Some(b'(')) => {
                found.push(Operand::Computed(Bytes::new()));
            }
            _ => {}
        }
    }
    found
}
