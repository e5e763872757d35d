//! The audit log, the newest first.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::problem::Problem;

/// How many entries a page holds.
const PAGE: u64 = 100;

/// The page.
pub(super) async fn page(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let head = api.store.audit_head().await?;
    let last = visit.query.get("to").and_then(|to| to.parse().ok()).unwrap_or(head.seq).min(head.seq);
    let first = last.saturating_sub(PAGE - 1).max(1);
    let mut entries = api.store.audit_page(first, last.saturating_sub(first) + 1).await?;
    entries.retain(|entry| entry.seq <= last);
    let shell =
        Head { title: "Audit", who: visit.who.as_ref(), here: "/audit", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &shell, |page| {
        page.text("h1", &[], "Audit");
        page.prosaic("p", &[("class", "soft")], "Who decided what. Each entry is bound to the one before by its hash; `squall audit verify` computes them all again.");
        page.element("dl", &[("class", "facts")], |page| {
            page.fact("entries", &head.seq.to_string());
            page.fact("head", &head.hash);
        });
        let rows = entries.iter().rev().map(|entry| {
            let members = entry.what.as_object().into_iter().flatten();
            let what = members.map(|(name, value)| match value.as_str() {
                Some(text) if name == "body" => format!("body {}", &text[..text.len().min(12)]),
                Some(text) => format!("{name} {text}"),
                None => format!("{name} {value}"),
            });
            let when = crate::conductor::date_of(entry.at).replace('T', " ").replace('Z', "");
            vec![entry.seq.to_string(), when, entry.who.clone(), what.collect::<Vec<_>>().join(", ")]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table("Entries, the newest first", &["number", "when (UTC)", "who", "what"], &rows);
        page.element("nav", &[("class", "pager"), ("aria-label", "Pages of the log")], |page| {
            if last < head.seq {
                page.text("a", &[("class", "button"), ("href", "/audit")], "The newest");
            }
            if first > 1 {
                let to = format!("/audit?to={}", first - 1);
                page.text("a", &[("class", "button"), ("href", &to)], "Older ones");
            }
        });
    }))
}
