//! Projects of any number of elements, before and after a header at the bottom changed.
//!
//! Every tree is a plain build from a list of files, in both states alike: nothing here shares code with the
//! adaptation of actions, so that what is predicted can be held against the actions of the next state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::InMemory;
use overlay::graph::{Element, Graph};
use overlay::{Contents, Dependency, Deriver, Forest, Mode, Observed, Observing, Record, layout};
use reapi_proto::raw::{Action, Command, Directory, Node, encode_directory};
use reapi_proto::v2::{self, ActionResult, OutputFile};
use reapi_proto::{Digest, DigestFunction};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Dimensions. Element 0 is at the bottom; element `i` above it builds against it and against element `i / 2`.
#[derive(Clone, Copy)]
pub(crate) struct Dimensions {
    /// Elements that build on the one at the bottom, itself included.
    pub(crate) elements: usize,
    /// Compiles per element that read its own header, the one at the bottom and that of what it builds against.
    pub(crate) seeing: usize,
    /// Compiles per element that read only the last of these, and nothing of the element at the bottom.
    pub(crate) blind: usize,
    /// Further elements, as large as the others, that build on nothing.
    pub(crate) apart: usize,
}

impl Dimensions {
    /// Actions of all elements: the compiles, and a link each.
    pub(crate) fn actions(&self) -> usize {
        (self.elements + self.apart) * (self.seeing + self.blind + 1)
    }
}

/// What has changed since everything was recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: every element is current.
    Nothing,
    /// The header of element 0, which makes all that build on it stale.
    Header,
    /// A source file of each of the last so many elements, on which nothing builds.
    Top(usize),
}

/// What is kept of the blobs that a build makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Everything,
    /// For projects of which nothing else will be read.
    Records,
}

/// A recorded project in its next state.
pub(crate) struct Project {
    pub(crate) store: InMemory,
    /// The graph as an orchestrator hands it over.
    pub(crate) graph: String,
    /// What the next build asks for in place of each recorded action, by element.
    pub(crate) expected: BTreeMap<String, Vec<(Digest, Digest)>>,
    /// The results of the next build.
    pub(crate) results: Vec<(Digest, ActionResult)>,
}

impl Project {
    pub(crate) fn new(dimensions: Dimensions, change: Change, keep: Keep) -> Self {
        let store = InMemory::new();
        let (recorded, messages) = record(dimensions, &store, keep);
        let rows = dimensions.elements + dimensions.apart;
        let is_stale = |row: usize| match change {
            Change::Nothing => false,
            Change::Header => row < dimensions.elements,
            Change::Top(count) => row + count >= rows,
        };
        let mut now: Vec<Built> = Vec::with_capacity(rows);
        let mut results = Vec::new();
        for (row, then) in recorded.iter().enumerate() {
            if !is_stale(row) {
                now.push(then.clone());
                continue;
            }
            let mut blobs = Blobs::default();
            let built = build(dimensions, row, change, &now, &mut blobs);
            // The sources are there before the build, and what was made of them for whoever looks up results.
            for bytes in blobs.sources.into_iter().chain(blobs.outputs) {
                store.put(bytes);
            }
            results.extend(built.actions.iter().cloned());
            now.push(built);
        }
        let elements = (0..rows).map(|row| Element {
            weak_key: Some(weak_key(row, matches!(change, Change::Top(_)) && is_stale(row))),
            cached: Some(!is_stale(row)),
            sources: Some(now[row].sources),
            artifact: (!is_stale(row)).then_some(now[row].artifact),
            build_deps: Some(below(dimensions, row).into_iter().map(name).collect()),
            speculative_actions: Some(messages[row]),
            ..Element::new(name(row))
        });
        let graph = Graph::new(FUNCTION, elements.collect()).unwrap_or_else(|error| panic!("{error}")).to_json();
        let stale = (0..rows).filter(|row| is_stale(*row));
        let expected = stale.map(|row| {
            let pairs = recorded[row].actions.iter().zip(&now[row].actions);
            (name(row), pairs.map(|((then, _), (now, _))| (*then, *now)).collect())
        });
        Self { store, graph, expected: expected.collect(), results }
    }
}

fn name(row: usize) -> String {
    format!("e{row:05}.bst")
}

fn weak_key(row: usize, edited: bool) -> String {
    format!("weak-{row}-{}", u8::from(edited))
}

/// What an element builds against.
fn below(dimensions: Dimensions, row: usize) -> Vec<usize> {
    match row {
        0 => Vec::new(),
        1 => vec![0],
        row if row >= dimensions.elements => Vec::new(),
        row => vec![0, row / 2],
    }
}

