//! Where the elements come from: a graph file, or a BuildStream project.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildstream::daemon;
use buildstream::introspect::SourcePolicy;
use buildstream::records::RefRecords;
use buildstream::refs::Attached;
use buildstream::{Installation, Introspection, Invocation, Request, introspect};
use cas_client::{ActionCache, BlobStore};
use clap::Args;
use instantiate::{GraphRecords, RecordIndex, Services};
use overlay::graph::{Element, Graph};
use reapi_proto::Digest;
use record::{Attributor, CasdLog, CasdLogScanner, Combined, ExplicitList, ReccLogs, SubactionSource};

use crate::connect::ConnectOptions;
use crate::failure::Failure;
use crate::graph::read_graph;
use crate::progress::Progress;
use crate::services::{self, Prepared, Record};

/// Which elements there are, and where to ask.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Project")]
pub(crate) struct ProjectOptions {
    /// The elements and their state, as JSON (see docs/graph.md), instead of a BuildStream project
    #[arg(long, value_name = "FILE", conflicts_with_all = ["project_dir", "config", "option"])]
    pub(crate) graph: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) buildstream: BuildStreamOptions,
}

/// Which BuildStream project, and how to look at it.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Project")]
pub(crate) struct BuildStreamOptions {
    /// Directory of the BuildStream project, or one below it
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) project_dir: PathBuf,
    /// BuildStream's user configuration (default: BuildStream's own choice)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A project option, as for bst
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub(crate) option: Vec<String>,
}

/// The elements, and what BuildStream said of them if it was asked.
pub(crate) struct Elements {
    /// Where they are described, for messages.
    pub(crate) place: String,
    pub(crate) graph: Graph,
    pub(crate) project: Option<Introspection>,
}

impl BuildStreamOptions {
    /// The project's options in the form that BuildStream takes them.
    pub(crate) fn invocation(&self) -> Invocation {
        Invocation {
            config: self.config.clone(),
            options: self.option.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            ..Invocation::new(&self.project_dir)
        }
    }
}

impl ProjectOptions {
    /// Reads the graph file, or asks BuildStream about `elements`.
    pub(crate) async fn elements(
        &self,
        elements: &[String],
        sources: SourcePolicy,
        progress: &Progress,
    ) -> Result<Elements, Failure> {
        if let Some(file) = &self.graph {
            return Ok(Elements { place: file.display().to_string(), graph: read_graph(file)?, project: None });
        }
        let project = ask(&installation()?, self.buildstream.invocation(), elements, sources, progress).await?;
        let mut elements = project.to_elements();
        RefRecords::new(project.configuration.artifact_refs()).annotate(&mut elements);
        let graph = Graph::new(reapi_proto::DigestFunction::Sha256, elements)
            .map_err(|e| Failure::new("BuildStream's answer is not a usable graph").because(&e))?;
        let place = format!("project {} in {}", project.project.name, project.project.directory.display());
        Ok(Elements { place, graph, project: Some(project) })
    }
}

/// BuildStream, as the search path has it.
pub(crate) fn installation() -> Result<Installation, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Installation::search(&path).map_err(|e| {
        Failure::new("BuildStream was not found")
            .because(&e)
            .hint("install it (the Python package buildstream), or describe the elements with --graph FILE")
    })
}

/// Asks BuildStream about `elements` and everything that they need.
pub(crate) async fn ask(
    installation: &Installation,
    invocation: Invocation,
    elements: &[String],
    sources: SourcePolicy,
    progress: &Progress,
) -> Result<Introspection, Failure> {
    progress.say("asking BuildStream about the project");
    let directory = invocation.directory.clone();
    let project =
        introspect(installation, &Request { sources, ..Request::new(invocation, elements) }).await.map_err(|e| {
            Failure::new(format!("BuildStream could not say what {} consists of", directory.display()))
                .because(&e)
                .hint("`bst show` in the same directory, with the same options, should work")
        })?;
    for warning in &project.warnings {
        tracing::warn!("{warning}");
    }
    Ok(project)
}

