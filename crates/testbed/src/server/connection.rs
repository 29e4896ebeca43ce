//! Connections that the server can sever at will.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Severs the one connection that it belongs to. Clones are the same switch.
#[derive(Clone, Default)]
pub(super) struct Switch(Arc<Mutex<SwitchState>>);

#[derive(Default)]
struct SwitchState {
    severed: bool,
    wakers: Vec<Waker>,
}

impl Switch {
    /// Makes every pending and later read and write fail.
    pub(super) fn sever(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.severed = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether anybody but the caller still holds the switch, that is, the connection is open.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.severed {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "severed by a scripted fault"));
        }
        if !state.wakers.iter().any(|w| w.will_wake(cx.waker())) {
            // One task drives a connection; more than a few wakers are stale ones.
            if state.wakers.len() >= 4 {
                state.wakers.clear();
            }
            state.wakers.push(cx.waker().clone());
        }
        Ok(())
    }
}

/// A connection with its switch.
pub(super) struct Severable<T> {
    inner: T,
    switch: Switch,
}

impl<T> Severable<T> {
    pub(super) fn new(inner: T, switch: Switch) -> Self {
        Self { inner, switch }
    }
}

impl<T> Connected for Severable<T> {
    type ConnectInfo = Switch;

    fn connect_info(&self) -> Switch {
        self.switch.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Severable<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.switch.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Severable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.switch.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.switch.check(cx)?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.switch.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
