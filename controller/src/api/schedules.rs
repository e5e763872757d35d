//! Schedules and their calendar.

use std::sync::Arc;

use axum::http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::fleet::hex;
use squall_experiments::schedule::{self, Timing};

use super::Api;
use super::engine::Submission;
use super::plans::{Approvals, person};
use super::problem::Problem;
use super::routes::{Answer, Call};
use crate::fleet::authority::sha256;
use crate::notify::Happening;
use crate::scheduler::calendar::{LONGEST, Line, refused};
use crate::store::{Approved, NewSchedule, Paused, ScheduleRow, StoreError};

/// How many entries one schedule shows of what is coming.
const NEXT: usize = 10;
/// In how many years it is looked for: as far as a calendar reaches.
const YEARS: u8 = 10;

/// A schedule that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The schedule file, as text (YAML or JSON).
    document: String,
    /// What the file is called in messages.
    #[serde(default)]
    name: Option<String>,
    /// The experiment file, as text, where the schedule does not hold it.
    #[serde(default)]
    experiment: Option<String>,
}

/// Why something is done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// Why; for everybody who wonders later.
    reason: String,
}

/// An approval.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    /// The `hash` of what was looked at: another schedule of that name is not approved.
    #[serde(default)]
    hash: Option<String>,
}

/// All schedules.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Schedules {
    schedules: Vec<Shown>,
}

/// A schedule.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Shown {
    /// Its name.
    name: String,
    /// The schedule file as JSON, its experiment in it.
    schedule: Value,
    /// Its SHA-256: what an approval is for.
    hash: String,
    /// The seed of every coin, time and run.
    seed: u64,
    /// Who added it.
    by: String,
    /// When: milliseconds since 1970. Its entries begin here.
    at: u64,
    /// Why nothing of it runs; none: it runs.
    paused: Option<Paused>,
    /// Who approved it; none: nobody.
    approved: Option<Approved>,
    /// What is coming, within a year, or where nothing is, in the first of ten years in which something is; only where one schedule
    /// is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<Line>,
}

fn shown(row: ScheduleRow, next: Vec<Line>) -> Shown {
    let schedule = serde_json::from_str(&row.document).unwrap_or_default();
    let hash = hex(&sha256(row.document.as_bytes()));
    let ScheduleRow { name, seed, by, at, paused, approved, .. } = row;
    Shown { name, schedule, hash, seed, by, at, paused, approved, next }
}

async fn named(api: &Api, call: &Call) -> Result<ScheduleRow, Problem> {
    let name = call.part("name");
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no schedule `{name}`"));
    api.store.schedule(&name).await?.ok_or_else(missing)
}

/// The schedule with what is coming of it: within a year, and where nothing is, in the first of the next ten years in which
/// something is.
async fn with_next(api: &Api, row: ScheduleRow) -> Result<Shown, Problem> {
    let now = Timestamp::now();
    let (mut from, mut next) = (now, Vec::new());
    for _ in 0..YEARS {
        let to = from.checked_add(LONGEST).unwrap_or(from);
        next = api.scheduler.calendar(Some(&row.name), from, to, now).await?.entries;
        if !next.is_empty() {
            break;
        }
        from = to;
    }
    next.truncate(NEXT);
    Ok(shown(row, next))
}

pub(super) async fn list(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    let rows = api.store.schedules().await?;
    Answer::ok(&Schedules { schedules: rows.into_iter().map(|row| shown(row, Vec::new())).collect() })
}

pub(super) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Answer::ok(&with_next(&api, named(&api, &call).await?).await?)
}

pub(super) async fn add(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted: Wanted = call.value()?;
    let invalid = |what: String| Problem {
        exit: Exit::Invalid as u8,
        ..Problem::bare(StatusCode::UNPROCESSABLE_ENTITY, what)
    };
    let file = wanted.name.as_deref().unwrap_or("the schedule");
    let mut schedule = schedule::read(file, wanted.document.as_bytes())
        .map_err(|problems| invalid(problems.render(false)))?;
    match (wanted.experiment, schedule.experiment.is_empty()) {
        (Some(experiment), true) => schedule.experiment = experiment,
        (Some(_), false) => {
            return Err(invalid("the schedule holds an experiment, and another one is given".to_owned()));
        }
        (None, true) => {
            return Err(invalid("the schedule has no `experiment`; help: name its file".to_owned()));
        }
        (None, false) => {}
    }
    let now = Timestamp::now();
    if let Timing::At(moment) = &schedule.when
        && moment.at(&schedule.zone).is_ok_and(|at| at < now)
    {
        let help = Some("write a time that is still to come".to_owned());
        return Err(Problem { help, ..invalid(format!("`at: {moment}` is over")) });
    }
    // A calendar that nobody has is told now, not when it would matter.
    let calendars = api.launch.config().calendars().map_err(|error| invalid(error.to_string()))?;
    let soon = now.checked_add(LONGEST).unwrap_or(now);
    schedule.bars(&calendars, now, soon).map_err(|error| invalid(error.to_string()))?;
    // Whether there are hosts for it is looked at when it runs; what is no experiment, or a sequence of runs, never will be one.
    let submission = Submission {
        document: schedule.experiment.clone(),
        name: Some(format!("the experiment of schedule `{}`", schedule.name)),
        vars: schedule.vars.clone(),
        seed: Some(0),
        ..Submission::default()
    };
    api.engine.check(&submission)?;
    // 32 bits are enough to repeat a plan, and stay exact in every JSON reader.
    let seed = schedule.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let name = schedule.name.to_string();
    let document = serde_json::to_string(&schedule).map_err(|error| invalid(error.to_string()))?;
    let at = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let hash = hex(&sha256(document.as_bytes()));
    let new = NewSchedule { name: name.clone(), document, seed, by: call.name(), at };
    api.store.new_schedule(new).await.map_err(|error| match error {
        StoreError::Clash(_) => Problem::new(
            StatusCode::CONFLICT,
            format!("there is a schedule `{name}` already"),
            format!("give this one another name, or remove that one first: `squall schedule remove {name}`"),
        ),
        error => error.into(),
    })?;
    api.store.audit(&call.name(), json!({ "added-schedule": name, "hash": hash })).await?;
    if api.launch.approvals() == Approvals::Required {
        let by = person(&call);
        let how = format!("squall schedule approve {name}");
        api.store.tell(Happening::ApprovalWanted { how, title: format!("schedule `{name}`"), by });
    }
    let row = api.store.schedule(&name).await?;
    let gone = || Problem::bare(StatusCode::NOT_FOUND, "it was removed at once");
    Answer::json(StatusCode::CREATED, &with_next(&api, row.ok_or_else(gone)?).await?)
}

