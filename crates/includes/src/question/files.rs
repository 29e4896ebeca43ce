//! The files of a question: what they were, and what they are.

use std::hash::Hash;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Doubt, Found, Question, Verdict, World};
use crate::directives::Directives;
use crate::path::{extension, normalise};

/// The number of the pseudo-file that stands for the command line: it
/// "includes" the forced files and the sources.
pub(super) const COMMAND: usize = 0;

pub(super) struct File<'w, K> {
    pub(super) path: Bytes,
    pub(super) then: Option<K>,
    pub(super) now: Option<K>,
    /// The directives that the recorded content had.
    pub(super) old: Option<&'w Directives>,
    /// Those of the present content.
    pub(super) new: Option<&'w Directives>,
    /// It is a system header.
    pub(super) standard: bool,
}

impl<K: Copy + Eq> File<'_, K> {
    pub(super) fn recorded(&self) -> bool {
        self.then.is_some()
    }

    pub(super) fn gone(&self) -> bool {
        self.then.is_some() && self.now.is_none()
    }

    fn changed(&self) -> bool {
        self.then.is_some() && self.now.is_some() && self.then != self.now
    }

    /// Whether its directives are others.
    pub(super) fn differs(&self) -> bool {
        self.changed() && self.old != self.new
    }
}

/// All files, numbered: the command line, the recorded ones, then those that are read in addition.
pub(super) struct Files<'w, K> {
    pub(super) list: Vec<File<'w, K>>,
    by_path: FxHashMap<Bytes, usize>,
}

impl<'w, K: Copy + Eq + Hash> Files<'w, K> {
    /// The recorded files as they are now.
    ///
    /// # Errors
    /// [`Verdict::Waits`].
    pub(super) fn new(question: &Question<'_, K>, world: &'w impl World<K>) -> Result<Self, Verdict<K>> {
        let nothing = Bytes::new();
        let command = File { path: nothing, then: None, now: None, old: None, new: None, standard: false };
        let mut files = Files { list: vec![command], by_path: FxHashMap::default() };
        let unread: FxHashSet<Bytes> = (question.command.other_inputs().iter())
            .filter_map(|input| normalise(input, question.working_directory))
            .collect();
        let mut paths = Vec::new();
        for (path, content) in question.recorded {
            let linked = matches!(extension(path), b"o" | b"a" | b"so" | b"lo" | b"la" | b"obj" | b"lib");
            if linked || unread.contains(path) || files.find(path).is_some() {
                continue;
            }
            let now = match world.now(path) {
                Found::File(content) => Some(content),
                Found::Absent => None,
                Found::Unknown => {
                    paths.push(path.clone());
                    continue;
                }
            };
            files.add(File { path: path.clone(), then: Some(*content), now, old: None, new: None, standard: false });
        }
        if paths.is_empty() { Ok(files) } else { Err(Verdict::Waits { paths }) }
    }

    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    pub(super) fn add(&mut self, file: File<'w, K>) -> usize {
        let number = self.list.len();
        self.by_path.insert(file.path.clone(), number);
        self.list.push(file);
        number
    }

    pub(super) fn any_changed(&self) -> bool {
        self.list.iter().any(File::changed)
    }

    pub(super) fn any_gone(&self) -> bool {
        self.list.iter().any(File::gone)
    }

    /// Takes in the directives of the files that changed, or of `all`.
    ///
    /// # Errors
    /// [`Verdict::Lacks`], with everything that this step needs.
    pub(super) fn load(&mut self, all: bool, world: &'w impl World<K>) -> Result<(), Verdict<K>> {
        let (mut contents, mut asked) = (Vec::new(), FxHashSet::default());
        let mut read = |content: K| {
            let directives = world.directives(content);
            if directives.is_none() && asked.insert(content) {
                contents.push(content);
            }
            directives
        };
        for file in self.list.iter_mut().filter(|file| all || file.changed()) {
            file.old = file.then.and_then(&mut read);
            file.new = if file.now == file.then { file.old } else { file.now.and_then(&mut read) };
        }
        if contents.is_empty() { Ok(()) } else { Err(Verdict::Lacks { contents }) }
    }
}

/// gcc takes files with `#pragma once` for the same one if their contents are,
/// and their times of modification: a new one among such may not be read at
/// all. Whoever is `read` counts.
pub(super) fn twin<K: Copy + Eq + Hash>(files: &Files<'_, K>, read: impl Fn(usize) -> bool) -> Option<Verdict<K>> {
    let here = || files.list.iter().enumerate().filter(|(number, file)| file.now.is_some() && read(*number));
    let new: FxHashSet<K> = here()
        .filter(|(_, file)| file.then != file.now && file.new.is_some_and(Directives::pragma_once))
        .filter_map(|(_, file)| file.now)
        .collect();
    let mut seen = FxHashSet::default();
    let mut twins = here().filter(|(_, file)| file.now.is_some_and(|now| new.contains(&now) && !seen.insert(now)));
    twins.next().map(|(_, file)| Verdict::Unsure(Doubt::Guard(file.path.clone())))
}

/// A precompiled header takes the place of the header beside it.
pub(super) fn precompiled<'p, K>(mut paths: impl Iterator<Item = &'p Bytes>) -> Option<Verdict<K>> {
    let is_one =
        |path: &&Bytes| path.split(|c| *c == b'/').any(|step| extension(step) == b"gch" || extension(step) == b"pch");
    paths.find(is_one).map(|path| Verdict::Unsure(Doubt::Precompiled(path.clone())))
}
