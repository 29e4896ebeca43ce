//! Building: element after element, action after action, through the services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cas_client::{
    ActionCache, Blob, BlobStore, BlobStoreExt, CacheLookup, ErrorKind, ExecuteRequest, Execution, ExecutionUpdate,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use reapi_proto::{Digest, DigestFunction, v2};

use super::actions::{self, Prepared};
use super::includes;
use super::project::Keys;
use super::{Element, Error, File, FileTree, Product, Project};

/// The services that a build uses.
#[derive(Clone, Debug)]
pub struct Services {
    /// Where blobs are.
    pub store: Arc<dyn BlobStore>,
    /// Where results are looked up.
    pub action_cache: Arc<dyn ActionCache>,
    /// What runs actions.
    pub execution: Arc<dyn Execution>,
    /// Actions of one element that are under way at the same time; 0 counts as 1.
    pub jobs: usize,
}

/// What earlier builds left behind: an artifact cache. Clones are independent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    by_strong_key: BTreeMap<String, Built>,
}

impl State {
    /// What was built under this strong key.
    #[must_use]
    pub fn get(&self, strong_key: &str) -> Option<&Built> {
        self.by_strong_key.get(strong_key)
    }
}

/// One built element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// Root Directory of the artifact; the whole tree is in the store.
    pub artifact: Digest,
    /// The artifact's files at the paths where they are staged.
    pub files: FileTree,
    /// The actions of the build in order.
    pub subactions: Vec<Digest>,
}

/// How an action's result came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The action cache had it.
    Hit,
    /// It was executed.
    Executed,
}

/// One action of a build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActionReport {
    /// The action.
    pub digest: Digest,
    /// What it makes, relative to the element's working directory.
    pub output: String,
    /// Whether it hit.
    pub outcome: Outcome,
    /// From look-up to result, as the build saw it.
    pub elapsed: Duration,
}

/// One element of a build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElementReport {
    /// The element.
    pub name: String,
    /// Covers the element and the names of its dependencies.
    pub weak_key: String,
    /// Covers the dependencies' strong keys too.
    pub strong_key: String,
    /// Direct build dependencies.
    pub build_deps: Vec<String>,
    /// Root Directory of the sources; the whole tree is in the store.
    pub sources: Digest,
    /// What was built, now or earlier.
    pub built: Built,
    /// The actions of this build in order; none if the artifact was there already.
    pub actions: Vec<ActionReport>,
}

impl ElementReport {
    fn count(&self, outcome: Outcome) -> usize {
        self.actions.iter().filter(|a| a.outcome == outcome).count()
    }
}

/// A finished build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildReport {
    /// Every element in build order.
    pub elements: Vec<ElementReport>,
    /// What a later build can start from.
    pub state: State,
}

impl BuildReport {
    /// The element of that name.
    #[must_use]
    pub fn element(&self, name: &str) -> Option<&ElementReport> {
        self.elements.iter().find(|e| e.name == name)
    }

    /// Actions that the action cache had.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.elements.iter().map(|e| e.count(Outcome::Hit)).sum()
    }

    /// Actions that were executed.
    #[must_use]
    pub fn executed(&self) -> usize {
        self.elements.iter().map(|e| e.count(Outcome::Executed)).sum()
    }
}

/// Builds a whole project from what earlier builds left behind.
///
/// # Errors
/// The first failure of a service or a command; what was built until then is in the services.
pub async fn run(project: &Project, services: &Services, state: &State) -> Result<BuildReport, Error> {
    let mut build = Build::new(project, services, state);
    while build.next_element().await?.is_some() {}
    Ok(build.finish())
}

/// A build in progress, for callers that act between elements.
#[derive(Debug)]
pub struct Build<'a> {
    project: &'a Project,
    services: &'a Services,
    function: DigestFunction,
    keys: Vec<Keys>,
    report: BuildReport,
}

impl<'a> Build<'a> {
    /// A build of which nothing is done yet.
    #[must_use]
    pub fn new(project: &'a Project, services: &'a Services, state: &State) -> Self {
        let function = services.store.digest_function();
        let report = BuildReport { elements: Vec::new(), state: state.clone() };
        Self { project, services, function, keys: project.keys(function), report }
    }

