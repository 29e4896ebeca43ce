//! What BuildStream says about a project.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use overlay::graph::{Element, Graph, GraphError};
use reapi_proto::{Digest, DigestFunction};
use rustc_hash::FxHashMap;

use crate::names::{ArtifactName, CacheKey};
use crate::refs::{ArtifactRefs, SourceRefs};
use crate::staging::{self, Row};

/// A loaded project: its elements as they are now, and the configuration that was in effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introspection {
    /// Who answered.
    pub versions: Versions,
    /// The project that was asked about.
    pub project: Project,
    /// The elements that were asked about, by full name.
    pub targets: Vec<String>,
    /// The user configuration, as BuildStream resolved it.
    pub configuration: Configuration,
    /// The servers of each project, by its name: command line, overrides,
    /// global configuration and the projects' own recommendations considered.
    pub servers: BTreeMap<String, Servers>,
    /// The targets and everything that they need to be built or run, dependencies first.
    pub elements: Vec<ElementState>,
    /// What BuildStream, or this crate, warned of.
    pub warnings: Vec<String>,
}

/// Who answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Versions {
    /// Of BuildStream.
    pub buildstream: String,
    /// Of the Python interpreter.
    pub python: String,
}

/// A project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Where its `project.conf` is.
    pub directory: PathBuf,
}

/// BuildStream's user configuration, resolved. Paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// The file that it comes from; `None` for the defaults alone.
    pub file: Option<PathBuf>,
    /// Where BuildStream, and casd, keep everything.
    pub cachedir: PathBuf,
    /// Where logs go; casd's are in `_casd` in there.
    pub logdir: PathBuf,
    /// Where refs of artifacts are.
    pub artifact_refs: PathBuf,
    /// Where refs of staged sources are.
    pub element_sources: PathBuf,
    /// Whether elements are rebuilt whenever a dependency has changed.
    pub strict: bool,
    /// When buildtrees are kept: `always`, `auto` (after failures) or `never`.
    pub cache_buildtrees: String,
    /// Elements that are built at once.
    pub builders: u32,
    /// The CAS that stands behind the local one.
    pub storage_service: Option<Remote>,
    /// Where elements are built, if not here.
    pub execution: Option<Remote>,
    /// The CAS of that service.
    pub execution_storage: Option<Remote>,
    /// The action cache of that service, or of local builds.
    pub action_cache: Option<Remote>,
    /// The buildbox-casd that BuildStream runs.
    pub casd: Option<PathBuf>,
    /// The buildbox-run with which that one executes actions; without it nothing is executed here.
    pub runner: Option<PathBuf>,
}

impl Configuration {
    /// The refs of artifacts.
    #[must_use]
    pub fn artifact_refs(&self) -> ArtifactRefs {
        ArtifactRefs::new(&self.artifact_refs)
    }

    /// The refs of staged sources.
    #[must_use]
    pub fn source_refs(&self) -> SourceRefs {
        SourceRefs::new(&self.element_sources)
    }
}

/// The cache servers of a project, the first one asked first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Servers {
    /// Servers of artifacts.
    pub artifacts: Vec<Remote>,
    /// Servers of sources.
    pub sources: Vec<Remote>,
}

impl Servers {
    /// The artifact servers to read from, in order: where names are looked up, and where blobs are.
    pub fn artifacts_to_pull(&self) -> impl Iterator<Item = (&Remote, &Remote)> {
        pairs(self.artifacts.iter())
    }

    /// The artifact servers that BuildStream pushes to, in order.
    pub fn artifacts_to_push(&self) -> impl Iterator<Item = (&Remote, &Remote)> {
        pairs(self.artifacts.iter().filter(|remote| remote.push))
    }
}

/// Each index with its own storage or, if it has none, the first one of the list.
fn pairs<'a>(remotes: impl Iterator<Item = &'a Remote> + Clone) -> impl Iterator<Item = (&'a Remote, &'a Remote)> {
    let first_storage = remotes.clone().find(|remote| remote.kind.is_storage());
    let storage = move |index: &'a Remote| if index.kind.is_storage() { Some(index) } else { first_storage };
    remotes.filter(|remote| remote.kind.is_index()).filter_map(move |index| Some((index, storage(index)?)))
}

/// A service, and how to talk to it. Credentials are named by their files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Its address.
    pub url: String,
    /// The instance name; empty for none.
    pub instance: String,
    /// What it offers.
    pub kind: RemoteKind,
    /// Whether BuildStream pushes there.
    pub push: bool,
    /// Certificates that its certificate is checked against, as PEM.
    pub server_cert: Option<PathBuf>,
    /// Our private key, as PEM.
    pub client_key: Option<PathBuf>,
    /// Our certificate, as PEM.
    pub client_cert: Option<PathBuf>,
    /// A bearer token.
    pub access_token: Option<PathBuf>,
    /// How often to read the token again.
    pub access_token_reload: Option<Duration>,
    /// Idle time after which the connection is probed.
    pub keepalive: Option<Duration>,
    /// How often a call is tried again.
    pub retry_limit: Option<u32>,
    /// The pause before the first such attempt.
    pub retry_delay: Option<Duration>,
    /// How long a call may take.
    pub request_timeout: Option<Duration>,
}

