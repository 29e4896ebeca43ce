//! Whether an action still takes the same set of inputs.
//!
//! A recorded input tree holds what the action read. When a header has other
//! directives, is gone, or a new file stands where an included name is looked
//! for, the same command reads other files. [`includes`] tells which, from the
//! text of what changed; where it cannot be sure, the compiler is
//! [asked](super::asking).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use includes::{CompileCommand, Directives, Found, Question, Verdict, World};
use overlay::{Changed, ElementId, Forest, TreeKind, Unlisted, appeared, files};
use reapi_proto::Digest;
use reapi_proto::raw::{Command, Node};
use rustc_hash::FxHashMap;

use super::Priming;
use super::tables::{ActId, OwnerId, RowId};
use super::task::{Done, Fetched, fetch};
use super::trees::{Staged, Trees, standard_directories};
use super::weighing::{Below, Look, Weight};
use crate::skip::{Skip, SkipKind};

/// Edits of an input tree at paths that the record does not know: `None` removes.
pub(super) type Edits = Vec<(Bytes, Option<Node>)>;

/// What came of an inspection.
pub(super) enum Inspected {
    /// The inputs are those that were recorded, with these edits.
    Known(Edits),
    /// Something must be read first; it has been asked for.
    Pending,
    /// More has changed since its directories were read.
    Unvisited,
    /// Something is not known yet that an event will tell.
    Waits(String),
    /// It is not to be predicted.
    Skip(Skip),
}

/// What has been read to inspect actions.
#[derive(Default)]
pub(super) struct Inspector {
    /// By content.
    directives: FxHashMap<Digest, Result<Arc<Directives>, Skip>>,
    /// All files of trees.
    listed: FxHashMap<Digest, Arc<Vec<(Bytes, Node)>>>,
    /// New files of trees, by the tree as recorded and as it is now.
    appeared: FxHashMap<(Digest, Digest), Arc<Vec<Bytes>>>,
    /// To be read.
    contents: BTreeSet<Digest>,
    directories: BTreeSet<Digest>,
    reading: bool,
    /// What of the changes below a directory matters, for all actions that have it.
    pub(super) below: FxHashMap<RowId, Below>,
    /// Records of which something there is not known yet.
    pub(super) unread: BTreeSet<RowId>,
    /// Actions that wait for what is read.
    parked: Vec<ActId>,
    /// Actions that wait for what appeared in their record's trees to be known.
    expectant: Vec<ActId>,
    /// Actions that wait for artifacts that none of their inputs come from.
    waiting: Vec<ActId>,
    /// Records for which it is not known what appeared.
    rows: Vec<RowId>,
}

/// What was read.
pub(super) struct Read {
    contents: Fetched,
    directories: Fetched,
}

/// Files larger than this are no headers.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Something has to be read first.
pub(super) struct Lacking;

impl Priming {
    /// Inspects an action whose inputs are all known.
    pub(super) fn inspect(&mut self, id: ActId, command: &Command) -> Inspected {
        match self.try_inspect(id, command) {
            Ok(inspected) => inspected,
            Err(Lacking) => {
                self.inspector.parked.push(id);
                Inspected::Pending
            }
        }
    }

    fn try_inspect(&mut self, id: ActId, command: &Command) -> Result<Inspected, Lacking> {
        let act = &self.tables[id];
        let (row, action) = (act.row, act.id);
        let news = self.news(row)?;
        let root = self.tables[row].adaptation.changed_root(action);
        // Where texts that other actions take as well include what they included, the command does not matter.
        if news.is_empty() && root.is_none_or(|root| self.weigh(row, root, Look::KnownTexts) == Some(Weight::Texts)) {
            return Ok(Inspected::Known(Edits::new()));
        }
        if news.is_empty() {
            // That it may compile is enough: whether it does takes all of its command line.
            let texts = self.tables[id].compiles.unwrap_or_else(|| CompileCommand::is_conceivable(command.arguments()));
            let look = if texts { Look::Texts } else { Look::Kinds };
            match root.map_or(Some(Weight::Texts), |root| self.weigh(row, root, look)) {
                Some(Weight::Texts) => return Ok(Inspected::Known(Edits::new())),
                Some(Weight::Unread) => return Err(Lacking),
                Some(Weight::Directives | Weight::Kinds) => {}
                None => return Ok(Inspected::Unvisited),
            }
        }
        let Some(changes) = self.tables[row].adaptation.changes(action) else {
            return Ok(unsure("it has more inputs than any real action"));
        };
        let compile = CompileCommand::parse(command.arguments());
        let Some(compile) = compile else { return self.inspect_other(row, command, &changes) };
        if compile.links()
            && let Some(path) = news.iter().find(|path| is_own_source(self, row, path))
        {
            return Ok(Inspected::Skip(new_source(path)));
        }
        self.inspect_set(id, &compile, command.working_directory(), &changes, &news)
    }