    /// Builds the next element in order; `None` after the last one.
    ///
    /// An element whose strong key was built before is taken as it is. A
    /// dropped future leaves the element unbuilt; the next call starts it again.
    ///
    /// # Errors
    /// The first failure of a service or a command.
    pub async fn next_element(&mut self) -> Result<Option<&ElementReport>, Error> {
        let at = self.report.elements.len();
        let (Some(element), Some(keys)) = (self.project.elements().get(at), self.keys.get(at)) else {
            return Ok(None);
        };
        let sources = upload_sources(&*self.services.store, element).await?;
        let (built, actions) = match self.report.state.get(&keys.strong) {
            Some(built) => (built.clone(), Vec::new()),
            None => self.build_element(element).await?,
        };
        self.report.state.by_strong_key.insert(keys.strong.clone(), built.clone());
        self.report.elements.push(ElementReport {
            name: element.name.clone(),
            weak_key: keys.weak.clone(),
            strong_key: keys.strong.clone(),
            build_deps: element.build_deps.clone(),
            sources,
            built,
            actions,
        });
        Ok(self.report.elements.last())
    }

    /// What has been built so far.
    #[must_use]
    pub fn finish(self) -> BuildReport {
        self.report
    }

    async fn build_element(&self, element: &Element) -> Result<(Built, Vec<ActionReport>), Error> {
        let staged = self.stage(element);
        let sources: Vec<&str> = element.sources.keys().map(String::as_str).filter(|p| p.ends_with(".c")).collect();
        let compiles = sources.iter().map(|source| self.compile(element, &staged, source));
        let compiled: Vec<(ActionReport, File)> =
            stream::iter(compiles).buffered(self.services.jobs.max(1)).try_collect().await?;

        let directory = actions::working_directory(self.project, element);
        let mut inputs = FileTree::default();
        let mut objects = Vec::new();
        for (report, object) in &compiled {
            inputs.insert(format!("{directory}/{}", report.output), *object);
            objects.push(report.output.clone());
        }
        for dependency in self.project.closure(element).iter().filter(|d| d.product == Product::Library) {
            let path = dependency.staged_product_path();
            let library =
                staged.get(&path).ok_or_else(|| Error::project(&element.name, format!("no {path} staged")))?;
            inputs.insert(path, library);
        }
        let link = actions::link(self.project, element, &objects, &inputs, self.function)?;
        let (link, product) = self.perform(element, link, Vec::new()).await?;

        let mut files = FileTree::default();
        for (path, file) in element.source_tree(self.function).iter().filter(|(p, _)| p.starts_with("include/")) {
            files.insert(format!("usr/{path}"), file);
        }
        files.insert(element.staged_product_path(), product);
        let (artifact, blobs) =
            files.encode(self.function).map_err(|e| Error::project(&element.name, e.to_string()))?;
        self.upload(element, &blobs).await?;

        let reports: Vec<ActionReport> = compiled.into_iter().map(|(r, _)| r).chain([link]).collect();
        let subactions = reports.iter().map(|r| r.digest).collect();
        Ok((Built { artifact, files, subactions }, reports))
    }

    /// The files of all dependencies where the element's actions find them.
    fn stage(&self, element: &Element) -> FileTree {
        let mut staged = FileTree::default();
        for dependency in self.project.closure(element) {
            if let Some(report) = self.report.element(&dependency.name) {
                staged.merge(&report.built.files);
            }
        }
        staged
    }

    async fn compile(&self, element: &Element, staged: &FileTree, source: &str) -> Result<(ActionReport, File), Error> {
        let (inputs, own) = self.compile_inputs(element, staged, source).await?;
        let action = actions::compile(self.project, element, source, &inputs, self.function)?;
        self.perform(element, action, own).await
    }

