//! Answers: their status, headers and bodies.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use squall_agent::proxy::control::ControlError;

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(in super::super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Refused {
    /// The body is not what it has to be.
    pub(super) fn body(why: &str) -> Self {
        Refused { status: StatusCode::BAD_REQUEST, text: format!("bad request body: {why}") }
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::NoProxy | ControlError::NoToxic => StatusCode::NOT_FOUND,
            ControlError::ProxyExists | ControlError::ToxicExists => StatusCode::CONFLICT,
            ControlError::Missing(_)
            | ControlError::Stream
            | ControlError::Kind
            | ControlError::Attribute(_)
            | ControlError::Matcher(_)
            | ControlError::NoProtocol(_)
            | ControlError::Requests
            | ControlError::Tls(_)
            | ControlError::NoTls(_)
            | ControlError::Header(..)
            | ControlError::Protocol(_) => StatusCode::BAD_REQUEST,
            ControlError::Listen(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused { status, text: error.to_string() }
    }
}

/// A value as JSON; what is shown here always can be.
pub(super) fn value(shown: &impl Serialize) -> Value {
    serde_json::to_string(shown).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What is sent back.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    kind: Option<&'static str>,
    body: Bytes,
}

impl Answer {
    /// Nothing but a status.
    pub(super) fn empty(status: StatusCode) -> Self {
        Answer { status, kind: None, body: Bytes::new() }
    }

    /// Words, as the reference sends its errors.
    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        Answer {
            status,
            kind: Some("text/plain; charset=utf-8"),
            body: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    /// A value.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, Refused> {
        let body = serde_json::to_vec(value).map_err(|error| Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: error.to_string(),
        })?;
        Ok(Answer { status, kind: Some("application/json"), body: body.into() })
    }

    /// The version.
    pub(super) fn version(text: &str) -> Self {
        Answer { kind: Some("application/json;charset=utf-8"), ..Answer::text(StatusCode::OK, text) }
    }

    /// Metrics in the text format of Prometheus.
    pub(super) fn metrics(text: String) -> Self {
        Answer {
            status: StatusCode::OK,
            kind: Some("text/plain; version=0.0.4; charset=utf-8"),
            body: text.into(),
        }
    }

    /// Values, one a line.
    pub(super) fn lines(values: &[Value]) -> Self {
        let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
        Answer { status: StatusCode::OK, kind: Some("application/x-ndjson"), body: lines.into() }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// As it is sent.
    pub(super) fn respond(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(kind) = self.kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if kind.starts_with("text/plain; charset") {
                headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
            }
        }
        response
    }

    /// As it is sent, with the number of the request.
    pub(super) fn marked(self) -> Response<Full<Bytes>> {
        let mut response = self.respond();
        if let Ok(mark) = HeaderValue::from_str(&mark()) {
            response.headers_mut().insert("x-toxiproxy-request-id", mark);
        }
        response
    }

    /// As it is sent when the rest of the request is not read.
    pub(super) fn last(self) -> Response<Full<Bytes>> {
        let mut response = self.marked();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let body = json!({ "error": refused.text, "status": refused.status.as_u16() });
        Answer::text(refused.status, &format!("{body}\n"))
    }
}

/// Twenty characters that no other request of this process has.
fn mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}{number:012x}", std::process::id())
}
