//! How bytes get to the service and back.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tls::HTTP2;
use super::{Endpoint, GrpcConfig};
use crate::{Error, ErrorKind, Result};

/// How bytes get to the service and back.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// By a socket of this path.
    Unix(PathBuf),
    /// To this host and port.
    Tcp(String, u16),
    /// The same, encrypted.
    Tls(Tls),
}

impl Route {
    /// What the configuration asks for, with certificates and keys ready for use.
    ///
    /// # Errors
    /// `Invalid` when they cannot be used, or are not wanted.
    pub(super) fn new(config: &GrpcConfig) -> Result<Self> {
        let invalid = |reason: &str| Err(Error::new(ErrorKind::Invalid, "connect", reason).at(&config.endpoint));
        match config.endpoint.clone() {
            Endpoint::Unix { .. } | Endpoint::Tcp { .. } if !config.tls.is_empty() => {
                invalid("certificates are given, and the endpoint does not use TLS: write https:// or leave them out")
            }
            Endpoint::Unix { path } => Ok(Self::Unix(path)),
            Endpoint::Tcp { host, port } => Ok(Self::Tcp(host, port)),
            Endpoint::Tls { host, port } => {
                let Ok(name) = ServerName::try_from(host.clone()) else {
                    return invalid("no certificate can be for a host of this name");
                };
                let tls = config.tls.client_config().map_err(|e| e.at(&config.endpoint))?;
                Ok(Self::Tls(Tls { host, port, name, connector: TlsConnector::from(Arc::new(tls)) }))
            }
        }
    }
}

/// Where to connect, who has to answer there, and what we trust and show.
#[derive(Clone)]
pub(super) struct Tls {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Tls {
    /// Connects and shakes hands.
    pub(super) async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = connect_tcp(&self.host, self.port).await?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Ok(stream),
            _ => Err(std::io::Error::other("the service does not offer HTTP/2 (by ALPN), which gRPC needs")),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({}, {})", self.host, self.port)
    }
}

/// Connects, with small messages sent at once.
pub(super) async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
