//! How bytes get to the service and back.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription as Alert, Error as RustlsError};

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
                Ok(Self::Tls(Tls {
                    host,
                    port,
                    name,
                    connector: TlsConnector::from(Arc::new(tls)),
                    refusal: Refusal::default(),
                }))
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
    refusal: Refusal,
}

impl Tls {
    /// Connects and shakes hands.
    pub(super) async fn connect(&self) -> io::Result<Attentive> {
        let stream = connect_tcp(&self.host, self.port).await.inspect_err(|_| self.refusal.set(None))?;
        let stream = self.connector.connect(self.name.clone(), stream).await.inspect_err(|e| self.refusal.learn(e))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Ok(Attentive { stream, refusal: self.refusal.clone(), accepted: false }),
            _ => Err(io::Error::other("the service does not offer HTTP/2 (by ALPN), which gRPC needs")),
        }
    }

    /// What the service had against our certificate, or its absence, the last time that it said anything.
    pub(super) fn refusal(&self) -> Option<Alert> {
        *self.refusal.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({}, {})", self.host, self.port)
    }
}

/// What the service says of our certificate. In TLS 1.3 it says so after the
/// handshake, on a connection that calls are being made on, and of those some
/// see only that it was closed.
#[derive(Clone, Default)]
struct Refusal(Arc<Mutex<Option<Alert>>>);

impl Refusal {
    fn set(&self, alert: Option<Alert>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = alert;
    }

    /// A connection that merely breaks says nothing, and leaves what was said before.
    fn learn(&self, error: &io::Error) {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(RustlsError::AlertReceived(alert)) => self.set(Some(*alert).filter(|a| is_about_certificates(*a))),
            Some(_) => self.set(None),
            None => {}
        }
    }
}

fn is_about_certificates(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

/// A stream that remembers why it was refused.
pub(super) struct Attentive {
    stream: TlsStream<TcpStream>,
    refusal: Refusal,
    /// Whether the service has said something else than that.
    accepted: bool,
}

impl Attentive {
    /// Where writing fails, the reason may have arrived already, and nobody is going to read it.
    fn listen<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !self.accepted && matches!(written, Poll::Ready(Err(_))) {
            let mut nothing = [0; 1];
            let last_words = Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut nothing));
            if let Poll::Ready(Err(error)) = last_words {
                self.refusal.learn(&error);
            }
        }
        written
    }
}

impl AsyncRead for Attentive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        match &result {
            Err(error) => self.refusal.learn(error),
            Ok(()) if !self.accepted && buffer.filled().len() > before => {
                self.accepted = true;
                self.refusal.set(None);
            }
            Ok(()) => {}
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.listen(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.listen(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(context);
        self.listen(context, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_shutdown(context);
        self.listen(context, written)
    }
}

/// Connects, with small messages sent at once.
pub(super) async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
