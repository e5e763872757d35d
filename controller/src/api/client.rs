//! The other end of the interface: requests with a token, and events as they come.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Uri;
use axum::http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take: a halt waits for every host.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a stream may be quiet: the server says every 10 s that it lives.
const QUIET: Duration = Duration::from_secs(45);
/// The longest answer, and the longest event, in bytes.
const LONGEST: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is not the address of a controller; help: `https://host:port`, or `http://` on loopback")]
    Url(String),
    /// The token would be readable on the way.
    #[error("`{0}` is not encrypted and not on this machine; help: use `https://`")]
    Plain(String),
    /// Certificates that cannot be used.
    #[error("cannot use the certificates: {0}")]
    Certificates(String),
    /// Nobody answers.
    #[error("the controller at `{at}` does not answer: {cause}")]
    Away {
        /// Its address.
        at: String,
        /// Why.
        cause: String,
    },
}

/// A controller, and the token that it is shown. `Debug` does not show the token.
#[derive(Clone)]
pub struct Remote {
    url: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    token: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// A controller at a URL. Its certificate is checked against those in the file `ca`, else against the machine's.
    pub fn new(url: &str, token: &str, ca: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let (tls, usual) = match uri.scheme_str() {
            Some("https") => (Some(connector(ca)?), 443),
            Some("http") if loopback => (None, 80),
            Some("http") => return Err(ClientError::Plain(url.to_owned())),
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(usual);
        Ok(Remote { url: url.trim_end_matches('/').to_owned(), host, port, tls, token: token.to_owned() })
    }

    /// Sends a request; gives the status and the answer, `null` where it has none, and text where it is no JSON.
    /// Cancel-safe only in that nobody waits any more: what was asked may be done.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(u16, Value), ClientError> {
        let mut driver = JoinSet::new();
        let asked = async {
            let response = self.send(&mut driver, method, path, body, key, None).await?;
            let status = response.status().as_u16();
            let body = http_body_util::Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| self.away(&*error))?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            Ok((
                status,
                if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body).unwrap_or_else(|_| text())
                },
            ))
        };
        timeout(ANSWER, asked).await.map_err(|_| self.away(&"no answer in time"))?
    }

    /// Follows a path of server-sent events. `last` is the id of the last event that was had.
    pub async fn follow(&self, path: &str, last: Option<u64>) -> Result<Result<Events, Value>, ClientError> {
        let mut driver = JoinSet::new();
        let asked = self.send(&mut driver, Method::GET, path, None, None, last);
        let response = timeout(ANSWER, asked).await.map_err(|_| self.away(&"no answer in time"))??;
        if !response.status().is_success() {
            let body = response.into_body().collect().await.map_err(|error| self.away(&error))?.to_bytes();
            return Ok(Err(serde_json::from_slice(&body).unwrap_or_default()));
        }
        let body = response.into_body();
        Ok(Ok(Events { remote: self.clone(), body, _driver: driver, waiting: Vec::new() }))
    }

    fn away(&self, cause: &dyn std::fmt::Display) -> ClientError {
        ClientError::Away { at: self.url.clone(), cause: cause.to_string() }
    }

    async fn send(
        &self,
        driver: &mut JoinSet<()>,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
        last: Option<u64>,
    ) -> Result<axum::http::Response<Incoming>, ClientError> {
        let connected = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let stream =
            connected.map_err(|_| self.away(&"no connection in time"))?.map_err(|error| self.away(&error))?;
        let mut sender = match &self.tls {
            None => self.handshake(driver, stream).await?,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|error| self.away(&error))?;
                let stream = timeout(CONNECT, tls.connect(name, stream)).await;
                let stream =
                    stream.map_err(|_| self.away(&"no TLS in time"))?.map_err(|error| self.away(&error))?;
                self.handshake(driver, stream).await?
            }
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{host}:{}", self.port))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| self.away(&error))?;
        sender.send_request(request).await.map_err(|error| self.away(&error))
    }

    async fn handshake(
        &self,
        driver: &mut JoinSet<()>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<http1::SendRequest<Full<Bytes>>, ClientError> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.away(&error))?;
        driver.spawn(async move {
            // Its end is seen by whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Who is trusted to name a controller.
pub(crate) fn connector(ca: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let mut roots = RootCertStore::empty();
    let failed = |error: &dyn std::fmt::Display| ClientError::Certificates(error.to_string());
    match ca {
        Some(file) => {
            let found = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?;
            for certificate in found {
                roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Its kind; none: a plain one.
    pub kind: Option<String>,
    /// Its number.
    pub id: Option<u64>,
    /// What it says.
    pub data: String,
}

/// Events as they come.
pub struct Events {
    remote: Remote,
    body: Incoming,
    _driver: JoinSet<()>,
    waiting: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the server has ended the stream. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Sent>, ClientError> {
        loop {
            if let Some(end) = self.waiting.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.waiting.drain(..end + 2).collect();
                if let Some(event) = event(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.waiting.len() > LONGEST {
                return Err(self.remote.away(&"an event without end"));
            }
            let frame = timeout(QUIET, self.body.frame()).await;
            let frame = frame.map_err(|_| self.remote.away(&"the stream is silent"))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.remote.away(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.waiting.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// One block of a stream; `None` for one that only says that the server lives.
fn event(block: &str) -> Option<Sent> {
    let mut event = Sent::default();
    let mut data: Vec<&str> = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.kind = Some(value.to_owned()),
            "id" => event.id = value.parse().ok(),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}
