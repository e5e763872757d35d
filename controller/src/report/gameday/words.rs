//! What figures and events are in words.

use squall_experiments::exit::Exit;
use squall_experiments::gameday::{
    Change, Course, Event, Mark, Mean, Phase, Reaction, Record, StepState, Through, Took,
};
use squall_experiments::summary::seconds;

use super::GameDayReport;

/// The day in a sentence or two.
pub fn gameday_sentence(report: &GameDayReport) -> String {
    let course = &report.course;
    let all = course.steps.len();
    let count =
        |wanted: fn(&StepState) -> bool| course.steps.iter().filter(|step| wanted(&step.state)).count();
    let done = count(|state| matches!(state, StepState::Done));
    let mut words = vec![match course.phase {
        Phase::New => "It has not begun".to_owned(),
        Phase::Open => format!("It goes on: {done} of {all} steps are over"),
        Phase::Stopping | Phase::Stopped => format!("It was stopped after {done} of {all} steps"),
        Phase::Ended => format!("{done} of {all} steps were carried out"),
    }];
    let came = |exit: Exit| course.steps.iter().filter(|step| step.exit() == Some(exit)).count();
    for exit in
        [Exit::Modified, Exit::Deviated, Exit::Inconclusive, Exit::Refused, Exit::Interrupted, Exit::Held]
    {
        if came(exit) > 0 {
            words.push(format!("{} {}", came(exit), exit.meaning()));
        }
    }
    let skipped = count(|state| matches!(state, StepState::Skipped));
    if skipped > 0 {
        words.push(format!("{skipped} skipped"));
    }
    let (first, rest) = words.split_at(1);
    let mut said = first.concat();
    if !rest.is_empty() {
        said = format!("{said}: {}", rest.join(", "));
    }
    let detect = report.figures.means.detect;
    match (detect.mean_ms, detect.n, detect.never) {
        (Some(ms), n, 0) => format!("{said}. Faults were noticed after {} on average ({n}).", seconds(ms)),
        (Some(ms), n, never) => format!(
            "{said}. Faults were noticed after {} on average ({n} of {}; {never} by nobody).",
            seconds(ms),
            n + never
        ),
        (None, _, never) if never > 0 => format!("{said}. Nobody noticed any of {never} faults."),
        _ => format!("{said}."),
    }
}

/// A time that was taken: `42.0 s`, `not within 10 min 0 s`.
pub(super) fn took(took: Option<Took>) -> String {
    match took {
        None => "-".to_owned(),
        Some(Took::AfterMs(ms)) => seconds(ms),
        Some(Took::NotWithinMs(ms)) => format!("not within {}", seconds(ms)),
    }
}

/// The same beside what was expected.
pub(super) fn reaction(reaction: Option<Reaction>) -> String {
    let Some(Reaction { took: came, expected_ms, met }) = reaction else { return "-".to_owned() };
    let word = match (expected_ms, met) {
        (None, _) => return took(Some(came)),
        (Some(_), Some(true)) => "in time",
        (Some(_), Some(false)) => "late",
        (Some(_), None) => "may come in time",
    };
    format!("{} ({word}, {} expected)", took(Some(came)), seconds(expected_ms.unwrap_or_default()))
}

/// A mean with what it is made of.
pub(super) fn mean(mean: Mean) -> String {
    let count = |n: u64| if n == 1 { "1 step".to_owned() } else { format!("{n} steps") };
    match (mean.mean_ms, mean.never) {
        (None, 0) => "-".to_owned(),
        (None, never) => format!("never, in {}", count(never)),
        (Some(ms), 0) => format!("{} ({})", seconds(ms), count(mean.n)),
        (Some(ms), never) => format!("{} ({}; never in {})", seconds(ms), count(mean.n), count(never)),
    }
}

/// How a time changed.
pub(super) fn change(change: Option<Change>) -> String {
    match change {
        None => "-".to_owned(),
        Some(Change::SoonerMs(0)) => "the same".to_owned(),
        Some(Change::SoonerMs(ms)) => format!("{} sooner", seconds(ms)),
        Some(Change::LaterMs(ms)) => format!("{} later", seconds(ms)),
        Some(Change::CameThisTime) => "this time at all".to_owned(),
        Some(Change::NotThisTime) => "not this time".to_owned(),
        Some(Change::NeverBoth) => "never, both times".to_owned(),
    }
}

/// How a step ended, or where it stands.
pub(super) fn outcome(course: &Course, at: usize) -> &'static str {
    let step = &course.steps[at];
    match (&step.state, step.exit()) {
        (_, Some(exit)) => exit.meaning(),
        (state, None) => state.word(),
    }
}

/// An event in words, without who said it and when.
pub fn gameday_event(record: &Record) -> String {
    match &record.event {
        Event::Begun => "the game day began".to_owned(),
        Event::Paused { step, until } => format!("a pause before `{step}`, until {}", gameday_clock(*until)),
        Event::Asked { step, why } => match why {
            Some(why) => format!("go for `{step}`? ({why})"),
            None => format!("go for `{step}`?"),
        },
        Event::Go { step } => format!("go for `{step}`"),
        Event::NoGo { step, why } => format!("no-go for `{step}`: {why}"),
        Event::Refused { step, why } => format!("`{step}` was not begun: {why}"),
        Event::RunBegan { step, run } => format!("`{step}` began, run {run}"),
        Event::FaultBegan { step, .. } => format!("the fault of `{step}` began"),
        Event::FaultEnded { step, .. } => format!("the fault of `{step}` ended"),
        Event::WellAgain { step, .. } => format!("`{step}`: the hypothesis held again"),
        Event::RunEnded { step, sentence, .. } => format!("`{step}` ended: {sentence}"),
        Event::Done { step } => format!("`{step}` is over"),
        Event::Marked { step, mark, through, .. } => format!("`{step}` {mark}, {}", by(*through)),
        Event::TakenBack { step, mark } => format!("`{step}`: {mark} was pressed by mistake"),
        Event::Noted { step: Some(step), text } => format!("note on `{step}`: {text}"),
        Event::Noted { step: None, text } => format!("note: {text}"),
        Event::Stopped { why } => format!("stopped: {why}"),
        Event::Ended => "the game day ended".to_owned(),
    }
}

/// When an event happened: what a run measured is earlier than it was heard of.
pub fn gameday_moment(record: &Record) -> u64 {
    match &record.event {
        Event::FaultBegan { moment, .. }
        | Event::FaultEnded { moment, .. }
        | Event::WellAgain { moment, .. }
        | Event::Marked { moment, .. } => *moment,
        _ => record.at,
    }
}

fn by(through: Through) -> &'static str {
    match through {
        Through::Page => "on the page",
        Through::Api => "by a command",
        Through::Webhook => "by an alert",
    }
}

/// A mark as a question.
pub(super) fn verb(mark: Mark) -> &'static str {
    match mark {
        Mark::Detected => "notice",
        Mark::Acknowledged => "take on",
        Mark::Mitigated => "mitigate",
    }
}

/// A time of day of UTC.
pub fn gameday_clock(ms: u64) -> String {
    let date = crate::conductor::date_of(ms);
    date.get(11..19).unwrap_or_default().to_owned()
}
