//! The messages of a project: sources, input trees, actions, outputs and artifacts, as recorded and as they are now.
//!
//! One element at a time, from nothing but the shape and the outputs of the elements below it: what the build will
//! ask for is found independently of how the engine predicts it.

use bytes::Bytes;
use prost::Message;
use reapi_proto::raw::{Node, RawError, encode_directory};
use reapi_proto::{Digest, DigestFunction, v2};
use rustc_hash::FxHashMap;

use crate::shape::{ActionShape, Shape};

/// The function of every digest in a simulation.
pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Before or after the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Recorded,
    Now,
}

/// What an element is, has and makes, by digests.
#[derive(Clone, Debug)]
pub(crate) struct ElementState {
    pub(crate) sources: Digest,
    /// The directory of its headers.
    headers: Digest,
    pub(crate) artifact: Digest,
    pub(crate) actions: Vec<Digest>,
    pub(crate) commands: Vec<Digest>,
    /// The output of each action.
    pub(crate) outputs: Vec<Digest>,
}

/// A blob, just made.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    pub(crate) kind: Blob,
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// What has to be stored with it: the directories in a directory, the command and the input root of an action.
    pub(crate) below: &'a [Digest],
}

/// Takes blobs.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Made<'_>);

/// What a blob is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blob {
    /// A directory of sources or of an artifact.
    Directory,
    /// A directory of an action's input tree.
    Input,
    Action,
    Command,
    Header,
    Output,
}

/// The weak key of an element whose sources have changed or not.
pub(crate) fn weak_key(row: usize, changed: bool) -> String {
    format!("weak-{row}-{}", u8::from(changed))
}

/// Where an element's own files lie in input trees.
pub(crate) fn own_root(row: usize) -> String {
    format!("buildstream/e{row}")
}

/// The path of an action's output, relative to the element's root.
pub(crate) fn output_path(action: &ActionShape, turn: usize) -> String {
    format!("o{turn}.{}", if action.is_compile() { "o" } else { "so" })
}

/// What an action makes: something else for every action.
pub(crate) fn output_bytes(action: &Digest) -> Bytes {
    Bytes::copy_from_slice(&[b"made by ", action.hash()].concat())
}

/// Which outputs of each element others take, or nobody does, as of the last one: those are installed.
pub(crate) fn installed(shape: &Shape) -> Vec<Vec<usize>> {
    let mut installed: Vec<Vec<usize>> =
        shape.elements.iter().map(|element| element.actions.len().checked_sub(1).into_iter().collect()).collect();
    for action in shape.elements.iter().flat_map(|element| &element.actions) {
        for (below, turn) in &action.others {
            installed[*below].push(*turn);
        }
    }
    for turns in &mut installed {
        turns.sort_unstable();
        turns.dedup();
    }
    installed
}

/// Whose headers and which outputs of others an action sees.
type Staged<'a> = (&'a [usize], &'a [(usize, usize)]);

/// A directory that is being put together.
#[derive(Default)]
struct Dir {
    nodes: Vec<(Bytes, Node)>,
    below: Vec<Digest>,
}

impl Dir {
    fn file(&mut self, name: impl Into<Bytes>, digest: Digest) {
        self.nodes.push((name.into(), Node::File { digest, executable: false }));
    }

    fn directory(&mut self, name: impl Into<Bytes>, digest: Digest) {
        self.nodes.push((name.into(), Node::Directory { digest }));
        self.below.push(digest);
    }

    fn put(mut self, kind: Blob, sink: Sink<'_>) -> Result<Digest, RawError> {
        self.nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        // What is put somewhere twice is there once.
        self.nodes.dedup();
        let bytes = encode_directory(self.nodes)?;
        let digest = FUNCTION.digest(&bytes);
        sink(Made { kind, digest, bytes, below: &self.below });
        Ok(digest)
    }
}

