//! From connection options to capabilities: the only place where stores are chosen.

use std::path::Path;
use std::sync::Arc;

use buildstream::Remote;
use cas_client::grpc::{Access, Endpoint, GrpcClient, GrpcConfig};
use cas_client::{ActionCache, BlobStore, Execution, FileStore};
use clap::Args;
use instantiate::Services;
use reapi_proto::DigestFunction;

use crate::failure::Failure;

/// What services are told who we are.
const TOOL: &str = "bst-sa";

/// Where the services are.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectOptions {
    /// All services: unix:PATH, http://HOST:PORT, grpc://HOST:PORT, or file:DIR (buildbox-casd's directory; no execution)
    #[arg(long, value_name = "URL", env = "BST_SA_SERVER")]
    pub(crate) server: Option<String>,
    /// Content-addressed storage, where it is not at --server
    #[arg(long, value_name = "URL")]
    pub(crate) cas: Option<String>,
    /// Action cache, where it is not at --server
    #[arg(long, value_name = "URL")]
    pub(crate) action_cache: Option<String>,
    /// Execution, where it is not at --server
    #[arg(long, value_name = "URL")]
    pub(crate) execution: Option<String>,
    /// Remote Asset index, where it is not at --server
    #[arg(long, value_name = "URL")]
    pub(crate) asset: Option<String>,
    /// Instance name of the services
    #[arg(long, value_name = "NAME", env = "BST_SA_INSTANCE", default_value = "")]
    pub(crate) instance: String,
    /// What the services are told who we are, if not bst-sa
    #[arg(skip)]
    tool: Option<&'static str>,
}

/// What one URL leads to.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A gRPC service.
    Service(GrpcClient),
    /// A directory in casd's layout.
    Directory(Arc<FileStore>),
}

impl ConnectOptions {
    /// Whether no service is named at all.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.server, &self.cas, &self.action_cache, &self.execution, &self.asset].into_iter().all(Option::is_none)
    }

    /// Under another name to the services.
    pub(crate) fn with_tool(self, tool: &'static str) -> Self {
        Self { tool: Some(tool), ..self }
    }

    /// The storage.
    pub(crate) fn blobs(&self, function: DigestFunction) -> Result<Arc<dyn BlobStore>, Failure> {
        Ok(match self.place("--cas", self.cas.as_deref(), function)? {
            Place::Service(client) => Arc::new(client),
            Place::Directory(store) => store,
        })
    }

    /// The action cache, for reading.
    pub(crate) fn action_cache(&self, function: DigestFunction) -> Result<Arc<dyn ActionCache>, Failure> {
        Ok(match self.place("--action-cache", self.action_cache.as_deref(), function)? {
            Place::Service(client) => Arc::new(client),
            Place::Directory(store) => store,
        })
    }

    /// The action cache, for whoever can do without one.
    pub(crate) fn optional_action_cache(
        &self,
        function: DigestFunction,
    ) -> Result<Option<Arc<dyn ActionCache>>, Failure> {
        self.action_cache.as_ref().or(self.server.as_ref()).map(|_| self.action_cache(function)).transpose()
    }

    /// Execution.
    pub(crate) fn execution(&self, function: DigestFunction) -> Result<Arc<dyn Execution>, Failure> {
        match self.place("--execution", self.execution.as_deref(), function)? {
            Place::Service(client) => Ok(Arc::new(client)),
            Place::Directory(_) => Err(Failure::usage("a directory cannot execute actions")
                .hint("give a service with --execution URL, or use `bst-sa instantiate` to see what would run")),
        }
    }

    /// All three, for priming.
    pub(crate) fn services(&self, function: DigestFunction) -> Result<Services, Failure> {
        Ok(Services {
            blobs: self.blobs(function)?,
            cache: self.action_cache(function)?,
            execution: Some(self.execution(function)?),
        })
    }

    /// What an option's URL, or that of --server, leads to.
    pub(crate) fn place(&self, option: &str, own: Option<&str>, function: DigestFunction) -> Result<Place, Failure> {
        let url = own.or(self.server.as_deref()).ok_or_else(|| {
            Failure::usage(format!("no service given: neither {option} nor --server")).hint(
                "for example --server unix:/path/to/casd.sock, or --server file:DIR for buildbox-casd's directory",
            )
        })?;
        self.open(url, function)
    }

    fn open(&self, url: &str, function: DigestFunction) -> Result<Place, Failure> {
        if let Some(directory) = url.strip_prefix("file:") {
            let directory = directory.strip_prefix("//").unwrap_or(directory);
            if function != DigestFunction::Sha256 {
                return Err(Failure::usage(format!("{url} holds SHA256 digests only, and {function} is asked for")));
            }
            let store = FileStore::open(Path::new(directory)).map_err(|e| {
                Failure::usage(format!("{url} is no place for blobs"))
                    .because(&e)
                    .hint("give the directory that buildbox-casd was started with; BuildStream's is its cachedir")
            })?;
            return Ok(Place::Directory(Arc::new(store)));
        }
        let endpoint: Endpoint =
            url.parse().map_err(|e: cas_client::grpc::EndpointError| Failure::usage(e.to_string()))?;
        let config = GrpcConfig {
            instance_name: self.instance.clone(),
            digest_function: function,
            tool_name: self.tool.unwrap_or(TOOL).to_owned(),
            ..config(endpoint)
        };
        Ok(Place::Service(GrpcClient::new(config)?))
    }
}

/// What every connection of this program has in common.
pub(crate) fn config(endpoint: Endpoint) -> GrpcConfig {
    GrpcConfig {
        tool_name: TOOL.to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..GrpcConfig::new(endpoint)
    }
}

/// A service that BuildStream's configuration names.
pub(crate) fn remote(remote: &Remote, function: DigestFunction, access: Access) -> Result<GrpcClient, Failure> {
    let endpoint: Endpoint =
        remote.url.parse().map_err(|e: cas_client::grpc::EndpointError| Failure::new(e.to_string()))?;
    let config =
        GrpcConfig { instance_name: remote.instance.clone(), digest_function: function, access, ..config(endpoint) };
    Ok(GrpcClient::new(config)?)
}
