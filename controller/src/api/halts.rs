//! Halt: undo everything now. It does not wait for the store, and it blocks new runs until it is lifted.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plans::person;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, runs};
use crate::notify::Happening;
use crate::store::{Store, StoreError, now_ms};

/// The name under which the store keeps that new runs are blocked.
pub(crate) const HALT: &str = "halt";

/// A halt that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Why; for everybody who wonders later.
    reason: String,
    /// On which hosts; none: on all, and new runs are blocked.
    #[serde(default)]
    hosts: Option<Vec<String>>,
}

/// Why something is done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Why; for everybody who wonders later.
    reason: String,
}

/// A halt that is to be lifted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lift {
    /// Why; for everybody who wonders later.
    reason: String,
    /// When the halt that is meant was asked for, as it was shown: another one is not lifted then; none: whichever is there.
    #[serde(default)]
    at: Option<u64>,
}

/// Whether new runs are blocked.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct State {
    /// The halt that blocks them; none: nothing does.
    blocked: Option<Blocked>,
}

/// What blocks new runs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Blocked {
    /// Why.
    pub(crate) reason: String,
    /// Who halted.
    pub(crate) by: String,
    /// When: milliseconds since 1970.
    pub(crate) at: u64,
}

/// What a halt did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// What each host answered.
    hosts: BTreeMap<String, OnHost>,
    /// Whether new runs are blocked now.
    blocked: bool,
}

/// What a halt did on one host.
#[derive(Debug, Serialize, JsonSchema)]
struct OnHost {
    /// What was undone, a line each.
    undone: Vec<String>,
    /// What could not be undone and is still there.
    stuck: Vec<String>,
    /// Why nothing is known of it; it reverts by its lease then.
    refused: Option<String>,
}

pub(crate) async fn state(store: &Store) -> Result<Option<Blocked>, Problem> {
    let kept = store.fact(HALT).await?;
    Ok(kept.as_deref().map(read))
}

/// What a fact says. One that cannot be read blocks: whoever wrote it meant a halt.
fn read(kept: &str) -> Blocked {
    let unreadable = |_| Blocked { reason: kept.to_owned(), by: "somebody".to_owned(), at: 0 };
    serde_json::from_str(kept).unwrap_or_else(unreadable)
}

/// Why and by whom new runs are blocked, in words.
pub(crate) async fn halted(store: &Store) -> Result<Option<String>, StoreError> {
    let kept = store.fact(HALT).await?;
    Ok(kept.as_deref().map(read).map(|Blocked { reason, by, .. }| format!("halted by {by}: {reason}")))
}

/// Refuses what begins a run while a halt blocks it.
pub(crate) async fn blocked(store: &Store) -> Result<(), Problem> {
    match state(store).await? {
        None => Ok(()),
        Some(Blocked { reason, by, .. }) => Err(Problem::new(
            StatusCode::LOCKED,
            format!("new runs are blocked by a halt of {by}: {reason}"),
            "when the reason is gone: POST /v1/halt/lift",
        )),
    }
}

fn reason(reason: &str) -> Result<(), Problem> {
    match reason.trim().is_empty() || reason.len() > 2000 {
        true => Err(Problem::bare(StatusCode::BAD_REQUEST, "`reason` has 1 to 2000 characters")),
        false => Ok(()),
    }
}

pub(crate) async fn show(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&State { blocked: state(&api.store).await? })
}

pub(crate) async fn set(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted: Wanted = call.value()?;
    reason(&wanted.reason)?;
    let all = wanted.hosts.is_none();
    let block = async {
        let blocked = Blocked { reason: wanted.reason.clone(), by: call.name(), at: now_ms() };
        let kept = serde_json::to_string(&blocked).unwrap_or_default();
        match all {
            true => api.store.set_fact(HALT, Some(kept)).await,
            false => Ok(()),
        }
    };
    // At the same time: a store that does not answer does not keep a fault alive.
    let (kept, hosts) = tokio::join!(block, api.engine.halt(wanted.hosts.as_deref()));
    let kept =
        kept.inspect_err(|error| tracing::error!(%error, "a halt was done, and does not block new runs"));
    // Not waited for: whoever is told of it hears of it when it can be told.
    api.store.tell(Happening::Halted {
        reason: wanted.reason.clone(),
        by: person(&call),
        hosts: wanted.hosts.clone().unwrap_or_default(),
        open: hosts
            .iter()
            .filter(|(_, did)| did.as_ref().map_or(true, |lifted| !lifted.stuck.is_empty()))
            .map(|(name, _)| name.clone())
            .collect(),
    });
    let hosts = hosts.into_iter().map(|(name, did)| {
        let did = match did {
            Ok(lifted) => OnHost { undone: lifted.undone, stuck: lifted.stuck, refused: None },
            Err(refusal) => OnHost { undone: Vec::new(), stuck: Vec::new(), refused: Some(refusal.what) },
        };
        (name, did)
    });
    // A lift may have come while the hosts were asked. Where the store does not say, what was kept counts.
    let blocked = match (all, &kept) {
        (true, Ok(())) => state(&api.store).await.map_or(true, |now| now.is_some()),
        _ => false,
    };
    Answer::ok(&Done { hosts: hosts.collect(), blocked })
}

pub(crate) async fn lift(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let why: Lift = call.value()?;
    reason(&why.reason)?;
    let kept = api.store.fact(HALT).await?;
    let was_blocked = kept.is_some();
    let lifted = kept.as_deref().map(read);
    if let (Some(meant), Some(halt)) = (why.at, &lifted)
        && halt.at != meant
    {
        return Err(another(halt));
    }
    let what = serde_json::json!({ "lifted": lifted.map_or(Value::Null, |halt| halt.reason.into()), "because": why.reason });
    api.store.audit(&call.name(), what).await?;
    // Only the halt that stands in the log: whoever has halted since is not overruled by who does not know of it.
    if let Some(kept) = kept
        && !api.store.forget_fact(HALT, &kept).await?
        && let Some(other) = state(&api.store).await?
    {
        return Err(another(&other));
    }
    if was_blocked {
        let by = person(&call);
        api.store.tell(Happening::HaltLifted { reason: why.reason, by });
    }
    Answer::ok(&State { blocked: state(&api.store).await? })
}

fn another(Blocked { reason, by, .. }: &Blocked) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        format!("another halt came meanwhile, of {by}: {reason}"),
        "look at it first; then lift that one too, if its reason is gone",
    )
}

pub(crate) async fn run(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let why: Reason = call.value()?;
    reason(&why.reason)?;
    // The engine is asked whatever the store says: it knows what goes on.
    api.engine.halt_run(&call.part("id")).await?;
    Answer::json(StatusCode::ACCEPTED, &runs::named(&api, &call.part("id")).await?)
}
