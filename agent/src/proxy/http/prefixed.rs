//! A stream whose first bytes were looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// How a client begins that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.1.
    First,
    /// HTTP/2.
    Second,
    /// Something else, such as TLS.
    Other,
}

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
        while self.read.len() < PREFACE.len() && PREFACE.starts_with(&self.read) {
            if (&mut self.stream)
                .take((PREFACE.len() - self.read.len()) as u64)
                .read_buf(&mut self.read)
                .await?
                == 0
            {
                break;
            }
        }
        Ok(match self.read.first() {
            _ if self.read[..] == *PREFACE => Spoken::Second,
            // Every method in use begins with a letter, and an empty line may come before (RFC 9112 section 2.2).
            Some(byte) if !byte.is_ascii_alphabetic() && !b"\r\n".contains(byte) => Spoken::Other,
            _ => Spoken::First,
        })
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
