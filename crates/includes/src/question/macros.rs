//! Which macros bear on which files are read.

use std::hash::Hash;

use rustc_hash::{FxHashMap, FxHashSet};

use super::bits::Bits;
use super::files::Files;
use super::graph::by_language;
use crate::command::Language;
use crate::directives::{Directives, Include, Macro, MacroEvent, Operand, Place, identifiers};

/// For every macro, who touches it, and whose includes depend on it.
pub(super) struct Macros<'w> {
    /// Files in which a condition around an include, or a computed include,
    /// depends on the macro, by way of others or not.
    readers: FxHashMap<&'w [u8], Bits>,
    definers: FxHashMap<&'w [u8], Bits>,
}

impl<'w> Macros<'w> {
    /// Over the texts of all recorded files as they were, and of all that are `read` as they are.
    pub(super) fn new<K: Copy + Eq + Hash>(
        files: &Files<'w, K>,
        read: &Bits,
        language: Option<Language>,
    ) -> Macros<'w> {
        let mut macros = Macros { readers: FxHashMap::default(), definers: FxHashMap::default() };
        let mut events: FxHashMap<&'w [u8], Vec<(usize, &'w Directives, &'w Macro)>> = FxHashMap::default();
        for (number, directives) in texts(files, read) {
            for m in directives.macros() {
                macros.definers.entry(&m.name).or_default().insert(number);
                events.entry(&m.name).or_default().push((number, directives, m));
            }
        }
        // A guard that another file of the same time touches is a condition like any other.
        let mut guards: FxHashMap<(&'w [u8], bool), Bits> = FxHashMap::default();
        for (number, file) in files.list.iter().enumerate() {
            for (now, text) in [(false, file.old), (true, file.new.filter(|_| read.contains(number)))] {
                for m in text.into_iter().flat_map(Directives::macros) {
                    guards.entry((&m.name, now)).or_default().insert(number);
                }
            }
        }
        let shared = |number: usize, directives: &'w Directives| -> Option<&'w [u8]> {
            let guard = directives.guard()?;
            let others =
                |now: bool| guards.get(&(&guard[..], now)).is_some_and(|bits| bits.iter().any(|n| n != number));
            let alone = [false, true].iter().all(|now| {
                let touches = guards.get(&(&guard[..], *now)).is_some_and(|bits| bits.contains(number));
                !touches || !others(*now)
            });
            (!alone).then_some(&guard[..])
        };
        let mut queue = Vec::new();
        let mut readers: FxHashMap<&'w [u8], Bits> = FxHashMap::default();
        for (number, directives) in texts(files, read) {
            let guard = shared(number, directives);
            for include in directives.includes() {
                for name in mentioned(directives, include.place, language).chain(guard).chain(computed(include)) {
                    if readers.entry(name).or_default().insert(number) {
                        queue.push(name);
                    }
                }
            }
        }
        while let Some(name) = queue.pop() {
            let all = readers.get(name).cloned().unwrap_or_default();
            for (number, directives, m) in events.get(name).into_iter().flatten() {
                let guard = shared(*number, directives);
                let mut by = |mention: &'w [u8], extra: Option<usize>| {
                    let entry = readers.entry(mention).or_default();
                    let mut new = entry.union(&all);
                    if let Some(extra) = extra {
                        new |= entry.insert(extra);
                    }
                    if new {
                        queue.push(mention);
                    }
                };
                if let MacroEvent::Define(text) = &m.event {
                    identifiers(text).for_each(|mention| by(mention, None));
                }
                mentioned(directives, m.place, language).chain(guard).for_each(|mention| by(mention, Some(*number)));
            }
        }
        macros.readers = readers;
        macros
    }

    /// Whose includes depend on the macro.
    pub(super) fn readers(&self, name: &[u8]) -> impl Iterator<Item = usize> {
        self.readers.get(name).into_iter().flat_map(Bits::iter)
    }

    /// Who touches the macro.
    pub(super) fn definers(&self, name: &[u8]) -> impl Iterator<Item = usize> {
        self.definers.get(name).into_iter().flat_map(Bits::iter)
    }

    /// All macros that any include depends on.
    pub(super) fn read(&self) -> impl Iterator<Item = &'w [u8]> {
        self.readers.keys().copied()
    }
}

fn texts<'w, K: Copy + Eq + Hash>(files: &Files<'w, K>, read: &Bits) -> impl Iterator<Item = (usize, &'w Directives)> {
    files.list.iter().enumerate().flat_map(|(number, file)| {
        let new = file.new.filter(|new| file.old.is_none_or(|old| !std::ptr::eq(old, *new)));
        let new = new.filter(|_| read.contains(number));
        file.old.into_iter().chain(new).map(move |directives| (number, directives))
    })
}

fn mentioned(directives: &Directives, place: Place, language: Option<Language>) -> impl Iterator<Item = &[u8]> {
    directives.mentioned(place).filter(move |name| by_language(language, name).is_none())
}

fn computed(include: &Include) -> impl Iterator<Item = &[u8]> {
    let text = match &include.operand {
        Operand::Computed(text) => Some(&text[..]),
        _ => None,
    };
    text.into_iter().flat_map(identifiers)
}

/// The names of all macros that a text touches.
pub(super) fn names(directives: &Directives) -> FxHashSet<&[u8]> {
    directives.macros().iter().map(|m| &m.name[..]).collect()
}
