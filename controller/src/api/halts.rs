//! Halt: undo everything now. It does not wait for the store, and it blocks new runs until it is lifted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::plans::person;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, routes, runs};
use crate::notify::Happening;
use crate::store::{Store, StoreError, now_ms};

/// The name under which the store keeps that new runs are blocked.
pub(crate) const HALT: &str = "halt";
/// For how long the answer to a halt waits for the store, each time that it is asked.
const SOON: Duration = Duration::from_secs(1);

/// A halt that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Why; for everybody who wonders later.
    reason: String,
    /// On which hosts; none: on all, and new runs are blocked.
    #[serde(default)]
    hosts: Option<Vec<String>>,
    /// On which hosts, by what experiments choose them by; new runs are not blocked.
    #[serde(default)]
    on: Option<On>,
}

/// Which hosts a halt is on. What is given must all match.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct On {
    /// Labels that a host carries, all of them.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// The zone that it is in.
    #[serde(default)]
    zone: Option<String>,
    /// The cell that it is in.
    #[serde(default)]
    cell: Option<String>,
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
    let (hosts, sure) = match (wanted.hosts, wanted.on) {
        (hosts, None) => (hosts, true),
        (None, Some(on)) => {
            let (hosts, sure) = on.hosts(&api).await?;
            (Some(hosts), sure)
        }
        (Some(_), Some(_)) => {
            let detail = "a halt is of `hosts` by their names, or `on` those that match, not both";
            return Err(Problem::bare(StatusCode::BAD_REQUEST, detail));
        }
    };
    let names = hosts.clone().unwrap_or_default();
    let done = halt(&api, call.name(), person(&call), wanted.reason, hosts).await;
    if sure {
        return Answer::ok(&done);
    }
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!(
            "the store does not say which hosts the halt is on: halted were only those that say it of themselves ({})",
            names.join(", ")
        ),
        "ask again, halt the others by their names, or everything",
    ))
}

/// Undoes everything on these hosts, or on all, which blocks new runs too.
async fn halt(api: &Api, by: String, person: String, reason: String, hosts: Option<Vec<String>>) -> Done {
    let all = hosts.is_none();
    let blocked = Blocked { reason: reason.clone(), by, at: now_ms() };
    let (store, engine) = (api.store.clone(), Arc::clone(&api.engine));
    // At the same time: a store that does not answer does not keep a fault alive.
    let block = tokio::spawn(async move {
        if !all {
            return true;
        }
        let kept = serde_json::to_string(&blocked).unwrap_or_default();
        if let Err(error) = store.set_fact(HALT, Some(kept)).await {
            tracing::error!(%error, "a halt was done, and does not block new runs");
            return false;
        }
        // One that began before it was kept, and after the others were halted.
        engine.halt_runs();
        true
    });
    let did = api.engine.halt(hosts.as_deref()).await;
    let kept = matches!(timeout(SOON, block).await, Ok(Ok(true)));
    // Not waited for: whoever is told of it hears of it when it can be told.
    api.store.tell(Happening::Halted {
        reason,
        by: person,
        hosts: hosts.unwrap_or_default(),
        open: did
            .iter()
            .filter(|(_, did)| did.as_ref().map_or(true, |lifted| !lifted.stuck.is_empty()))
            .map(|(name, _)| name.clone())
            .collect(),
    });
    let did = did.into_iter().map(|(name, did)| {
        let did = match did {
            Ok(lifted) => OnHost { undone: lifted.undone, stuck: lifted.stuck, refused: None },
            Err(refusal) => OnHost { undone: Vec::new(), stuck: Vec::new(), refused: Some(refusal.what) },
        };
        (name, did)
    });
    // A lift may have come while the hosts were asked. Where the store does not say, what was kept counts.
    let blocked = match all && kept {
        true => {
            let now = timeout(SOON, state(&api.store)).await;
            now.map_or(true, |now| now.map_or(true, |now| now.is_some()))
        }
        false => false,
    };
    Done { hosts: did.collect(), blocked }
}

impl On {
    /// The names of those that match now, and whether these are surely all: without an answer of the store, only those that say it of
    /// themselves are known.
    async fn hosts(&self, api: &Api) -> Result<(Vec<String>, bool), Problem> {
        if *self == On::default() {
            let help = "leave `on` out to halt everything";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "`on` says nothing of the hosts", help));
        }
        let kept = timeout(SOON, api.store.hosts()).await.ok().and_then(Result::ok);
        let answers = kept.is_some();
        let known: Vec<(String, On)> = match kept {
            Some(hosts) => hosts
                .into_iter()
                .filter(|host| host.revoked_at.is_none())
                .map(|host| (host.name, On { labels: host.labels, zone: host.zone, cell: host.cell }))
                .collect(),
            None => {
                let hosts = api.engine.hosts().await.into_iter();
                hosts
                    .map(|host| (host.name, On { labels: host.labels, zone: host.zone, cell: host.cell }))
                    .collect()
            }
        };
        let found = known.into_iter().filter(|(_, host)| self.matches(host)).map(|(name, _)| name);
        let found: Vec<String> = found.collect();
        match (found.is_empty(), answers) {
            (false, sure) => Ok((found, sure)),
            (true, true) => Err(Problem::new(
                StatusCode::CONFLICT,
                "no host matches what the halt is on; nothing was undone",
                "`squall hosts` shows labels, zones and cells; without them everything is halted",
            )),
            (true, false) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not say which hosts the halt is on, and none says it of itself; nothing was undone",
                "halt them by their names, or everything",
            )),
        }
    }

    fn matches(&self, host: &On) -> bool {
        self.labels.iter().all(|(name, value)| host.labels.get(name) == Some(value))
            && (self.zone.is_none() || self.zone == host.zone)
            && (self.cell.is_none() || self.cell == host.cell)
    }
}

impl Api {
    /// Halts everything and blocks new runs, for whoever asks by other ways than a request; what came of it stands in the log.
    pub async fn halt_everything(&self, by: &str, reason: &str) {
        let what = serde_json::json!({ "did": "halted everything", "reason": reason });
        let halting = async { Ok(halt(self, by.to_owned(), by.to_owned(), reason.to_owned(), None).await) };
        let Ok(done) = routes::written_down(self, by, what, true, halting).await else { return };
        for (host, did) in &done.hosts {
            match &did.refused {
                Some(why) => {
                    tracing::warn!(host, why, "a halt did not reach a host: it reverts by its lease")
                }
                None if did.stuck.is_empty() => {}
                None => tracing::error!(host, stuck = ?did.stuck, "a host is still modified after a halt"),
            }
        }
        tracing::warn!(by, hosts = done.hosts.len(), blocked = done.blocked, "everything was halted");
    }
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
    let id = call.part("id");
    let (engine, run) = (Arc::clone(&api.engine), id.clone());
    let away = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer: a run of this controller ends now, one of another when the store answers",
            "to be sure, halt its hosts: POST /v1/halt with `hosts`",
        )
    };
    soon(async move { engine.halt_run(&run).await }).await.ok_or_else(away)??;
    let run = timeout(SOON, runs::named(&api, &id)).await.map_err(|_| away())?;
    Answer::json(StatusCode::ACCEPTED, &run?)
}

/// Does something to its end, for which whoever asked does not wait for longer than the store usually needs.
pub(crate) async fn soon<T: Send + 'static>(doing: impl Future<Output = T> + Send + 'static) -> Option<T> {
    timeout(SOON, tokio::spawn(doing)).await.ok()?.ok()
}
