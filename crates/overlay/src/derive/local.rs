//! What an element's build makes without an action: archives, generated
//! headers, libraries that are linked outside of the cache.
//!
//! Nobody has written down what such a file is made of, so this is told from
//! what it is: an archive has its members in it; what is compiled or linked is
//! made of objects; text is made of what no action reads (templates, build
//! scripts) by programs, some of which were built just before.

use std::collections::BTreeSet;

use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::{FxHashMap, FxHashSet};

use super::fallback::{file_digest, walk_files};
use super::{Deriver, Mode, Unmatched};
use crate::forest::Forest;
use crate::model::{Below, Derivation, ElementId, InputId, Making, Origin, OriginId};
use crate::path::{PathId, Paths};

/// What a file turned out to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// An `ar` archive: names and contents of its members, in order.
    Archive(Vec<(Vec<u8>, Digest)>),
    /// An object, a library or a program.
    Binary {
        /// The names of the source files that went into it, if it says so.
        /// An object that says so as well, and of another source, did not.
        sources: Option<BTreeSet<Vec<u8>>>,
    },
    /// Anything else, which is text for the most part.
    Text,
}

/// What is known of files by content. Files that are not there are taken for text.
pub type Contents = FxHashMap<Digest, Content>;

impl Deriver {
    /// The files that neither sources nor actions explain, each once: [`finish`](Self::finish) would like to know
    /// their contents.
    ///
    /// Complete once the [wanted trees](Self::wanted_trees) have been [searched](Self::search).
    #[must_use]
    pub fn local_files(&self) -> Vec<Digest> {
        let mut files: Vec<Digest> = self.local.iter().filter_map(|u| file_digest(&u.node)).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// The objects that actions made, each once: where a local file
    /// [names its sources](Content::Binary), their contents tell which of them are in it.
    #[must_use]
    pub fn objects_made(&self) -> Vec<Digest> {
        let made = self.outputs.iter().filter(|(place, _)| is_object(&self.record.paths, **place));
        let mut objects: Vec<Digest> = made.flat_map(|(_, made)| made).filter_map(|m| file_digest(&m.node)).collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }

    /// Gives every local file an origin, and every action the condition that
    /// the element's build scripts are as they were.
    pub(super) fn explain_local_files(&mut self, forest: &Forest, contents: &Contents) {
        // What actions make is not known below this mode, and looks as if it were made locally.
        if self.mode < Mode::IntraElement {
            return;
        }
        let unread = self.unread_sources(forest);
        let scripts: Vec<InputId> =
            unread.iter().filter(|(path, _)| is_build_script(&self.record.paths, *path)).map(|(_, id)| *id).collect();
        let unread: Vec<InputId> = unread.into_iter().map(|(_, id)| id).collect();
        let local = std::mem::take(&mut self.local);
        let mut known: FxHashMap<Vec<InputId>, OriginId> = FxHashMap::default();
        for Unmatched { level, name, path, node, turn } in local {
            let Some(digest) = file_digest(&node) else { continue };
            let origin = match contents.get(&digest) {
                Some(Content::Archive(members)) => match self.members(members, turn) {
                    Some(derivation) => self.derived(derivation),
                    None => {
                        let of = self.objects(turn, None, contents);
                        self.locally(of, &mut known)
                    }
                },
                Some(Content::Binary { sources }) => {
                    let of = self.objects(turn, sources.as_ref(), contents);
                    self.locally(of, &mut known)
                }
                Some(Content::Text) | None => {
                    let mut of = unread.clone();
                    of.extend(self.programs(turn));
                    self.locally(of, &mut known)
                }
            };
            let input = self.input_id(path, node, vec![origin]);
            self.levels[level.index()].push((name, Below::Input(input)));
        }
        if scripts.is_empty() {
            return;
        }
        let Some(sources) = self.own_sources else { return };
        let origin = self.locally(scripts, &mut known);
        let condition = self.new_input(Node::Directory { digest: sources }, origin);
        for action in self.record.actions.iter_mut().filter(|action| action.element == ElementId::SELF) {
            action.conditions.push(condition);
        }
    }

    fn locally(&mut self, mut of: Vec<InputId>, known: &mut FxHashMap<Vec<InputId>, OriginId>) -> OriginId {
        of.sort_unstable();
        of.dedup();
        if let Some(origin) = known.get(&of) {
            return *origin;
        }
        let origin = self.derived(Derivation { making: Making::Locally, of: of.clone() });
        known.insert(of, origin);
        origin
    }

    /// The sources that no action reads, documentation apart.
    fn unread_sources(&mut self, forest: &Forest) -> Vec<(PathId, InputId)> {
        let Some(root) = self.own_sources else { return Vec::new() };
        let read: FxHashSet<PathId> = (self.record.inputs.iter().flat_map(|input| &input.origins))
            .filter_map(|id| match self.record.origin(*id) {
                Origin::Source { element: ElementId::SELF, path } => Some(*path),
                _ => None,
            })
            .collect();
        let mut unread = Vec::new();
        walk_files(forest, root, &mut self.record.paths, &mut |path, node| {
            if !read.contains(&path) {
                unread.push((path, node.clone()));
            }
        });
        unread.retain(|(path, _)| !is_documentation(&self.record.paths, *path));
        let input = |(path, node)| {
            let origin = self.origin_id(Origin::Source { element: ElementId::SELF, path });
            (path, self.new_input(node, origin))
        };
        unread.into_iter().map(input).collect()
    }

    /// Programs that actions of the element had linked before. What is
    /// linked to the same path time and again is a probe of a configure script.
    fn programs(&mut self, turn: usize) -> Vec<InputId> {
        let linked = self.outputs.iter().filter_map(|(place, made)| match made.as_slice() {
            [only] if only.turn < turn && matches!(only.node, Node::File { executable: true, .. }) => {
                Some((*place, only.clone()))
            }
            _ => None,
        });
        let mut linked: Vec<_> = linked.filter(|(place, _)| !is_probe(&self.record.paths, *place)).collect();
        linked.sort_unstable_by_key(|(place, _)| *place);
        linked.into_iter().map(|(place, made)| self.output_input(place, &made)).collect()
    }

    /// Objects that actions of the element had made before, as far as they may have gone into a file of these sources.
    fn objects(&mut self, turn: usize, sources: Option<&BTreeSet<Vec<u8>>>, contents: &Contents) -> Vec<InputId> {
        let may_be_in = |digest: &Digest| match (sources, contents.get(digest)) {
            (Some(whole), Some(Content::Binary { sources: Some(part) })) => {
                part.iter().any(|name| whole.contains(name))
            }
            _ => true,
        };
        let mut objects = Vec::new();
        for (place, made) in self.outputs.iter().filter(|(place, _)| is_object(&self.record.paths, **place)) {
            if is_probe(&self.record.paths, *place) {
                continue;
            }
            let made = made.iter().filter(|made| made.turn < turn);
            objects.extend(
                made.filter(|made| file_digest(&made.node).is_some_and(|d| may_be_in(&d)))
                    .map(|made| (*place, made.clone())),
            );
        }
        objects.sort_unstable_by_key(|(place, made)| (*place, made.turn));
        objects.into_iter().map(|(place, made)| self.output_input(place, &made)).collect()
    }

    /// The archive of these members, if an earlier action made each of them.
    fn members(&mut self, members: &[(Vec<u8>, Digest)], turn: usize) -> Option<Derivation> {
        let mut found = Vec::with_capacity(members.len());
        for (name, digest) in members {
            let candidates = self.outputs.iter().flat_map(|(place, made)| made.iter().map(move |m| (*place, m)));
            let made = candidates.filter(|(place, made)| {
                let same_name =
                    self.record.paths.split(*place).is_some_and(|(_, last)| self.record.paths.name(last) == name);
                same_name && made.turn < turn && file_digest(&made.node) == Some(*digest)
            });
            let (place, made) = made.max_by_key(|(place, made)| (made.turn, std::cmp::Reverse(*place)))?;
            found.push((place, made.clone(), name));
        }
        let mut names = Vec::with_capacity(found.len());
        let mut of = Vec::with_capacity(found.len());
        for (place, made, name) in found {
            names.push(self.record.paths.name_id(name));
            of.push(self.output_input(place, &made));
        }
        Some(Derivation { making: Making::Archive(names), of })
    }

    fn output_input(&mut self, place: PathId, made: &super::Produced) -> InputId {
        let origin = Origin::Action { element: ElementId::SELF, base: made.base, path: made.output };
        let origin = self.origin_id(origin);
        self.input_id(place, made.node.clone(), vec![origin])
    }
}

/// The name of a path, its directories left out.
fn name(paths: &Paths, path: PathId) -> &[u8] {
    paths.split(path).map_or(&[], |(_, name)| paths.name(name))
}

fn is_object(paths: &Paths, path: PathId) -> bool {
    let name = name(paths, path);
    [&b".o"[..], b".obj", b".os", b".oS"].iter().any(|ending| name.ends_with(ending))
}

/// What configure scripts and CMake compile to learn about the compiler.
fn is_probe(paths: &Paths, path: PathId) -> bool {
    let name = name(paths, path);
    let temporary = |directory: &[u8]| directory == b"CMakeTmp" || directory.starts_with(b"CMakeScratch");
    name.starts_with(b"conftest")
        || name.starts_with(b"cmTC_")
        || paths.segments(path).into_iter().any(|segment| temporary(paths.name(segment)))
}

/// What is there for people to read, and for no build.
fn is_documentation(paths: &Paths, path: PathId) -> bool {
    const NAMES: [&[u8]; 13] = [
        b"readme",
        b"copying",
        b"license",
        b"licence",
        b"news",
        b"authors",
        b"changelog",
        b"changes",
        b"contributing",
        b"todo",
        b"thanks",
        b"hacking",
        b"install.md",
    ];
    const ENDINGS: [&[u8]; 6] = [b".md", b".rst", b".texi", b".adoc", b".pod", b".html"];
    let name = name(paths, path).to_ascii_lowercase();
    NAMES.iter().any(|start| name.starts_with(start))
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
        || paths.segments(path).first().is_some_and(|first| {
            [&b"doc"[..], b"docs", b"man", b".git", b".github", b".gitignore", b"debian"]
                .contains(&&paths.name(*first)[..])
        })
}

/// What decides on the commands that a build runs.
fn is_build_script(paths: &Paths, path: PathId) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"makefile",
        b"gnumakefile",
        b"configure",
        b"cmakelists.txt",
        b"meson.build",
        b"meson_options.txt",
        b"meson.options",
        b"sconstruct",
        b"sconscript",
        b"wscript",
        b"build.ninja",
        b"jamfile",
    ];
    const ENDINGS: [&[u8]; 9] = [b".mk", b".mak", b".am", b".ac", b".m4", b".cmake", b".pro", b".ninja", b".sh"];
    let name = name(paths, path).to_ascii_lowercase();
    NAMES.iter().any(|whole| name == *whole || name.strip_prefix(*whole).is_some_and(|rest| rest.starts_with(b".")))
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(judge: fn(&Paths, PathId) -> bool, path: &str) -> bool {
        let mut paths = Paths::new();
        let path = paths.intern(path.as_bytes());
        judge(&paths, path)
    }

    #[test]
    fn build_scripts_are_told_by_their_names() {
        for script in
            ["Makefile", "src/Makefile.am", "Makefile.in", "configure", "configure.ac", "CMakeLists.txt", "a/x.cmake"]
        {
            assert!(judged(is_build_script, script), "{script}");
        }
        for other in ["version.txt", "config.h.in", "main.c", "configured.h", "makefiles/x.h"] {
            assert!(!judged(is_build_script, other), "{other}");
        }
    }

    #[test]
    fn documentation_is_told_by_name_and_place() {
        for text in ["README", "README.md", "doc/x.txt", "COPYING.LIB", "ChangeLog-2020"] {
            assert!(judged(is_documentation, text), "{text}");
        }
        for other in ["version.txt", "config.h.in", "src/doc.c", "data/x.bin"] {
            assert!(!judged(is_documentation, other), "{other}");
        }
    }

    #[test]
    fn probes_are_what_configure_scripts_compile() {
        for probe in ["_b/conftest.o", "_b/CMakeFiles/CMakeScratch/TryCompile-x/a.o", "cmTC_abc"] {
            assert!(judged(is_probe, probe), "{probe}");
        }
        assert!(!judged(is_probe, "src/config.o"));
    }
}
