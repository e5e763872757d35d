//! The audit log, to be read and verified.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::runs::limit;
use crate::store::Entry;

/// A page of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entries {
    entries: Vec<Entry>,
    /// `from` of the next page.
    next: u64,
}

pub(crate) async fn page(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let from = call.number("from", 1, u64::MAX >> 1)?;
    let entries = api.store.audit_page(from, limit(&call)?).await?;
    let next = entries.last().map_or(from, |last| last.seq + 1);
    Answer::ok(&Entries { entries, next })
}

pub(crate) async fn head(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&api.store.audit_head().await?)
}

pub(crate) async fn verify(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&api.store.audit_verify().await?)
}
