//! Asking the compiler which files a command reads now.
//!
//! Where [text](super::inspection) cannot tell, the recorded command is run in
//! its dependency-listing form, as an action of its own, on everything that it could
//! read. Its answer is what the client will find out in the build. The
//! listing is an action like any other: cached, uploaded and executed through the same runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::BlobStore;
use includes::{CompileCommand, depfile, normalise};
use overlay::{Forest, Merge, Substitution};
use prost::Message;
use reapi_proto::raw::{Directory, Node};
use reapi_proto::{Blob, Digest, v2};
use rustc_hash::FxHashSet;

use super::Priming;
use super::inspection::{Edits, Inspected, Lacking, unsure};
use super::order::Place;
use super::runs::{Ended, Recipe, RunId, Stage};
use super::tables::{ActId, State};
use super::task::{Done, Fetched, fetch};
use super::trees::Trees;
use super::workshop::Setback;

/// The output of a listing, in the command's working directory.
const DEPFILE: &str = ".bst-sa.d";

/// A question that is under way, or answered.
pub(super) struct Ask {
    /// What it is asked about: when that has changed, it is asked anew.
    about: Vec<Digest>,
    stage: Progress,
}

enum Progress {
    /// The tree is being put together.
    Preparing,
    /// This action lists the files.
    Running(RunId),
    /// These files, by path in the input tree.
    Answered(Arc<BTreeSet<Bytes>>),
    /// There is no answer.
    Failed(String),
}

/// A tree with everything that a command could read.
pub(super) struct Candidates {
    act: ActId,
    about: Vec<Digest>,
    outcome: Result<New, String>,
}

struct New {
    root: Digest,
    blobs: Vec<Blob>,
}

/// The output of a listing.
pub(super) struct Listed {
    act: ActId,
    about: Vec<Digest>,
    text: Fetched,
}

impl Priming {
    /// Asks, or says what was answered.
    pub(super) fn ask_compiler(
        &mut self,
        id: ActId,
        compile: &CompileCommand,
        doubt: &str,
        standard: &[Bytes],
    ) -> Result<Inspected, Lacking> {
        if self.services.execution.is_none() {
            return Ok(unsure(&format!("{doubt}; the compiler can be asked when priming")));
        }
        let row = self.tables[id].row;
        let Some(Ok(base)) = self.workshop.base(&self.tables[id].base) else { return Err(Lacking) };
        let root = match self.input_root(id, &base, &Edits::new()) {
            Ok(root) => root,
            Err(Setback::GiveUp(skip)) => return Ok(Inspected::Skip(skip)),
            Err(_) => return Err(Lacking),
        };
        self.made.extend(self.tables[row].adaptation.take_directories());
        let trees = self.trees(row);
        if !self.all_built(row) {
            return Ok(Inspected::Waits("the elements that it is built on".to_owned()));
        }
        let mut about = vec![root];
        about.extend(trees.sources());
        about.extend(trees.artifacts());
        match self.asks.get(&id).filter(|ask| ask.about == about).map(|ask| &ask.stage) {
            Some(Progress::Preparing | Progress::Running(_)) => return Err(Lacking),
            Some(Progress::Failed(reason)) => return Ok(unsure(&format!("{doubt}; {reason}"))),
            Some(Progress::Answered(files)) => {
                let files = Arc::clone(files);
                return self.answer(id, &base.input_root_digest(), &files);
            }
            None => {}
        }
        let directory = self.workshop.command_of(&base).map(|command| command.working_directory().to_vec());
        let directory = directory.unwrap_or_default();
        let named = [compile.quote_directories(), compile.include_directories(), compile.system_directories()];
        let named = named.into_iter().chain([compile.after_directories()]).flatten();
        let mut directories: Vec<Bytes> = standard.to_vec();
        directories.extend(named.filter_map(|path| normalise(path, &directory)));
        let made = self.made_below(root);
        self.asks.insert(id, Ask { about: about.clone(), stage: Progress::Preparing });
        let blobs = Arc::clone(&self.services.blobs);
        self.tasks.push(async move {
            let outcome = candidates(blobs, trees, directories, root, made).await;
            Done::Candidates(Candidates { act: id, about, outcome })
        });
        Err(Lacking)
    }

