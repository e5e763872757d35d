//! How the controller itself is: health, readiness, figures, and what its interface is.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, openapi};

/// It is well.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Well {
    /// Always `ok`; anything else is a problem.
    status: &'static str,
}

pub(super) async fn health(_: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&Well { status: "ok" })
}

pub(super) async fn ready(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    api.store.ready().await?;
    Answer::ok(&Well { status: "ok" })
}

pub(super) async fn metrics(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    let hosts = api.engine.hosts().await;
    let (blocked, receivers) = (api.store.fact("halt").await?.is_some(), api.notifier.standing().await?);
    let text = api.counts.text(&hosts, blocked, &receivers);
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(Answer::Other(response))
}

pub(super) async fn openapi(_: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&openapi::document())
}
