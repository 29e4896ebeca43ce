//! From connection options to capabilities: the only place where stores are chosen.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cas_client::grpc::{
    Access, Direct, Endpoint, EndpointError, GrpcClient, GrpcConfig, Pem, TlsError, TlsMaterial, TokenFile,
};
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
    /// All services: unix:PATH, https://HOST:PORT, http://HOST:PORT (no TLS), or file:DIR (buildbox-casd's directory; no execution)
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
    /// Certificates that those of https: services are checked against, as PEM (default: those that the system trusts)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Our certificate for https: services that ask for one, as PEM, with what leads from it to an authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, as PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A bearer token to show to https: and unix: services; read again every minute and when it is refused
    #[arg(long, value_name = "FILE", env = "BST_SA_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
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
        self.urls().next().is_none()
    }

    fn urls(&self) -> impl Iterator<Item = &str> {
        [&self.server, &self.cas, &self.action_cache, &self.execution, &self.asset]
            .into_iter()
            .filter_map(Option::as_deref)
    }

    /// Under another name to the services.
    pub(crate) fn with_tool(self, tool: &'static str) -> Self {
        Self { tool: Some(tool), ..self }
    }

    /// The storage.
    pub(crate) fn blobs(&self, function: DigestFunction) -> Result<Arc<dyn BlobStore>, Failure> {
        Ok(match self.place("--cas", self.cas.as_deref(), function)? {
            Place::Service(client) => Arc::new(direct(client)),
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
        self.check_tls_is_used()?;
        self.open(url, function)
    }

    /// Certificates are for the services with TLS; if there is none, something is not what it was meant to be.
    fn check_tls_is_used(&self) -> Result<(), Failure> {
        let options = [("--tls-ca", &self.tls_ca), ("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key)];
        let Some((option, _)) = options.into_iter().find(|(_, file)| file.is_some()) else { return Ok(()) };
        if self.urls().any(|url| matches!(url.parse(), Ok(Endpoint::Tls { .. }))) {
            return Ok(());
        }
        let urls = self.urls().collect::<Vec<_>>().join(" and ");
        Err(Failure::usage(format!("{option} is given, and no service uses TLS: {urls}"))
            .hint("write https://HOST:PORT, or leave the option out"))
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
        let endpoint: Endpoint = url.parse().map_err(|e: EndpointError| Failure::usage(e.to_string()))?;
        let mut config = config(endpoint, &self.instance, function);
        if let Some(tool) = self.tool {
            tool.clone_into(&mut config.tool_name);
        }
        match config.endpoint {
            Endpoint::Tls { .. } => {
                config.tls = tls(self.tls_ca.as_deref(), self.tls_cert.as_deref().zip(self.tls_key.as_deref()))
                    .map_err(|e| tls_failure(&e))?;
            }
            Endpoint::Tcp { .. } if self.token_file.is_some() => {
                let message =
                    format!("the token of --token-file is not sent to {url}: without TLS anybody can read it");
                return Err(Failure::usage(message)
                    .hint("use https:// or unix:, or leave out --token-file (or BST_SA_TOKEN_FILE)"));
            }
            _ => {}
        }
        config.token = self.token_file.as_ref().map(TokenFile::new);
        Ok(Place::Service(GrpcClient::new(config)?))
    }
}

/// A client of a service that BuildStream is configured to use, set up as BuildStream would do it.
///
/// Whether it may write is for the caller to say: that BuildStream pushes
/// nothing to a cache does not mean that inputs need not be uploaded before
/// an execution.
pub(crate) fn remote(
    remote: &buildstream::Remote,
    function: DigestFunction,
    access: Access,
) -> Result<GrpcClient, Failure> {
    let unusable = |what: &dyn std::error::Error| {
        Failure::new(format!("the service at {} cannot be used, which BuildStream is configured to use", remote.url))
            .because(what)
            .hint("see BuildStream's user configuration and the project's project.conf")
    };
    let endpoint = remote.url.parse().map_err(|e: EndpointError| unusable(&e))?;
    let mut config = config(endpoint, &remote.instance, function);
    config.access = access;
    let identity = match (&remote.client_cert, &remote.client_key) {
        (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
        (None, None) => None,
        (Some(_), None) => return Err(unusable(&Lacking("client-cert is given without client-key"))),
        (None, Some(_)) => return Err(unusable(&Lacking("client-key is given without client-cert"))),
    };
    config.tls = tls(remote.server_cert.as_deref(), identity).map_err(|e| unusable(&e))?;
    // Of a number, 0 stands for what it would be without one.
    let given = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
    if let Some(path) = &remote.access_token {
        config.token = Some(TokenFile { reload: given(remote.access_token_reload), ..TokenFile::new(path) });
    }
    if let Some(interval) = given(remote.keepalive) {
        config.keep_alive.interval = interval;
    }
    if let Some(limit) = remote.retry_limit {
        config.retry.max_attempts = limit.saturating_add(1);
    }
    if let Some(delay) = given(remote.retry_delay) {
        config.retry.first_delay = delay;
        config.retry.max_delay = config.retry.max_delay.max(delay);
    }
    if let Some(limit) = given(remote.request_timeout) {
        config.timeouts.capabilities = limit;
        config.timeouts.call = limit;
        config.timeouts.batch = limit;
    }
    GrpcClient::new(config).map_err(|e| unusable(&e))
}

/// Storage behind this client, read directly where its files are on this machine.
pub(crate) fn direct(client: GrpcClient) -> Direct {
    Direct::new(client, rustix::system::uname().nodename().to_string_lossy())
}

/// What is the same for all clients of this program.
pub(crate) fn config(endpoint: Endpoint, instance: &str, function: DigestFunction) -> GrpcConfig {
    GrpcConfig {
        instance_name: instance.to_owned(),
        digest_function: function,
        tool_name: TOOL.to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..GrpcConfig::new(endpoint)
    }
}

/// The certificates and the key in these files; the identity is a certificate and its key.
fn tls(authorities: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<TlsMaterial, TlsError> {
    let mut material = TlsMaterial::default();
    if let Some(path) = authorities {
        material = material.with_authorities(&Pem::read(path)?)?;
    }
    if let Some((certificate, key)) = identity {
        material = material.with_identity(&Pem::read(certificate)?, &Pem::read(key)?)?;
    }
    Ok(material)
}

fn tls_failure(error: &TlsError) -> Failure {
    let failure = Failure::usage(error.to_string()).hint("--tls-ca, --tls-cert and --tls-key take PEM files");
    match error.source() {
        Some(source) => failure.because(source),
        None => failure,
    }
}

/// A setting that is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lacking(&'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use buildstream::{Remote, RemoteKind};
    use rcgen::{CertificateParams, KeyPair};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn at(url: &str) -> Remote {
        Remote {
            url: url.to_owned(),
            instance: "main".to_owned(),
            kind: RemoteKind::All,
            push: false,
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

    /// A certificate, its key and a token, as files in a directory.
    fn files() -> (tempfile::TempDir, [PathBuf; 3]) {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["host".to_owned()]).unwrap().self_signed(&key).unwrap();
        let contents = [certificate.pem(), key.serialize_pem(), "token\n".to_owned()];
        let paths = ["own.crt", "own.key", "token"].map(|name| directory.path().join(name));
        for (path, content) in paths.iter().zip(contents) {
            std::fs::write(path, content).unwrap();
        }
        (directory, paths)
    }

    #[test]
    fn a_remote_is_used_as_buildstream_is_told_to() {
        let (_directory, [certificate, key, token]) = files();
        let everything = Remote {
            server_cert: Some(certificate.clone()),
            client_cert: Some(certificate),
            client_key: Some(key),
            access_token: Some(token.clone()),
            access_token_reload: Some(Duration::from_secs(300)),
            keepalive: Some(Duration::from_secs(30)),
            retry_limit: Some(3),
            retry_delay: Some(Duration::from_secs(10)),
            request_timeout: Some(Duration::from_secs(7)),
            ..at("https://cache.example")
        };
        let client = remote(&everything, FUNCTION, Access::ReadWrite).unwrap();
        let config = client.config();
        assert_eq!(client.to_string(), "Grpc(https://cache.example:443, instance main)");
        assert_eq!(config.access, Access::ReadWrite, "not what `push` says");
        assert!(!config.tls.is_empty());
        let expected = TokenFile { reload: Some(Duration::from_secs(300)), ..TokenFile::new(token) };
        assert_eq!(config.token, Some(expected));
        assert_eq!(config.keep_alive.interval, Duration::from_secs(30));
        assert_eq!(config.retry.max_attempts, 4);
        assert_eq!(
            (config.retry.first_delay, config.retry.max_delay),
            (Duration::from_secs(10), Duration::from_secs(10))
        );
        assert_eq!((config.timeouts.call, config.timeouts.batch), (Duration::from_secs(7), Duration::from_secs(7)));
    }

    #[test]
    fn what_a_remote_leaves_open_is_as_always() {
        let zeros = Remote {
            keepalive: Some(Duration::ZERO),
            retry_limit: Some(0),
            retry_delay: Some(Duration::ZERO),
            request_timeout: Some(Duration::ZERO),
            ..at("http://localhost:1")
        };
        for (settings, attempts) in [(at("http://localhost:1"), 5), (zeros, 1)] {
            let client = remote(&settings, FUNCTION, Access::ReadOnly).unwrap();
            let GrpcConfig { access, timeouts, keep_alive, retry, .. } = client.config();
            assert_eq!((*access, *timeouts, *keep_alive), (Access::ReadOnly, Default::default(), Default::default()));
            assert_eq!((retry.max_attempts, retry.first_delay), (attempts, Duration::from_millis(100)));
        }
    }

    #[test]
    fn a_remote_that_cannot_be_used_is_named_with_the_reason() {
        let (_directory, [certificate, key, token]) = files();
        let plain = at("http://localhost:1");
        let secure = at("https://localhost:1");
        for (settings, reason) in [
            (at("ftp://cache.example"), "not an endpoint"),
            (Remote { server_cert: Some(certificate.clone()), ..plain.clone() }, "does not use TLS"),
            (Remote { access_token: Some(token), ..plain }, "not sent without TLS"),
            (Remote { client_cert: Some(certificate.clone()), ..secure.clone() }, "without client-key"),
            (Remote { client_key: Some(key.clone()), ..secure.clone() }, "without client-cert"),
            (Remote { server_cert: Some(key), ..secure.clone() }, "own.key has no certificate"),
            (Remote { server_cert: Some("/nowhere/ca".into()), ..secure }, "/nowhere/ca cannot be read"),
        ] {
            let failure = remote(&settings, FUNCTION, Access::ReadOnly).unwrap_err().summary();
            assert!(failure.contains(&settings.url) && failure.contains(reason), "{failure}");
        }
    }
}