    /// A link or some other step: it takes what its command names.
    fn inspect_other(&mut self, row: RowId, command: &Command, changes: &[Changed]) -> Result<Inspected, Lacking> {
        let retargeted = self.retargeted(row, changes)?;
        let replaced = |path: &Bytes| retargeted.iter().any(|(old, node)| old == path && node.is_none());
        // What the command does not name was found in a directory, and will not be found there any more.
        if let Some(gone) = changes
            .iter()
            .find(|change| change.now.is_none() && names(command, &change.path) && !replaced(&change.path))
        {
            let reason = format!("{} is gone", String::from_utf8_lossy(&gone.path));
            return Ok(Inspected::Skip(Skip::new(SkipKind::WouldFail, reason)));
        }
        let objects = command.arguments().any(|argument| argument.ends_with(b".o") || argument.ends_with(b".obj"));
        if objects {
            let news = self.news(row)?;
            if let Some(path) = news.iter().find(|path| is_own_source(self, row, path)) {
                return Ok(Inspected::Skip(new_source(path)));
            }
        }
        Ok(Inspected::Known(retargeted))
    }

    /// Where a symlink among the inputs leads to another file now, and the file
    /// that it led to is gone: the new file takes the old one's place.
    fn retargeted(&mut self, row: RowId, changes: &[Changed]) -> Result<Edits, Lacking> {
        let mut edits = Edits::new();
        for change in changes {
            let (Some(Node::Symlink { target: then }), Some(Node::Symlink { target: now })) =
                (change.recorded.whole(), &change.now)
            else {
                continue;
            };
            let parent = change.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |end| &change.path[..end]);
            let (Some(then), Some(now)) = (overlay::join(parent, then), overlay::join(parent, now)) else { continue };
            if !changes.iter().any(|change| change.path == then && change.now.is_none()) {
                continue;
            }
            match self.trees(row).find(&self.workshop.forest, &now) {
                Ok(Some(node @ Node::File { .. })) => {
                    edits.push((then.into(), None));
                    edits.push((now.into(), Some(node)));
                }
                Err(Some(directory)) => {
                    self.inspector.directories.insert(directory);
                    return Err(Lacking);
                }
                Ok(_) | Err(None) => {}
            }
        }
        Ok(edits)
    }

    /// The directives of a text. `None`: they are being read.
    fn directives(&mut self, content: Digest) -> Result<Arc<Directives>, Option<Skip>> {
        self.inspector.directives(content)
    }

    fn inspect_set(
        &mut self,
        id: ActId,
        compile: &CompileCommand,
        working_directory: &[u8],
        changes: &[Changed],
        news: &[Bytes],
    ) -> Result<Inspected, Lacking> {
        let row = self.tables[id].row;
        let Some(Ok(base)) = self.workshop.base(&self.tables[id].base) else { return Err(Lacking) };
        let root = base.input_root_digest();
        let recorded = self.listed(root)?;
        let contents: Vec<(Bytes, Digest)> =
            recorded.iter().filter_map(|(path, node)| Some((path.clone(), file(node)?))).collect();
        let compilers = match self.trees(row).compilers(&self.workshop.forest) {
            Ok(compilers) => compilers,
            Err(directory) => {
                self.inspector.directories.insert(directory);
                return Err(Lacking);
            }
        };
        let standard = standard_directories(&contents, compile, &compilers);
        let changed: FxHashMap<&[u8], Option<&Node>> =
            changes.iter().map(|change| (&change.path[..], change.now.as_ref())).collect();
        let here: FxHashMap<&[u8], &Node> = recorded.iter().map(|(path, node)| (&path[..], node)).collect();
        let view = View {
            changed: &changed,
            recorded: &here,
            trees: self.trees(row),
            forest: &self.workshop.forest,
            inspector: &self.inspector,
            lacking: RefCell::new(BTreeSet::new()),
            unreadable: RefCell::new(None),
        };
        let question =
            Question { command: compile, working_directory, recorded: &contents, standard: &standard, appeared: news };
        let verdict = question.ask(&view);
        let View { lacking, unreadable, .. } = view;
        let (lacking, unreadable) = (lacking.into_inner(), unreadable.into_inner());
        if !lacking.is_empty() {
            self.inspector.directories.extend(lacking);
            return Err(Lacking);
        }
        if let Some(skip) = unreadable {
            return self.ask_unless_failing(id, compile, skip, &standard);
        }
        match verdict {
            Verdict::Same => Ok(Inspected::Known(Edits::new())),
            Verdict::Changed { added, removed } => self.edits(row, &added, removed),
            Verdict::Lacks { contents } => {
                let mut unknown = false;
                for content in contents {
                    match self.directives(content) {
                        Ok(_) => {}
                        Err(Some(skip)) => return self.ask_unless_failing(id, compile, skip, &standard),
                        Err(None) => unknown = true,
                    }
                }
                if unknown { Err(Lacking) } else { Ok(unsure("it asks again for what it was given")) }
            }
            Verdict::Waits { paths } => {
                let path = paths.first().map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default();
                Ok(Inspected::Waits(format!("{path} of an element that is not built")))
            }
            Verdict::Broken { file, include } => {
                let (file, include) = (String::from_utf8_lossy(&file), String::from_utf8_lossy(&include));
                if self.all_built(row) {
                    let reason = format!("{file} includes {include}, which is nowhere");
                    return Ok(Inspected::Skip(Skip::new(SkipKind::WouldFail, reason)));
                }
                Ok(Inspected::Waits(format!("{include}, which {file} includes")))
            }
            Verdict::Unsure(doubt) => self.ask_compiler(id, compile, &doubt.to_string(), &standard),
        }
    }

    /// A text that cannot be read leaves it to the compiler, for which the old
    /// texts need not be there; a service that fails would fail for that, too.
    fn ask_unless_failing(
        &mut self,
        id: ActId,
        compile: &CompileCommand,
        skip: Skip,
        standard: &[Bytes],
    ) -> Result<Inspected, Lacking> {
        match skip.kind {
            SkipKind::Service => Ok(Inspected::Skip(skip)),
            _ => self.ask_compiler(id, compile, &skip.reason, standard),
        }
    }

    /// What a verdict means for the input tree.
    pub(super) fn edits(&mut self, row: RowId, added: &[Bytes], removed: Vec<Bytes>) -> Result<Inspected, Lacking> {
        let mut edits: Edits = removed.into_iter().map(|path| (path, None)).collect();
        let trees = self.trees(row);
        let mut lacking = BTreeSet::new();
        for path in added {
            match trees.find(&self.workshop.forest, path) {
                Ok(Some(node @ Node::File { .. })) => edits.push((path.clone(), Some(node))),
                Ok(_) => {
                    let reason =
                        format!("{} is read now, and where it comes from is not known", String::from_utf8_lossy(path));
                    return Ok(Inspected::Skip(Skip::new(SkipKind::InputSet, reason)));
                }
                Err(Some(directory)) => {
                    lacking.insert(directory);
                }
                Err(None) => return Ok(Inspected::Waits(String::from_utf8_lossy(path).into_owned())),
            }
        }
        if !lacking.is_empty() {
            self.inspector.directories.extend(lacking);
            return Err(Lacking);
        }
        Ok(Inspected::Known(edits))
    }

    /// All files of a recorded input tree.
    pub(super) fn listed(&mut self, root: Digest) -> Result<Arc<Vec<(Bytes, Node)>>, Lacking> {
        if let Some(listed) = self.inspector.listed.get(&root) {
            return Ok(Arc::clone(listed));
        }
        match files(&self.workshop.forest, &root) {
            Ok(listed) => {
                let listed = Arc::new(listed);
                self.inspector.listed.insert(root, Arc::clone(&listed));
                Ok(listed)
            }
            Err(Unlisted::Missing(missing)) => {
                self.inspector.directories.extend(missing);
                Err(Lacking)
            }
            Err(Unlisted::TooLarge) => Ok(Arc::default()),
        }
    }

    /// The files that stand now where none stood when the record was made: in
    /// the element's sources and in those artifacts that are known, by path in input trees.
    fn news(&mut self, row: RowId) -> Result<Arc<Vec<Bytes>>, Lacking> {
        if let Some(news) = &self.tables[row].news {
            return Ok(Arc::clone(news));
        }
        let record = Arc::clone(self.tables[row].adaptation.record());
        let own = record.own_root.map(|root| Bytes::from(record.paths.bytes(root)));
        let mut found: Vec<Bytes> = Vec::new();
        let mut lacking = false;
        for (element, kind, then, now) in self.changed_trees(row) {
            if kind == TreeKind::Sources && (element != ElementId::SELF || own.is_none()) {
                continue;
            }
            let prefix = own.as_ref().filter(|own| kind == TreeKind::Sources && !own.is_empty());
            match self.appeared(then, now) {
                Ok(paths) => found.extend(paths.iter().map(|path| match prefix {
                    Some(own) => Bytes::from([own, &b"/"[..], path].concat()),
                    None => path.clone(),
                })),
                Err(Lacking) => lacking = true,
            }
        }
        if lacking {
            return Err(Lacking);
        }
        let news = Arc::new(found);
        self.tables[row].news = Some(Arc::clone(&news));
        Ok(news)
    }

    /// A tree of a row's elements is not the recorded one: something may have appeared there.
    pub(super) fn expect_news(&mut self, row: RowId) {
        if self.tables[row].news.take().is_some() {
            self.inspector.rows.push(row);
        }
    }

    /// Looks at what appeared. Actions whose own inputs are all as they were
    /// are concerned only if something did.
    fn hear_news(&mut self) {
        // Nothing has been read since it was found that something has to be.
        if self.inspector.reading || self.inspector.rows.is_empty() {
            return;
        }
        for row in std::mem::take(&mut self.inspector.rows) {
            match self.news(row) {
                Err(Lacking) => self.inspector.rows.push(row),
                Ok(news) => {
                    let tables = &self.tables;
                    let go_on = self.inspector.expectant.extract_if(.., |id| tables[*id].row == row);
                    self.workshop.ready.extend(go_on);
                    let row = &mut self.tables[row];
                    self.touched.append(&mut row.undecided);
                    if !news.is_empty() {
                        self.touched.extend(row.acts.iter().flatten());
                    }
                }
            }
        }
    }

    /// The trees of the row's elements that are known and not as recorded.
    fn changed_trees(&mut self, row: RowId) -> Vec<(ElementId, TreeKind, Digest, Digest)> {
        let record = Arc::clone(self.tables[row].adaptation.record());
        let mut changed = Vec::new();
        for element in record.element_ids() {
            let Some(owner) = self.tables[row].owner_of(element) else { continue };
            let recorded = record.element(element);
            for (kind, then) in [(TreeKind::Sources, recorded.sources), (TreeKind::Artifact, recorded.artifact)] {
                // What an element makes itself is not staged for it.
                if element == ElementId::SELF && kind == TreeKind::Artifact {
                    continue;
                }
                if let (Some(then), Some(now)) = (then, *self.tables[owner].root(kind))
                    && then != now
                {
                    changed.push((element, kind, then, now));
                }
            }
        }
        changed
    }

    fn appeared(&mut self, then: Digest, now: Digest) -> Result<Arc<Vec<Bytes>>, Lacking> {
        if let Some(paths) = self.inspector.appeared.get(&(then, now)) {
            return Ok(Arc::clone(paths));
        }
        let paths = match appeared(&self.workshop.forest, Some(&then), &now) {
            Ok(paths) => Arc::new(paths.into_iter().map(|(path, _)| path).collect()),
            Err(Unlisted::Missing(missing)) if missing.iter().all(|d| !self.workshop.is_absent(d)) => {
                self.inspector.directories.extend(missing);
                return Err(Lacking);
            }
            // An old tree that is gone: nothing can be said of what is new in the other one.
            Err(Unlisted::Missing(_) | Unlisted::TooLarge) => Arc::default(),
        };
        self.inspector.appeared.insert((then, now), Arc::clone(&paths));
        Ok(paths)
    }

    /// Whether every artifact that is staged for a row's element is known as it is now.
    pub(super) fn all_built(&self, row: RowId) -> bool {
        self.tables[row].staged.iter().all(|owner| self.tables[*owner].artifact.is_some())
    }

    /// What an element is built in.
    pub(super) fn trees(&self, row: RowId) -> Trees {
        let row = &self.tables[row];
        let record = row.adaptation.record();
        let staged = |owner: &OwnerId| {
            let recorded = record.element_ids().find(|element| row.owner_of(*element) == Some(*owner));
            let then = recorded.and_then(|element| record.element(element).artifact);
            Staged { now: self.tables[*owner].artifact, then }
        };
        let own_root = record.own_root.map(|root| record.paths.bytes(root));
        let staged: Vec<Staged> = row.staged.iter().map(staged).collect();
        let mut staged_at_root = Vec::new();
        if own_root.as_ref().is_some_and(Vec::is_empty) {
            let roots = staged.iter().filter_map(|staged| self.workshop.forest.get(&staged.now.or(staged.then)?));
            staged_at_root
                .extend(roots.flat_map(|root| root.entries().map(|entry| Bytes::copy_from_slice(entry.name))));
            staged_at_root.push(Bytes::from_static(b"usr"));
        }
        Trees { own_root, sources: self.tables[row.owner].sources, staged, staged_at_root }
    }

    /// Starts to read what inspections lack, all in one go.
    pub(super) fn start_inspection(&mut self) {
        self.hear_news();
        let Inspector { contents, directories, reading, .. } = &mut self.inspector;
        if *reading || (contents.is_empty() && directories.is_empty()) {
            return;
        }
        *reading = true;
        let contents: Vec<Digest> = std::mem::take(contents).into_iter().collect();
        let directories: Vec<Digest> = std::mem::take(directories).into_iter().collect();
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move {
            let directories = fetch(Arc::clone(&blobs), directories).await;
            Done::Inspected(Read { contents: fetch(blobs, contents).await, directories })
        });
    }

    pub(super) fn inspected(&mut self, Read { contents, directories }: Read) {
        self.inspector.reading = false;
        for (digest, text) in contents {
            let directives = text.map(|text| Arc::new(Directives::scan(&text)));
            self.inspector.directives.insert(digest, directives);
        }
        self.inspector.forget_unread();
        self.workshop.take_directories(directories);
        self.unpark();
    }

    /// Those that waited for something go on.
    pub(super) fn unpark(&mut self) {
        let parked = std::mem::take(&mut self.inspector.parked);
        self.workshop.ready.extend(parked);
    }
}

