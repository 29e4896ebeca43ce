//! One HTTP/2 connection, made when first needed and remade when broken.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::transport::{Channel, Uri};
use tower::service_fn;

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

/// A [`Channel`] and which of a connection's successive channels it is.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) channel: Channel,
    epoch: u64,
}

impl Connection {
    /// A connection for at most `places` calls at once. Nothing happens before the first use.
    pub(super) fn new(config: &GrpcConfig, places: usize) -> Self {
        Self {
            endpoint: config.endpoint.clone(),
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

    /// The channel to send on.
    ///
    /// # Errors
    /// `Invalid` when the endpoint cannot be put into a URL.
    pub(super) fn lease(&self) -> Result<Lease> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &state.channel {
            Some(channel) => channel.clone(),
            None => self.open(state.keep_alive)?,
        };
        state.channel = Some(channel.clone());
        Ok(Lease { channel, epoch: state.epoch })
    }

    /// Learns from a failed call: a service that finds the pings too frequent
    /// gets half as many from here on, on a new connection (gRPC proposal A8).
    pub(super) fn observe(&self, lease: &Lease, status: &Status) {
        if !complains_of_pings(status) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch == lease.epoch {
            state.epoch += 1;
            state.channel = None;
            state.keep_alive.interval = state.keep_alive.interval.saturating_mul(2);
            tracing::info!(endpoint = %self.endpoint, interval = ?state.keep_alive.interval, "fewer keep-alive pings");
        }
    }

    fn open(&self, keep_alive: KeepAlive) -> Result<Channel> {
        let url = format!("http://{}", self.endpoint.authority());
        let builder = Channel::from_shared(url)
            .map_err(|e| Error::new(ErrorKind::Invalid, "connect", e.to_string()).at(&self.endpoint))?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(false);
        let opened = Arc::clone(&self.opened);
        Ok(match self.endpoint.clone() {
            Endpoint::Unix { path } => builder.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (path, opened) = (path.clone(), Arc::clone(&opened));
                async move {
                    let stream = UnixStream::connect(path).await?;
                    opened.fetch_add(1, Ordering::Relaxed);
                    std::io::Result::Ok(TokioIo::new(stream))
                }
            })),
            Endpoint::Tcp { host, port } => builder.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (host, opened) = (host.clone(), Arc::clone(&opened));
                async move {
                    let stream = TcpStream::connect((host.as_str(), port)).await?;
                    stream.set_nodelay(true)?;
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
