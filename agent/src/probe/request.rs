//! An HTTP request and the connection that it goes over.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::client::conn::http2;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use squall_experiments::probe::HttpProbe;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::expect::Answer;
use super::tcp::{Stage, connect, words};
use super::tls;

/// The longest body that is kept, in bytes: a longer one is an error.
const LONGEST_BODY: usize = 4 << 20;

/// What HTTP/2 is called in a TLS handshake (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";

/// A request on its way.
pub(super) type Message = Request<Full<Bytes>>;

/// What is sent, and to whom.
pub(super) struct HttpRequest {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    method: Method,
    version: Version,
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
    /// HTTP/2: many at the same time.
    Shared,
}

/// An open connection for many requests at the same time; it is closed when this is dropped, and they fail.
pub(super) struct Shared {
    pub(super) sender: http2::SendRequest<Full<Bytes>>,
    /// How many requests the server allows at the same time, as far as it has said so.
    room: Rc<Cell<usize>>,
    _tasks: Rc<Tasks>,
}

/// What a connection of HTTP/2 does beside its requests.
#[derive(Default)]
struct Tasks(RefCell<JoinSet<()>>);

/// Starts what a connection does; nothing any more once it is closed.
#[derive(Clone)]
struct Starting(Weak<Tasks>);

impl<F: Future + 'static> Executor<F> for Starting {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.0.borrow_mut().spawn_local(async move { drop(task.await) });
        }
    }
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
            let mut configuration = tls::configuration(probe.tls.as_ref())?;
            if keep == Keep::Shared {
                Arc::make_mut(&mut configuration).alpn_protocols = vec![HTTP2.to_vec()];
            }
            Some((configuration, name))
        } else {
            None
        };
        Ok(HttpRequest {
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            tls,
            method: method(&probe.method)?,
            version: if keep == Keep::Shared { Version::HTTP_2 } else { Version::HTTP_11 },
            // HTTP/2 says the host in a field of its own, which is taken from here.
            target: match keep {
                Keep::Shared => parsed.clone(),
                _ => parsed.path_and_query().map_or(Uri::from_static("/"), |path| Uri::from(path.clone())),
            },
            headers: headers(probe, authority.as_str(), keep)?,
            body: probe.body.clone().unwrap_or_default().into(),
        })
    }

    /// Resolves, connects and shakes hands; the stage says how far it is. Has no time-out of its own.
    pub(super) async fn connect(&self, stage: &Stage) -> Result<Connection, String> {
        match self.open(stage).await? {
            Open::Plain(stream) => Connection::over(stream).await,
            Open::Secure(stream) => Connection::over(stream).await,
        }
    }

    /// The same for a connection of HTTP/2: over TLS where the server agrees, else without asking it (RFC 9113, 3.3).
    pub(super) async fn connect_shared(&self, stage: &Stage) -> Result<Shared, String> {
        match self.open(stage).await? {
            Open::Plain(stream) => Shared::over(stream).await,
            Open::Secure(stream) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
                Shared::over(stream).await
            }
            Open::Secure(_) => Err("TLS: the server does not speak HTTP/2".to_owned()),
        }
    }

    async fn open(&self, stage: &Stage) -> Result<Open, String> {
        let stream = connect(&self.host, self.port, stage).await?;
        let Some((configuration, name)) = &self.tls else { return Ok(Open::Plain(stream)) };
        stage.set("in the TLS handshake");
        let connector = TlsConnector::from(configuration.clone());
        let stream = connector.connect(name.clone(), stream).await;
        Ok(Open::Secure(Box::new(stream.map_err(|error| format!("TLS: {}", words(&error)))?)))
    }

    /// The request, to be sent once.
    pub(super) fn message(&self) -> Message {
        self.message_with(self.body.clone())
    }

    /// The request with another body.
    pub(super) fn message_with(&self, body: Bytes) -> Message {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.version_mut() = self.version;
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

impl Shared {
    async fn over<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let tasks = Rc::<Tasks>::default();
        let starting = Starting(Rc::downgrade(&tasks));
        let handshake = http2::handshake(starting.clone(), TokioIo::new(stream)).await;
        let (sender, mut connection) = handshake.map_err(reason)?;
        let room = Rc::new(Cell::new(connection.current_max_send_streams()));
        let told = room.clone();
        starting.execute(poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            told.set(connection.current_max_send_streams());
            polled
        }));
        Ok(Shared { sender, room, _tasks: tasks })
    }

    /// How many requests the server allows at the same time.
    pub(super) fn room(&self) -> usize {
        self.room.get()
    }
}

/// A connection before anything is said over it.
enum Open {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
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
        (header::USER_AGENT, agent),
        (header::ACCEPT, HeaderValue::from_static("*/*")),
    ]);
    if keep != Keep::Shared {
        headers.insert(header::HOST, host);
    }
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
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.get_io().map_or_else(|| format!("HTTP/2: {h2}"), words);
        }
        cause = inner.source();
    }
    error.to_string()
}

/// Whether a server says of a request that it did nothing with it, so that it may be sent again (RFC 9113, 8.7): it was
/// closing the connection already.
pub(super) fn untouched(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|inner| inner.downcast_ref::<h2::Error>());
    h2.is_some_and(|h2| {
        let leaving = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
        h2.is_remote() && (leaving || h2.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
