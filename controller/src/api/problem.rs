//! What went wrong, in the form of RFC 9457: status, what, and what to do about it. Never a cause that names the inside.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use crate::store::StoreError;

/// A refusal on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// What was refused and why: a lowercase fragment that names the object.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The exit code of a command that this ends.
    pub exit: u8,
    /// After how many seconds it may be asked again, where that is known.
    #[serde(skip)]
    pub(super) retry_s: Option<u64>,
}

impl Problem {
    /// A refusal with advice.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Problem { help: Some(help.into()), ..Problem::bare(status, detail) }
    }

    /// A refusal without.
    pub(crate) fn bare(status: StatusCode, detail: impl Into<String>) -> Self {
        let exit = match status {
            StatusCode::INTERNAL_SERVER_ERROR => Exit::Bug,
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Exit::Usage,
            _ => Exit::Refused,
        };
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Refused").to_owned(),
            detail: detail.into(),
            help: None,
            exit: exit as u8,
            retry_s: None,
        }
    }

    /// The answer that carries it.
    pub(super) fn response(&self) -> Response<Body> {
        let body = serde_json::to_string(self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            401 => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            429 => drop(headers.insert(header::RETRY_AFTER, self.retry_s.unwrap_or(60).into())),
            503 => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => {}
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Missing(_) => StatusCode::NOT_FOUND,
            StoreError::Clash(_) | StoreError::Gap { .. } | StoreError::Fenced { .. } => StatusCode::CONFLICT,
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::ReadOnly(_) | StoreError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(%error, "the store did not do it");
        }
        match error {
            StoreError::Missing(_) | StoreError::Gap { .. } | StoreError::Fenced { .. } => {
                Problem::bare(status, error.to_string())
            }
            StoreError::Clash(_) => {
                Problem::bare(status, "there is one of that name, or it says something else")
            }
            StoreError::Full(_) => Problem::new(
                status,
                "the store's disk is full",
                "make room; nothing that was acknowledged is lost",
            ),
            StoreError::ReadOnly(_) => {
                Problem::new(status, "the store is read-only", "make its file system or database writable")
            }
            StoreError::Away(_) => {
                Problem::new(status, "the store does not answer", "try again; the controller's log says why")
            }
            // The log has the cause; whoever asked is not told of the database's inside.
            _ => Problem::bare(status, "the store failed"),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.exit == Exit::Invalid as u8 {
            true => StatusCode::UNPROCESSABLE_ENTITY,
            false => StatusCode::CONFLICT,
        };
        Problem { help: refusal.help, exit: refusal.exit, ..Problem::bare(status, refusal.what) }
    }
}
