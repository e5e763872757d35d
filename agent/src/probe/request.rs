//! An HTTP request and the connection that it goes over.

use std::error::Error;
use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use squall_experiments::probe::HttpProbe;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::expect::Answer;
use super::tcp::{Stage, connect, words};
use super::tls;

/// The longest body that is kept, in bytes: a longer one is an error.
const LONGEST_BODY: usize = 4 << 20;

/// A request on its way.
pub(super) type Message = Request<Full<Bytes>>;

/// What is sent, and to whom.
pub(super) struct HttpRequest {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    method: Method,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Whether a connection serves more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The server is told to close it after the answer.
    Close,
    /// As HTTP/1.1 does unless something else is said.
    Alive,
}

/// An open connection; it is closed when this is dropped, whatever it was doing.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<Result<(), hyper::Error>>,
}

impl HttpRequest {
    /// Understands the request and loads what it trusts; an error says why not.
    pub(super) fn new(probe: &HttpProbe, keep: Keep) -> Result<Self, String> {
        let url = &probe.url;
        let parsed: Uri = url.parse().map_err(|why| format!("`{url}` is not an address: {why}"))?;
        let secure = match parsed.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!("`{url}` is not an absolute `http://` or `https://` address"));
            }
        };
        let authority = parsed.authority().ok_or_else(|| format!("`{url}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!("`{url}` carries a user: write an `authorization` header instead"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if secure {
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|_| format!("`{host}` is not a name that a certificate can carry"))?;
            Some((tls::configuration(probe.tls.as_ref())?, name))
        } else {
            None
        };
        Ok(HttpRequest {
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            tls,
            method: method(&probe.method)?,
            target: parsed.path_and_query().map_or(Uri::from_static("/"), |path| Uri::from(path.clone())),
            headers: headers(probe, authority.as_str(), keep)?,
            body: probe.body.clone().unwrap_or_default().into(),
        })
    }

    /// Resolves, connects and shakes hands; the stage says how far it is. Has no time-out of its own.
    pub(super) async fn connect(&self, stage: &Stage) -> Result<Connection, String> {
        let stream = connect(&self.host, self.port, stage).await?;
        match &self.tls {
            None => Connection::over(stream).await,
            Some((configuration, name)) => {
                stage.set("in the TLS handshake");
                let connector = TlsConnector::from(configuration.clone());
                let stream = connector.connect(name.clone(), stream).await;
                Connection::over(stream.map_err(|error| format!("TLS: {}", words(&error)))?).await
            }
        }
    }

    /// The request, to be sent once.
    pub(super) fn message(&self) -> Message {
        self.message_with(self.body.clone())
    }

    /// The request with another body.
    pub(super) fn message_with(&self, body: Bytes) -> Message {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Connection {
    async fn over<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(reason)?;
        let mut driver = JoinSet::new();
        driver.spawn_local(connection);
        Ok(Connection { sender, _driver: driver })
    }
}

/// Reads an answer to its last byte. What is not kept may be of any length.
pub(super) async fn whole(response: Response<Incoming>, keep_body: bool) -> Result<Answer, String> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(reason)?;
        if let (true, Ok(data)) = (keep_body, frame.into_data()) {
            if body.len() + data.len() > LONGEST_BODY {
                return Err("body is longer than 4 MiB".to_owned());
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

fn method(name: &str) -> Result<Method, String> {
    Method::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a request method"))
}

/// The probe's own headers go over ours.
fn headers(probe: &HttpProbe, authority: &str, keep: Keep) -> Result<HeaderMap, String> {
    let host = HeaderValue::from_str(authority).map_err(|_| format!("`{authority}` is not a host"))?;
    let agent = HeaderValue::from_static(concat!("squall/", env!("CARGO_PKG_VERSION")));
    let mut headers = HeaderMap::from_iter([
        (header::HOST, host),
        (header::USER_AGENT, agent),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
    ]);
    if keep == Keep::Close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in &probe.headers {
        let key: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
        let value = value.parse().map_err(|_| format!("the value of header `{name}` cannot be sent"))?;
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Why an exchange failed, by the innermost cause that says something.
pub(super) fn reason(error: hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "connection closed without an answer".to_owned();
    }
    if error.is_parse() {
        return "the answer is not HTTP".to_owned();
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return words(io);
        }
        cause = inner.source();
    }
    error.to_string()
}