    /// The edits that an answer means.
    fn answer(&mut self, id: ActId, recorded: &Digest, files: &BTreeSet<Bytes>) -> Result<Inspected, Lacking> {
        let row = self.tables[id].row;
        let recorded = self.listed(*recorded)?;
        let trees = self.trees(row);
        // A client that is not told to does not take what is part of the platform.
        let takes_staged = recorded.iter().any(|(path, _)| trees.own(path).is_none());
        let here: BTreeSet<&Bytes> = recorded.iter().map(|(path, _)| path).collect();
        let gone: BTreeSet<Bytes> = {
            let changes = self.tables[row].adaptation.changes(self.tables[id].id);
            changes.into_iter().flatten().filter(|change| change.now.is_none()).map(|change| change.path).collect()
        };
        let new = files.iter().filter(|path| !here.contains(path) || gone.contains(*path));
        let added: Vec<Bytes> = new.filter(|path| takes_staged || trees.own(path).is_some()).cloned().collect();
        let is_file = |node: &Node| matches!(node, Node::File { .. });
        let removed = recorded.iter().filter(|(path, node)| is_file(node) && !files.contains(path));
        let removed = removed.map(|(path, _)| path.clone()).collect();
        self.edits(row, &added, removed)
    }

    /// The directories that were made here, of a tree.
    fn made_below(&self, root: Digest) -> Vec<Blob> {
        let (mut found, mut seen) = (Vec::new(), FxHashSet::default());
        let mut pending = vec![root];
        while let Some(digest) = pending.pop() {
            let Some(blob) = self.made.get(&digest).filter(|_| seen.insert(digest)) else { continue };
            pending.extend(Directory::subdirectories(blob.data()));
            found.push(blob.clone());
        }
        found
    }

    /// The tree is there: the action is put together and run.
    pub(super) fn take_candidates(&mut self, Candidates { act, about, outcome }: Candidates) {
        if self.asks.get(&act).is_none_or(|ask| ask.about != about) {
            return;
        }
        let listing = outcome.and_then(|new| {
            self.made.extend(new.blobs);
            self.listing(act, new.root)
        });
        match listing {
            Ok((digest, recipe)) => {
                let place = Place::of(&self.tables, act);
                let run = self.runs.of(digest, place);
                if let Some(ask) = self.asks.get_mut(&act) {
                    ask.stage = Progress::Running(run);
                }
                self.progress.listings += 1;
                self.run_listing(act, run, place, recipe);
            }
            Err(reason) => self.no_answer(act, reason),
        }
    }

    /// The action that lists what a command reads in a tree.
    fn listing(&mut self, act: ActId, root: Digest) -> Result<(Digest, Recipe), String> {
        let function = self.services.blobs.digest_function();
        let (row, action) = (self.tables[act].row, self.tables[act].id);
        let Some(Ok(base)) = self.workshop.base(&self.tables[act].base) else {
            return Err("the action is not at hand".to_owned());
        };
        let command = self.workshop.command_of(&base).ok_or_else(|| "its command is not at hand".to_owned())?;
        let adapted = self.tables[row].adaptation.adapt_to(action, &base, Some(&command), root);
        let adapted = adapted.map_err(|error| error.to_string())?;
        let compile = CompileCommand::parse(command.arguments()).ok_or_else(|| "it is no compile".to_owned())?;
        let command = adapted.command.map_or_else(|| command.bytes().clone(), Blob::into_data);
        let mut command = v2::Command::decode(command).map_err(|error| error.to_string())?;
        let arguments = compile.listing(DEPFILE).into_iter().map(|argument| String::from_utf8(argument.to_vec()));
        command.arguments =
            arguments.collect::<Result<_, _>>().map_err(|_| "its arguments are not UTF-8".to_owned())?;
        #[allow(deprecated, reason = "clients of before API 2.1 use these")]
        {
            command.output_files.clear();
            command.output_directories.clear();
        }
        command.output_paths = vec![DEPFILE.to_owned()];
        let command = Blob::new(function, command.encode_to_vec());
        let mut action = v2::Action::decode(adapted.action.into_data()).map_err(|error| error.to_string())?;
        let command_digest = command.digest();
        action.command_digest = Some(command_digest.into());
        let action = Blob::new(function, action.encode_to_vec());
        let digest = action.digest();
        self.made.extend([command, action]);
        Ok((digest, Recipe { input_root: root, platforms: adapted.platforms, command: Some(command_digest) }))
    }