/// Everything that an element builds against, directly or not, what is staged first first.
fn closure(dimensions: Dimensions, row: usize) -> Vec<usize> {
    let mut closure = below(dimensions, row);
    let mut next = closure.last().copied();
    while let Some(row) = next.filter(|row| *row > 1) {
        closure.push(row / 2);
        next = Some(row / 2);
    }
    closure.sort_unstable();
    closure.dedup();
    closure
}

/// An element after its build.
#[derive(Clone)]
struct Built {
    sources: Digest,
    artifact: Digest,
    /// In the order in which they ran, with their results.
    actions: Vec<(Digest, ActionResult)>,
    header: Node,
    archive: Node,
}

/// What a build makes.
#[derive(Default)]
struct Blobs {
    sources: Vec<Bytes>,
    outputs: Vec<Bytes>,
    messages: Vec<(Digest, Bytes)>,
    directories: Vec<(Digest, Bytes)>,
}

impl Blobs {
    fn message(&mut self, message: &impl prost::Message) -> Digest {
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = FUNCTION.digest(&bytes);
        self.messages.push((digest, bytes));
        digest
    }

    /// The root of a tree of these files. Their paths are sorted.
    fn tree(&mut self, files: &BTreeMap<String, Node>) -> Digest {
        let mut entries: BTreeMap<Bytes, Node> = BTreeMap::new();
        let mut below: BTreeMap<String, BTreeMap<String, Node>> = BTreeMap::new();
        for (path, node) in files {
            match path.split_once('/') {
                None => drop(entries.insert(path.clone().into(), node.clone())),
                Some((first, rest)) => {
                    below.entry(first.to_owned()).or_default().insert(rest.to_owned(), node.clone());
                }
            }
        }
        for (name, files) in below {
            entries.insert(name.into(), Node::Directory { digest: self.tree(&files) });
        }
        let bytes = encode_directory(entries).unwrap_or_else(|error| panic!("{error}"));
        let digest = FUNCTION.digest(&bytes);
        self.directories.push((digest, bytes));
        digest
    }

    fn source(&mut self, text: String) -> Node {
        let digest = FUNCTION.digest(text.as_bytes());
        self.sources.push(text.into());
        Node::File { digest, executable: false }
    }

    /// An action and what it makes, which is a function of its inputs.
    fn run(
        &mut self,
        row: usize,
        arguments: &[&str],
        output: &str,
        inputs: &BTreeMap<String, Node>,
    ) -> (Digest, ActionResult, Node) {
        let command = v2::Command {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            output_paths: vec![output.to_owned()],
            working_directory: own_root(row),
            ..v2::Command::default()
        };
        let root = self.tree(inputs);
        let action = v2::Action {
            command_digest: Some(self.message(&command).into()),
            input_root_digest: Some(root.into()),
            ..v2::Action::default()
        };
        let action = self.message(&action);
        let made = Bytes::from(format!("{output} of {root}\n"));
        let digest = FUNCTION.digest(&made);
        self.outputs.push(made);
        let file = OutputFile { path: output.to_owned(), digest: Some(digest.into()), ..OutputFile::default() };
        let result = ActionResult { output_files: vec![file], ..ActionResult::default() };
        (action, result, Node::File { digest, executable: false })
    }
}

fn own_root(row: usize) -> String {
    format!("buildstream/proj/{}", name(row))
}

fn build(dimensions: Dimensions, row: usize, change: Change, built: &[Built], blobs: &mut Blobs) -> Built {
    let Dimensions { elements, seeing, blind, .. } = dimensions;
    let own = own_root(row);
    let changed = if change == Change::Header && row == 0 { "changed" } else { "old" };
    // Projects of other sizes have other actions, even where both are on one service.
    let header = blobs.source(format!("int {changed}_{row}_of_{elements};\n"));
    let mut sources = BTreeMap::from([("include/h.h".to_owned(), header.clone())]);
    for turn in 0..seeing + blind {
        let edited = matches!(change, Change::Top(_)) && turn == 0;
        let text = format!("int f_{row}_{turn}(void) {{ return {}; }}\n", u8::from(edited));
        sources.insert(format!("src/{turn}.c"), blobs.source(text));
    }
    let below = below(dimensions, row);
    let mut actions = Vec::with_capacity(seeing + blind + 1);
    let mut objects = BTreeMap::new();
    for turn in 0..seeing + blind {
        let source = format!("src/{turn}.c");
        let mut inputs = BTreeMap::from([(format!("{own}/{source}"), sources[&source].clone())]);
        for below in below.iter().filter(|below| turn < seeing || **below > 0) {
            inputs.insert(format!("usr/include/e{below}/h.h"), built[*below].header.clone());
        }
        if turn < seeing {
            inputs.insert(format!("{own}/include/h.h"), header.clone());
        }
        let output = format!("{turn}.o");
        let arguments = ["gcc", "-I/usr/include", "-Iinclude", "-c", &source, "-o", &output];
        let (action, result, node) = blobs.run(row, &arguments, &output, &inputs);
        actions.push((action, result));
        objects.insert(format!("{own}/{output}"), node);
    }
    if let Some(below) = below.last().filter(|below| **below > 0) {
        objects.insert(format!("usr/lib/e{below}.a"), built[*below].archive.clone());
    }
    let (action, result, archive) = blobs.run(row, &["make", "all.a"], "all.a", &objects);
    actions.push((action, result));
    let installed = BTreeMap::from([
        (format!("usr/include/e{row}/h.h"), header.clone()),
        (format!("usr/lib/e{row}.a"), archive.clone()),
    ]);
    let (sources, artifact) = (blobs.tree(&sources), blobs.tree(&installed));
    // What the sources are made of is at hand, too.
    let directories = blobs.directories.iter().map(|(_, bytes)| bytes.clone());
    blobs.sources.extend(directories);
    Built { sources, artifact, actions, header, archive }
}

