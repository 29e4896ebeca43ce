//! A deterministic stand-in for a remote execution service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cas_client::{
    ActionCacheWriter, Error, ErrorKind, ExecuteRequest, Execution, ExecutionOutcome, ExecutionStage, ExecutionUpdate,
    InMemory, Result,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use reapi_proto::Digest;
use reapi_proto::v2::{self, ActionResult, OutputFile};
use tokio::sync::watch;

use super::message;

/// What the toy does with an action instead of simply running it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Says once that these are missing.
    Missing(Vec<Digest>),
    /// Fails.
    Error(ErrorKind),
    /// Runs it, but does not keep the result.
    Forgets,
    /// Ends without a result.
    Ends,
}

/// What an execution waits for before it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    #[default]
    Never,
    /// For [`Toy::release`], while queued.
    Queued,
    /// For [`Toy::release`], while executing.
    Executing,
}

#[derive(Debug)]
struct Inner {
    store: InMemory,
    log: Mutex<Vec<ExecuteRequest>>,
    cancelled: Mutex<BTreeSet<String>>,
    faults: Mutex<BTreeMap<Digest, Vec<Fault>>>,
    hold: Mutex<Hold>,
    released: watch::Sender<bool>,
}

/// Runs actions on the files in its store. Clones share everything.
#[derive(Clone, Debug)]
pub struct Toy(Arc<Inner>);

impl Toy {
    pub fn new(store: InMemory) -> Self {
        Self(Arc::new(Inner {
            store,
            log: Mutex::default(),
            cancelled: Mutex::default(),
            faults: Mutex::default(),
            hold: Mutex::default(),
            released: watch::Sender::new(false),
        }))
    }

    /// The actions submitted so far, in order.
    pub fn submitted(&self) -> Vec<Digest> {
        self.0.log.lock().unwrap().iter().map(|request| request.action).collect()
    }

    pub fn requests(&self) -> Vec<ExecuteRequest> {
        self.0.log.lock().unwrap().clone()
    }

    pub fn cancelled(&self) -> usize {
        self.0.cancelled.lock().unwrap().len()
    }

    /// The next execution of `action` goes wrong like this; after all faults it runs.
    pub fn fault(&self, action: Digest, fault: Fault) {
        self.0.faults.lock().unwrap().entry(action).or_default().push(fault);
    }

    pub fn hold(&self, hold: Hold) {
        *self.0.hold.lock().unwrap() = hold;
    }

    /// Lets everything go on that is held, now and later.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// How many handles there are.
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn next_fault(&self, action: &Digest) -> Option<Fault> {
        let mut faults = self.0.faults.lock().unwrap();
        let queue = faults.get_mut(action).filter(|queue| !queue.is_empty())?;
        Some(queue.remove(0))
    }

    async fn outcome(self, action: Digest) -> Option<Result<ExecutionUpdate>> {
        if *self.0.hold.lock().unwrap() != Hold::Never {
            self.0.released.subscribe().wait_for(|released| *released).await.ok()?;
        }
        let store = &self.0.store;
        let fault = self.next_fault(&action);
        match &fault {
            Some(Fault::Missing(digests)) => {
                let error = Error::new(ErrorKind::MissingInputs, "Execute", "inputs are missing");
                return Some(Err(error.with_digests(digests.iter().copied())));
            }
            Some(Fault::Error(kind)) => return Some(Err(Error::new(*kind, "Execute", "scripted"))),
            Some(Fault::Ends) => return None,
            Some(Fault::Forgets) | None => {}
        }
        let result = match execute(store, &action) {
            Ok(result) => result,
            Err(error) => return Some(Err(error)),
        };
        if result.exit_code == 0 && fault.is_none() {
            store.store_action_result(&action, &result).await.unwrap();
        }
        let outcome = ExecutionOutcome { result, cached: false, message: String::new() };
        Some(Ok(ExecutionUpdate::Done(Box::new(outcome))))
    }
}

