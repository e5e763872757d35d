//! The connection to the dependency: it ends as the client's did.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{Seen, stream};

/// See the module. Dropped, the dependency sees a reset where the connection that it belongs to was reset, else an end.
pub(super) struct Far {
    stream: TcpStream,
    seen: Seen,
}

impl Far {
    /// Takes over a connected socket. Must be called inside a runtime.
    pub(super) fn new(far: OwnedFd, seen: &Seen) -> io::Result<Self> {
        Ok(Far { stream: stream(far)?, seen: seen.clone() })
    }

    /// Ready when the dependency has said something, or has ended.
    pub(super) async fn said(&self) -> io::Result<()> {
        self.stream.ready(Interest::READABLE).await.map(drop)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if self.seen.is_aborted() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Far {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Far {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever reads in between sees an end of the client: an orderly one would overtake the reset.
        if self.seen.is_aborted() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
