//! What every execution service does.

use bytes::Bytes;
use futures_util::TryStreamExt;
use reapi_proto::v2::{Command, command::OutputDirectoryFormat};
use reapi_proto::{Digest, v2};

use super::material::{Job, Material, environment, platform};
use super::report::{Checked, Failed, Report, ensure, ensure_eq};
use crate::{
    ActionCache, ActionCacheExt, Blob, BlobStore, BlobStoreExt, CacheLookup, Error, ErrorKind, ExecuteRequest,
    Execution, ExecutionOutcome, ExecutionUpdate, Lookup, OutputKind, outputs,
};

/// What can be run where the actions run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The input root of every test action, in CAS with all its files; an
    /// empty directory if `None`.
    pub input_root: Option<Digest>,
    /// Platform properties of every test action.
    pub platform: Vec<(String, String)>,
    /// Environment variables of every test command.
    pub environment: Vec<(String, String)>,
    /// Prints exactly [`printed`](Self::printed) to stdout and exits with 0.
    pub print: Vec<String>,
    /// What `print` prints.
    pub printed: Bytes,
    /// Exits with [`exit_code`](Self::exit_code).
    pub fail: Vec<String>,
    /// What `fail` exits with; not 0.
    pub exit_code: i32,
    /// Writes [`produced`](Self::produced) to the file [`output`](Self::output) and exits with 0.
    pub produce: Vec<String>,
    /// The file that `produce` writes, in its working directory.
    pub output: String,
    /// What `produce` writes.
    pub produced: Bytes,
}

impl Sandbox {
    /// A sandbox with a POSIX shell at `path`, needing nothing but its built-in commands.
    #[must_use]
    pub fn with_shell(path: &str) -> Self {
        let run = |script: &str| vec![path.to_owned(), "-c".to_owned(), script.to_owned()];
        Self {
            input_root: None,
            platform: Vec::new(),
            environment: Vec::new(),
            print: run("echo printed"),
            printed: Bytes::from_static(b"printed\n"),
            fail: run("exit 3"),
            exit_code: 3,
            produce: run("echo produced > output.txt"),
            output: "output.txt".to_owned(),
            produced: Bytes::from_static(b"produced\n"),
        }
    }
}

/// What a service promises beyond the specification, or does not keep of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExecutionRules {
    /// A missing input is reported as such, with its digest. The
    /// specification demands it; not every service does it.
    pub names_missing_inputs: bool,
    /// `CacheLookup::Skip` runs the action in any case.
    pub skips_cache: bool,
}

impl Default for ExecutionRules {
    fn default() -> Self {
        Self { names_missing_inputs: true, skips_cache: true }
    }
}

/// The service under test, with the storage that it works on.
#[derive(Debug)]
pub struct ExecutionSubject<'a> {
    /// Its CAS.
    pub store: &'a dyn BlobStore,
    /// Its action cache.
    pub cache: &'a dyn ActionCache,
    /// The service.
    pub execution: &'a dyn Execution,
    /// What it can run.
    pub sandbox: Sandbox,
    /// What it promises.
    pub rules: ExecutionRules,
}

/// Runs all checks of an execution service.
pub async fn execution(subject: &ExecutionSubject<'_>) -> Report {
    let mut report = Report::new(subject.execution);
    let run = &Run { subject, material: Material::new(subject.store.digest_function()) };
    report.check("a_successful_command_reports_its_stdout", run.success()).await;
    report.check("a_failing_command_is_a_normal_outcome", run.failure()).await;
    report.check("outputs_are_in_storage", run.produce()).await;
    report.check("the_second_time_comes_from_the_cache", run.cached()).await;
    report.check("the_cache_can_be_skipped", run.skipped_cache()).await;
    report.check("an_uncacheable_action_is_not_cached", run.do_not_cache()).await;
    report.check("a_missing_command_is_reported", run.missing_command()).await;
    report.check("a_missing_input_root_is_reported", run.missing_input_root()).await;
    report.check("a_missing_action_is_reported", run.missing_action()).await;
    report
}

