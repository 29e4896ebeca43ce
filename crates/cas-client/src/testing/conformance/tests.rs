//! The suite over everything in this crate that needs no service, and over
//! implementations that are wrong, to see that it notices.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reapi_proto::v2::{ActionResult, OutputFile};
use reapi_proto::{Digest, DigestFunction, raw};

use super::*;
use crate::decorators::{Backed, DryRun, Limited, Nearby, ReadOnly, Remembering};
use crate::{
    ActionCache, ActionCacheWriter, Blob, BlobStore, BlobStoreExt, CacheLookup, Chunks, Error, ErrorKind,
    ExecuteRequest, Execution, ExecutionOutcome, ExecutionStage, ExecutionUpdate, FileStore, InMemory, PerBlob, Result,
};

async fn check_storage<S: BlobStore + ActionCacheWriter>(subject: S) {
    let report = blob_store(&subject, &BlobStoreOptions::default()).await;
    assert_eq!(report.require_all_passed().unwrap().len(), 18);
    let report = action_cache(&subject, &subject, ActionCacheRules::STRICT).await;
    assert_eq!(report.require_all_passed().unwrap().len(), 8);
}

async fn check_blob_store(subject: impl BlobStore) {
    blob_store(&subject, &BlobStoreOptions::default()).await.require_all_passed().unwrap();
}

#[tokio::test]
async fn in_memory() {
    check_storage(InMemory::new()).await;
    let store = InMemory::with_function(DigestFunction::Sha512);
    check_storage(store.clone()).await;
    asset_index(&store, &store, Rule::Refused).await.require_all_passed().unwrap();
}

#[tokio::test]
async fn shared() {
    let store: Arc<InMemory> = Arc::new(InMemory::new());
    check_storage(Arc::clone(&store)).await;
    asset_index(&store, &store, Rule::Refused).await.require_all_passed().unwrap();
    let store: Arc<dyn BlobStore> = store;
    check_blob_store(store).await;
}

#[tokio::test]
async fn files() {
    let directory = tempfile::TempDir::new().unwrap();
    check_storage(FileStore::create(directory.path()).unwrap()).await;
}

#[tokio::test]
async fn limited() {
    let store = Limited::new(InMemory::new(), 2);
    check_storage(store.clone()).await;
    asset_index(&store, &store, Rule::Refused).await.require_all_passed().unwrap();
}

#[tokio::test]
async fn dry_run() {
    check_storage(DryRun::new(InMemory::new())).await;
}

#[tokio::test]
async fn remembering() {
    check_blob_store(Remembering::new(InMemory::new())).await;
}

#[tokio::test]
async fn nearby() {
    check_blob_store(Nearby::new(InMemory::new(), InMemory::new())).await;
}

#[tokio::test]
async fn backed() {
    check_blob_store(Backed::new(InMemory::new(), InMemory::new())).await;
}

#[tokio::test]
async fn a_stack() {
    let directory = tempfile::TempDir::new().unwrap();
    let files = FileStore::create(directory.path()).unwrap();
    check_blob_store(Remembering::new(Limited::new(files.clone(), 3))).await;
    let stack = DryRun::new(ReadOnly::new(files));
    assert_eq!(stack.to_string(), format!("DryRun(ReadOnly(file:{}))", directory.path().display()));
    check_storage(stack).await;
}

/// An action cache that checks nothing, or forgets everything.
#[derive(Debug)]
struct Lenient {
    results: InMemory,
    keeps: bool,
}

impl std::fmt::Display for Lenient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lenient")
    }
}

#[async_trait]
impl ActionCache for Lenient {
    async fn fetch_action_result(&self, action: &Digest) -> Result<Option<ActionResult>> {
        self.results.fetch_action_result(action).await
    }
}

#[async_trait]
impl ActionCacheWriter for Lenient {
    async fn store_action_result(&self, action: &Digest, result: &ActionResult) -> Result<()> {
        self.fetch_action_result(action).await?;
        if self.keeps {
            self.results.keep_action_result(action, result);
        }
        Ok(())
    }
}

#[tokio::test]
async fn lenient_caches() {
    let store = InMemory::new();
    let cache = Lenient { results: InMemory::new(), keeps: true };
    action_cache(&cache, &store, ActionCacheRules::LENIENT).await.require_all_passed().unwrap();
    let report = action_cache(&cache, &store, ActionCacheRules::STRICT).await;
    let failed: Vec<_> = report.failed().iter().map(|(name, _)| *name).collect();
    let expected =
        ["a_result_without_its_outputs_is_never_a_hit", "a_result_without_its_action_is_judged_by_the_rules"];
    assert_eq!(failed, expected);

    let forgetful = Lenient { results: InMemory::new(), keeps: false };
    let report = action_cache(&forgetful, &store, ActionCacheRules::LENIENT).await;
    assert!(report.failed().iter().any(|(name, _)| *name == "a_result_is_read_back"), "{report}");
}

/// What is wrong with a store.
#[derive(Clone, Copy, Debug)]
enum Fault {
    ForgetsWrites,
    UnorderedAnswers,
    AcceptsAnything,
    PresentWhateverIsAsked,
}

/// A store with a fault.
#[derive(Debug)]
struct Faulty(InMemory, Fault);

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({:?})", self.1)
    }
}

