//! Hosts: who is there, what works there, what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::Value;

use super::overview::{self, Held, card};
use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::problem::Problem;
use crate::fleet::HostInfo;
use crate::report::html::markup::Markup;
use crate::store::HostRow;

/// How many hosts a page holds.
const PAGE: usize = 200;

/// The list.
pub(super) async fn list(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let rows = api.store.hosts().await?;
    let live: BTreeMap<String, HostInfo> =
        api.engine.hosts().await.into_iter().map(|live| (live.name.clone(), live)).collect();
    let from = visit.query.get("from").cloned().unwrap_or_default();
    let shown: Vec<&HostRow> = rows.iter().filter(|row| row.name >= from).take(PAGE + 1).collect();
    let head =
        Head { title: "Hosts", who: visit.who.as_ref(), here: "/hosts", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Hosts");
        if rows.is_empty() {
            page.prosaic("p", &[], "No host has joined. `squall tokens join` makes a token for one.");
        }
        page.element("ul", &[("class", "cards")], |page| {
            for row in shown.iter().take(PAGE) {
                page.element("li", &[], |page| one_of_many(page, row, live.get(&row.name)));
            }
        });
        if let Some(next) = shown.get(PAGE) {
            let query =
                form_urlencoded::Serializer::new(String::new()).append_pair("from", &next.name).finish();
            page.text("a", &[("class", "button"), ("href", &format!("/hosts?{query}"))], "More hosts");
        }
    }))
}

fn one_of_many(page: &mut Markup, row: &HostRow, live: Option<&HostInfo>) {
    page.element("h2", &[("class", "small")], |page| {
        page.element("a", &[("href", &format!("/hosts/{}", path(&row.name)))], |page| {
            page.text("bdi", &[], &row.name)
        });
        page.words(" ");
        connection(page, row, live);
    });
    labels(page, row);
    if let Some(live) = live {
        if let Some((works, all)) = abilities(&live.preflight) {
            page.text("p", &[("class", "soft")], &format!("{works} of {all} faults work here"));
        }
        for active in &live.holds {
            page.prosaic("p", &[], &format!("holds `{}`", active.title));
        }
    }
}

fn connection(page: &mut Markup, row: &HostRow, live: Option<&HostInfo>) {
    let (tone, word) = match (row.revoked_at, live) {
        (Some(_), _) => ("deviated", "revoked"),
        (None, Some(live)) if live.connected => ("held", "connected"),
        _ => ("unclear", "away"),
    };
    page.text("span", &[("class", &format!("badge {tone}"))], word);
}

fn labels(page: &mut Markup, row: &HostRow) {
    let places = [("zone", &row.zone), ("cell", &row.cell)];
    let places = places.into_iter().filter_map(|(name, place)| Some((name, place.as_deref()?)));
    let labels = row.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<(&str, &str)> = places.chain(labels).collect();
    if all.is_empty() {
        page.text("p", &[("class", "soft")], "no labels");
        return;
    }
    page.element("ul", &[("class", "labels"), ("aria-label", "Labels")], |page| {
        all.iter().for_each(|(name, value)| page.text("li", &[("dir", "auto")], &format!("{name}={value}")));
    });
}

/// How many faults work, and how many there are.
fn abilities(preflight: &Value) -> Option<(usize, usize)> {
    let faults = preflight["faults"].as_array()?;
    Some((faults.iter().filter(|fault| fault["works"] == true).count(), faults.len()))
}

/// One host.
pub(super) async fn one(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let name = visit.part("name");
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no host `{name}`"));
    let row = api.store.host(&name).await?.ok_or_else(missing)?;
    let live = api.engine.hosts().await.into_iter().find(|live| live.name == name);
    let mut holds = Vec::new();
    for active in live.iter().flat_map(|live| &live.holds) {
        let connected = live.as_ref().is_some_and(|live| live.connected);
        let ended = overview::ended(&api, &active.run.0).await?;
        holds.push(Held::of(&name, connected, ended, active));
    }
    let head =
        Head { title: &name, who: visit.who.as_ref(), here: "/hosts", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("p", &[("class", "kicker")], "Host");
        page.element("h1", &[], |page| page.text("bdi", &[], &name));
        page.element("p", &[], |page| connection(page, &row, live.as_ref()));
        labels(page, &row);
        page.element("dl", &[("class", "facts")], |page| {
            let date = |ms| crate::conductor::date_of(ms).replace('T', " ").replace('Z', " UTC");
            page.fact("joined", &date(row.enrolled_at));
            if let Some(live) = &live {
                page.fact("kernel", &live.kernel);
                page.fact("agent", &live.version);
                let heard = live.last_contact_ms;
                page.fact("last heard of", &if heard > 0 { date(heard) } else { "never".to_owned() });
            }
        });
        page.element("section", &[], |page| {
            page.text("h2", &[], "Active here");
            if holds.is_empty() {
                page.text("p", &[("class", "soft")], "Nothing.");
            }
            holds.iter().for_each(|held| page.element("article", &[], |page| card(page, held)));
        });
        if let Some(live) = &live {
            preflight(page, &live.preflight);
        }
    }))
}

/// What works there, and what is missing for the rest.
fn preflight(page: &mut Markup, preflight: &Value) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "What works here");
        let Some(faults) = preflight["faults"].as_array() else {
            page.text("p", &[("class", "soft")], "It has not said yet.");
            return;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = faults.iter().chain(preflight["scopes"].as_array().into_iter().flatten()).map(|ability| {
            let ways = ability["ways"].as_array().map_or(&[][..], Vec::as_slice);
            let by = ways.iter().filter(|way| way["works"] == true).map(|way| text(&way["by"]));
            let mut missing: Vec<String> = Vec::new();
            for lack in ways.iter().flat_map(|way| way["missing"].as_array().into_iter().flatten()) {
                let words = format!("{}: {}", text(&lack["what"]), text(&lack["detail"]));
                if !missing.contains(&words) {
                    missing.push(words);
                }
            }
            let works = if ability["works"] == true { "✓ works" } else { "✗ does not" };
            vec![
                text(&ability["name"]),
                works.to_owned(),
                by.collect::<Vec<_>>().join(", "),
                missing.join("; "),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table("Faults and scopes", &["name", "", "by", "missing for other ways"], &rows);
    });
}
