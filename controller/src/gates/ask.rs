//! One request of the controller's own: bounded in time and size, and never redirected.

use std::path::{Path, PathBuf};

use axum::http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
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
pub(super) struct Asking<'a> {
    pub url: &'a str,
    /// JSON that is posted; none: it is a `GET`.
    pub body: Option<&'a Value>,
    pub token_file: Option<&'a Path>,
    pub ca: Option<&'a Path>,
    pub timeout: Period,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
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

/// Asks once; gives the status and the answer.
pub(super) async fn once(asking: &Asking<'_>) -> Result<(u16, Vec<u8>), AskError> {
    let wanted = tokio::time::timeout(asking.timeout.get(), exchange(asking));
    wanted.await.unwrap_or(Err(AskError::Late(asking.timeout)))
}

async fn exchange(asking: &Asking<'_>) -> Result<(u16, Vec<u8>), AskError> {
    let url: HttpUrl = asking.url.parse().map_err(|error| AskError::Url(format!("{error}")))?;
    let host = match &url.host {
        PeerHost::Any => return Err(AskError::Url(format!("`{}` names no host", asking.url))),
        named => named.to_string(),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let token = match asking.token_file {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let wrong = |cause| AskError::Token { path: file.to_owned(), cause };
            Some(text.map_err(wrong)?.trim().to_owned())
        }
    };
    let body = asking.body.map(Value::to_string).unwrap_or_default();
    let shown =
        if bare.contains(':') { format!("[{bare}]:{}", url.port) } else { format!("{bare}:{}", url.port) };
    let mut request = Request::builder()
        .method(if asking.body.is_some() { "POST" } else { "GET" })
        .uri(&url.target)
        .header(header::HOST, shown)
        .header(header::USER_AGENT, "squall");
    if asking.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(away)?;
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
) -> Result<(u16, Vec<u8>), AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(away)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its end is seen by whoever waits for the answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(away)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(away)?;
    Ok((status, body.to_bytes().to_vec()))
}
