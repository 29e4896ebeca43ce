//! Whether anything that changed place or text bears on conditions around includes.
//!
//! An include that is new, or is no more, moves what it leads to: that may now
//! be read earlier or later than before, and so may the macros in it. And
//! what it leads to is preprocessed with other macros defined. Neither
//! matters if no condition around an include depends on the macros concerned.

use std::hash::Hash;

use super::align::{common, different_macros};
use super::bits::Bits;
use super::files::COMMAND;
use super::graph::{Edge, Edges};
use super::macros::{Macros, names};
use super::walk::{Step, Walk};
use super::{Doubt, Verdict, World};
use crate::directives::Directives;

/// How long a chain of single includers is followed.
const MAX_CHAIN: usize = 64;

/// The files that may be read, beginning with `start`.
pub(super) fn closure(edges: &Edges, start: impl IntoIterator<Item = usize>) -> Bits {
    reach(edges, start, |edge| edge.possible())
}

fn reach<'e>(
    edges: &'e Edges,
    start: impl IntoIterator<Item = usize>,
    targets: impl Fn(&'e Edge) -> &'e [usize],
) -> Bits {
    let (mut reached, mut stack) = (Bits::default(), Vec::from_iter(start));
    while let Some(number) = stack.pop() {
        if reached.insert(number) {
            stack.extend(edges.get(number).into_iter().flatten().flat_map(&targets));
        }
    }
    reached
}

/// # Errors
/// [`Verdict::Unsure`].
pub(super) fn check<K: Copy + Eq + Hash, W: World<K>>(
    walk: &Walk<'_, '_, K, W>,
    fresh: &[Step],
    lost: &[Step],
    removed: &Bits,
) -> Result<(), Verdict<K>> {
    let graph = &walk.graph;
    let macros = Macros::new(&graph.files, &walk.read, graph.question.command.language());
    let unsure = |name: &[u8]| Err(Verdict::Unsure(Doubt::Macro(bytes::Bytes::copy_from_slice(name))));
    for (number, file) in graph.files.list.iter().enumerate() {
        match (file.old, file.new) {
            (Some(old), Some(new)) if file.differs() && !removed.contains(number) => {
                let common = common(old, new).unwrap_or_default();
                for name in different_macros(old, new, &common) {
                    if macros.readers(name).next().is_some() {
                        return unsure(name);
                    }
                }
            }
            (old, new) if removed.contains(number) || number >= graph.old.len() && walk.read.contains(number) => {
                for name in old.into_iter().chain(new).flat_map(names) {
                    let matters =
                        |reader: &usize| *reader != number && !(file.standard && graph.file(*reader).standard);
                    if macros.readers(name).any(|reader| matters(&reader)) {
                        return unsure(name);
                    }
                }
            }
            _ => {}
        }
    }
    for (number, at, target) in fresh {
        let all = closure(&graph.new, [*target]);
        let once = |number: usize| graph.file(number).new.is_some_and(Directives::reads_once);
        if all.contains(*number) && !once(*number) && !once(*target) {
            return Err(Verdict::Unsure(Doubt::Guard(graph.file(*target).path.clone())));
        }
        if graph.file(*target).recorded() {
            let now = Side { edges: &graph.new, text: &|number| graph.file(number).new };
            moved(walk, &macros, &now, (*number, *at, *target), &all)?;
        }
    }
    for (number, at, target) in lost.iter().filter(|(_, _, target)| walk.read.contains(*target)) {
        let all = closure(&graph.old, [*target]);
        let then = Side { edges: &graph.old, text: &|number| graph.file(number).old };
        moved(walk, &macros, &then, (*number, *at, *target), &all)?;
    }
    Ok(())
}

/// The files as they were, or as they are.
struct Side<'a, 'w> {
    edges: &'a Edges,
    text: &'a dyn Fn(usize) -> Option<&'w Directives>,
}

/// Checks that it does not matter whether the include is there, since its target is read in any case.
fn moved<K: Copy + Eq + Hash, W: World<K>>(
    walk: &Walk<'_, '_, K, W>,
    macros: &Macros<'_>,
    side: &Side<'_, '_>,
    (number, at, target): Step,
    all: &Bits,
) -> Result<(), Verdict<K>> {
    let graph = &walk.graph;
    let before = Before::new(side.edges, number, at);
    if before.files.contains(target) && (side.text)(target).is_some_and(Directives::reads_once) {
        return Ok(());
    }
    let both_standard = |a: usize, b: usize| graph.file(a).standard && graph.file(b).standard;
    let unsure = |name: &[u8]| Err(Verdict::Unsure(Doubt::Macro(bytes::Bytes::copy_from_slice(name))));
    // Macros from in there, in conditions of other files.
    for definer in all.iter() {
        let file = graph.file(definer);
        for name in file.old.into_iter().chain(file.new).flat_map(names) {
            if macros.readers(name).any(|reader| reader != definer && !both_standard(reader, definer)) {
                return unsure(name);
            }
        }
    }
    // Macros of other files, in conditions in there.
    for name in macros.read() {
        for reader in macros.readers(name).filter(|reader| all.contains(*reader)) {
            let matters = |definer: &usize| {
                !all.contains(*definer) && !both_standard(*definer, reader) && !before.holds(side, *definer, name)
            };
            if macros.definers(name).any(|definer| matters(&definer)) {
                return unsure(name);
            }
        }
    }
    Ok(())
}

/// What is certainly read before an include.
struct Before {
    /// Files that are read up to the include of that index.
    parts: Vec<(usize, usize)>,
    /// Files that are read as a whole.
    files: Bits,
}

impl Before {
    /// The includes before it in the same file, and those before the only include of that file, and so on.
    fn new(edges: &Edges, number: usize, at: usize) -> Before {
        let mut parts = vec![(number, at)];
        let (mut current, mut length) = (number, 0);
        while current != COMMAND && length < MAX_CHAIN {
            let mut includers = edges.iter().enumerate().flat_map(|(from, edges)| {
                edges
                    .iter()
                    .enumerate()
                    .filter(|(_, edge)| edge.possible().contains(&current))
                    .map(move |(index, edge)| (from, index, edge.certain().is_some()))
            });
            match (includers.next(), includers.next()) {
                (Some((from, index, true)), None) => parts.push((from, index)),
                _ => break,
            }
            current = parts.last().map_or(COMMAND, |part| part.0);
            length += 1;
        }
        let starts = parts.iter().flat_map(|(file, upto)| edges[*file][..*upto].iter().filter_map(Edge::certain));
        let starts: Vec<usize> = starts.collect();
        let files = reach(edges, starts, |edge| if edge.certain().is_some() { edge.possible() } else { &[] });
        Before { parts, files }
    }

    /// Whether everything that the file does to the macro is done before.
    fn holds(&self, side: &Side<'_, '_>, definer: usize, name: &[u8]) -> bool {
        if self.files.contains(definer) {
            return true;
        }
        let Some((_, upto)) = self.parts.iter().find(|(file, _)| *file == definer) else { return false };
        let Some(text) = (side.text)(definer) else { return false };
        text.macros().iter().filter(|m| m.name == name).all(|m| m.includes_before <= *upto)
    }
}