/// What a cache server offers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RemoteKind {
    /// Names of artifacts only (Remote Asset).
    Index,
    /// Blobs only (CAS).
    Storage,
    /// Whatever it is asked for.
    All,
}

impl RemoteKind {
    /// Whether names are looked up and pushed there.
    #[must_use]
    pub fn is_index(self) -> bool {
        self != Self::Storage
    }

    /// Whether blobs are read and written there.
    #[must_use]
    pub fn is_storage(self) -> bool {
        self != Self::Index
    }
}

/// Whether an element has an artifact of its current keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CacheState {
    /// It has no keys yet: some source has no ref.
    Unknown,
    /// No, or parts of it are gone: it will be built, or pulled.
    Absent,
    /// Yes.
    Cached,
    /// One of a failed build.
    Failed,
}

/// An element as BuildStream sees it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElementState {
    /// The name as BuildStream prints it: across junctions, `JUNCTION.bst:ELEMENT.bst`.
    pub name: String,
    /// The name in its own project.
    pub local_name: String,
    /// The project that it belongs to.
    pub project: String,
    /// The plugin.
    pub kind: String,
    /// Direct build dependencies, by full name.
    pub build_deps: Vec<String>,
    /// Direct runtime dependencies, by full name.
    pub runtime_deps: Vec<String>,
    /// Build dependencies that are staged into a root of their own, whose digest the build finds in this environment
    /// variable (BuildStream's `digest-environment`): by variable, full names in the order of the dependencies.
    pub digest_environments: BTreeMap<String, Vec<String>>,
    /// The key that changes of its dependencies do not change.
    pub weak_key: Option<CacheKey>,
    /// A key of everything that its weak key covers but sources and names of dependencies: commands, environment, sandbox.
    pub configuration: Option<String>,
    /// The key that covers everything. In a project that is not strict, that
    /// of the artifact that will do; unknown for an element to be built.
    pub strong_key: Option<CacheKey>,
    /// The artifact of its weak key.
    pub weak_artifact: Option<ArtifactName>,
    /// Whether it has an artifact of these keys.
    pub cache: CacheState,
    /// Root of that artifact's files; a failed build may have none.
    pub files: Option<Digest>,
    /// Root of its build directory, where that was kept. It may be absent from CAS.
    pub buildtree: Option<Digest>,
    /// The key of its sources.
    pub sources_key: Option<CacheKey>,
    /// Root of its sources, where they are staged and in CAS.
    pub sources: Option<Digest>,
}

impl ElementState {
    /// The artifact of its strong key.
    #[must_use]
    pub fn strong_artifact(&self) -> Option<ArtifactName> {
        Some(self.weak_artifact.as_ref()?.element().artifact(self.strong_key.clone()?))
    }
}

impl Introspection {
    /// The element of this full name.
    #[must_use]
    pub fn element(&self, name: &str) -> Option<&ElementState> {
        self.elements.iter().find(|element| element.name == name)
    }

    /// The element of this name in a project: how working directories of
    /// actions name them. The first one, where two junctions lead there.
    #[must_use]
    pub fn element_of(&self, project: &str, local_name: &str) -> Option<&ElementState> {
        self.elements.iter().find(|element| element.project == project && element.local_name == local_name)
    }

    /// What is staged to build an element, in staging order: its build
    /// dependencies, each after everything that it needs to run. Empty for an unknown name.
    #[must_use]
    pub fn staged(&self, name: &str) -> Vec<&ElementState> {
        let rows = self.rows();
        let Some(row) = self.elements.iter().position(|element| element.name == name) else { return Vec::new() };
        staging::staged(&rows, row).into_iter().map(|row| &self.elements[row]).collect()
    }