    /// The C file and everything that it includes, found by reading them as they are now.
    async fn compile_inputs(
        &self,
        element: &Element,
        staged: &FileTree,
        source: &str,
    ) -> Result<(FileTree, Vec<Blob>), Error> {
        let directory = actions::working_directory(self.project, element);
        let folders = actions::include_folders(self.project, element);
        let mut inputs = FileTree::default();
        let mut own = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![format!("{directory}/{source}")];
        while let Some(path) = open.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let own_text = path.strip_prefix(&directory).and_then(|p| element.sources.get(p.strip_prefix('/')?));
            let text = if let Some(text) = own_text {
                let blob = Blob::new(self.function, text.clone());
                inputs.insert(path.clone(), File { digest: blob.digest(), executable: false });
                own.push(blob);
                text.clone()
            } else if let Some(file) = staged.get(&path) {
                inputs.insert(path.clone(), file);
                let read = self.services.store.read_blob(&file.digest).await;
                let data = read.map_err(|e| Error::service(&element.name, e))?;
                String::from_utf8_lossy(&data).into_owned()
            } else {
                // A header of the machine's own.
                continue;
            };
            for include in includes::scan(&text) {
                let found = includes::candidates(include, &path, &folders).into_iter().find(|candidate| {
                    staged.get(candidate).is_some()
                        || candidate
                            .strip_prefix(&directory)
                            .and_then(|p| p.strip_prefix('/'))
                            .is_some_and(|p| element.sources.contains_key(p))
                });
                open.extend(found);
            }
        }
        Ok((inputs, own))
    }

    /// Looks an action up and executes it on a miss; returns what it made.
    async fn perform(
        &self,
        element: &Element,
        action: Prepared,
        own: Vec<Blob>,
    ) -> Result<(ActionReport, File), Error> {
        let started = Instant::now();
        let service = |e| Error::service(&element.name, e);
        let cached = self.services.action_cache.fetch_action_result(&action.digest).await.map_err(service)?;
        let (result, outcome) = match cached.filter(|r| r.exit_code == 0) {
            Some(result) => (result, Outcome::Hit),
            None => {
                let blobs: Vec<Blob> = action.blobs.iter().cloned().chain(own).collect();
                self.upload(element, &blobs).await?;
                (self.execute(element, action.digest).await?, Outcome::Executed)
            }
        };
        let file = output(&result, &action.output).ok_or_else(|| {
            Error::project(&element.name, format!("{} did not make {}", action.digest, action.output))
        })?;
        let elapsed = started.elapsed();
        Ok((ActionReport { digest: action.digest, output: action.output, outcome, elapsed }, file))
    }

    async fn upload(&self, element: &Element, blobs: &[Blob]) -> Result<(), Error> {
        self.services.store.upload_missing(blobs).await.map(drop).map_err(|e| Error::service(&element.name, e))
    }

    async fn execute(&self, element: &Element, action: Digest) -> Result<v2::ActionResult, Error> {
        let service = |e| Error::service(&element.name, e);
        let request = ExecuteRequest { action, cache_lookup: CacheLookup::Use, priority: 0 };
        let mut updates = self.services.execution.execute(request).await.map_err(service)?;
        while let Some(update) = updates.next().await {
            if let ExecutionUpdate::Done(outcome) = update.map_err(service)? {
                return self.checked(element, action, outcome.result).await;
            }
        }
        let reason = "the updates ended without an outcome";
        Err(service(cas_client::Error::new(ErrorKind::Protocol, "Execute", reason).with_digest(action)))
    }

    async fn checked(
        &self,
        element: &Element,
        action: Digest,
        result: v2::ActionResult,
    ) -> Result<v2::ActionResult, Error> {
        if result.exit_code == 0 {
            return Ok(result);
        }
        let stderr = match Digest::try_from(&result.stderr_digest) {
            Ok(digest) if result.stderr_raw.is_empty() => {
                self.services.store.read_blob(&digest).await.map_err(|e| Error::service(&element.name, e))?
            }
            _ => result.stderr_raw,
        };
        Err(Error::Command {
            element: element.name.clone(),
            action: Box::new(action),
            exit_code: result.exit_code,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

fn output(result: &v2::ActionResult, path: &str) -> Option<File> {
    let file = result.output_files.iter().find(|f| f.path == path)?;
    Some(File { digest: Digest::try_from(&file.digest).ok()?, executable: file.is_executable })
}

/// Stores an element's sources, files and directories.
pub(super) async fn upload_sources(store: &dyn BlobStore, element: &Element) -> Result<Digest, Error> {
    let function = store.digest_function();
    let tree = element.source_tree(function);
    let (root, mut blobs) = tree.encode(function).map_err(|e| Error::project(&element.name, e.to_string()))?;
    blobs.extend(element.sources.values().map(|text| Blob::new(function, text.clone())));
    store.upload_missing(&blobs).await.map_err(|e| Error::service(&element.name, e))?;
    Ok(root)
}