struct Run<'a> {
    subject: &'a ExecutionSubject<'a>,
    material: Material,
}

impl Run<'_> {
    fn job(&self, name: &str, argv: &[String], outputs: &[String]) -> Job {
        let ExecutionSubject { sandbox, store, .. } = self.subject;
        let platform = platform(&sandbox.platform);
        let command = Command {
            arguments: argv.to_vec(),
            environment_variables: environment(&sandbox.environment),
            output_paths: outputs.to_vec(),
            output_directory_format: OutputDirectoryFormat::TreeOnly.into(),
            ..Command::default()
        };
        let root = sandbox.input_root.unwrap_or_else(|| store.digest_function().empty());
        self.material.action(name, &command, root, &platform)
    }

    async fn execute(&self, request: ExecuteRequest) -> Result<ExecutionOutcome, Failed> {
        let updates: Vec<_> = self.subject.execution.execute(request).await?.try_collect().await?;
        let done = updates.iter().filter(|u| matches!(u, ExecutionUpdate::Done(_))).count();
        ensure_eq!(done, 1, "final updates among {}", updates.len());
        match updates.into_iter().next_back() {
            Some(ExecutionUpdate::Done(outcome)) => Ok(*outcome),
            last => Err(Failed::new(format!("the last update is {last:?}"))),
        }
    }

    async fn upload_and_execute(&self, job: &Job) -> Result<ExecutionOutcome, Failed> {
        let action = job.upload(self.subject.store).await?;
        self.execute(ExecuteRequest::new(action)).await
    }

    async fn success(&self) -> Checked {
        let sandbox = &self.subject.sandbox;
        let outcome = self.upload_and_execute(&self.job("success", &sandbox.print, &[])).await?;
        let result = outcome.result;
        let stdout = match (&result.stdout_raw, &result.stdout_digest) {
            (raw, None) => raw.clone(),
            (raw, Some(_)) if !raw.is_empty() => raw.clone(),
            (_, Some(digest)) => {
                let digest = Digest::try_from(digest).map_err(|e| Failed::new(e.to_string()))?;
                self.subject.store.read_blob(&digest).await?
            }
        };
        ensure_eq!((result.exit_code, stdout), (0, sandbox.printed.clone()), "exit code and stdout");
        ensure!(!outcome.cached, "an action that never ran comes from the cache");
        Ok(())
    }

    async fn failure(&self) -> Checked {
        let sandbox = &self.subject.sandbox;
        let outcome = self.upload_and_execute(&self.job("failure", &sandbox.fail, &[])).await?;
        ensure_eq!(outcome.result.exit_code, sandbox.exit_code, "exit code");
        Ok(())
    }

    async fn produce(&self) -> Checked {
        let ExecutionSubject { sandbox, store, .. } = self.subject;
        let job = self.job("produce", &sandbox.produce, std::slice::from_ref(&sandbox.output));
        let outcome = self.upload_and_execute(&job).await?;
        ensure_eq!(outcome.result.exit_code, 0, "exit code");
        let found = outputs(&outcome.result)?;
        let [output] = &found[..] else { return Err(Failed::new(format!("the outputs are {found:?}"))) };
        ensure_eq!(output.path, sandbox.output, "path");
        let OutputKind::File { digest, .. } = &output.kind else {
            return Err(Failed::new(format!("the output is {output:?}")));
        };
        ensure_eq!(store.read_blob(digest).await?, sandbox.produced, "contents");
        Ok(())
    }

    async fn cached(&self) -> Checked {
        let ExecutionSubject { sandbox, store, cache, .. } = self.subject;
        let job = self.job("cached", &sandbox.produce, std::slice::from_ref(&sandbox.output));
        let first = self.upload_and_execute(&job).await?;
        ensure!(!first.cached, "an action that never ran comes from the cache");
        let lookup = cache.fetch_usable_result(*store, &job.action.digest()).await?;
        ensure!(matches!(lookup, Lookup::Hit(_)), "the action cache has {lookup:?}");
        let second = self.upload_and_execute(&job).await?;
        ensure!(second.cached, "the action ran a second time");
        ensure_eq!(outputs(&second.result)?, outputs(&first.result)?, "outputs of the second time");
        Ok(())
    }

    async fn skipped_cache(&self) -> Checked {
        let job = self.job("skipped cache", &self.subject.sandbox.print, &[]);
        self.upload_and_execute(&job).await?;
        let again = ExecuteRequest { cache_lookup: CacheLookup::Skip, ..ExecuteRequest::new(job.action.digest()) };
        let outcome = self.execute(again).await?;
        ensure!(!(outcome.cached && self.subject.rules.skips_cache), "the result comes from the cache");
        Ok(())
    }

    async fn do_not_cache(&self) -> Checked {
        let mut job = self.job("do not cache", &self.subject.sandbox.print, &[]);
        job.message.do_not_cache = true;
        job.action = self.material.message(&job.message);
        let outcome = self.upload_and_execute(&job).await?;
        ensure_eq!(outcome.result.exit_code, 0, "exit code");
        ensure_eq!(self.subject.cache.fetch_action_result(&job.action.digest()).await?, None, "result in the cache");
        Ok(())
    }

    /// Uploads `present` only and executes; `absent` must be named in the error.
    async fn require_missing(&self, action: &Blob, present: &[Blob], absent: Digest) -> Checked {
        self.subject.store.upload_missing(present).await?;
        let error = match self.execute_to_error(action.digest()).await? {
            Some(error) => error,
            None => return Err(Failed::new("the action ran without its inputs")),
        };
        if self.subject.rules.names_missing_inputs {
            ensure_eq!(error.kind(), ErrorKind::MissingInputs, "kind of {error}");
            ensure!(error.digests().contains(&absent), "{error} does not name {absent}");
        }
        Ok(())
    }

    async fn execute_to_error(&self, action: Digest) -> Result<Option<Error>, Failed> {
        let updates = match self.subject.execution.execute(ExecuteRequest::new(action)).await {
            Ok(updates) => updates,
            Err(error) => return Ok(Some(error)),
        };
        Ok(updates.try_collect::<Vec<_>>().await.err())
    }

    async fn missing_command(&self) -> Checked {
        let job = self.job("missing command", &[&self.subject.sandbox.print[..], &["unheard-of".into()]].concat(), &[]);
        self.require_missing(&job.action, std::slice::from_ref(&job.action), job.command.digest()).await
    }

    async fn missing_input_root(&self) -> Checked {
        let mut job = self.job("missing input root", &self.subject.sandbox.print, &[]);
        let file = self.material.blob("a file that is not uploaded either");
        let node = reapi_proto::raw::Node::File { digest: file.digest(), executable: false };
        let root = self.material.directory("file", node)?;
        job.message.input_root_digest = Some(v2::Digest::from(root.digest()));
        job.action = self.material.message(&job.message);
        self.require_missing(&job.action, &[job.action.clone(), job.command], root.digest()).await
    }

    async fn missing_action(&self) -> Checked {
        let job = self.job("missing action", &self.subject.sandbox.print, &[]);
        match self.execute_to_error(job.action.digest()).await? {
            None => Err(Failed::new("an action that is not in CAS ran")),
            Some(error) if !self.subject.rules.names_missing_inputs => {
                ensure!(error.kind() != ErrorKind::Unavailable, "{error}: it would be tried again for ever");
                Ok(())
            }
            Some(error) => {
                let kinds = [ErrorKind::MissingInputs, ErrorKind::NotFound];
                ensure!(kinds.contains(&error.kind()), "{error}: expected one of {kinds:?}");
                Ok(())
            }
        }
    }
}