impl Inspector {
    /// The directives of a text, if it can be read. `Err(None)`: it is asked for.
    pub(super) fn directives(&mut self, content: Digest) -> Result<Arc<Directives>, Option<Skip>> {
        let known = self.known_directives(content);
        if let Err(None) = known {
            self.contents.insert(content);
        }
        known
    }

    /// The directives of a text, if it can be read. `Err(None)`: it was not read.
    pub(super) fn known_directives(&self, content: Digest) -> Result<Arc<Directives>, Option<Skip>> {
        if content.size_bytes() > MAX_TEXT_BYTES {
            return Err(Some(Skip::new(SkipKind::InputSet, format!("{content} is too large for a text"))));
        }
        match self.directives.get(&content) {
            Some(Ok(directives)) => Ok(Arc::clone(directives)),
            Some(Err(skip)) => Err(Some(skip.clone())),
            None => Err(None),
        }
    }

    /// Whether no action that was at hand waits for anything.
    pub(super) fn is_at_rest(&self) -> bool {
        self.parked.is_empty() && self.expectant.is_empty()
    }

    /// The action goes on once it is known what appeared.
    pub(super) fn expect(&mut self, id: ActId) {
        self.expectant.push(id);
    }

    pub(super) fn read_directory(&mut self, digest: Digest) {
        self.directories.insert(digest);
    }

