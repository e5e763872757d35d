//! Connections: plain on loopback, TLS anywhere. Plain off loopback is refused, there is no switch for it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::gate::Peer;
use super::{Api, routes};
use crate::web;

/// How many connections there are at most; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a client may take for its handshake, and for its headers.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long requests may take to end when the server is closed.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why the interface is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Plain HTTP would leave this machine.
    #[error(
        "`{0}` is not a loopback address, and there is no certificate; help: give --tls-cert and --tls-key, or listen on loopback"
    )]
    Plain(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on `{at}`: {cause}")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("cannot use the certificate `{path}`: {cause}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
}

/// Reads a certificate chain and its key, both PEM.
pub fn tls(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, ServeError> {
    let unusable = |path: &Path, cause: &dyn std::fmt::Display| ServeError::Certificate {
        path: path.display().to_string(),
        cause: cause.to_string(),
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(chain, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, secret))
        .map_err(|error| unusable(chain, &error))?;
    Ok(Arc::new(config))
}

/// A socket that listens, and what is spoken on it.
pub struct Listening {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    callers: usize,
}

impl Listening {
    /// Listens. Off loopback only with TLS.
    pub async fn on(at: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Result<Self, ServeError> {
        if tls.is_none() && !at.ip().to_canonical().is_loopback() {
            return Err(ServeError::Plain(at));
        }
        let failed = |cause| ServeError::Listen { at, cause };
        let listener = TcpListener::bind(at).await.map_err(failed)?;
        Ok(Listening { listener, tls: tls.map(TlsAcceptor::from), callers: CONNECTIONS })
    }

    /// The same with no more than so many callers at a time; the others wait in the kernel's queue.
    #[must_use]
    pub fn at_most(self, callers: usize) -> Self {
        Listening { callers, ..self }
    }

    /// The address, with the port that was chosen.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then lets requests end, for at most 10 seconds.
    pub async fn serve(self, api: &Arc<Api>, shutdown: impl Future<Output = ()>) {
        let router = routes::router(api).merge(web::router(api));
        let places = Arc::new(Semaphore::new(self.callers));
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                () = &mut shutdown => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let (router, tls, api) = (router.clone(), self.tls.clone(), Arc::clone(api));
                    connections.spawn(async move {
                        let _place = place;
                        connection(&api, router, tls, stream, peer).await;
                    });
                }
                // Such as too many open files: they pass.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        api.close();
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
    }
}

async fn connection(
    api: &Api,
    router: Router,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => talk(api, router, stream, Peer { at: peer, encrypted: false }).await,
        Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(api, router, stream, Peer { at: peer, encrypted: true }).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
            Err(_) => tracing::debug!(%peer, "no TLS in time"),
        },
    }
}

async fn talk(
    api: &Api,
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answer = hyper::service::Service::call(&service, request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(64 << 10).max_concurrent_streams(64);
    let mut closing = api.closing.subscribe();
    let closed = async move { closing.wait_for(|closing| *closing).await.map(drop) };
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = closed => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %peer.at, "a connection ended");
    }
}