#[async_trait]
impl BlobStore for Faulty {
    fn digest_function(&self) -> DigestFunction {
        self.0.digest_function()
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        match self.1 {
            Fault::PresentWhateverIsAsked => Ok(Vec::new()),
            _ => self.0.find_missing(digests).await,
        }
    }

    async fn read_blobs(&self, digests: &[Digest]) -> Result<PerBlob<Bytes>> {
        let mut answers = self.0.read_blobs(digests).await?;
        if matches!(self.1, Fault::UnorderedAnswers) {
            answers.sort_by_key(|(digest, _)| *digest);
        }
        Ok(answers)
    }

    async fn write_blobs(&self, blobs: &[Blob]) -> Result<PerBlob<()>> {
        let answers = self.0.write_blobs(blobs).await?;
        if matches!(self.1, Fault::ForgetsWrites) {
            for blob in blobs {
                self.0.forget(&blob.digest());
            }
        }
        Ok(answers)
    }

    async fn open_blob(&self, digest: &Digest) -> Result<Chunks> {
        self.0.open_blob(digest).await
    }

    async fn write_chunks(&self, digest: &Digest, chunks: Chunks) -> Result<()> {
        match self.1 {
            Fault::AcceptsAnything => {
                self.0.corrupt(digest, "anything");
                Ok(())
            }
            _ => self.0.write_chunks(digest, chunks).await,
        }
    }
}

#[tokio::test]
async fn faults_are_noticed_by_name() {
    for (fault, check) in [
        (Fault::ForgetsWrites, "written_blobs_are_read_back"),
        (Fault::UnorderedAnswers, "many_blobs_above_the_limit_together_are_read_back"),
        (Fault::AcceptsAnything, "a_stream_of_wrong_bytes_is_refused"),
        (Fault::PresentWhateverIsAsked, "missing_blobs_are_listed_once_in_order"),
    ] {
        let report = blob_store(&Faulty(InMemory::new(), fault), &BlobStoreOptions::default()).await;
        let failures = report.require_all_passed().unwrap_err();
        assert!(failures.report().failed().iter().any(|(name, _)| *name == check), "{failures}");
        assert!(failures.to_string().contains(&format!("FAILED  {check}")), "{failures}");
    }
}

/// "Executes" three words on an in-memory store.
#[derive(Debug)]
struct Words {
    store: InMemory,
    caches: bool,
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words")
    }
}

impl Words {
    async fn require(&self, what: Digest) -> Result<Bytes> {
        self.store.read_blob(&what).await.map_err(|e| {
            Error::new(ErrorKind::MissingInputs, "execute", "inputs are missing").with_digest(what).caused_by(e)
        })
    }

    async fn run(&self, request: ExecuteRequest) -> Result<ExecutionOutcome> {
        let action = raw::Action::parse(self.require(request.action).await?).unwrap();
        let command = raw::Command::parse(self.require(action.command_digest()).await?).unwrap();
        self.require(action.input_root_digest()).await?;
        if request.cache_lookup == CacheLookup::Use
            && let Some(result) = self.store.fetch_action_result(&request.action).await?
        {
            return Ok(ExecutionOutcome { result, cached: true, message: String::new() });
        }
        let mut result = ActionResult::default();
        match command.arguments().next() {
            Some(b"print") => result.stdout_digest = Some(self.store.put("printed").into()),
            Some(b"fail") => result.exit_code = 7,
            _ => result.output_files.push(OutputFile {
                path: "made".into(),
                digest: Some(self.store.put("produced").into()),
                ..OutputFile::default()
            }),
        }
        if self.caches && result.exit_code == 0 && !action.do_not_cache() {
            self.store.store_action_result(&request.action, &result).await?;
        }
        Ok(ExecutionOutcome { result, cached: false, message: String::new() })
    }
}

#[async_trait]
impl Execution for Words {
    async fn execute(&self, request: ExecuteRequest) -> Result<BoxStream<'static, Result<ExecutionUpdate>>> {
        let done = self.run(request).await.map(|outcome| ExecutionUpdate::Done(Box::new(outcome)));
        Ok(stream::iter([Ok(ExecutionUpdate::Stage(ExecutionStage::Executing)), done]).boxed())
    }

    async fn cancel(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

fn words() -> Sandbox {
    Sandbox {
        print: vec!["print".into()],
        printed: "printed".into(),
        fail: vec!["fail".into()],
        exit_code: 7,
        produce: vec!["produce".into()],
        output: "made".into(),
        produced: "produced".into(),
        ..Sandbox::with_shell("/bin/sh")
    }
}

#[tokio::test]
async fn executions() {
    let store = InMemory::new();
    let good = Limited::new(Arc::new(Words { store: store.clone(), caches: true }), 1);
    let subject = |execution| ExecutionSubject {
        store: &store,
        cache: &store,
        execution,
        sandbox: words(),
        rules: ExecutionRules::default(),
    };
    assert_eq!(execution(&subject(&good)).await.require_all_passed().unwrap().len(), 9);

    let forgetful = Words { store: store.clone(), caches: false };
    let report = execution(&subject(&forgetful)).await;
    let failed: Vec<_> = report.failed().iter().map(|(name, _)| *name).collect();
    assert_eq!(failed, ["the_second_time_comes_from_the_cache"]);
}