    /// The action is to be judged again when another artifact is known.
    pub(super) fn wait(&mut self, id: ActId) {
        self.waiting.push(id);
    }

    pub(super) fn take_waiting(&mut self) -> Vec<ActId> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn park(&mut self, id: ActId) {
        self.parked.push(id);
    }
}

/// What the preprocessor would see.
struct View<'a> {
    changed: &'a FxHashMap<&'a [u8], Option<&'a Node>>,
    recorded: &'a FxHashMap<&'a [u8], &'a Node>,
    trees: Trees,
    forest: &'a Forest,
    inspector: &'a Inspector,
    lacking: RefCell<BTreeSet<Digest>>,
    unreadable: RefCell<Option<Skip>>,
}

impl World<Digest> for View<'_> {
    fn now(&self, path: &[u8]) -> Found<Digest> {
        let node = match self.changed.get(path) {
            Some(Some(node)) => Some((*node).clone()),
            Some(None) => None,
            None => self.recorded.get(path).map(|node| (*node).clone()),
        };
        let node = match node {
            Some(node) => Ok(Some(node)),
            None => self.trees.find(self.forest, path),
        };
        match node {
            Ok(Some(Node::File { digest, .. })) => Found::File(digest),
            Ok(Some(Node::Directory { .. } | Node::Symlink { .. }) | None) => Found::Absent,
            Err(Some(directory)) => {
                self.lacking.borrow_mut().insert(directory);
                Found::Unknown
            }
            Err(None) => Found::Unknown,
        }
    }

    fn directives(&self, content: Digest) -> Option<&Directives> {
        match self.inspector.directives.get(&content)? {
            Ok(directives) => Some(directives),
            Err(skip) => {
                self.unreadable.replace(Some(skip.clone()));
                None
            }
        }
    }
}