impl Elements {
    /// The element of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&Element, Failure> {
        self.graph.get(name).ok_or_else(|| {
            Failure::usage(format!("{} has no element {name}", self.place))
                .hint("names are as in the graph, for example app.bst")
        })
    }

    /// Storage: as the options say, else where BuildStream's builds leave what they ran.
    pub(crate) fn blobs(&self, connect: &ConnectOptions) -> Result<Arc<dyn BlobStore>, Failure> {
        match self.of_project(connect) {
            Some(project) => Ok(services::left_behind(&project.configuration)?.0),
            None => connect.blobs(self.graph.digest_function()),
        }
    }

    /// The action cache: as the options say, else where BuildStream's builds leave what they ran.
    pub(crate) fn action_cache(&self, connect: &ConnectOptions) -> Result<Arc<dyn ActionCache>, Failure> {
        match self.of_project(connect) {
            Some(project) => Ok(services::left_behind(&project.configuration)?.1),
            None => connect.action_cache(self.graph.digest_function()),
        }
    }

    /// The project, where no service is named.
    fn of_project(&self, connect: &ConnectOptions) -> Option<&Introspection> {
        self.project.as_ref().filter(|_| connect.is_empty())
    }

    /// What priming goes through: as the options say, else as BuildStream's configuration says.
    pub(crate) async fn priming(&self, connect: &ConnectOptions, jobs: usize) -> Result<Prepared, Failure> {
        let function = self.graph.digest_function();
        let Some(project) = &self.project else {
            return Ok(Prepared { services: connect.services(function)?, daemon: None });
        };
        if !connect.is_empty() {
            return Ok(Prepared { services: services::named(&project.configuration, connect)?, daemon: None });
        }
        if let Some(services) = services::remote(&project.configuration)? {
            return Ok(Prepared { services, daemon: None });
        }
        services::local(&project.configuration, jobs).await
    }

    /// The records that the graph names, or the refs of artifacts here.
    pub(crate) fn own_records(&self) -> Arc<dyn RecordIndex> {
        match &self.project {
            Some(project) => services::own_records(project),
            None => Arc::new(GraphRecords),
        }
    }

    /// Services to prime through, and the records to go by: those on artifact servers as well.
    pub(crate) fn with_records(
        &self,
        services: Services,
        connect: &ConnectOptions,
    ) -> (Services, Arc<dyn RecordIndex>) {
        match &self.project {
            Some(project) => services::priming(project, services, connect),
            None => (services, Arc::new(GraphRecords)),
        }
    }

    /// What tells which actions ran: the graph, or what BuildStream and recc logged.
    pub(crate) async fn subactions(
        &self,
        blobs: &Arc<dyn BlobStore>,
        cache: &Arc<dyn ActionCache>,
    ) -> Result<Arc<dyn SubactionSource>, Failure> {
        let Some(project) = &self.project else { return Ok(Arc::new(ExplicitList)) };
        let buildtrees = project.elements.iter().filter_map(|e| Some((e.name.clone(), e.buildtree?)));
        let recc = Arc::new(ReccLogs::new(Arc::clone(blobs), buildtrees));
        let graph = Arc::new(self.graph.clone());
        let mut attributor =
            Attributor::new(Arc::clone(&graph), Arc::clone(blobs)).with_action_cache(Arc::clone(cache));
        for (element, error) in attributor.learn(&*recc).await {
            tracing::warn!("{element}: the logs in its buildtree cannot be read: {error}");
        }
        let mut sessions = Vec::new();
        let logdir = &project.configuration.logdir;
        let unreadable = |e| Failure::new(format!("the logs in {} cannot be read", logdir.display())).because(&e);
        let logs = daemon::logs(logdir).map_err(unreadable)?;
        for log in &logs {
            sessions.push(scan(&log.path)?.into_actions());
        }
        let casd = Arc::new(CasdLog::attribute(&mut attributor, &sessions, &project.sessions(&logs)).await?);
        Ok(Arc::new(Combined::merge(&graph, &[recc, casd]).await))
    }

    /// Takes records to the artifact servers that BuildStream pushes to.
    pub(crate) async fn push(&self, blobs: &Arc<dyn BlobStore>, records: &[(String, Digest)]) {
        let Some(project) = &self.project else { return };
        let artifact = |(element, record): &(String, Digest)| {
            let state = project.element(element)?;
            Some(Record { project: state.project.clone(), artifact: state.strong_artifact()?, message: *record })
        };
        let records: Vec<Record> = records.iter().filter_map(artifact).collect();
        services::push(project, blobs, &records).await;
    }

    /// Lets an element's artifact name its record.
    pub(crate) fn attach(&self, element: &str, record: &Digest) -> Result<(), Failure> {
        let Some(project) = &self.project else { return Ok(()) };
        let Some(artifact) = project.element(element).and_then(|state| state.strong_artifact()) else {
            return Err(Failure::new(format!("{element} has no artifact to attach the record to"))
                .hint("build it first; records belong to built elements"));
        };
        let attached = project.configuration.artifact_refs().attach(&artifact, record);
        let attached =
            attached.map_err(|e| Failure::new(format!("{element}: the record is not attached")).because(&e))?;
        if !matches!(attached.weak, Attached::Written | Attached::Unchanged) {
            tracing::warn!("{element}: the record is attached under the strong key only: {:?}", attached.weak);
        }
        Ok(())
    }
}

/// The actions in a log of casd that is complete.
pub(crate) fn scan(log: &Path) -> Result<CasdLogScanner, Failure> {
    let unreadable = |e: std::io::Error| Failure::new(format!("{} cannot be read", log.display())).because(&e);
    let mut file = fs::File::open(log).map_err(unreadable)?;
    let mut scanner = CasdLogScanner::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            read => scanner.advance(&buffer[..read]),
        }
    }
    scanner.finish();
    Ok(scanner)
}
