//! What a text tells the preprocessor, as far as it matters to which files are read.

mod condition;
mod lines;
mod reader;
mod words;

use bytes::Bytes;

pub(crate) use condition::Decision;
pub use condition::{Condition, Place};
pub(crate) use words::identifiers;

/// How an include is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// `#include`.
    Include,
    /// `#include_next`: the search goes on behind the directory in which the including file was found.
    Next,
    /// `#import`: an include that happens once.
    Import,
    /// `#embed`: the file is read, not preprocessed.
    Embed,
}

/// What an include names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Operand {
    /// `"name"`.
    Quote(Bytes),
    /// `<name>`.
    Angle(Bytes),
    /// Something that macros make a name of: the text as it stands.
    Computed(Bytes),
}

/// One include of a text. What is inside of `#if 0` is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Include {
    /// How it is written.
    pub form: Form,
    /// What it names.
    pub operand: Operand,
    /// The conditions it stands under; [`Directives::conditions`] lists them.
    pub place: Place,
}

/// What happens to a macro.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MacroEvent {
    /// `#define`, with everything behind the macro's name, parameters included.
    Define(Bytes),
    /// `#undef`.
    Undefine,
    /// `#pragma push_macro`, `#pragma pop_macro` and `#assert`: it may be another one from here on.
    Other(Bytes),
}

/// One `#define` or `#undef` of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Macro {
    /// The macro's name.
    pub name: Bytes,
    /// What happens to it.
    pub event: MacroEvent,
    /// The conditions it stands under.
    pub place: Place,
    /// How many of the text's includes come before it.
    pub includes_before: usize,
}

impl Macro {
    /// What an include of the macro names, if it is defined.
    pub(crate) fn names_header(&self) -> Option<Operand> {
        match &self.event {
            MacroEvent::Define(text) => Some(words::operand(text.strip_prefix(b" ").unwrap_or(text))),
            _ => None,
        }
    }
}

/// The directives of a text that matter to which files are read: its includes
/// and macros in order, each with the conditions that it stands under.
///
/// Two of them are equal exactly if the texts are, whatever the code, comments,
/// white space and conditions without includes and macros inside (but for
/// those that ask with `__has_include`): this is the *fingerprint* of a text.
/// Lines are counted nowhere.
///
/// Not seen: trigraphs, and C++ modules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directives {
    includes: Vec<Include>,
    macros: Vec<Macro>,
    conditions: Vec<Condition>,
    /// What `__has_include` asks for, whatever is under that condition.
    asked: Vec<Operand>,
    guard: Option<Bytes>,
    once: bool,
    odd: bool,
}

impl Directives {
    /// Reads `text`, in time proportional to its length. Anything is a text;
    /// what cannot be understood is skipped, as the preprocessor would in a
    /// part that it does not compile.
    #[must_use]
    pub fn scan(text: &[u8]) -> Directives {
        reader::read(text)
    }

    /// The includes, in order.
    #[must_use]
    pub fn includes(&self) -> &[Include] {
        &self.includes
    }

    /// What happens to macros, in order. The macro of an include guard is among them.
    #[must_use]
    pub fn macros(&self) -> &[Macro] {
        &self.macros
    }

    /// The conditions around `place`, from the innermost to the outermost.
    ///
    /// What is certain by itself (`#if 1`) is none of them, nor is the guard around the whole file.
    pub fn conditions(&self, place: Place) -> impl Iterator<Item = &Condition> {
        let mut next = place;
        std::iter::from_fn(move || {
            let condition = self.conditions.get(next.0?)?;
            next = condition.parent;
            Some(condition)
        })
    }

    /// The identifiers that the conditions around `place` mention, all earlier
    /// branches of the same `#if` included. Names may repeat.
    pub fn mentioned(&self, place: Place) -> impl Iterator<Item = &[u8]> {
        self.conditions(place).flat_map(|condition| condition.expressions()).flat_map(|text| identifiers(text))
    }

    /// The macro of the include guard: `#ifndef X`, `#define X` around all
    /// includes and macros of the file, `X` being touched nowhere else in it.
    #[must_use]
    pub fn guard(&self) -> Option<&Bytes> {
        self.guard.as_ref()
    }

    /// Whether reading the file a second time does nothing: it has a guard or `#pragma once`.
    #[must_use]
    pub fn reads_once(&self) -> bool {
        self.once || self.guard.is_some()
    }

    /// Whether it has `#pragma once`.
    pub(crate) fn pragma_once(&self) -> bool {
        self.once
    }

    /// Whether something was seen that may mean more than is known here.
    pub(crate) fn odd(&self) -> bool {
        self.odd
    }

    /// The names that conditions around includes and macros ask for with
    /// `__has_include`; a computed one where that cannot be said.
    pub(crate) fn probes(&self) -> impl Iterator<Item = Operand> {
        let expressions = self.conditions.iter().flat_map(|condition| condition.expressions());
        expressions.flat_map(|text| words::probes(text)).chain(self.computed_probes())
    }

    /// The names that any condition asks for.
    pub(crate) fn all_probes(&self) -> impl Iterator<Item = Operand> {
        self.asked.iter().cloned().chain(self.computed_probes())
    }

    fn computed_probes(&self) -> impl Iterator<Item = Operand> {
        let replacements = self.macros.iter().filter_map(|m| match &m.event {
            MacroEvent::Define(text) => Some(text),
            _ => None,
        });
        replacements.flat_map(|text| words::probes(text)).map(|_| Operand::Computed(Bytes::new()))
    }

    /// The conditions around `place` as bytes that are equal where they are.
    pub(crate) fn place_key(&self, place: Place) -> Vec<u8> {
        let mut key = Vec::new();
        for condition in self.conditions(place) {
            condition.write_key(&mut key);
        }
        key
    }
}

#[cfg(test)]
mod tests;
