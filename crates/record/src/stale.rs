//! Actions of older builds among those of the last one.
//!
//! Logs pile up: while its dependencies stay the same, BuildStream builds a
//! workspace on top of its last buildtree, recc's logs included; and casd's logs cover the ten newest sessions. An
//! action that the element no longer runs would be adapted and executed in
//! vain with every change below it.
//!
//! An input that differs from what the element has *now* is no sign of age in
//! itself: builds generate files, and some write over their sources (a
//! `zconf.h` that configure edits in place). What counts is that a newer
//! action has taken the place of the old one:
//!
//! - An input is **explained** if it is what the sources (below the element's
//!   root) or a dependency's artifact has at its path, or an output of an action that is not stale.
//! - It is **outdated** if it is not explained although its path is known:
//!   sources or artifacts have something else there, or an action that is not stale puts something else there.
//! - An action is **superseded** if a later one has the same working
//!   directory, arguments and output paths, has nothing outdated that the
//!   first one does not have as well, and has something current at a path where the first one is outdated.
//! - An action of [an earlier build](Build::Earlier) is **in use** if one of its outputs is, at its path, an input of
//!   an action of the last build, or of one that is in use itself: that build went on from what it found.
//! - An earlier action that is not in use is held to more: every own input must be explained, and no other input
//!   outdated. In use or not, nothing later that is not stale may make one of its outputs.
//!
//! Outputs of stale actions explain nothing, so the rule is applied until
//! nothing changes: a stale compile takes its link along. What is not known
//! (sources, results, directories that are not at hand) never makes an action stale.

use std::sync::Arc;

use bytes::Bytes;
use overlay::{Forest, MAX_DEPTH, PathId, Paths, join};
use reapi_proto::Digest;
use reapi_proto::raw::{Command, Directory, Node};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Build;

/// What an element has now.
#[derive(Clone, Debug)]
pub(crate) struct Current<'a> {
    pub(crate) forest: &'a Forest,
    /// Where its sources stand in input trees.
    pub(crate) own_root: &'a [u8],
    pub(crate) sources: Option<Digest>,
    /// The artifacts that it builds against, in staging order.
    pub(crate) artifacts: Vec<Digest>,
}

/// An action that ran.
#[derive(Clone, Debug)]
pub(crate) struct Ran<'a> {
    pub(crate) action: Digest,
    pub(crate) build: Build,
    /// Position of its last run.
    pub(crate) last: usize,
    pub(crate) input_root: Digest,
    pub(crate) command: &'a Command,
    /// What it made, by paths relative to its working directory.
    pub(crate) outputs: &'a [(Bytes, Node)],
}

/// Why an action is not part of the last build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stale {
    /// The input or output that shows it.
    pub(crate) path: String,
    /// The action in its place, where there is one.
    pub(crate) superseded_by: Option<Digest>,
}

/// Which of the actions are left from older builds; one answer per action.
pub(crate) fn stale(current: &Current<'_>, actions: &[Ran<'_>]) -> Vec<Option<Stale>> {
    let mut verdicts: Vec<Option<Stale>> = vec![None; actions.len()];
    let rivals = rivals(actions);
    let suspects: Vec<usize> =
        (0..actions.len()).filter(|i| actions[*i].build == Build::Earlier || !rivals[*i].is_empty()).collect();
    if suspects.is_empty() {
        return verdicts;
    }
    let mut judge = Judge::new(current, actions);
    loop {
        let made = judge.outputs(&verdicts);
        let found: Vec<(usize, Stale)> = (suspects.iter())
            .filter(|i| verdicts[**i].is_none())
            .filter_map(|i| Some((*i, judge.judge(*i, &rivals[*i], &made, &verdicts)?)))
            .collect();
        if found.is_empty() {
            return verdicts;
        }
        for (i, verdict) in found {
            verdicts[i] = Some(verdict);
        }
    }
}

