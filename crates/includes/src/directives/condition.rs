//! One branch of an `#if`.

use bytes::Bytes;

use super::words::condense;

/// Where something stands among the conditions of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Place(pub(super) Option<usize>);

impl Place {
    /// Under no condition.
    #[must_use]
    pub fn is_unconditional(self) -> bool {
        self.0.is_none()
    }
}

/// One branch: the expressions before it must have been false, its own one true.
///
/// Expressions are the texts behind `#if`, with as few blanks as possible;
/// `#ifdef X` is `defined X` and `#ifndef X` is `!defined X`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    pub(super) parent: Place,
    pub(super) negated: Vec<Bytes>,
    pub(super) holds: Option<Bytes>,
}

/// Whether something is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    Always,
    Never,
    Maybe,
}

impl Condition {
    /// The expressions of the earlier branches, then the own one; an `#else` has none.
    pub fn expressions(&self) -> impl Iterator<Item = &Bytes> {
        self.negated.iter().chain(&self.holds)
    }

    /// What is known of this branch, where `defined` tells whether a macro is defined, if that is known.
    pub(crate) fn decide(&self, defined: &impl Fn(&[u8]) -> Option<bool>) -> Decision {
        let mut decision = Decision::Always;
        let wanted = self.negated.iter().map(|text| (text, false)).chain(self.holds.iter().map(|text| (text, true)));
        for (text, wanted) in wanted {
            match value(text, defined) {
                Some(value) if value != wanted => return Decision::Never,
                Some(_) => {}
                None => decision = Decision::Maybe,
            }
        }
        decision
    }

    /// Bytes that are equal exactly if the conditions are, parents apart.
    pub(super) fn write_key(&self, key: &mut Vec<u8>) {
        for text in &self.negated {
            key.extend_from_slice(text);
            key.extend_from_slice(b"\n!");
        }
        key.extend_from_slice(self.holds.as_deref().unwrap_or(b"else"));
        key.push(b'\n');
    }
}

/// The value of an expression of the simplest kinds: a constant, or whether one macro is defined.
pub(super) fn value(text: &[u8], defined: &impl Fn(&[u8]) -> Option<bool>) -> Option<bool> {
    match text {
        b"0" => return Some(false),
        b"1" => return Some(true),
        _ => {}
    }
    let (text, negated) = match text.strip_prefix(b"!") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let name = text.strip_prefix(b"defined")?;
    let name = match name.strip_prefix(b"(") {
        Some(name) => name.strip_suffix(b")")?,
        None => name.strip_prefix(b" ")?,
    };
    let plain = !name.is_empty() && name.iter().all(|c| super::lines::is_word(*c));
    plain.then(|| defined(name))?.map(|value| value != negated)
}

/// The expression that `#ifdef name` stands for.
pub(super) fn defined(name: &[u8]) -> Bytes {
    Bytes::from([b"defined ", name].concat())
}

/// The expression that `#ifndef name` stands for.
pub(super) fn not_defined(name: &[u8]) -> Bytes {
    Bytes::from([b"!defined ", name].concat())
}

/// The expression of an `#if`, with as few blanks as possible.
pub(super) fn expression(text: &[u8]) -> Bytes {
    let text = condense(text);
    let (rest, prefix): (&[u8], &[u8]) = match text.strip_prefix(b"!") {
        Some(rest) => (rest, b"!"),
        None => (&text, b""),
    };
    // One spelling for `defined(X)` and `defined X`.
    let inner = rest.strip_prefix(b"defined(").and_then(|rest| rest.strip_suffix(b")"));
    match inner.filter(|name| name.iter().all(|c| super::lines::is_word(*c))) {
        Some(name) => Bytes::from([prefix, b"defined ", name].concat()),
        None => Bytes::from(text),
    }
}
