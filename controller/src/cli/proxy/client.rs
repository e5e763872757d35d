//! Asks a running proxy, ours or Toxiproxy's.

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use squall_experiments::exit::Exit;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Which proxy is asked.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// Where its interface is.
    #[arg(
        short = 'h',
        long = "host",
        env = "TOXIPROXY_URL",
        default_value = "http://localhost:8474",
        value_name = "URL"
    )]
    url: String,
    /// Print help.
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

/// What came of asking.
pub(super) enum Asked {
    /// What was answered.
    Answer(Value),
    /// It was refused, or nobody answered: in words.
    Refused(String),
}

impl At {
    /// Sends a request. An error is one of ours; what goes wrong with the other side is [`Asked::Refused`].
    pub(super) fn ask(&self, method: Method, path: &[&str], body: Option<&Value>) -> anyhow::Result<Asked> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path: String = path.iter().map(|part| format!("/{}", escaped(part))).collect();
        Ok(match runtime.block_on(self.send(method, &path, body)) {
            Ok(asked) => asked,
            Err(error) => Asked::Refused(format!("{error:#}")),
        })
    }

    /// Asks for lines of JSON.
    pub(super) fn lines(&self, path: &str) -> anyhow::Result<Result<Vec<Value>, String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let fetched = runtime.block_on(self.fetch(Method::GET, path, None));
        Ok(match fetched {
            Ok((status, body)) if status.is_success() => {
                let lines = serde_json::Deserializer::from_slice(&body).into_iter();
                lines.collect::<Result<_, _>>().map_err(|error| error.to_string())
            }
            Ok((status, body)) => Err(said(status, &body)),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Asked> {
        let (status, body) = self.fetch(method, path, body).await?;
        if status.is_success() {
            return Ok(Asked::Answer(serde_json::from_slice(&body).unwrap_or_default()));
        }
        Ok(Asked::Refused(said(status, &body)))
    }

    async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let address = self.url.strip_prefix("http://").unwrap_or(&self.url).trim_end_matches('/');
        let failed = || format!("failed to reach the proxy at `{}`", self.url);
        let stream = TcpStream::connect(address).await.with_context(failed)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(failed)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await.with_context(failed)?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(failed)?.to_bytes();
        Ok((status, body))
    }
}

/// Why a request was refused, in the words of who refused it.
fn said(status: StatusCode, body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let error = value.as_ref().and_then(|value| value["error"].as_str());
    let said = error.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    format!("HTTP {}: {said}", status.as_u16())
}

/// A part of a path: what is not plainly part of a name is escaped.
fn escaped(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Prints why it was refused.
pub(super) fn refuse(verb: &str, why: &str) -> Exit {
    eprintln!("Failed to {verb}: {why}");
    Exit::Refused
}

/// The answer, or out with its reason.
macro_rules! answered {
    ($verb:expr, $asked:expr) => {
        match $asked? {
            $crate::cli::proxy::client::Asked::Answer(value) => value,
            $crate::cli::proxy::client::Asked::Refused(why) => {
                return Ok($crate::cli::proxy::client::refuse($verb, &why));
            }
        }
    };
}
pub(super) use answered;
