//! `bst-sa exec`: one command through Remote Execution.

use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use cas_client::{
    ActionCache, ActionCacheExt, Blob, BlobStore, BlobStoreExt, CacheLookup, ErrorKind, ExecuteRequest, Execution,
    ExecutionOutcome, ExecutionUpdate, outputs,
};
use futures_util::TryStreamExt;
use prost::Message;
use reapi_proto::{Digest, DigestFunction, v2};

use crate::cli::ExecArgs;
use crate::failure::Failure;
use crate::files::{LocalTree, clean_path, write_outputs};
use crate::progress::Progress;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// How often inputs that the service has lost are uploaded again.
const UPLOAD_ROUNDS: usize = 3;

pub(crate) async fn run(mut args: ExecArgs) -> Result<ExitCode, Failure> {
    args.working_directory = clean_path("--working-directory", &args.working_directory)?;
    for output in &mut args.output {
        *output = clean_path("--output", output)?;
    }
    // Actions of a build, for whoever reads the service's log: not those that priming asks for.
    args.connect = args.connect.with_tool("bst-sa-exec");
    let blobs = args.connect.blobs(FUNCTION)?;
    let cache = args.connect.optional_action_cache(FUNCTION)?;
    let execution = args.connect.execution(FUNCTION)?;
    let progress = Progress::new("hashing inputs");
    let paths = args.input.clone();
    let tree = tokio::task::spawn_blocking(move || LocalTree::read(FUNCTION, &paths))
        .await
        .map_err(|e| Failure::new("hashing the inputs was aborted").because(&e))??;
    let (root, mut messages) = tree.directories(FUNCTION)?;
    let action = action(&args, root, &mut messages);
    let cached = match cache.filter(|_| !args.skip_cache) {
        Some(cache) => cached(&*cache, &*blobs, &action).await?,
        None => None,
    };
    let result = &match cached {
        Some(result) => result,
        None => execute(&args, &blobs, &execution, &tree, &messages, action, &progress).await?.result,
    };
    progress.say("writing outputs");
    write_outputs(&*blobs, Path::new(&args.working_directory), &args.output, outputs(result)?).await?;
    let stdout = text(&*blobs, &result.stdout_raw, result.stdout_digest.as_ref()).await?;
    let stderr = text(&*blobs, &result.stderr_raw, result.stderr_digest.as_ref()).await?;
    drop(progress);
    print(stderr, io::stderr()).map_err(|e| Failure::new("stderr cannot be written").because(&e))?;
    print(stdout, io::stdout()).map_err(|e| Failure::new("stdout cannot be written").because(&e))?;
    // A command that was killed by a signal has a code that a process cannot return.
    Ok(u8::try_from(result.exit_code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Appends the Command and the Action to `messages`; returns the Action's digest.
fn action(args: &ExecArgs, root: Digest, messages: &mut Vec<Blob>) -> Digest {
    let mut platform: Vec<_> = args.platform.clone();
    platform.sort();
    let properties =
        platform.into_iter().map(|(name, value)| v2::platform::Property { name, value }).collect::<Vec<_>>();
    let platform = (!properties.is_empty()).then_some(v2::Platform { properties });
    let mut environment: Vec<_> = args.env.clone();
    environment.sort();
    let mut output_paths = args.output.clone();
    output_paths.sort();
    output_paths.dedup();
    let mut command = v2::Command {
        arguments: args.command.clone(),
        environment_variables: environment
            .into_iter()
            .map(|(name, value)| v2::command::EnvironmentVariable { name, value })
            .collect(),
        output_paths,
        working_directory: args.working_directory.clone(),
        ..Default::default()
    };
    // Deprecated there, and still the only place where some services look.
    #[allow(deprecated, reason = "servers before version 2.2 of the API read it there")]
    {
        command.platform.clone_from(&platform);
    }
    let command = Blob::new(FUNCTION, command.encode_to_vec());
    let action = v2::Action {
        command_digest: Some((&command.digest()).into()),
        input_root_digest: Some((&root).into()),
        platform,
        ..Default::default()
    };
    let action = Blob::new(FUNCTION, action.encode_to_vec());
    let digest = action.digest();
    messages.extend([command, action]);
    digest
}

/// A result for which nothing needs to be uploaded or executed. One of a
/// failure is none: the next try may do better.
async fn cached(
    cache: &dyn ActionCache,
    blobs: &dyn BlobStore,
    action: &Digest,
) -> Result<Option<v2::ActionResult>, Failure> {
    let found = cache.fetch_usable_result(blobs, action).await?;
    Ok(found.hit().filter(|result| result.exit_code == 0))
}

async fn execute(
    args: &ExecArgs,
    blobs: &Arc<dyn BlobStore>,
    execution: &Arc<dyn Execution>,
    tree: &LocalTree,
    messages: &[Blob],
    action: Digest,
    progress: &Progress,
) -> Result<ExecutionOutcome, Failure> {
    let cache_lookup = if args.skip_cache { CacheLookup::Skip } else { CacheLookup::Use };
    let request = ExecuteRequest { cache_lookup, ..ExecuteRequest::new(action) };
    let mut round = 0;
    loop {
        round += 1;
        progress.say("uploading inputs");
        tree.upload_files(&**blobs).await?;
        blobs.upload_missing(messages).await?;
        progress.say("executing");
        match follow(execution, request.clone()).await {
            Err(e) if e.kind() == ErrorKind::MissingInputs && round < UPLOAD_ROUNDS => {}
            other => return other.map_err(Failure::from),
        }
    }
}

async fn follow(execution: &Arc<dyn Execution>, request: ExecuteRequest) -> cas_client::Result<ExecutionOutcome> {
    let mut updates = execution.execute(request).await?;
    while let Some(update) = updates.try_next().await? {
        if let ExecutionUpdate::Done(outcome) = update {
            return Ok(*outcome);
        }
    }
    Err(cas_client::Error::new(ErrorKind::Protocol, "Execute", "the service ended without a result"))
}

/// What the command wrote, verified; by way of a temporary file, because nothing limits it.
async fn text(
    blobs: &dyn BlobStore,
    raw: &Bytes,
    digest: Option<&v2::Digest>,
) -> Result<Box<dyn Read + Send>, Failure> {
    let Some(digest) = digest.filter(|digest| raw.is_empty() && digest.size_bytes != 0) else {
        return Ok(Box::new(io::Cursor::new(raw.clone())));
    };
    let digest = Digest::try_from(digest).map_err(|e| Failure::new("the result is not valid").because(&e))?;
    let failed = |e: io::Error| Failure::new("the command's output cannot be kept").because(&e);
    let mut file = tempfile::tempfile().map_err(failed)?;
    let mut chunks = blobs.open_blob(&digest).await?;
    while let Some(chunk) = chunks.try_next().await? {
        file.write_all(&chunk).map_err(failed)?;
    }
    file.rewind().map_err(failed)?;
    Ok(Box::new(file))
}

/// A reader that has gone away is not an error.
fn print(mut text: impl Read, mut to: impl Write) -> io::Result<()> {
    match io::copy(&mut text, &mut to).and_then(|_| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
