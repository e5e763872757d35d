//! What the rest of the controller calls.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::TracesError;
use super::context::Context;
use super::export::Export;
use super::run::RunSpans;
use super::span::{Kind, Span, new_id};
use super::target::Target;

/// Paths of which nothing is said: whoever asks for them does it every few seconds.
const UNSAID: [&str; 3] = ["/health", "/ready", "/metrics"];

/// Where traces go, if anywhere. A clone is the same.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Export>>);

/// A request that is being answered.
pub(crate) struct Asked {
    /// Where its span goes; taken when that is said.
    export: Option<Arc<Export>>,
    span: Option<Span>,
    unkept: Option<Context>,
    /// Whether it is known who asks, and that they may.
    known: bool,
}

impl Traces {
    /// To the collector that an option names, else one that the environment names as the standard says it; else nowhere. In a
    /// runtime.
    ///
    /// Errors: an address, headers or attributes that are not understood.
    pub fn begin(
        told: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Traces, TracesError> {
        let target = Target::of(told, environment)?;
        Ok(Traces(target.map(|target| {
            // What stands behind a `?` may be a key.
            tracing::info!(to = target.url.split('?').next(), "traces are sent");
            Arc::new(Export::to(target))
        })))
    }

    /// Sends what waits, for 5 s at most. What is said later is dropped.
    pub async fn close(&self) {
        if let Some(export) = &self.0 {
            export.close().await;
        }
    }

    /// A request of the interface begins; `path` is that of its route.
    pub(crate) fn request(&self, method: &Method, path: &str, headers: &HeaderMap) -> Asked {
        let mut asked = Asked { export: None, span: None, unkept: None, known: false };
        let Some(export) = self.0.as_ref().filter(|_| !UNSAID.contains(&path)) else { return asked };
        let header = headers.get("traceparent").and_then(|header| header.to_str().ok());
        let caller = header.and_then(Context::read);
        if let Some(unkept) = caller.filter(|caller| !caller.kept) {
            // What it begins is not kept, either.
            asked.unkept = Some(unkept);
            return asked;
        }
        let now = now_ns();
        let span = Span {
            trace: caller.map_or_else(|| rand::random::<u128>().max(1), |caller| caller.trace),
            id: new_id(),
            parent: caller.map(|caller| caller.span),
            name: format!("{method} {path}"),
            kind: Kind::Server,
            from_ns: now,
            to_ns: now,
            attributes: vec![("http.request.method", json!(method.as_str())), ("http.route", json!(path))],
            events: Vec::new(),
            failed: None,
        };
        asked.span = Some(span);
        asked.export = Some(Arc::clone(export));
        asked
    }

    /// A run begins, under the request that asked for it, if one did. Without one its trace has a name of its own, made of the
    /// run's: the same at every controller.
    pub(crate) fn of_run(&self, run: &str, under: Option<Context>) -> RunSpans {
        let export = self.0.as_ref().filter(|_| under.is_none_or(|under| under.kept));
        RunSpans::new(export.cloned(), run, under)
    }
}

impl Asked {
    /// What is done because of it belongs to this.
    pub(crate) fn context(&self) -> Option<Context> {
        let own = self.span.as_ref().map(|span| Context { trace: span.trace, span: span.id, kept: true });
        own.or(self.unkept)
    }

    /// Who asks was let in.
    pub(crate) fn let_in(&mut self) {
        self.known = true;
    }

    /// It was answered.
    pub(crate) fn answered(mut self, status: StatusCode) {
        self.over(
            ("http.response.status_code", json!(status.as_u16())),
            status.is_server_error().then_some(status),
        );
    }

    /// Says the span. Of who was not let in nothing is said: strangers must not fill a collector.
    fn over(&mut self, how: (&'static str, Value), failed: Option<StatusCode>) {
        if let (true, Some(export), Some(mut span)) = (self.known, self.export.take(), self.span.take()) {
            span.to_ns = now_ns();
            span.attributes.push(how);
            span.failed = failed.map(|status| status.to_string());
            export.put(span);
        }
    }
}

impl Drop for Asked {
    /// The caller hung up, unless it was answered.
    fn drop(&mut self) {
        self.over(("error.type", json!("the caller hung up")), None);
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