/// Whether a path is that of a source file of the row's element, to be compiled by itself.
fn is_own_source(priming: &Priming, row: RowId, path: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 9] = [b".c", b".cc", b".cpp", b".cxx", b".C", b".c++", b".s", b".S", b".m"];
    let record = priming.tables[row].adaptation.record();
    let own = record.own_root.map(|root| record.paths.bytes(root)).unwrap_or_default();
    path.starts_with(&own) && ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// Whether a command says that it takes a file: by its name, or a library by `-l`.
fn names(command: &Command, path: &[u8]) -> bool {
    let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let library = file.strip_prefix(b"lib").and_then(|rest| {
        let end = [&b".so"[..], b".a"].iter().filter_map(|ending| memchr::memmem::find(rest, ending)).min()?;
        Some([b"-l", &rest[..end]].concat())
    });
    command.arguments().any(|argument| {
        argument.rsplit(|byte| *byte == b'/').next() == Some(file) || library.as_deref() == Some(argument)
    })
}

fn new_source(path: &[u8]) -> Skip {
    let path = String::from_utf8_lossy(path);
    Skip::new(SkipKind::Commands, format!("its command may be another one: {path} is new"))
}

pub(super) fn unsure(doubt: &str) -> Inspected {
    Inspected::Skip(Skip::new(SkipKind::InputSet, format!("which files it reads now is not known: {doubt}")))
}

fn file(node: &Node) -> Option<Digest> {
    match node {
        Node::File { digest, .. } => Some(*digest),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    }
}
