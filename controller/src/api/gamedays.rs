//! Game days.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use squall_experiments::exit::Exit;
use squall_experiments::gameday::{
    self, Between, Comparison, Course, DayFigures, Event, Experiment, GameDay, Mark, Means, Record,
    StepFigures, Through,
};
use squall_experiments::name::Name;

use super::engine::Submission;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::runs::limit;
use super::{Api, blocked, stream};
use crate::gameday::{Day, DayError};
use crate::report::{Before, GameDayReport, SoFar, gameday_html, gameday_markdown};
use crate::store::{GameDayRow, now_ms};

/// Over how many days of one name means are told.
const DAYS: u64 = 50;
/// Over how many runs of each experiment the time between deviations is told.
const RUNS: u64 = 1000;
/// The longest text that somebody says, in bytes.
const LONGEST: usize = 4000;

/// A game day that is to begin.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The game day file, as text (YAML or JSON), with the text of every experiment in it.
    document: String,
    /// What the file is called in messages.
    #[serde(default)]
    name: Option<String>,
}

/// Go to a step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Going {
    /// The step that is meant: who comes second does not begin the next one by mistake.
    #[schemars(with = "String")]
    step: Name,
}

/// No-go to a step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotGoing {
    /// The step that is meant.
    #[schemars(with = "String")]
    step: Name,
    /// Why; it stands in the report.
    reason: String,
}

/// A mark that is pressed, or taken back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marking {
    /// Which.
    mark: Mark,
    /// The step whose fault it is about; none: the last in which something was injected.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    step: Option<Name>,
    /// When it happened, in milliseconds since 1970; none: now.
    #[serde(default)]
    at: Option<u64>,
}

/// A note.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Noting {
    /// What is written down.
    text: String,
    /// The step that it is about; none: the day.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    step: Option<Name>,
}

/// Why something is done.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Why; for everybody who wonders later.
    reason: String,
}

/// Game days, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Days {
    game_days: Vec<GameDayRow>,
}

/// Events of a game day.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Events {
    /// Each with its number, from 0 on.
    events: Vec<Numbered>,
    /// The number that comes next.
    next: u64,
}

/// An event and its number.
#[derive(Debug, Serialize, JsonSchema)]
struct Numbered {
    seq: u64,
    #[schemars(with = "Value")]
    event: Record,
}

/// A game day, where it stands, and what was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Told {
    /// What it is.
    #[serde(flatten)]
    pub(crate) row: GameDayRow,
    /// Its document, with the texts of its experiments.
    #[schemars(with = "Value")]
    pub(crate) day: GameDay,
    /// Where it stands: each step, with its runs and marks.
    #[schemars(with = "Value")]
    pub(crate) course: Course,
    /// The times of each step, and their means.
    #[schemars(with = "Value")]
    pub(crate) figures: DayFigures,
    /// The exit code of a command that followed it.
    pub(crate) exit: u8,
    /// This day beside the last one of its name; none: it is the first.
    pub(crate) before: Option<Before>,
    /// The means over the last days of its name, this one among them.
    pub(crate) over: Over,
    /// The time between deviations, over all runs of its experiments.
    #[schemars(with = "Value")]
    pub(crate) between: Between,
}

/// A report.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The text of its file.
    text: String,
}

/// Means over days.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Over {
    /// How many.
    pub(crate) days: u64,
    /// MTTD, MTTA, the mean time to mitigate, and MTTR.
    #[schemars(with = "Value")]
    pub(crate) means: Means,
}

/// The day of an id, or the newest of a name: of those that go on, where there are some.
pub(crate) async fn named(api: &Api, id: &str) -> Result<GameDayRow, Problem> {
    if let Some(row) = api.store.game_day(id).await? {
        return Ok(row);
    }
    let days = api.store.game_days(Some(id), DAYS).await?;
    let open = days.iter().find(|row| row.state == "open" || row.state == "stopping").cloned();
    open.or_else(|| days.into_iter().next()).ok_or_else(|| {
        let help = "`squall gameday list` tells those that there are";
        Problem::new(StatusCode::NOT_FOUND, format!("there is no game day `{id}`"), help)
    })
}

/// What is told of a day.
pub(crate) async fn told(api: &Api, day: Day) -> Result<Told, Problem> {
    let now = now_ms();
    let figures = DayFigures::of(&day.document, &day.course, now);
    let mut before = None;
    let mut steps: Vec<StepFigures> = figures.steps.clone();
    let mut days = 1;
    for row in api.store.game_days(Some(&day.row.name), DAYS).await? {
        if (row.at, &row.id) >= (day.row.at, &day.row.id) {
            continue;
        }
        let (id, at) = (row.id.clone(), row.at);
        let earlier = Day::read(&api.store, row).await?;
        let then = DayFigures::of(&earlier.document, &earlier.course, now);
        if before.is_none() {
            before = Some(Before { id, at, comparison: Comparison::of(&then, &figures) });
        }
        steps.extend(then.steps);
        days += 1;
    }
    let means = Means::over(&steps);
    let between = between(api, &day.course, now).await?;
    let exit = day.course.exit() as u8;
    let Day { row, document, course, .. } = day;
    Ok(Told { row, day: document, course, figures, exit, before, over: Over { days, means }, between })
}

