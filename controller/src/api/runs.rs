//! Runs: begun, listed, shown.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::engine::{Planned, Submission};
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, halts, plans, stream};
use crate::conductor::run_id;
use crate::standing;
use crate::store::{NewRun, RunRow, Tested};

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
pub(crate) struct Shown {
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

/// The run that a path names.
pub(crate) async fn named(api: &Api, call: &Call) -> Result<RunRow, Problem> {
    let id = call.part("id");
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no run `{id}`"));
    api.store.run(&id).await?.ok_or_else(missing)
}

pub(crate) async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let after = call.query.get("after").map(String::as_str);
    let page = api.store.runs(after, limit(&call)?).await?;
    Answer::ok(&Runs { runs: page.runs, next: page.next })
}

pub(crate) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call).await?;
    let history = standing::story(&api.store, &run.title).await?;
    Answer::ok(&Shown { run, history })
}

pub(crate) async fn standing(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&standing::standing(&api.store).await?)
}

pub(crate) async fn events(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call).await?;
    let from = call.number("from", 0, u64::MAX >> 1)?;
    let page = api.store.events(&run.id, from, limit(&call)?).await?;
    let next = page.last().map_or(from, |(seq, _)| seq + 1);
    // An event is a line of JSON; what is none is shown as the text that it is.
    let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let events = page.into_iter().map(|(seq, text)| Event { seq, event: read(text) }).collect();
    Answer::ok(&Events { events, next })
}

pub(crate) async fn stream(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let run = named(&api, &call).await?;
    // `Last-Event-ID` is what a client had; a client that never had anything says where it begins.
    let from = match call.last_event.as_deref().map(str::parse::<u64>) {
        Some(Ok(last)) => last.saturating_add(1),
        Some(Err(_)) => {
            return Err(Problem::bare(StatusCode::BAD_REQUEST, "`Last-Event-ID` is not a number"));
        }
        None => call.number("from", 0, u64::MAX >> 1)?,
    };
    stream::of(&api, run.id, from, call.who.as_ref())
}

pub(crate) async fn submit(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let submission: Submission = call.value()?;
    plans::unapproved(&api)?;
    halts::blocked(&api).await?;
    let planned = api.engine.plan(&submission).await?;
    begin(&api, &call, submission, planned, false).await
}

/// Begins the run of what was planned; where that is by an approval, it is used up.
pub(super) async fn begin(
    api: &Arc<Api>,
    call: &Call,
    mut submission: Submission,
    planned: Planned,
    approved: bool,
) -> Result<Answer, Problem> {
    submission.seed = Some(planned.seed);
    let id = run_id().0;
    if approved && !api.store.use_approval(&planned.hash, &id).await? {
        let what = "this plan is not approved, or its approval was used or is over";
        return Err(Problem::new(
            StatusCode::CONFLICT,
            what,
            "`squall approve HASH`; each approval is for one run",
        ));
    }
    if submission.build.as_ref().is_some_and(|build| build.chars().count() > 200) {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "`build` has at most 200 characters"));
    }
    let tested = Tested {
        build: submission.build.clone().filter(|build| !build.is_empty()),
        weight: planned.weight,
        content: planned.content,
    };
    let new = NewRun {
        id: id.clone(),
        title: planned.title,
        document: submission.document.clone(),
        plan: planned.hash,
        by: call.name(),
        tested,
    };
    api.store.new_run(new).await?;
    // A halt that came while this was planned blocks it too: either it is seen here, or it finds the run begun.
    let begun = match halts::blocked(api).await {
        Ok(()) => api.engine.start(&id, submission).await.map_err(Problem::from),
        Err(blocked) => Err(blocked),
    };
    if let Err(problem) = begun {
        api.store.set_run_state(&id, "refused", 0).await?;
        return Err(problem);
    }
    let run = api.store.run(&id).await?;
    Answer::json(StatusCode::CREATED, &run)
}
