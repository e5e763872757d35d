//! Hosts: what the store knows of them, with what their connections say.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, runs};
use crate::fleet::HostInfo;
use crate::store::HostRow;

/// A host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Host {
    /// Its name.
    name: String,
    /// By which experiments choose it.
    labels: BTreeMap<String, String>,
    /// Where it stands.
    zone: Option<String>,
    /// Which part of the service it carries.
    cell: Option<String>,
    /// When it enrolled: milliseconds since 1970.
    enrolled_at: u64,
    /// When it was revoked.
    revoked_at: Option<u64>,
    /// Whether it is connected now.
    connected: bool,
    /// When it last said something.
    last_contact: Option<u64>,
    /// Its kernel's release.
    kernel: Option<String>,
    /// Its agent's version.
    version: Option<String>,
    /// What works there, as its agent found; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    preflight: Option<serde_json::Value>,
    /// The runs that are active there.
    holds: Vec<Held>,
}

/// What is active on a host.
#[derive(Debug, Serialize, JsonSchema)]
struct Held {
    /// Which run.
    run: String,
    /// The experiment's title.
    title: String,
    /// Seconds until everything is reverted in any case.
    expires_s: u64,
    /// Whether something could not be undone.
    stuck: bool,
}

/// A page of hosts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Hosts {
    hosts: Vec<Host>,
    /// `after` of the next page; none: this was the last.
    next: Option<String>,
}

fn host(row: HostRow, live: Option<&HostInfo>) -> Host {
    let holds = live.iter().flat_map(|live| &live.holds).map(|active| Held {
        run: active.run.0.clone(),
        title: active.title.clone(),
        expires_s: active.expires_s,
        stuck: active.stuck,
    });
    Host {
        holds: holds.collect(),
        connected: live.is_some_and(|live| live.connected) && row.revoked_at.is_none(),
        last_contact: live.map(|live| live.last_contact_ms),
        kernel: live.map(|live| live.kernel.clone()),
        version: live.map(|live| live.version.clone()),
        preflight: None,
        name: row.name,
        labels: row.labels,
        zone: row.zone,
        cell: row.cell,
        enrolled_at: row.enrolled_at,
        revoked_at: row.revoked_at,
    }
}

async fn named(api: &Api, name: &str) -> Result<Host, Problem> {
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no host `{name}`"));
    let row = api.store.host(name).await?.ok_or_else(missing)?;
    let live = api.engine.hosts().await;
    let live = live.iter().find(|live| live.name == name);
    let preflight = live.map(|live| serde_json::Value::clone(&live.preflight));
    Ok(Host { preflight, ..host(row, live) })
}

pub(crate) async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let after = call.query.get("after").map(String::as_str);
    let page = api.store.hosts_after(after, runs::limit(&call)?).await?;
    let live: BTreeMap<String, HostInfo> =
        api.engine.hosts().await.into_iter().map(|live| (live.name.clone(), live)).collect();
    let hosts = page.items.into_iter().map(|row| {
        let live = live.get(&row.name);
        host(row, live)
    });
    Answer::ok(&Hosts { hosts: hosts.collect(), next: page.next })
}

pub(crate) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Answer::ok(&named(&api, &call.part("name")).await?)
}

pub(crate) async fn labels(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let labels: BTreeMap<String, String> = call.value()?;
    let bad = |text: &String| text.is_empty() || text.len() > 200 || text.chars().any(char::is_control);
    if labels.len() > 100 || labels.iter().any(|(key, value)| bad(key) || bad(value)) {
        let detail = "a host has at most 100 labels, each name and value of 1 to 200 characters";
        return Err(Problem::bare(StatusCode::BAD_REQUEST, detail));
    }
    let name = call.part("name");
    api.store.set_labels(&name, labels).await?;
    Answer::ok(&named(&api, &name).await?)
}

pub(crate) async fn revoke(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name = call.part("name");
    api.store.revoke_host(&name).await?;
    api.engine.cut_off(&name);
    Answer::none()
}