/// The time between deviations over all runs of the experiments of a day.
async fn between(api: &Api, course: &Course, now: u64) -> Result<Between, Problem> {
    let mut titles = Vec::new();
    for attempt in course.steps.iter().flat_map(|step| &step.attempts) {
        if let Some(run) = api.store.run(&attempt.run).await?
            && !titles.contains(&run.title)
        {
            titles.push(run.title);
        }
    }
    let mut runs = Vec::new();
    for title in titles {
        let ended = api.store.ended(&title, RUNS).await?;
        let exit =
            |state: &str| [Exit::Held, Exit::Deviated].into_iter().find(|exit| exit.meaning() == state);
        runs.extend(ended.into_iter().filter_map(|run| Some((run.at, exit(&run.state)?))));
    }
    Ok(Between::of(runs, now))
}

/// The same with the record, for its report.
pub(crate) async fn report(api: &Api, day: Day) -> Result<GameDayReport, Problem> {
    let record = day.records.clone();
    let Told { row, day, course, figures, before, over, between, .. } = told(api, day).await?;
    let so_far = SoFar { days: over.days, means: over.means, between };
    let so_far = Some(so_far);
    Ok(GameDayReport { id: row.id, by: row.by, day, record, course, figures, before, so_far })
}

pub(crate) async fn reported(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let report = report(&api, read(&api, &call).await?).await?;
    let text = match call.query.get("as").map(String::as_str) {
        Some("html") => gameday_html(&report),
        Some("md") => gameday_markdown(&report),
        _ => {
            let help = "ask for `as=html` or `as=md`; the day itself is the report for programs";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "there is no such report", help));
        }
    };
    Answer::ok(&Report { text })
}

async fn read(api: &Api, call: &Call) -> Result<Day, Problem> {
    Ok(Day::read(&api.store, named(api, &call.part("id")).await?).await?)
}

pub(crate) async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name = call.query.get("name").map(String::as_str);
    Answer::ok(&Days { game_days: api.store.game_days(name, limit(&call)?).await? })
}

pub(crate) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let day = read(&api, &call).await?;
    Answer::ok(&told(&api, day).await?)
}

pub(crate) async fn events(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let day = read(&api, &call).await?;
    let from = call.number("from", 0, u64::MAX >> 1)?;
    let most = usize::try_from(limit(&call)?).unwrap_or(usize::MAX);
    let numbered = (0u64..).zip(day.records).map(|(seq, event)| Numbered { seq, event });
    let events: Vec<Numbered> = numbered.filter(|numbered| numbered.seq >= from).take(most).collect();
    let next = events.last().map_or(from, |last| last.seq + 1);
    Answer::ok(&Events { events, next })
}

pub(crate) async fn follow(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let row = named(&api, &call.part("id")).await?;
    let from = stream::from(&call)?;
    stream::of(&api, stream::Of::GameDay(row.id), from, call.who.as_ref())
}

fn invalid(what: String) -> Problem {
    Problem { exit: Exit::Invalid as u8, ..Problem::bare(StatusCode::UNPROCESSABLE_ENTITY, what) }
}

pub(crate) async fn begin(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted: Wanted = call.value()?;
    let file = wanted.name.as_deref().unwrap_or("the game day");
    let day = gameday::read(file, wanted.document.as_bytes())
        .map_err(|problems| invalid(problems.render(false)))?;
    for step in &day.steps {
        let text = match step.experiment() {
            None => continue,
            Some(Experiment::Text(text)) => text,
            Some(Experiment::File(file)) => {
                return Err(invalid(format!(
                    "the step `{}` names the file `{file}`, which the controller does not read; \
                     help: `squall gameday run` puts its text into the document",
                    step.name
                )));
            }
        };
        // Whether there are hosts for it is looked at when it runs; what is no experiment never will be one.
        let submission = Submission {
            document: text.to_owned(),
            name: Some(format!("the experiment of step `{}`", step.name)),
            vars: step.vars.clone(),
            seed: Some(0),
            ..Submission::default()
        };
        if let Err(refusal) = api.engine.plan(&submission).await
            && refusal.exit == Exit::Invalid as u8
        {
            return Err(refusal.into());
        }
    }
    blocked(&api.store).await?;
    let row = api.gamedays.begin(&day, &call.name()).await?;
    let day = Day::read(&api.store, row).await?;
    Answer::json(StatusCode::CREATED, &told(&api, day).await?)
}

