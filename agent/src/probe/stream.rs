//! A connection to a store, with TLS or without, that answers no more than can be looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use squall_experiments::probe::Tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::tcp::{Address, Stage, words};
use super::tls;

/// The most that a store may answer, in bytes: more is an error.
pub(super) const LONGEST_ANSWER: usize = 4 << 20;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// With whom TLS is spoken, and who is trusted.
#[derive(Clone)]
pub(super) struct Secured {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secured {
    /// Loads who is trusted; an error says why nobody can be.
    pub(super) fn new(host: &str, tls: Option<&Tls>) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("`{host}` is not a name that a certificate can carry"))?;
        Ok(Secured::with(tls::configuration(tls)?, name))
    }

    fn with(configuration: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        Secured { connector: TlsConnector::from(configuration), name }
    }

    /// Shakes hands over an open connection.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// Connects, and shakes hands where TLS is to be spoken from the first byte.
pub(super) async fn open(
    address: &Address,
    tls: Option<&Secured>,
    stage: &Stage,
) -> Result<Bounded<Box<dyn Duplex>>, String> {
    let stream = address.connect(stage).await?;
    let stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(secured) => {
            stage.set("in the TLS handshake");
            Box::new(secured.handshake(stream).await.map_err(|error| format!("TLS: {}", words(&error)))?)
        }
    };
    Ok(Bounded::new(stream))
}

/// Reads at most [`LONGEST_ANSWER`] bytes, then fails.
pub(super) struct Bounded<S> {
    inner: S,
    left: usize,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S) -> Self {
        Bounded { inner, left: LONGEST_ANSWER }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the answer is longer than 4 MiB")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
