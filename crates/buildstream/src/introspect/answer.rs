//! The answer as it is written, and what it becomes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reapi_proto::Digest;
use serde::Deserialize;

use super::{IntrospectError, known_versions};
use crate::names::{ArtifactName, CacheKey};
use crate::project::{
    CacheState, Configuration, ElementState, Introspection, Project, Remote, RemoteKind, Servers, Versions,
};

#[derive(Deserialize)]
pub(super) struct Answer {
    project: WrittenProject,
    targets: Vec<String>,
    configuration: WrittenConfiguration,
    servers: BTreeMap<String, WrittenServers>,
    elements: Vec<WrittenElement>,
    warnings: Vec<String>,
    #[serde(skip)]
    versions: Versions,
}

#[derive(Deserialize)]
struct WrittenProject {
    name: String,
    directory: PathBuf,
}

#[derive(Deserialize)]
struct WrittenConfiguration {
    file: Option<PathBuf>,
    cachedir: PathBuf,
    logdir: PathBuf,
    artifact_refs: PathBuf,
    element_sources: PathBuf,
    strict: bool,
    cache_buildtrees: String,
    builders: u32,
    storage_service: Option<WrittenRemote>,
    execution: Option<WrittenRemote>,
    execution_storage: Option<WrittenRemote>,
    action_cache: Option<WrittenRemote>,
    casd: Option<PathBuf>,
    runner: Option<PathBuf>,
}

#[derive(Deserialize)]
struct WrittenServers {
    artifacts: Vec<WrittenRemote>,
    sources: Vec<WrittenRemote>,
}

#[derive(Deserialize)]
struct WrittenRemote {
    url: String,
    instance: String,
    kind: WrittenKind,
    push: bool,
    server_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    access_token: Option<PathBuf>,
    access_token_reload_minutes: Option<u64>,
    keepalive_seconds: Option<u64>,
    retry_limit: Option<u32>,
    retry_delay_milliseconds: Option<u64>,
    request_timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    Index,
    Storage,
    Endpoint,
    All,
}

#[derive(Deserialize)]
struct WrittenElement {
    name: String,
    local_name: String,
    project: String,
    kind: String,
    build_deps: Vec<String>,
    runtime_deps: Vec<String>,
    #[serde(default)]
    digest_environments: BTreeMap<String, Vec<String>>,
    weak_key: Option<String>,
    strong_key: Option<String>,
    configuration: Option<String>,
    ref_name: Option<String>,
    state: Option<WrittenState>,
    files: Option<String>,
    buildtree: Option<String>,
    sources_key: Option<String>,
    sources: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WrittenState {
    Absent,
    Cached,
    Failed,
}

impl Answer {
    /// Says who answered, and warns if that one is not `known`.
    pub(super) fn set_versions(&mut self, buildstream: String, python: String, known: impl Fn(&str) -> bool) {
        if !known(&buildstream) {
            let known = known_versions();
            self.warnings.push(format!("BuildStream {buildstream} is not a version that is known here ({known})"));
        }
        self.versions = Versions { buildstream, python };
    }

    pub(super) fn into_introspection(self) -> Result<Introspection, IntrospectError> {
        let WrittenConfiguration { file, cachedir, logdir, artifact_refs, element_sources, .. } = self.configuration;
        let configuration = Configuration {
            file,
            cachedir,
            logdir,
            artifact_refs,
            element_sources,
            strict: self.configuration.strict,
            cache_buildtrees: self.configuration.cache_buildtrees,
            builders: self.configuration.builders,
            storage_service: self.configuration.storage_service.map(Remote::from),
            execution: self.configuration.execution.map(Remote::from),
            execution_storage: self.configuration.execution_storage.map(Remote::from),
            action_cache: self.configuration.action_cache.map(Remote::from),
            casd: self.configuration.casd,
            runner: self.configuration.runner,
        };
        let servers = self.servers.into_iter().map(|(project, servers)| {
            let remotes = |list: Vec<WrittenRemote>| list.into_iter().map(Remote::from).collect();
            (project, Servers { artifacts: remotes(servers.artifacts), sources: remotes(servers.sources) })
        });
        Ok(Introspection {
            versions: self.versions,
            project: Project { name: self.project.name, directory: self.project.directory },
            targets: self.targets,
            configuration,
            servers: servers.collect(),
            elements: self.elements.into_iter().map(WrittenElement::into_state).collect::<Result<_, _>>()?,
            warnings: self.warnings,
        })
    }
}

impl From<WrittenRemote> for Remote {
    fn from(written: WrittenRemote) -> Self {
        Self {
            url: written.url,
            instance: written.instance,
            kind: match written.kind {
                WrittenKind::Index => RemoteKind::Index,
                WrittenKind::Storage => RemoteKind::Storage,
                WrittenKind::Endpoint | WrittenKind::All => RemoteKind::All,
            },
            push: written.push,
            server_cert: written.server_cert,
            client_key: written.client_key,
            client_cert: written.client_cert,
            access_token: written.access_token,
            access_token_reload: written
                .access_token_reload_minutes
                .map(|minutes| Duration::from_secs(minutes.saturating_mul(60))),
            keepalive: written.keepalive_seconds.map(Duration::from_secs),
            retry_limit: written.retry_limit,
            retry_delay: written.retry_delay_milliseconds.map(Duration::from_millis),
            request_timeout: written.request_timeout_seconds.map(Duration::from_secs),
        }
    }
}

impl WrittenElement {
    fn into_state(self) -> Result<ElementState, IntrospectError> {
        let element = &self.name;
        let wrong = |member: &str, error: &dyn std::fmt::Display| IntrospectError::Broken {
            reason: format!("`{member}` of {element}: {error}"),
            output: String::new(),
        };
        let digest = |member: &str, text: Option<&String>| -> Result<Option<Digest>, _> {
            text.map(|text| text.parse().map_err(|e| wrong(member, &e))).transpose()
        };
        let key = |member: &str, text: Option<&String>| -> Result<Option<CacheKey>, _> {
            text.map(|text| text.parse().map_err(|e| wrong(member, &e))).transpose()
        };
        let weak_artifact: Option<ArtifactName> =
            self.ref_name.as_ref().map(|text| text.parse().map_err(|e| wrong("ref_name", &e))).transpose()?;
        Ok(ElementState {
            weak_key: key("weak_key", self.weak_key.as_ref())?,
            strong_key: key("strong_key", self.strong_key.as_ref())?,
            weak_artifact,
            cache: match self.state {
                None => CacheState::Unknown,
                Some(WrittenState::Absent) => CacheState::Absent,
                Some(WrittenState::Cached) => CacheState::Cached,
                Some(WrittenState::Failed) => CacheState::Failed,
            },
            files: digest("files", self.files.as_ref())?,
            buildtree: digest("buildtree", self.buildtree.as_ref())?,
            sources_key: key("sources_key", self.sources_key.as_ref())?,
            sources: digest("sources", self.sources.as_ref())?,
            name: self.name,
            local_name: self.local_name,
            project: self.project,
            kind: self.kind,
            build_deps: self.build_deps,
            runtime_deps: self.runtime_deps,
            digest_environments: self.digest_environments,
            configuration: self.configuration,
        })
    }
}
