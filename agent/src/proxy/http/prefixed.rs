//! A stream whose first bytes were looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::spoken::{Spoken, tell};

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// As much is read at once to see what is spoken.
const GLANCE: usize = 4 << 10;

/// A stream, and what was read of it already.
pub(super) struct Prefixed {
    read: BytesMut,
    stream: Box<dyn Duplex>,
}

impl Prefixed {
    /// Of which nothing was read.
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        Prefixed { read: BytesMut::new(), stream }
    }

    /// The first byte; `None` at the end of a stream that has none. Nothing is lost where it is not waited for.
    pub(super) async fn first(&mut self) -> io::Result<Option<u8>> {
        if self.read.is_empty() {
            (&mut self.stream).take(1).read_buf(&mut self.read).await?;
        }
        Ok(self.read.first().copied())
    }

    /// Reads as much as tells what is spoken. Nothing is lost where it is not waited for.
    pub(super) async fn look(&mut self) -> io::Result<Spoken> {
        loop {
            if let Some(spoken) = tell(&self.read) {
                return Ok(spoken);
            }
            if (&mut self.stream).take(GLANCE as u64).read_buf(&mut self.read).await? == 0 {
                // Who only listens hears what the dependency says; what began otherwise is for it to judge.
                return Ok(if self.read.is_empty() { Spoken::Nothing } else { Spoken::Other });
            }
        }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