/// Adds what somebody says to a day, and answers with where it stands then.
async fn say(api: &Api, call: &Call, mut day: Day, event: Event) -> Result<Answer, Problem> {
    match day.add(&api.store, None, &call.name(), event).await {
        Ok(()) => Answer::ok(&told(api, day).await?),
        Err(DayError::Store(error)) => Err(error.into()),
        Err(DayError::Refused(refused)) => {
            Err(Problem { help: refused.help, ..Problem::bare(StatusCode::CONFLICT, refused.what) })
        }
    }
}

fn text(text: String, what: &str) -> Result<String, Problem> {
    match text.trim().is_empty() || text.len() > LONGEST {
        true => {
            let detail = format!("`{what}` has 1 to {LONGEST} characters");
            Err(Problem::bare(StatusCode::BAD_REQUEST, detail))
        }
        false => Ok(text.trim().to_owned()),
    }
}

pub(crate) async fn go(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Going { step } = call.value()?;
    let day = read(&api, &call).await?;
    // Go to a step that waits for marks is: on to what comes next.
    let observing = day.course.step(&step).is_some_and(|step| step.state.word() == "observing");
    if !observing && let Some(why) = api.gamedays.refuses_go(&day, &step, &call.name()) {
        return Err(Problem::new(StatusCode::CONFLICT, why, "no-go and `stop` are anybody's"));
    }
    let event = if observing { Event::Done { step } } else { Event::Go { step } };
    say(&api, &call, day, event).await
}

pub(crate) async fn no_go(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let NotGoing { step, reason } = call.value()?;
    let why = text(reason, "reason")?;
    let day = read(&api, &call).await?;
    say(&api, &call, day, Event::NoGo { step, why }).await
}

/// The step that is meant: where none is named, the last in which something was injected.
fn meant(day: &Day, step: Option<Name>, mark: Mark) -> Result<Name, Problem> {
    let question = || day.course.in_question().map(|step| step.name.clone());
    step.or_else(question).ok_or_else(|| {
        let what = format!("nothing has been injected yet: there is nothing to be {mark}");
        Problem::new(StatusCode::CONFLICT, what, "press it again when a fault is there")
    })
}

/// Presses a mark. Pressing it again, at the same time or later, is no error and changes nothing.
pub(crate) async fn press(
    api: &Api,
    call: &Call,
    step: Option<Name>,
    mark: Mark,
    at: Option<u64>,
    through: Through,
) -> Result<Answer, Problem> {
    let (day, now) = (read(api, call).await?, now_ms());
    let moment = at.unwrap_or(now);
    if moment > now {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "`at` is in the future"));
    }
    let step = meant(&day, step, mark)?;
    let known = day.course.step(&step).and_then(|step| step.injected()?.pressed(mark)).cloned();
    if !day.course.phase.is_over() && known.is_some_and(|known| known.moment <= moment) {
        return Answer::ok(&told(api, day).await?);
    }
    say(api, call, day, Event::Marked { step, mark, moment, through }).await
}

pub(crate) async fn mark(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Marking { mark, step, at } = call.value()?;
    press(&api, &call, step, mark, at, Through::Api).await
}

/// An alert, in whatever form its tool sends it: the query says what it means.
pub(crate) async fn alert(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let bad = |what: String| Problem::bare(StatusCode::BAD_REQUEST, what);
    let mark = match call.query.get("mark") {
        None => Mark::Detected,
        Some(text) => text.parse().map_err(bad)?,
    };
    let step = call.query.get("step").map(|text| text.parse::<Name>());
    let step = step.transpose().map_err(|error| bad(error.to_string()))?;
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    // Alertmanager and Grafana tell the end of an alert the same way: that detects nothing.
    if body["status"] == "resolved" {
        let day = read(&api, &call).await?;
        return Answer::ok(&told(&api, day).await?);
    }
    press(&api, &call, step, mark, None, Through::Webhook).await
}

pub(crate) async fn take_back(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Marking { mark, step, .. } = call.value()?;
    let day = read(&api, &call).await?;
    let step = meant(&day, step, mark)?;
    say(&api, &call, day, Event::TakenBack { step, mark }).await
}

pub(crate) async fn note(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Noting { text: note, step } = call.value()?;
    let note = text(note, "text")?;
    let day = read(&api, &call).await?;
    say(&api, &call, day, Event::Noted { step, text: note }).await
}

pub(crate) async fn stop(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Reason { reason } = call.value()?;
    let why = text(reason, "reason")?;
    let day = read(&api, &call).await?;
    let run = day.course.open().map(|(_, attempt)| attempt.run.clone());
    let answer = say(&api, &call, day, Event::Stopped { why }).await?;
    if let Some(run) = run {
        api.engine.halt_run(&run).await?;
    }
    Ok(answer)
}
