//! One request of the controller's own, to a gate's hook or to somebody who is notified: bounded in time and size, and never
//! redirected.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use squall_experiments::peer::PeerHost;
use squall_experiments::quantity::Period;
use squall_experiments::url::HttpUrl;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::api::client;

/// The longest answer that is read, in bytes.
const LONGEST: usize = 256 << 10;

/// What is asked.
pub(crate) struct Asking<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    /// JSON that is sent.
    pub(crate) body: Option<String>,
    /// Shown as `Authorization: Bearer`.
    pub(crate) token: Option<String>,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) ca: Option<&'a Path>,
    pub(crate) timeout: Period,
}

/// What was answered.
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer. None of these shows a token, nor more of an address than host and port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{0}")]
    Url(String),
    #[error("the token in `{}` cannot be read: {cause}", path.display())]
    Token { path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Certificates(String),
    #[error("there is no answer within {0}")]
    Late(Period),
    #[error("there is no answer: {0}")]
    Away(String),
}

fn away(error: impl std::fmt::Display) -> AskError {
    AskError::Away(error.to_string())
}

/// Whether what is sent to a host leaves this machine.
pub(crate) fn leaves_this_machine(host: &PeerHost) -> bool {
    match host {
        PeerHost::Net(IpAddr::V4(address), _) => !address.is_loopback(),
        PeerHost::Net(IpAddr::V6(address), _) => !address.to_canonical().is_loopback(),
        PeerHost::Name(name) => !name.eq_ignore_ascii_case("localhost"),
        PeerHost::Any => true,
    }
}

/// Whether somebody on the way could read what is sent to an address. One that is none is told of elsewhere.
pub(crate) fn is_readable_on_the_way(url: &str) -> bool {
    url.parse::<HttpUrl>().is_ok_and(|url| !url.tls && leaves_this_machine(&url.host))
}

/// The token in a file, where one is named.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<String>, AskError> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|cause| AskError::Token { path: file.to_owned(), cause })?;
    Ok(Some(text.trim().to_owned()))
}

/// Asks once.
pub(crate) async fn once(asking: Asking<'_>) -> Result<Answered, AskError> {
    let timeout = asking.timeout;
    let wanted = tokio::time::timeout(timeout.get(), exchange(asking));
    wanted.await.unwrap_or(Err(AskError::Late(timeout)))
}

async fn exchange(asking: Asking<'_>) -> Result<Answered, AskError> {
    let url: HttpUrl = asking.url.parse().map_err(|error| AskError::Url(format!("{error}")))?;
    let host = match &url.host {
        PeerHost::Any => return Err(AskError::Url("the address names no host".to_owned())),
        named => named.to_string(),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let shown =
        if bare.contains(':') { format!("[{bare}]:{}", url.port) } else { format!("{bare}:{}", url.port) };
    let mut request = Request::builder()
        .method(asking.method)
        .uri(&url.target)
        .header(header::HOST, shown)
        .header(header::USER_AGENT, "squall");
    if asking.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = asking.token {
        let mut shown = HeaderValue::try_from(format!("Bearer {token}")).map_err(away)?;
        shown.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, shown);
    }
    for (name, value) in asking.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(asking.body.unwrap_or_default()))).map_err(away)?;
    let stream = TcpStream::connect((bare.as_str(), url.port)).await.map_err(away)?;
    if !url.tls {
        return sent(stream, request).await;
    }
    let connector =
        client::connector(asking.ca).map_err(|error| AskError::Certificates(error.to_string()))?;
    let name = ServerName::try_from(bare).map_err(away)?;
    sent(connector.connect(name, stream).await.map_err(away)?, request).await
}

async fn sent(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answered, AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(away)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its end is seen by whoever waits for the answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(away)?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(away)?;
    Ok(Answered { status, retry_after, body: body.to_bytes().to_vec() })
}
