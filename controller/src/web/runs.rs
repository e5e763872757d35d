//! All runs, the newest first, each with what became of its experiment before.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::problem::Problem;
use crate::report::html::markup::Markup;
use crate::standing::{score, story};
use crate::store::RunRow;

/// How many a page holds.
const PAGE: u64 = 50;

/// The page.
pub(super) async fn list(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let after = visit.query.get("after").map(String::as_str);
    let found = api.store.runs(after, PAGE).await?;
    let mut stories: BTreeMap<&str, String> = BTreeMap::new();
    for run in &found.runs {
        if !stories.contains_key(run.title.as_str()) {
            stories.insert(&run.title, story(&api.store, &run.title).await?);
        }
    }
    let score = match after {
        None => score(&api.store).await?.words,
        Some(_) => String::new(),
    };
    let head =
        Head { title: "Runs", who: visit.who.as_ref(), here: "/runs", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Runs");
        if found.runs.is_empty() {
            page.text("p", &[], "There are none.");
        } else if !score.is_empty() {
            page.text("p", &[("class", "soft")], &score);
        }
        rows(page, &found.runs, |title| stories.get(title).map_or("", String::as_str));
        page.element("nav", &[("class", "pager"), ("aria-label", "Pages of the list")], |page| {
            if after.is_some() {
                page.text("a", &[("class", "button"), ("href", "/runs")], "The newest");
            }
            if let Some(next) = &found.next {
                let query =
                    form_urlencoded::Serializer::new(String::new()).append_pair("after", next).finish();
                page.text("a", &[("class", "button"), ("href", &format!("/runs?{query}"))], "Older ones");
            }
        });
    }))
}

/// Runs as a list: on a telephone a table of five columns would have to be pushed about.
pub(super) fn rows<'a>(page: &mut Markup, runs: &[RunRow], story: impl Fn(&str) -> &'a str) {
    if runs.is_empty() {
        return;
    }
    page.element("ul", &[("class", "runs")], |page| {
        for run in runs {
            page.element("li", &[], |page| {
                shell::badge(page, &run.state);
                page.element("div", &[("class", "what")], |page| {
                    page.element("a", &[("href", &format!("/runs/{}", path(&run.id)))], |page| {
                        page.text("bdi", &[], &run.title);
                    });
                    let story = story(&run.title);
                    if !story.is_empty() {
                        page.text("p", &[("class", "soft")], story);
                    }
                });
                page.element("p", &[("class", "soft when")], |page| {
                    shell::time(page, run.at);
                    page.words(" by ");
                    page.text("bdi", &[], run.by.split(" (").next().unwrap_or(&run.by));
                });
            });
        }
    });
}