    fn run_listing(&mut self, act: ActId, id: RunId, place: Place, recipe: Recipe) {
        let run = &mut self.runs[id];
        run.askers.push(act);
        run.place = run.place.min(place);
        run.keep(Some(recipe));
        let (stage, over) = (run.stage.clone(), run.is_over());
        if stage == Stage::Idle {
            self.check(id);
        } else if over {
            self.hear_listing(id);
        }
    }

    /// A listing has come to an end, one way or the other.
    pub(super) fn hear_listing(&mut self, id: RunId) {
        let run = &mut self.runs[id];
        if run.askers.is_empty() {
            return;
        }
        let askers = match (&run.stage, run.output(DEPFILE.as_bytes())) {
            (_, Some(_)) => std::mem::take(&mut run.askers),
            (Stage::Done(_), None) => std::mem::take(&mut run.askers),
            _ => return,
        };
        let outcome = match (&run.stage, run.output(DEPFILE.as_bytes())) {
            (_, Some(Node::File { digest, .. })) => Ok(digest),
            (Stage::Done(Ended::Failed(reason)), _) => Err(format!("the compiler was asked: {reason}")),
            _ => Err(match &run.refusal {
                Some(skip) => format!("the compiler was not asked: {skip}"),
                None => "the compiler gave no answer".to_owned(),
            }),
        };
        for act in askers {
            let Some(ask) = self.asks.get(&act).filter(|ask| matches!(ask.stage, Progress::Running(run) if run == id))
            else {
                continue;
            };
            match &outcome {
                Ok(file) => {
                    let (about, file) = (ask.about.clone(), *file);
                    let blobs = Arc::clone(&self.services.blobs);
                    self.tasks
                        .push(async move { Done::Listed(Listed { act, about, text: fetch(blobs, vec![file]).await }) });
                }
                Err(reason) => self.no_answer(act, reason.clone()),
            }
        }
    }

    pub(super) fn take_listing(&mut self, Listed { act, about, text }: Listed) {
        let Some(ask) = self.asks.get_mut(&act).filter(|ask| ask.about == about) else { return };
        let base = self.workshop.base(&self.tables[act].base).and_then(Result::ok);
        let directory = base.and_then(|base| self.workshop.command_of(&base)).map(|c| c.working_directory().to_vec());
        let directory = directory.unwrap_or_default();
        let files = match text.into_iter().next() {
            Some((_, Ok(text))) => depfile::parse(&text).map_err(|error| error.to_string()),
            Some((_, Err(skip))) => Err(skip.reason),
            None => Err("its answer was not read".to_owned()),
        };
        match files {
            Ok(files) => {
                let files = files.iter().filter_map(|file| normalise(file, &directory)).collect();
                ask.stage = Progress::Answered(Arc::new(files));
            }
            Err(reason) => ask.stage = Progress::Failed(format!("the compiler was asked: {reason}")),
        }
        self.unpark();
    }

    fn no_answer(&mut self, act: ActId, reason: String) {
        if let Some(ask) = self.asks.get_mut(&act) {
            ask.stage = Progress::Failed(reason);
        }
        self.unpark();
    }

    /// Whether anybody still wants the result of a run.
    pub(super) fn is_wanted(&self, run: RunId) -> bool {
        let run = &self.runs[run];
        !run.acts.is_empty() || run.askers.iter().any(|act| self.tables[*act].state == State::Preparing)
    }
}