/// For each action the later ones that are run in the same way.
fn rivals(actions: &[Ran<'_>]) -> Vec<Vec<usize>> {
    // Few share a working directory and outputs: arguments are compared only then.
    let mut places: FxHashMap<Vec<&[u8]>, Vec<usize>> = FxHashMap::default();
    for (i, ran) in actions.iter().enumerate() {
        let mut place = vec![ran.command.working_directory()];
        place.extend(ran.command.output_paths());
        // Without outputs there is nothing to tell it from unrelated ones.
        if place.len() > 1 {
            places.entry(place).or_default().push(i);
        }
    }
    let mut groups: FxHashMap<(usize, Vec<&[u8]>), Vec<usize>> = FxHashMap::default();
    for (place, members) in places.into_values().filter(|members| members.len() > 1).enumerate() {
        for i in members {
            groups.entry((place, actions[i].command.arguments().collect())).or_default().push(i);
        }
    }
    let mut rivals = vec![Vec::new(); actions.len()];
    for group in groups.into_values().filter(|group| group.len() > 1) {
        for &i in &group {
            rivals[i] = group.iter().copied().filter(|j| actions[*j].last > actions[i].last).collect();
        }
    }
    rivals
}

/// Outputs of actions that are not stale.
#[derive(Default)]
struct Outputs {
    contents: FxHashSet<Digest>,
    /// The last action to make each path.
    places: FxHashMap<PathId, usize>,
    /// Actions of earlier builds that the last build stands on.
    in_use: FxHashSet<usize>,
}

/// An input that neither sources nor artifacts explain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Unexplained {
    path: PathId,
    content: Digest,
    /// Sources or artifacts have something else there.
    known: bool,
    /// It stands below the element's root, whose sources are at hand.
    own: bool,
}

type Found = Arc<[Unexplained]>;

struct Judge<'a> {
    current: &'a Current<'a>,
    actions: &'a [Ran<'a>],
    paths: Paths,
    own_root: PathId,
    memo: FxHashMap<(PathId, Digest), Found>,
    unexplained: FxHashMap<usize, Found>,
}

/// What the sources have where a walk is.
#[derive(Clone, Copy)]
enum Own<'f> {
    /// Not below the element's root.
    Outside,
    /// There, or nothing.
    Below(Option<&'f Directory>),
    /// Not at hand.
    Unknown,
}