/// Builds and records everything in its old state. Returns what was built, and the records.
fn record(dimensions: Dimensions, store: &InMemory, keep: Keep) -> (Vec<Built>, Vec<Digest>) {
    let rows = dimensions.elements + dimensions.apart;
    let mut recorded: Vec<Built> = Vec::with_capacity(rows);
    let mut records: Vec<Arc<Record>> = Vec::with_capacity(rows);
    let mut messages = Vec::with_capacity(rows);
    let mut trees: Vec<Vec<(Digest, Bytes)>> = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut blobs = Blobs::default();
        let built = build(dimensions, row, Change::Nothing, &recorded, &mut blobs);
        let closure = closure(dimensions, row);
        let mut forest = Forest::new();
        let below = closure.iter().flat_map(|below| &trees[*below]);
        for (digest, bytes) in below.chain(&blobs.directories) {
            forest.insert_new(*digest, parse(Directory::parse(bytes.clone())));
        }
        let dependencies = closure.iter().map(|below| Dependency {
            name: name(*below),
            sources: Some(recorded[*below].sources),
            artifact: Some(recorded[*below].artifact),
            record: Some(Arc::clone(&records[*below])),
        });
        let record = derive(row, &built, &blobs, &forest, dependencies.collect());
        messages.push(store.put(layout::encode(&record)));
        records.push(Arc::new(record));
        // Of the trees, those that others walk: sources and artifact, which were made last.
        let shown = |root: &Digest| reachable(root, &forest);
        let mut kept = shown(&built.sources);
        kept.extend(shown(&built.artifact));
        trees.push(kept);
        if keep == Keep::Everything {
            let messages = blobs.messages.into_iter().map(|(_, bytes)| bytes);
            for bytes in messages.chain(blobs.sources) {
                store.put(bytes);
            }
        }
        recorded.push(built);
    }
    (recorded, messages)
}

fn derive(row: usize, built: &Built, blobs: &Blobs, forest: &Forest, dependencies: Vec<Dependency>) -> Record {
    let messages: std::collections::HashMap<&Digest, &Bytes> =
        blobs.messages.iter().map(|(digest, bytes)| (digest, bytes)).collect();
    let observing = Observing {
        name: name(row),
        weak_key: Some(weak_key(row, false)),
        configuration: None,
        sources: Some(built.sources),
        artifact: Some(built.artifact),
        own_root: own_root(row).into(),
        platforms: Vec::new(),
    };
    let mut deriver = Deriver::new(Mode::Full, FUNCTION, observing, dependencies);
    for (base, result) in &built.actions {
        let action = parse(Action::parse(messages[base].clone()));
        let command = parse(Command::parse(messages[&action.command_digest()].clone()));
        let outputs = result.output_files.iter().filter_map(|file| {
            let digest = Digest::try_from(file.digest.as_ref()?).ok()?;
            Some((Bytes::from(file.path.clone()), Node::File { digest, executable: false }))
        });
        let outputs = outputs.collect();
        let observed = Observed { base: *base, action, command, outputs, duration: None, output_bytes: None };
        deriver.observe(forest, &observed).unwrap_or_else(|error| panic!("{error}"));
    }
    deriver.finish(forest, &Contents::default())
}

/// The directories of a tree.
fn reachable(root: &Digest, forest: &Forest) -> Vec<(Digest, Bytes)> {
    let mut found = Vec::new();
    let mut pending = vec![*root];
    while let Some(digest) = pending.pop() {
        let directory = forest.get(&digest).unwrap_or_else(|| panic!("{digest} was not made"));
        found.push((digest, directory.bytes().clone()));
        pending.extend(directory.directories().map(|(_, digest)| digest));
    }
    found
}

fn parse<T, E: std::fmt::Display>(parsed: Result<T, E>) -> T {
    parsed.unwrap_or_else(|error| panic!("{error}"))
}
