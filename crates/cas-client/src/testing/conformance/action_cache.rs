//! What every action cache does.

use bytes::Bytes;
use reapi_proto::raw::Node;
use reapi_proto::v2::{
    ActionResult, Directory, ExecutedActionMetadata, OutputDirectory, OutputFile, OutputSymlink, Tree,
};
use reapi_proto::{Digest, DigestFunction};

use super::material::{Job, Material, refused};
use super::report::{Checked, Failed, Report, ensure, ensure_eq};
use crate::{ActionCacheExt, ActionCacheWriter, Blob, BlobStore, BlobStoreExt, ErrorKind, Lookup, OutputKind, outputs};

/// What a service does with something that the specification lets it judge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// It refuses.
    Refused,
    /// It accepts.
    Accepted,
}

/// What an action cache accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionCacheRules {
    /// A result of an Action that is not in CAS.
    pub without_action: Rule,
    /// A result whose outputs are not in CAS. A cache that accepts it may
    /// still answer with a miss.
    pub without_outputs: Rule,
}

impl ActionCacheRules {
    /// Everything must be in CAS, as the stores of this crate demand.
    pub const STRICT: Self = Self { without_action: Rule::Refused, without_outputs: Rule::Refused };
    /// Nothing is checked, as by buildbox-casd.
    pub const LENIENT: Self = Self { without_action: Rule::Accepted, without_outputs: Rule::Accepted };
}

/// Runs all checks of an action cache that may be written to, and its CAS.
pub async fn action_cache(cache: &dyn ActionCacheWriter, store: &dyn BlobStore, rules: ActionCacheRules) -> Report {
    let mut report = Report::new(cache);
    let subject = &Subject { cache, store, rules, material: Material::new(store.digest_function()) };
    report.check("an_unknown_action_has_no_result", subject.unknown()).await;
    report.check("a_result_is_read_back", subject.round_trip()).await;
    report.check("a_later_result_replaces_an_earlier_one", subject.replace()).await;
    report.check("a_result_with_all_outputs_is_usable", subject.usable()).await;
    report.check("a_result_without_its_outputs_is_never_a_hit", subject.without_outputs()).await;
    report.check("a_result_without_its_action_is_judged_by_the_rules", subject.without_action()).await;
    report.check("many_results_are_looked_up_at_once", subject.many()).await;
    report.check("actions_of_another_function_are_refused", subject.foreign_function()).await;
    report
}

struct Subject<'a> {
    cache: &'a dyn ActionCacheWriter,
    store: &'a dyn BlobStore,
    rules: ActionCacheRules,
    material: Material,
}

fn file(path: &str, blob: &Blob) -> OutputFile {
    OutputFile { path: path.into(), digest: Some(blob.digest().into()), is_executable: true, ..OutputFile::default() }
}

