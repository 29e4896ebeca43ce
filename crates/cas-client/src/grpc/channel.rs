//! One HTTP/2 connection, made when first needed and remade when broken.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

use super::route::{Route, connect_tcp};
use super::token::Credential;
use super::transport::Transport;
use super::{Endpoint, GrpcConfig, KeepAlive};
use crate::{Error, ErrorKind, Result};

/// HTTP/2 receive windows. A stream moves at most one window per round trip:
/// at 50 ms the transport's defaults (2 MiB, 5 MiB) gave 32 MB/s on one stream
/// and 72 MB/s on eight, these gave 126 and 326. Memory is bounded by the
/// connection's window.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// Largest HTTP/2 frame accepted; with the windows above, 1 MiB was worth
/// another 15 to 40 % over the default of 16 KiB.
const FRAME_BYTES: u32 = 1024 * 1024;

/// A connection, who may use it, and how often it was made.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    route: Route,
    connect_timeout: Duration,
    state: Mutex<State>,
    opened: Arc<AtomicU64>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    /// Made at first use: making it needs a runtime, constructing a client does not.
    channel: Option<Channel>,
    keep_alive: KeepAlive,
    epoch: u64,
}

/// The right to have one call in flight; held until the reply has been read to its end.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held for its Drop")] Option<OwnedSemaphorePermit>);

/// A channel, which of a connection's successive channels it is, and what its calls show.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) channel: Transport,
    pub(super) credential: Option<Credential>,
    epoch: u64,
}

impl Connection {
    /// A connection for at most `places` calls at once. Nothing happens before the first use.
    pub(super) fn new(config: &GrpcConfig, route: Route, places: usize) -> Self {
        Self {
            endpoint: config.endpoint.clone(),
            route,
            connect_timeout: config.timeouts.connect,
            state: Mutex::new(State { channel: None, keep_alive: config.keep_alive, epoch: 0 }),
            opened: Arc::default(),
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a free place.
    pub(super) async fn place(&self) -> Place {
        // Fails only on a closed semaphore, and nothing closes this one.
        Place(Arc::clone(&self.places).acquire_owned().await.ok())
    }

    /// How many times the connection has been established. A change tells that
    /// a different server process may have taken over.
    pub(super) fn times_opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The channel to send on, showing `credential`.
    ///
    /// # Errors
    /// `Invalid` when the endpoint cannot be put into a URL.
    pub(super) fn lease(&self, credential: Option<Credential>) -> Result<Lease> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &state.channel {
            Some(channel) => channel.clone(),
            None => self.open(state.keep_alive)?,
        };
        state.channel = Some(channel.clone());
        let authorization = credential.as_ref().map(|credential| credential.token.header());
        Ok(Lease { channel: Transport::new(channel, authorization), credential, epoch: state.epoch })
    }

    /// Learns from a failed call: a service that finds the pings too frequent
    /// gets half as many from here on, on a new connection (gRPC proposal A8).
    pub(super) fn observe(&self, lease: &Lease, status: &Status) {
        if complains_of_pings(status) {
            self.calm(lease);
        }
    }

    /// Why the service does not want to talk to this client, if that is what broke the connection.
    pub(super) fn refusal(&self) -> Option<String> {
        let Route::Tls(tls) = &self.route else { return None };
        let alert = tls.refusal()?;
        Some(format!("the service does not accept this client's certificate, or that it has none: {alert:?}"))
    }

    fn calm(&self, lease: &Lease) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch == lease.epoch {
            state.epoch += 1;
            state.channel = None;
            state.keep_alive.interval = state.keep_alive.interval.saturating_mul(2);
            tracing::info!(endpoint = %self.endpoint, interval = ?state.keep_alive.interval, "fewer keep-alive pings");
        }
    }