    /// The elements as a graph has them.
    ///
    /// A graph knows one kind of dependency and takes its closure, while
    /// BuildStream stages what build dependencies need to *run*, not what they
    /// were built with. So `build_deps` are the direct build dependencies and,
    /// as far as their closure lacks them, what those need to run. The closure
    /// contains all that is staged; it may contain more.
    #[must_use]
    pub fn to_elements(&self) -> Vec<Element> {
        let rows = self.rows();
        let dependencies = staging::covering(&rows);
        let numbers = self.numbers();
        let names = |rows: Vec<usize>| rows.into_iter().map(|row| self.elements[row].name.clone()).collect::<Vec<_>>();
        let platform = |names_in: &Vec<String>| {
            let chosen: Vec<usize> = names_in.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
            names(staging::with_what_they_need(&rows, &chosen))
        };
        let text = |key: &Option<CacheKey>| key.as_ref().map(ToString::to_string);
        let element = |(row, (state, dependencies)): (usize, (&ElementState, Vec<usize>))| Element {
            name: state.name.clone(),
            project: Some(state.project.clone()),
            weak_key: text(&state.weak_key),
            strong_key: text(&state.strong_key),
            cached: match state.cache {
                CacheState::Unknown => None,
                CacheState::Cached => Some(true),
                CacheState::Absent | CacheState::Failed => Some(false),
            },
            sources: state.sources,
            artifact: state.files.filter(|_| state.cache == CacheState::Cached),
            build_deps: Some(names(dependencies)),
            staged: Some(names(staging::staged(&rows, row))),
            configuration: state.configuration.clone(),
            platforms: Some(state.digest_environments.values().map(platform).collect()),
            subactions: None,
            speculative_actions: None,
        };
        self.elements.iter().zip(dependencies).enumerate().map(element).collect()
    }

    /// The graph of [these elements](Self::to_elements).
    ///
    /// # Errors
    /// [`GraphError`] where the answer contradicts itself.
    pub fn to_graph(&self) -> Result<Graph, GraphError> {
        Graph::new(DigestFunction::Sha256, self.to_elements())
    }

    /// The rows of elements by full name.
    fn numbers(&self) -> FxHashMap<&str, usize> {
        self.elements.iter().enumerate().map(|(row, element)| (element.name.as_str(), row)).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let numbers = self.numbers();
        let rows_of = |names: &[String]| names.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
        let row = |element: &ElementState| Row {
            build: rows_of(&element.build_deps),
            runtime: rows_of(&element.runtime_deps),
        };
        self.elements.iter().map(row).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What BuildStream says of this cache directory by default.
    pub(crate) fn configuration(cachedir: &std::path::Path) -> Configuration {
        Configuration {
            file: None,
            cachedir: cachedir.to_owned(),
            logdir: cachedir.join("logs"),
            artifact_refs: cachedir.join("artifacts/refs"),
            element_sources: cachedir.join("elementsources"),
            strict: true,
            cache_buildtrees: "auto".to_owned(),
            builders: 4,
            storage_service: None,
            execution: None,
            execution_storage: None,
            action_cache: None,
            casd: None,
            runner: None,
        }
    }

    /// A project of elements that are to be built: names, weak keys (of the sources as well), build dependencies.
    pub(crate) fn introspection(cachedir: &std::path::Path, elements: &[(&str, char, &[&str])]) -> Introspection {
        let element = |(name, weak, deps): &(&str, char, &[&str])| {
            let weak = crate::refs::tests::key(*weak);
            ElementState {
                name: (*name).to_owned(),
                local_name: (*name).to_owned(),
                project: "demo".to_owned(),
                kind: "manual".to_owned(),
                build_deps: deps.iter().map(|name| (*name).to_owned()).collect(),
                runtime_deps: Vec::new(),
                digest_environments: BTreeMap::new(),
                configuration: None,
                weak_key: Some(weak.clone()),
                strong_key: None,
                weak_artifact: Some(crate::refs::tests::element(name).artifact(weak.clone())),
                cache: CacheState::Absent,
                files: None,
                buildtree: None,
                sources_key: Some(weak),
                sources: None,
            }
        };
        Introspection {
            versions: Versions::default(),
            project: Project { name: "demo".to_owned(), directory: cachedir.to_owned() },
            targets: Vec::new(),
            configuration: configuration(cachedir),
            servers: BTreeMap::new(),
            elements: elements.iter().map(element).collect(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn remote(url: &str, kind: RemoteKind, push: bool) -> Remote {
        Remote {
            url: url.to_owned(),
            instance: String::new(),
            kind,
            push,
            server_cert: None,
            client_key: None,
            client_cert: None,
            access_token: None,
            access_token_reload: None,
            keepalive: None,
            retry_limit: None,
            retry_delay: None,
            request_timeout: None,
        }
    }

    #[test]
    fn every_index_is_paired_with_a_storage() {
        let servers = Servers {
            artifacts: vec![
                remote("index", RemoteKind::Index, true),
                remote("all", RemoteKind::All, false),
                remote("storage", RemoteKind::Storage, true),
                remote("both", RemoteKind::All, true),
            ],
            ..Servers::default()
        };
        let urls = |(index, storage): (&Remote, &Remote)| format!("{}+{}", index.url, storage.url);
        let pull: Vec<_> = servers.artifacts_to_pull().map(urls).collect();
        assert_eq!(pull, ["index+all", "all+all", "both+both"]);
        let push: Vec<_> = servers.artifacts_to_push().map(urls).collect();
        assert_eq!(push, ["index+storage", "both+both"]);
        let alone = Servers { artifacts: vec![remote("index", RemoteKind::Index, true)], ..Servers::default() };
        assert_eq!(alone.artifacts_to_pull().count(), 0);
    }
}