impl Subject<'_> {
    async fn stored(&self, name: &str) -> Result<(Job, Digest), Failed> {
        let job = self.material.idle_action(name);
        let action = job.upload(self.store).await?;
        Ok((job, action))
    }

    /// A result with an output of every kind, and the blobs that it needs.
    async fn full_result(&self, name: &str) -> Result<(ActionResult, Vec<Blob>), Failed> {
        let [object, log, member] =
            ["object", "stdout", "member"].map(|kind| self.material.blob(&format!("{kind} of {name}")));
        let inner = self.material.directory("member", Node::File { digest: member.digest(), executable: false })?;
        let decode = |bytes: &Bytes| -> Result<Directory, Failed> {
            prost::Message::decode(bytes.clone()).map_err(|e: prost::DecodeError| Failed::new(e.to_string()))
        };
        let outer = self.material.directory("inner", Node::Directory { digest: inner.digest() })?;
        let tree = Tree { root: Some(decode(outer.data())?), children: vec![decode(inner.data())?] };
        let tree = self.material.message(&tree);
        let result = ActionResult {
            output_files: vec![file("out/object", &object)],
            output_directories: vec![OutputDirectory {
                path: "out/directory".into(),
                tree_digest: Some(tree.digest().into()),
                ..OutputDirectory::default()
            }],
            output_symlinks: vec![OutputSymlink {
                path: "out/link".into(),
                target: "object".into(),
                ..OutputSymlink::default()
            }],
            stdout_digest: Some(log.digest().into()),
            execution_metadata: Some(ExecutedActionMetadata {
                worker: "conformance".into(),
                ..ExecutedActionMetadata::default()
            }),
            ..ActionResult::default()
        };
        // Not needed by the result, but buildbox-casd misses results without them.
        self.store.upload_missing(&[outer, inner]).await?;
        Ok((result, vec![object, log, member, tree]))
    }

    async fn unknown(&self) -> Checked {
        let (_, action) = self.stored("unknown").await?;
        ensure_eq!(self.cache.fetch_action_result(&action).await?, None, "result of an action that never ran");
        ensure_eq!(self.cache.fetch_usable_result(self.store, &action).await?, Lookup::Miss, "look-up");
        Ok(())
    }

    async fn round_trip(&self) -> Checked {
        let (_, action) = self.stored("round trip").await?;
        let (result, blobs) = self.full_result("round trip").await?;
        self.store.upload_missing(&blobs).await?;
        self.cache.store_action_result(&action, &result).await?;
        let Some(found) = self.cache.fetch_action_result(&action).await? else {
            return Err(Failed::new("the result is not there"));
        };
        ensure_eq!(found.exit_code, 0, "exit code");
        ensure_eq!(outputs(&found)?, outputs(&result)?, "outputs");
        ensure_eq!(found.stdout_digest, result.stdout_digest, "digest of stdout");
        let worker = |r: &ActionResult| r.execution_metadata.as_ref().map(|m| m.worker.clone());
        ensure_eq!(worker(&found), worker(&result), "worker");
        Ok(())
    }

    async fn replace(&self) -> Checked {
        let (_, action) = self.stored("replace").await?;
        for name in ["first", "second"] {
            let blob = self.material.blob(name);
            self.store.write_blob(&blob).await?;
            let result = ActionResult { output_files: vec![file("out", &blob)], ..ActionResult::default() };
            self.cache.store_action_result(&action, &result).await?;
            let found = self.cache.fetch_action_result(&action).await?.unwrap_or_default();
            ensure_eq!(outputs(&found)?, outputs(&result)?, "outputs after the {name} update");
        }
        Ok(())
    }

    async fn usable(&self) -> Checked {
        let (_, action) = self.stored("usable").await?;
        let (result, blobs) = self.full_result("usable").await?;
        self.store.upload_missing(&blobs).await?;
        self.cache.store_action_result(&action, &result).await?;
        let Lookup::Hit(found) = self.cache.fetch_usable_result(self.store, &action).await? else {
            return Err(Failed::new("not a hit although everything is there"));
        };
        for output in outputs(&found)? {
            if let OutputKind::File { digest, .. } = output.kind {
                self.store.read_blob(&digest).await?;
            }
        }
        Ok(())
    }

    async fn without_outputs(&self) -> Checked {
        let (result, blobs) = self.full_result("dangling").await?;
        // Each of the blobs in turn is the one that is absent: file, stdout, member of the tree, tree.
        for absent in 0..blobs.len() {
            let (_, action) = self.stored(&format!("dangling {absent}")).await?;
            let (result, blobs) = self.full_result(&format!("dangling {absent}")).await?;
            let mut present = blobs.clone();
            let absent = present.swap_remove(absent).digest();
            self.store.upload_missing(&present).await?;
            let stored = self.cache.store_action_result(&action, &result).await;
            match self.rules.without_outputs {
                Rule::Refused => {
                    let kinds = [ErrorKind::NotFound, ErrorKind::MissingInputs, ErrorKind::Invalid];
                    refused("store_action_result", stored, &kinds)?;
                    ensure_eq!(self.cache.fetch_action_result(&action).await?, None, "result after the refusal");
                }
                Rule::Accepted => {
                    stored?;
                    let lookup = self.cache.fetch_usable_result(self.store, &action).await?;
                    let dangling = Lookup::Dangling { missing: vec![absent] };
                    ensure!(lookup == dangling || lookup == Lookup::Miss, "found {lookup:?}, expected {dangling:?}");
                }
            }
        }
        ensure!(!outputs(&result)?.is_empty(), "nothing was checked");
        Ok(())
    }

    async fn without_action(&self) -> Checked {
        let job = self.material.idle_action("never uploaded");
        let action = job.action.digest();
        let result = ActionResult { exit_code: 3, ..ActionResult::default() };
        let stored = self.cache.store_action_result(&action, &result).await;
        let found = self.cache.fetch_action_result(&action).await?.map(|r| r.exit_code);
        match self.rules.without_action {
            Rule::Refused => {
                let kinds = [ErrorKind::NotFound, ErrorKind::MissingInputs, ErrorKind::Invalid];
                refused("store_action_result", stored, &kinds)?;
                ensure_eq!(found, None, "exit code after the refusal");
            }
            Rule::Accepted => {
                stored?;
                ensure_eq!(found, Some(3), "exit code");
            }
        }
        Ok(())
    }

    async fn many(&self) -> Checked {
        let mut actions = Vec::new();
        for index in 0..150 {
            let (_, action) = self.stored(&format!("many {index}")).await?;
            if index % 3 == 0 {
                self.cache
                    .store_action_result(&action, &ActionResult { exit_code: index + 1, ..Default::default() })
                    .await?;
            }
            actions.push(action);
        }
        let lookups = self.cache.fetch_usable_results(self.store, &actions).await?;
        ensure_eq!(lookups.len(), actions.len(), "answers");
        for (index, (asked, (answered, lookup))) in (0..).zip(actions.into_iter().zip(lookups)) {
            ensure_eq!(answered, asked, "order of answers");
            let exit_code = lookup?.hit().map(|result| result.exit_code);
            ensure_eq!(exit_code, (index % 3 == 0).then_some(index + 1), "exit code of action {index}");
        }
        Ok(())
    }

    async fn foreign_function(&self) -> Checked {
        let own = self.store.digest_function();
        let Some(function) = DigestFunction::ALL.into_iter().find(|f| *f != own) else { return Ok(()) };
        let foreign = function.digest(b"an action of another function");
        refused("fetch", self.cache.fetch_action_result(&foreign).await, &[ErrorKind::Invalid])?;
        let result = ActionResult::default();
        refused("store", self.cache.store_action_result(&foreign, &result).await, &[ErrorKind::Invalid])
    }
}