/// Everything that a command could read: where it looks, as far as that is
/// staged; the element's sources; and on top the inputs as they are known.
async fn candidates(
    blobs: Arc<dyn BlobStore>,
    trees: Trees,
    mut directories: Vec<Bytes>,
    root: Digest,
    made: Vec<Blob>,
) -> Result<New, String> {
    let function = blobs.digest_function();
    let mut forest = Forest::new();
    for blob in made {
        forest.insert(blob.digest(), Directory::parse(blob.into_data()).map_err(|error| error.to_string())?);
    }
    directories.retain(|path| !path.is_empty() && trees.own(path).is_none());
    directories.sort();
    let mut outermost: Vec<Bytes> = Vec::new();
    for path in directories {
        let inside = |outer: &Bytes| path.strip_prefix(&outer[..]).is_some_and(|r| r.is_empty() || r.starts_with(b"/"));
        if !outermost.iter().any(inside) {
            outermost.push(path);
        }
    }
    let mut staged = Substitution::identity();
    for path in outermost {
        let mut found = Vec::new();
        for artifact in trees.artifacts() {
            if let Some(Node::Directory { digest }) = find(&blobs, &mut forest, artifact, &path).await? {
                found.push(digest);
            }
        }
        if !found.is_empty() {
            staged.set(&path, Node::Directory { digest: merge(&blobs, &mut forest, found).await? });
        }
    }
    let staged = apply(&staged, &mut forest, function.empty())?;
    let mut layers = vec![staged];
    if let (Some(own), Some(sources)) = (trees.own_root(), trees.sources()) {
        if own.is_empty() {
            layers.push(sources);
        } else {
            let mut below = Substitution::identity();
            below.set(own, Node::Directory { digest: sources });
            layers.push(apply(&below, &mut forest, function.empty())?);
        }
    }
    layers.push(root);
    let before: BTreeSet<Digest> = BTreeSet::new();
    let root = merge(&blobs, &mut forest, layers).await?;
    // What is below is stored already, or was made on the way here.
    let mut new = Vec::new();
    let mut pending = vec![root];
    let mut seen = before;
    while let Some(digest) = pending.pop() {
        let Some(directory) = forest.get(&digest).filter(|_| seen.insert(digest)) else { continue };
        pending.extend(directory.directories().map(|(_, child)| child));
        new.push(Blob::new(function, directory.bytes().clone()));
    }
    Ok(New { root, blobs: new })
}

fn apply(edits: &Substitution, forest: &mut Forest, root: Digest) -> Result<Digest, String> {
    let rewritten = edits.apply(forest, root).map_err(|error| error.to_string())?;
    rewritten.add_to(forest).map_err(|error| error.to_string())?;
    Ok(rewritten.root)
}

async fn merge(blobs: &Arc<dyn BlobStore>, forest: &mut Forest, roots: Vec<Digest>) -> Result<Digest, String> {
    let mut merge = Merge::new(blobs.digest_function(), roots);
    while !merge.is_done() {
        let needs = merge.needs(forest);
        read(blobs, forest, needs).await?;
        merge.advance(forest);
    }
    let merged = merge.finish(forest).map_err(|error| error.to_string())?;
    merged.add_to(forest).map_err(|error| error.to_string())?;
    Ok(merged.root)
}

async fn find(
    blobs: &Arc<dyn BlobStore>,
    forest: &mut Forest,
    root: Digest,
    path: &[u8],
) -> Result<Option<Node>, String> {
    loop {
        match forest.find(&root, path) {
            Ok(node) => return Ok(node),
            Err(missing) => read(blobs, forest, vec![missing.0]).await?,
        }
    }
}

async fn read(blobs: &Arc<dyn BlobStore>, forest: &mut Forest, needs: Vec<Digest>) -> Result<(), String> {
    for (digest, bytes) in fetch(Arc::clone(blobs), needs).await {
        let bytes = bytes.map_err(|skip| skip.reason)?;
        forest.insert(digest, Directory::parse(bytes).map_err(|error| format!("directory {digest}: {error}"))?);
    }
    Ok(())
}