impl<'a> Judge<'a> {
    fn new(current: &'a Current<'a>, actions: &'a [Ran<'a>]) -> Self {
        let mut paths = Paths::new();
        let own_root = paths.intern(current.own_root);
        Self { current, actions, paths, own_root, memo: FxHashMap::default(), unexplained: FxHashMap::default() }
    }

    fn outputs(&mut self, verdicts: &[Option<Stale>]) -> Outputs {
        let mut made = Outputs::default();
        for (i, ran) in self.actions.iter().enumerate().filter(|(i, _)| verdicts[*i].is_none()) {
            made.contents.extend(ran.outputs.iter().filter_map(|(_, node)| content(node)));
            for path in self.output_places(i) {
                let maker = made.places.entry(path).or_insert(i);
                if self.actions[*maker].last < ran.last {
                    *maker = i;
                }
            }
        }
        made.in_use = self.in_use(verdicts);
        made
    }

    fn in_use(&mut self, verdicts: &[Option<Stale>]) -> FxHashSet<usize> {
        let actions = self.actions;
        let of_build = |build| (0..actions.len()).filter(move |i| verdicts[*i].is_none() && actions[*i].build == build);
        let mut makers: FxHashMap<(PathId, Digest), Vec<usize>> = FxHashMap::default();
        for i in of_build(Build::Earlier) {
            for (path, node) in actions[i].outputs {
                if let (Some(content), Some(place)) = (content(node), self.place(i, path)) {
                    makers.entry((place, content)).or_default().push(i);
                }
            }
        }
        let mut found = FxHashSet::default();
        if makers.is_empty() {
            return found;
        }
        let mut pending: Vec<usize> = of_build(Build::Last).collect();
        while let Some(i) = pending.pop() {
            for input in &*self.unexplained(i) {
                for &maker in makers.get(&(input.path, input.content)).into_iter().flatten() {
                    if found.insert(maker) {
                        pending.push(maker);
                    }
                }
            }
        }
        found
    }

    /// What an action says that it makes, and what it did make.
    fn output_places(&mut self, i: usize) -> Vec<PathId> {
        let actions = self.actions;
        let Ran { command, outputs, .. } = &actions[i];
        let said = command.output_paths().chain(outputs.iter().map(|(path, _)| path.as_ref()));
        said.filter_map(|path| self.place(i, path)).collect()
    }

    /// Where an action puts what it names so.
    fn place(&mut self, i: usize, path: &[u8]) -> Option<PathId> {
        let place = join(self.actions[i].command.working_directory(), path)?;
        Some(self.paths.intern(&place))
    }

    fn judge(&mut self, i: usize, rivals: &[usize], made: &Outputs, verdicts: &[Option<Stale>]) -> Option<Stale> {
        let actions = self.actions;
        if actions[i].build == Build::Earlier
            && let Some(stale) = self.judge_earlier(i, made)
        {
            return Some(stale);
        }
        let outdated = self.outdated(i, made);
        if outdated.is_empty() {
            return None;
        }
        let rivals = rivals.iter().filter(|j| verdicts[**j].is_none());
        for &j in rivals {
            let others: FxHashSet<Unexplained> = self.outdated(j, made).into_iter().collect();
            if !others.iter().all(|input| outdated.contains(input)) {
                continue;
            }
            let replaced = outdated.iter().find(|input| {
                let place = self.paths.bytes(input.path);
                !others.contains(*input)
                    && matches!(self.current.forest.find(&actions[j].input_root, &place), Ok(Some(_)))
            });
            if let Some(input) = replaced {
                let path = self.paths.display(input.path);
                return Some(Stale { path, superseded_by: Some(actions[j].action) });
            }
        }
        None
    }

    fn judge_earlier(&mut self, i: usize, made: &Outputs) -> Option<Stale> {
        let actions = self.actions;
        for place in self.output_places(i) {
            if let Some(maker) = made.places.get(&place)
                && actions[*maker].last > actions[i].last
            {
                let path = self.paths.display(place);
                return Some(Stale { path, superseded_by: Some(actions[*maker].action) });
            }
        }
        if made.in_use.contains(&i) {
            return None;
        }
        let inputs = self.unexplained(i);
        let foreign = inputs.iter().find(|input| !is_made(input, made) && (input.own || input.known));
        foreign.map(|input| Stale { path: self.paths.display(input.path), superseded_by: None })
    }

    fn outdated(&mut self, i: usize, made: &Outputs) -> Vec<Unexplained> {
        let inputs = self.unexplained(i);
        let known = |input: &&Unexplained| input.known || made.places.contains_key(&input.path);
        inputs.iter().filter(|input| !is_made(input, made)).filter(known).copied().collect()
    }

    fn unexplained(&mut self, i: usize) -> Found {
        if let Some(found) = self.unexplained.get(&i) {
            return Arc::clone(found);
        }
        let forest = self.current.forest;
        let artifacts: Vec<&Directory> = self.current.artifacts.iter().filter_map(|root| forest.get(root)).collect();
        let own = self.enter_own(PathId::ROOT, Own::Outside);
        let found = self.walk((PathId::ROOT, self.actions[i].input_root), own, &artifacts, 0);
        self.unexplained.insert(i, Arc::clone(&found));
        found
    }

    fn walk(&mut self, place: (PathId, Digest), own: Own<'a>, staged: &[&'a Directory], depth: usize) -> Found {
        if let Some(found) = self.memo.get(&place) {
            return Arc::clone(found);
        }
        let forest = self.current.forest;
        let Some(directory) = forest.get(&place.1).filter(|_| depth <= MAX_DEPTH) else { return Arc::new([]) };
        let mut found = Vec::new();
        for entry in directory.entries() {
            let name = self.paths.name_id(entry.name);
            let path = self.paths.child(place.0, name);
            let staged_here: Vec<Node> = staged.iter().filter_map(|directory| directory.get(entry.name)).collect();
            let own_here = match own {
                Own::Below(Some(sources)) => sources.get(entry.name),
                _ => None,
            };
            if let Node::Directory { digest } = entry.node {
                let staged: Vec<&Directory> =
                    staged_here.iter().filter_map(|node| subdirectory(forest, node)).collect();
                let below = match (own, own_here) {
                    (Own::Below(_), Some(Node::Directory { digest })) => {
                        forest.get(&digest).map_or(Own::Unknown, |sources| Own::Below(Some(sources)))
                    }
                    (Own::Below(_), _) => Own::Below(None),
                    (outside, _) => self.enter_own(path, outside),
                };
                found.extend_from_slice(&self.walk((path, digest), below, &staged, depth + 1));
                continue;
            }
            let mut at_path = staged_here.iter().chain(&own_here).filter(|node| content(node).is_some()).peekable();
            let known = at_path.peek().is_some();
            if matches!(own, Own::Unknown) || at_path.any(|node| content(node) == content(&entry.node)) {
                continue;
            }
            if let Some(content) = content(&entry.node) {
                found.push(Unexplained { path, content, known, own: matches!(own, Own::Below(_)) });
            }
        }
        let found: Found = found.into();
        self.memo.insert(place, Arc::clone(&found));
        found
    }

    fn enter_own(&self, path: PathId, otherwise: Own<'a>) -> Own<'a> {
        match self.current.sources {
            _ if path != self.own_root => otherwise,
            None => Own::Unknown,
            Some(root) => self.current.forest.get(&root).map_or(Own::Unknown, |sources| Own::Below(Some(sources))),
        }
    }
}

fn subdirectory<'f>(forest: &'f Forest, node: &Node) -> Option<&'f Directory> {
    match node {
        Node::Directory { digest } => forest.get(digest),
        _ => None,
    }
}

fn is_made(input: &Unexplained, made: &Outputs) -> bool {
    made.contents.contains(&input.content)
}

/// The digest of a file that says something. Symlinks are left to what they point at.
fn content(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } if !digest.is_empty() => Some(*digest),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
