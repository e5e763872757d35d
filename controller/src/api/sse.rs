//! Server-sent events, as the HTML standard has them (section 9.2), whoever has something to send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::Api;
use super::problem::Problem;

/// What sends events.
pub(crate) trait Sends: Send + 'static {
    /// What is sent next; `None`: this was all.
    fn chunk(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// What a stream waits with, and for as long as it lives its room among all that are open.
pub(crate) struct Waiting {
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Waiting {
    /// Room for another stream; `help` is what whoever finds none may do.
    pub(crate) fn on(api: &Api, help: &str) -> Result<Self, Problem> {
        let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
            let detail = "too many pages and streams are open";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail, help)
        })?;
        Ok(Waiting { changes: api.store.changes(), closing: api.closing.subscribe(), _permit: permit })
    }

    /// Whether the server is about to end.
    pub(crate) fn is_over(&self) -> bool {
        *self.closing.borrow()
    }

    /// What happens from here on ends [`Waiting::wait`].
    pub(crate) fn begin(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits until something has changed since [`Waiting::begin`], the server is about to end, or this time is over.
    pub(crate) async fn wait(&mut self, longest: Duration) {
        let changed = async {
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.closing.changed() => {}
            }
        };
        let _ = timeout(longest, changed).await;
    }
}

/// The answer that sends everything.
pub(crate) fn response(sends: impl Sends) -> Response<Body> {
    let chunks = unfold(sends, |mut sends| async move {
        let chunk = sends.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), sends))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}
