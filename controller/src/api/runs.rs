//! Runs: begun, listed, shown.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::engine::Submission;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, plans, stream};
use crate::gates::Outcome;
use crate::launch::Wanted;
use crate::standing;
use crate::store::{Role, RunRow};

/// How many a page holds at most.
const MOST: u64 = 1000;
/// How many it holds when nothing is said.
const USUAL: u64 = 100;

/// A page of runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Runs {
    runs: Vec<RunRow>,
    /// `after` of the next page; none: this was the last.
    next: Option<String>,
}

/// A run with what became of its experiment so far.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WithHistory {
    #[serde(flatten)]
    run: RunRow,
    /// `held 12 times, deviated since 2026-11-20 (build 4fed865)`; empty where no run of it has ended.
    history: String,
}

/// A page of events.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Events {
    events: Vec<Event>,
    /// `from` of the next page.
    next: u64,
}

/// An event with its number.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Event {
    seq: u64,
    event: Value,
}

/// The limit of a page.
pub(crate) fn limit(call: &Call) -> Result<u64, Problem> {
    call.number("limit", USUAL, MOST).map(|limit| limit.max(1))
}

/// The run of a name.
pub(crate) async fn named(api: &Api, id: &str) -> Result<RunRow, Problem> {
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no run `{id}`"));
    api.store.run(id).await?.ok_or_else(missing)
}

pub(crate) async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let after = call.query.get("after").map(String::as_str);
    let page = api.store.runs(after, limit(&call)?).await?;
    Answer::ok(&Runs { runs: page.runs, next: page.next })
}

pub(crate) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call.part("id")).await?;
    let history = standing::story(&api.store, &run.title).await?;
    Answer::ok(&WithHistory { run, history })
}

pub(crate) async fn standing(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&standing::standing(&api.store).await?)
}

pub(crate) async fn events(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call.part("id")).await?;
    let from = call.number("from", 0, u64::MAX >> 1)?;
    let page = api.store.events(&run.id, from, limit(&call)?).await?;
    let next = page.last().map_or(from, |(seq, _)| seq + 1);
    // An event is a line of JSON; what is none is shown as the text that it is.
    let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let events = page.into_iter().map(|(seq, text)| Event { seq, event: read(text) }).collect();
    Answer::ok(&Events { events, next })
}

pub(crate) async fn observations(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call.part("id")).await?;
    let from = call.number("from", 0, u64::MAX >> 1)?;
    let page = api.engine.observations(&run.id, from, limit(&call)?);
    let missing = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("nothing is kept here of what proxies saw in the run `{}`", run.id),
            "it is kept where the run was begun with `observe`, in the memory of the controller that carried it out, until \
             that ends or later runs need the room",
        )
    };
    Answer::ok(&page.ok_or_else(missing)?)
}

pub(crate) async fn stream(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call.part("id")).await?;
    let from = stream::from(&call)?;
    stream::of(&api, stream::Of::Run(run.id), from, call.who.as_ref())
}

/// Why gates and budget are overruled, if they are and whoever asks may.
pub(super) fn overrules(call: &Call, why: Option<String>) -> Result<Option<String>, Problem> {
    let Some(why) = why else { return Ok(None) };
    if call.who.as_ref().is_none_or(|who| who.role < Role::Admin) {
        let what = "only an administrator may overrule gates and budget";
        return Err(Problem::bare(StatusCode::FORBIDDEN, what));
    }
    match why.trim().is_empty() || why.len() > 2000 {
        true => Err(Problem::bare(StatusCode::BAD_REQUEST, "`overrule` has 1 to 2000 characters")),
        false => Ok(Some(why)),
    }
}

pub(crate) async fn submit(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let mut submission: Submission = call.value()?;
    let overruled = overrules(&call, submission.overrule.take())?;
    submission.trace = call.trace;
    plans::unapproved(&api)?;
    let (by, beside) = (&call.name(), Some(&api.scheduler));
    begin(&api, Wanted { beside, overruled, ..Wanted::new(submission, by) }).await
}

/// Begins a run, and answers with it.
pub(super) async fn begin(api: &Arc<Api>, wanted: Wanted<'_>) -> Result<Answer, Problem> {
    let begun = api.launch.begin(wanted).await?;
    match begun.refused {
        Some(problem) => Err(problem),
        None => Answer::json(StatusCode::CREATED, &begun.run),
    }
}

/// What the gates said of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Gates {
    gates: Vec<Outcome>,
}

pub(super) async fn gates(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call.part("id")).await?;
    Answer::ok(&Gates { gates: api.store.outcomes(&run.id).await? })
}
