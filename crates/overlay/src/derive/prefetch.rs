//! Which directories deriving will look at, level by level.

use std::collections::BTreeMap;

use bytes::Bytes;
use reapi_proto::Digest;
use reapi_proto::raw::Node;
use rustc_hash::FxHashSet;

use crate::forest::{Forest, MAX_DEPTH};
use crate::path::segments;

/// Walks all input trees of an element together with its sources and the
/// artifacts of its dependencies, so that whatever [`Deriver::observe`](super::Deriver::observe)
/// needs can be fetched in one batch per level of depth.
///
/// Artifacts are entered only where an input tree has the same directory:
/// a compiler's artifact of ten thousand directories costs the dozen that the
/// compiles use.
#[derive(Debug)]
pub struct Prefetch {
    own_root: Vec<Bytes>,
    own_sources: Option<Digest>,
    groups: Vec<Group>,
    depth: usize,
}

/// Everything that stands at one path.
#[derive(Debug, Default)]
struct Group {
    inputs: Vec<Digest>,
    staged: Vec<Digest>,
    own: Own,
}

#[derive(Clone, Copy, Debug, Default)]
enum Own {
    /// The path has this many segments in common with the way to the element's root, and no others.
    Towards(usize),
    /// At a directory of the sources.
    At(Digest),
    #[default]
    Off,
}

/// The most directories at one depth, counted by path: at about 100 bytes of
/// memory each, well above what whole distributions as inputs have.
const MAX_LEVEL_PATHS: usize = 1_000_000;

impl Prefetch {
    /// Starts at the roots of the input trees and of the dependencies' artifacts.
    #[must_use]
    pub fn new(
        input_roots: impl IntoIterator<Item = Digest>,
        artifacts: impl IntoIterator<Item = Digest>,
        own_sources: Option<Digest>,
        own_root: &[u8],
    ) -> Self {
        let own_root: Vec<Bytes> = segments(own_root).map(Bytes::copy_from_slice).collect();
        let mut group = Group {
            inputs: input_roots.into_iter().collect(),
            staged: artifacts.into_iter().collect(),
            own: Own::Towards(0),
        };
        group.enter_own(&own_root, own_sources);
        group.dedup();
        Self { own_root, own_sources, groups: vec![group], depth: 0 }
    }

    /// Whether every level has been walked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.groups.is_empty()
    }

    /// The directories of this level that are not at hand, each once.
    #[must_use]
    pub fn needs(&self, forest: &Forest) -> Vec<Digest> {
        let mut seen = FxHashSet::default();
        let all = self.groups.iter().flat_map(|group| {
            let own = if let Own::At(digest) = group.own { Some(digest) } else { None };
            group.inputs.iter().chain(&group.staged).copied().chain(own)
        });
        all.filter(|digest| !forest.contains(digest) && seen.insert(*digest)).collect()
    }

    /// Steps down one level. What is still not at hand is passed over: the
    /// actions that need it will say so when they are observed. A level wider
    /// than any real one ends the walk likewise.
    pub fn advance(&mut self, forest: &Forest) {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.groups.clear();
            return;
        }
        let mut next = Vec::new();
        for group in &self.groups {
            let mut children: BTreeMap<Bytes, Group> = BTreeMap::new();
            for directory in group.inputs.iter().filter_map(|digest| forest.get(digest)) {
                for (name, digest) in directory.directories() {
                    match children.get_mut(name) {
                        Some(child) => child.inputs.push(digest),
                        None => {
                            let child = Group { inputs: vec![digest], ..Group::default() };
                            children.insert(Bytes::copy_from_slice(name), child);
                        }
                    }
                }
            }
            let staged: Vec<_> = group.staged.iter().filter_map(|digest| forest.get(digest)).collect();
            for (name, mut child) in children {
                child.staged.extend(staged.iter().filter_map(|d| subdirectory(d.get(&name).as_ref())));
                child.own = match group.own {
                    Own::Towards(depth) if self.own_root.get(depth) == Some(&name) => Own::Towards(depth + 1),
                    Own::At(sources) => forest
                        .get(&sources)
                        .and_then(|sources| subdirectory(sources.get(&name).as_ref()))
                        .map_or(Own::Off, Own::At),
                    _ => Own::Off,
                };
                child.enter_own(&self.own_root, self.own_sources);
                child.dedup();
                next.push(child);
            }
            if next.len() > MAX_LEVEL_PATHS {
                next.clear();
                break;
            }
        }
        self.groups = next;
    }
}

impl Group {
    fn enter_own(&mut self, own_root: &[Bytes], own_sources: Option<Digest>) {
        if let Own::Towards(depth) = self.own
            && depth == own_root.len()
        {
            self.own = own_sources.map_or(Own::Off, Own::At);
        }
    }

    fn dedup(&mut self) {
        for list in [&mut self.inputs, &mut self.staged] {
            list.sort_unstable();
            list.dedup();
        }
    }
}

fn subdirectory(node: Option<&Node>) -> Option<Digest> {
    match node {
        Some(Node::Directory { digest }) => Some(*digest),
        _ => None,
    }
}