#[async_trait]
impl Execution for Toy {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let action = request.action;
        let turn = {
            let mut log = self.0.log.lock().unwrap();
            log.push(request);
            log.len()
        };
        let mut first = vec![
            Ok(ExecutionUpdate::Accepted { operation: format!("operation {turn}") }),
            Ok(ExecutionUpdate::Stage(ExecutionStage::Queued)),
        ];
        if *self.0.hold.lock().unwrap() != Hold::Queued {
            first.push(Ok(ExecutionUpdate::Stage(ExecutionStage::Executing)));
        }
        let rest = self.clone().outcome(action).map(stream::iter).into_stream().flatten();
        Ok(stream::iter(first).chain(rest).boxed())
    }

    async fn cancel(&self, operation: &str) -> Result<()> {
        self.0.cancelled.lock().unwrap().insert(operation.to_owned());
        Ok(())
    }
}

impl std::fmt::Display for Toy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toy")
    }
}

/// The toy's compiler, archiver and linker: the output is the output's name
/// and every input's contents in the order of their paths, without lines that
/// start with `//`. A line `#error` fails it. With `-M` it lists what it reads instead.
pub fn execute(store: &InMemory, action: &Digest) -> Result<ActionResult> {
    let absent =
        |digest: &Digest| Error::new(ErrorKind::MissingInputs, "Execute", "inputs are missing").with_digest(*digest);
    store.peek(action).ok_or_else(|| absent(action))?;
    let parsed: v2::Action = message(store, action);
    let command = Digest::try_from(&parsed.command_digest).unwrap();
    store.peek(&command).ok_or_else(|| absent(&command))?;
    let command: v2::Command = message(store, &command);
    let root = Digest::try_from(&parsed.input_root_digest).unwrap();
    let (mut inputs, mut missing) = (Vec::new(), Vec::new());
    collect(store, root, &mut inputs, &mut missing);
    if !missing.is_empty() {
        return Err(Error::new(ErrorKind::MissingInputs, "Execute", "inputs are missing").with_digests(missing));
    }
    let output = &command.output_paths[0];
    if command.arguments.iter().any(|argument| argument == "-M") {
        return Ok(list(store, root, &command));
    }
    let platform = parsed.platform.unwrap_or_default();
    let mut text = format!("{output} in {}:", platform.properties[0].value);
    for content in inputs {
        for line in content.lines().filter(|line| !line.starts_with("//")) {
            if line == "#error" {
                return Ok(ActionResult { exit_code: 1, ..ActionResult::default() });
            }
            text.push_str(line);
            text.push('\n');
        }
    }
    let digest = store.put(text);
    let file = OutputFile { path: output.clone(), digest: Some(digest.into()), ..OutputFile::default() };
    Ok(ActionResult { output_files: vec![file], ..ActionResult::default() })
}

fn list(store: &InMemory, root: Digest, command: &v2::Command) -> ActionResult {
    let mut files = BTreeMap::new();
    name_files(store, root, "", &mut files);
    let Some(read) = super::preprocessor::reads(&files, &command.arguments, &command.working_directory) else {
        return ActionResult { exit_code: 1, ..ActionResult::default() };
    };
    let text = read.iter().fold("x.o:".to_owned(), |text, path| format!("{text} /{path}"));
    let digest = store.put(text + "\n");
    let path = command.output_paths[0].clone();
    let file = OutputFile { path, digest: Some(digest.into()), ..OutputFile::default() };
    ActionResult { output_files: vec![file], ..ActionResult::default() }
}

fn name_files(store: &InMemory, root: Digest, at: &str, files: &mut BTreeMap<String, String>) {
    let directory: v2::Directory = message(store, &root);
    for file in &directory.files {
        let bytes = store.peek(&Digest::try_from(&file.digest).unwrap()).unwrap();
        files.insert(super::preprocessor::join(at, &file.name), String::from_utf8_lossy(&bytes).into_owned());
    }
    for child in &directory.directories {
        let below = super::preprocessor::join(at, &child.name);
        name_files(store, Digest::try_from(&child.digest).unwrap(), &below, files);
    }
}

fn collect(store: &InMemory, root: Digest, inputs: &mut Vec<String>, missing: &mut Vec<Digest>) {
    if store.peek(&root).is_none() {
        missing.push(root);
        return;
    }
    let directory: v2::Directory = message(store, &root);
    for file in &directory.files {
        let digest = Digest::try_from(&file.digest).unwrap();
        match store.peek(&digest) {
            Some(bytes) => inputs.push(String::from_utf8_lossy(&bytes).into_owned()),
            None => missing.push(digest),
        }
    }
    for child in &directory.directories {
        collect(store, Digest::try_from(&child.digest).unwrap(), inputs, missing);
    }
}