fn reason(call: &Call) -> Result<String, Problem> {
    let Reason { reason } = call.value()?;
    match reason.trim().is_empty() || reason.len() > 2000 {
        true => Err(Problem::bare(StatusCode::BAD_REQUEST, "`reason` has 1 to 2000 characters")),
        false => Ok(reason),
    }
}

pub(crate) async fn pause(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let why = reason(&call)?;
    let row = named(&api, &call).await?;
    api.store.audit(&call.name(), json!({ "paused": row.name, "because": why })).await?;
    api.store.pause_schedule(&row.name, Some(Paused::now(&call.name(), &why))).await?;
    Answer::ok(&with_next(&api, named(&api, &call).await?).await?)
}

pub(crate) async fn resume(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let because = reason(&call)?;
    let row = named(&api, &call).await?;
    api.store.audit(&call.name(), json!({ "resumed": row.name, "because": because })).await?;
    api.store.pause_schedule(&row.name, None).await?;
    Answer::ok(&with_next(&api, named(&api, &call).await?).await?)
}

pub(super) async fn approve(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let row = named(&api, &call).await?;
    let by = person(&call);
    // The name of whoever added it stands before the identity of his token.
    let added_by = row.by.rsplit_once(" (").map_or(row.by.as_str(), |(name, _)| name);
    if api.launch.approvals() == Approvals::Required && added_by == by {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            format!("`{by}` has added this schedule"),
            "another person approves it: with a token of another name",
        ));
    }
    let Approval { hash: seen } = if call.body.is_empty() { Approval::default() } else { call.value()? };
    let hash = hex(&sha256(row.document.as_bytes()));
    if seen.is_some_and(|seen| seen != hash) {
        let what = format!("the schedule `{}` is another one now", row.name);
        return Err(Problem::new(StatusCode::CONFLICT, what, "look at it again before you approve it"));
    }
    api.store.audit(&call.name(), json!({ "approved-schedule": row.name, "hash": hash })).await?;
    let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    api.store.approve_schedule(&row.name, row.at, Approved { at, by, hash }).await?;
    Answer::ok(&with_next(&api, named(&api, &call).await?).await?)
}

pub(super) async fn remove(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let row = named(&api, &call).await?;
    api.store.remove_schedule(&row.name).await?;
    api.store.audit(&call.name(), json!({ "removed-schedule": row.name })).await?;
    Answer::none()
}

/// An instant of the query: milliseconds since 1970, or RFC 3339.
fn instant(call: &Call, name: &str, usual: Timestamp) -> Result<Timestamp, Problem> {
    let Some(text) = call.query.get(name) else { return Ok(usual) };
    let read = match text.parse::<i64>() {
        Ok(ms) => Timestamp::from_millisecond(ms).ok(),
        Err(_) => text.parse().ok(),
    };
    read.ok_or_else(|| {
        let help = "write milliseconds since 1970, or `2027-03-01T00:00:00Z`";
        Problem::new(StatusCode::BAD_REQUEST, format!("`{name}` is no time"), help)
    })
}

pub(super) async fn calendar(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let now = Timestamp::now();
    let from = instant(&call, "from", now)?;
    let week = from.checked_add(jiff::SignedDuration::from_hours(7 * 24)).unwrap_or(from);
    let to = instant(&call, "to", week)?;
    if let Some(why) = refused(from, to, now) {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, why));
    }
    let only = call.query.get("schedule").map(String::as_str);
    let pages = api.scheduler.calendar(only, from, to, now).await?;
    // What became of the entries of one that was removed is still shown.
    if let Some(name) = only
        && pages.entries.is_empty()
        && api.store.schedule(name).await?.is_none()
    {
        let what = format!("there is no schedule `{name}`, and nothing was of one in this time");
        return Err(Problem::new(StatusCode::NOT_FOUND, what, "`squall schedule` lists them"));
    }
    Answer::ok(&pages)
}