    fn open(&self, keep_alive: KeepAlive) -> Result<Channel> {
        let authority = self.endpoint.authority();
        let invalid =
            |e: &dyn fmt::Display| Error::new(ErrorKind::Invalid, "connect", e.to_string()).at(&self.endpoint);
        // TLS is below what tonic is told: certificates are parsed once, and not in vain.
        let mut builder = Channel::from_shared(format!("http://{authority}"))
            .map_err(|e| invalid(&e))?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(false);
        if matches!(self.route, Route::Tls(_)) {
            builder = builder.origin(format!("https://{authority}").parse().map_err(|e| invalid(&e))?);
        }
        let opened = Arc::clone(&self.opened);
        Ok(match self.route.clone() {
            Route::Unix(path) => builder.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (path, opened) = (path.clone(), Arc::clone(&opened));
                async move {
                    let stream = UnixStream::connect(path).await?;
                    opened.fetch_add(1, Ordering::Relaxed);
                    std::io::Result::Ok(TokioIo::new(stream))
                }
            })),
            Route::Tcp(host, port) => builder.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (host, opened) = (host.clone(), Arc::clone(&opened));
                async move {
                    let stream = connect_tcp(&host, port).await?;
                    opened.fetch_add(1, Ordering::Relaxed);
                    std::io::Result::Ok(TokioIo::new(stream))
                }
            })),
            Route::Tls(tls) => builder.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (tls, opened) = (tls.clone(), Arc::clone(&opened));
                async move {
                    let stream = tls.connect().await?;
                    opened.fetch_add(1, Ordering::Relaxed);
                    std::io::Result::Ok(TokioIo::new(stream))
                }
            })),
        })
    }
}

/// Whether the connection was closed with ENHANCE_YOUR_CALM.
fn complains_of_pings(status: &Status) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_go_away() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlobStore as _;
    use crate::grpc::{GrpcClient, RetryPolicy};
    use reapi_proto::DigestFunction;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers the first call of every connection by closing it for the given reason, unprocessed.
    async fn hostile(reason: h2::Reason) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.unwrap();
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                stream.write_all(&settings).await.unwrap();
                loop {
                    let mut header = [0; 9];
                    stream.read_exact(&mut header).await.unwrap();
                    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                    stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
                    const HEADERS: u8 = 1;
                    if header[3] == HEADERS {
                        break;
                    }
                }
                // GOAWAY with 8 bytes of payload: no stream was processed, and why.
                let mut go_away = vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                go_away.extend(u32::from(reason).to_be_bytes());
                stream.write_all(&go_away).await.unwrap();
                // Until the client has closed its side.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
    }

    async fn interval_after_two_attempts(reason: h2::Reason) -> Duration {
        let mut config = GrpcConfig::new(hostile(reason).await);
        config.retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        config.keep_alive.interval = Duration::from_secs(100);
        let client = GrpcClient::new(config).unwrap();
        let error = client.find_missing(&[DigestFunction::Sha256.digest(b"x")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        client.calls().state.lock().unwrap().keep_alive.interval
    }

    #[tokio::test]
    async fn a_service_that_complains_gets_fewer_pings() {
        assert_eq!(interval_after_two_attempts(h2::Reason::ENHANCE_YOUR_CALM).await, Duration::from_secs(400));
        assert_eq!(interval_after_two_attempts(h2::Reason::INTERNAL_ERROR).await, Duration::from_secs(100));
    }

    #[test]
    fn one_complaint_counts_once() {
        let config = GrpcConfig::new(Endpoint::Tcp { host: "localhost".into(), port: 1 });
        let connection = Connection::new(&config, Route::new(&config).unwrap(), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (one, other) = (connection.lease(None).unwrap(), connection.lease(None).unwrap());
        assert_eq!(one.epoch, other.epoch);
        connection.calm(&one);
        connection.calm(&other);
        assert_eq!(connection.state.lock().unwrap().keep_alive.interval, config.keep_alive.interval * 2);
        assert_ne!(connection.lease(None).unwrap().epoch, one.epoch);
    }
}
