//! Runs commands on this machine, each in a directory of its own, without a sandbox.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cas_client::Blob;
use reapi_proto::{Digest, v2};
use tonic::{Code, async_trait};

use super::capture::{self, Capture};
use super::process::{self, Ended};
use super::{Job, RunError, Runner, materialise, timestamp};

/// Runs commands as processes of this machine.
///
/// The input tree is laid out in a fresh temporary directory, which is
/// removed afterwards. There is no sandbox: a command sees the whole machine,
/// so actions must not depend on anything but their inputs and the toolchain.
/// Its program is an absolute path, a path relative to the working directory,
/// or a name to be found in the PATH of the Command. Platform properties are
/// ignored. How many run at once is the server's choice
/// ([`ServerConfig::jobs`](crate::ServerConfig::jobs)).
#[derive(Clone, Debug)]
pub struct LocalRunner {
    worker: Arc<str>,
}

impl LocalRunner {
    /// A runner that calls itself `worker` in results.
    #[must_use]
    pub fn new(worker: &str) -> Self {
        Self { worker: worker.into() }
    }
}

#[async_trait]
impl Runner for LocalRunner {
    async fn run(&self, job: &Job) -> Result<v2::ActionResult, RunError> {
        let mut times = v2::ExecutedActionMetadata {
            worker: self.worker.to_string(),
            queued_timestamp: Some(timestamp(job.queued)),
            worker_start_timestamp: now(),
            input_fetch_start_timestamp: now(),
            ..Default::default()
        };
        let outputs = capture::output_paths(&job.command)?;
        let working_directory = job.command.working_directory.as_str();
        capture::check_relative("working directory", working_directory)?;
        let input_root = Digest::try_from(&job.action.input_root_digest)
            .map_err(|e| RunError::new(Code::InvalidArgument, format!("input_root_digest: {e}")))?;

        let temporary = tempfile::Builder::new().prefix("testbed-").tempdir();
        let temporary = temporary.map_err(|e| RunError::io("cannot create a directory", &e))?;
        let root = temporary.path().join("root");
        std::fs::create_dir(&root).map_err(|e| RunError::io("cannot create a directory", &e))?;
        materialise::materialise(&*job.store, input_root, &root).await?;
        let directory = root.join(working_directory);
        create_parents(&directory, &outputs).map_err(|e| RunError::io("cannot create output directories", &e))?;
        times.input_fetch_completed_timestamp = now();

        let file =
            |name| process::output_file(temporary.path(), name).map_err(|e| RunError::io("cannot create a file", &e));
        let (stdout_path, stdout) = file("stdout")?;
        let (stderr_path, stderr) = file("stderr")?;
        let limit = time_limit(&job.action)?;
        times.execution_start_timestamp = now();
        let started = Instant::now();
        let ended = process::run(&job.command, &directory, stdout, stderr, limit).await?;
        times.execution_completed_timestamp = now();
        times.virtual_execution_duration = prost_types::Duration::try_from(started.elapsed()).ok();

        times.output_upload_start_timestamp = now();
        let (mut result, blobs) = {
            let outputs: Vec<String> = outputs.iter().map(|&p| p.to_owned()).collect();
            let (function, format) = (job.store.digest_function(), job.command.output_directory_format());
            let collect = move || -> std::io::Result<(v2::ActionResult, Vec<Blob>)> {
                let mut capture = Capture::new(function, format);
                for path in &outputs {
                    capture.add(&directory, path)?;
                }
                let stdout = capture.blob(std::fs::read(stdout_path)?);
                let stderr = capture.blob(std::fs::read(stderr_path)?);
                let (mut result, blobs) = capture.finish();
                result.stdout_digest = Some(stdout.into());
                result.stderr_digest = Some(stderr.into());
                Ok((result, blobs))
            };
            let collected = tokio::task::spawn_blocking(collect).await;
            collected
                .map_err(|e| RunError::new(Code::Internal, e.to_string()))?
                .map_err(|e| RunError::io("cannot read the outputs", &e))?
        };
        store(job, &blobs).await?;
        times.output_upload_completed_timestamp = now();
        times.worker_completed_timestamp = now();
        result.execution_metadata = Some(times);
        match ended {
            Ended::Exit(code) => {
                result.exit_code = code;
                Ok(result)
            }
            Ended::TimedOut => {
                let message = format!("the command ran into its time limit of {:?}", limit.unwrap_or_default());
                let error = RunError::new(Code::DeadlineExceeded, message);
                // As a command that was killed by SIGKILL.
                result.exit_code = 137;
                Err(RunError { result: Some(Box::new(result)), ..error })
            }
        }
    }
}

fn now() -> Option<prost_types::Timestamp> {
    Some(timestamp(SystemTime::now()))
}

fn time_limit(action: &v2::Action) -> Result<Option<Duration>, RunError> {
    let limit = action.timeout.map(Duration::try_from).transpose();
    let limit = limit.map_err(|_| RunError::new(Code::InvalidArgument, "the time limit is negative"))?;
    Ok(limit.filter(|l| !l.is_zero()))
}

/// The directories that a command may rely on (Remote Execution API, `Command.output_paths`).
fn create_parents(directory: &Path, outputs: &[&str]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for output in outputs {
        if let Some(parent) = Path::new(output).parent() {
            std::fs::create_dir_all(directory.join(parent))?;
        }
    }
    Ok(())
}

async fn store(job: &Job, blobs: &[Blob]) -> Result<(), RunError> {
    for (_, outcome) in job.store.write_blobs(blobs).await.map_err(|e| RunError::store(&e))? {
        outcome.map_err(|e| RunError::store(&e))?;
    }
    Ok(())
}