/// Makes elements, in one version.
pub(crate) struct Maker<'a> {
    shape: &'a Shape,
    installed: &'a [Vec<usize>],
    version: Version,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(shape: &'a Shape, installed: &'a [Vec<usize>], version: Version) -> Self {
        Self { shape, installed, version }
    }

    /// Makes an element, given those below it, and hands every blob of it to `sink`: children before parents,
    /// source files left out.
    pub(crate) fn element(&self, row: usize, below: &[ElementState], sink: Sink<'_>) -> Result<ElementState, RawError> {
        let element = &self.shape.elements[row];
        let include = self.headers(row, sink)?;
        let sources: Vec<Digest> = (0..element.actions.len()).map(|turn| source(row, turn)).collect();
        let mut root = Dir::default();
        root.directory("include", include);
        for (turn, digest) in sources.iter().enumerate() {
            root.file(format!("f{turn}.c"), *digest);
        }
        let sources_root = root.put(Blob::Directory, sink)?;

        let mut state = ElementState {
            sources: sources_root,
            headers: include,
            artifact: sources_root,
            actions: Vec::with_capacity(element.actions.len()),
            commands: Vec::with_capacity(element.actions.len()),
            outputs: Vec::with_capacity(element.actions.len()),
        };
        let mut staged: FxHashMap<Staged<'_>, Option<Digest>> = FxHashMap::default();
        for (turn, action) in element.actions.iter().enumerate() {
            let usr = match staged.get(&(&action.headers[..], &action.others[..])) {
                Some(usr) => *usr,
                None => {
                    let usr = self.staged(action, below, sink)?;
                    staged.insert((&action.headers, &action.others), usr);
                    usr
                }
            };
            let mut own = Dir::default();
            own.file(format!("f{turn}.c"), sources[turn]);
            if action.is_compile() {
                own.directory("include", include);
            }
            for made in &action.own {
                own.file(output_path(&element.actions[*made], *made), state.outputs[*made]);
            }
            let own = own.put(Blob::Input, sink)?;
            let mut above = Dir::default();
            above.directory(format!("e{row}"), own);
            let above = above.put(Blob::Input, sink)?;
            let mut root = Dir::default();
            root.directory("buildstream", above);
            if let Some(usr) = usr {
                root.directory("usr", usr);
            }
            let root = root.put(Blob::Input, sink)?;
            let command = command(element.actions.as_slice(), row, turn);
            let command_digest = FUNCTION.digest(&command);
            sink(Made { kind: Blob::Command, digest: command_digest, bytes: command, below: &[] });
            let message = v2::Action {
                command_digest: Some(command_digest.into()),
                input_root_digest: Some(root.into()),
                ..v2::Action::default()
            };
            let bytes = Bytes::from(message.encode_to_vec());
            let digest = FUNCTION.digest(&bytes);
            sink(Made { kind: Blob::Action, digest, bytes, below: &[command_digest, root] });
            state.actions.push(digest);
            state.commands.push(command_digest);
            let bytes = output_bytes(&digest);
            let digest = FUNCTION.digest(&bytes);
            sink(Made { kind: Blob::Output, digest, bytes, below: &[] });
            state.outputs.push(digest);
        }
        state.artifact = self.artifact(row, include, &state.outputs, sink)?;
        Ok(state)
    }

    /// The directory of an element's headers, the same in its sources and installed.
    fn headers(&self, row: usize, sink: Sink<'_>) -> Result<Digest, RawError> {
        let element = &self.shape.elements[row];
        let mut directory = Dir::default();
        for header in 0..element.headers {
            let edition = u8::from(element.changed && header == 0 && self.version == Version::Now);
            let text = Bytes::from(format!("#pragma once\nextern int e{row}_h{header}_{edition};\n"));
            let digest = FUNCTION.digest(&text);
            sink(Made { kind: Blob::Header, digest, bytes: text, below: &[] });
            directory.file(format!("h{header}.h"), digest);
        }
        directory.put(Blob::Directory, sink)
    }

    /// What an action sees below `usr`.
    fn staged(&self, action: &ActionShape, below: &[ElementState], sink: Sink<'_>) -> Result<Option<Digest>, RawError> {
        let mut usr = Dir::default();
        if !action.headers.is_empty() {
            let mut include = Dir::default();
            for row in &action.headers {
                include.directory(format!("e{row}"), below[*row].headers);
            }
            usr.directory("include", include.put(Blob::Input, sink)?);
        }
        if !action.others.is_empty() {
            let mut lib = Dir::default();
            for same in action.others.chunk_by(|a, b| a.0 == b.0) {
                let mut directory = Dir::default();
                for (row, turn) in same {
                    let path = output_path(&self.shape.elements[*row].actions[*turn], *turn);
                    directory.file(path, below[*row].outputs[*turn]);
                }
                lib.directory(format!("e{}", same[0].0), directory.put(Blob::Input, sink)?);
            }
            usr.directory("lib", lib.put(Blob::Input, sink)?);
        }
        if usr.nodes.is_empty() { Ok(None) } else { usr.put(Blob::Input, sink).map(Some) }
    }

    fn artifact(&self, row: usize, headers: Digest, outputs: &[Digest], sink: Sink<'_>) -> Result<Digest, RawError> {
        let mut include = Dir::default();
        include.directory(format!("e{row}"), headers);
        let mut usr = Dir::default();
        usr.directory("include", include.put(Blob::Directory, sink)?);
        if !self.installed[row].is_empty() {
            let mut directory = Dir::default();
            for turn in &self.installed[row] {
                let path = output_path(&self.shape.elements[row].actions[*turn], *turn);
                directory.file(path, outputs[*turn]);
            }
            let mut lib = Dir::default();
            lib.directory(format!("e{row}"), directory.put(Blob::Directory, sink)?);
            usr.directory("lib", lib.put(Blob::Directory, sink)?);
        }
        let mut root = Dir::default();
        root.directory("usr", usr.put(Blob::Directory, sink)?);
        root.put(Blob::Directory, sink)
    }
}

/// The contents of source files do not change, and nobody reads them.
fn source(row: usize, turn: usize) -> Digest {
    FUNCTION.digest(format!("int e{row}_f{turn};\n").as_bytes())
}

fn command(actions: &[ActionShape], row: usize, turn: usize) -> Bytes {
    let action = &actions[turn];
    let output = output_path(action, turn);
    let mut arguments = vec!["cc".to_owned()];
    if action.is_compile() {
        arguments.extend(["-Iinclude".to_owned(), "-c".to_owned(), format!("f{turn}.c")]);
    } else {
        arguments.push("-shared".to_owned());
        arguments.extend(action.own.iter().map(|made| output_path(&actions[*made], *made)));
    }
    arguments.extend(["-o".to_owned(), output.clone()]);
    let message = v2::Command {
        arguments,
        output_paths: vec![output],
        working_directory: own_root(row),
        ..v2::Command::default()
    };
    message.encode_to_vec().into()
}
