//! What stands in the report, whatever it is written in.

use squall_experiments::gameday::{Compared, StepFigures};
use squall_experiments::summary::seconds;

use super::words::{
    change, gameday_clock, gameday_event, gameday_moment, gameday_sentence, mean, outcome, reaction, took,
};
use super::{GameDayReport, postmortem};
use crate::conductor::date_of;

/// A section under a heading.
pub(super) struct Section {
    /// What it is called; also what its piece is called on a page that is renewed.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) blocks: Vec<Block>,
}

/// A piece of a section. Names stand in backticks.
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// A smaller heading.
    Title(String),
    /// A list.
    List(Vec<String>),
    /// A list whose order counts.
    Numbered(Vec<String>),
    /// A table: what it shows, its heads, its rows.
    Table(String, Vec<&'static str>, Vec<Vec<String>>),
}

/// All sections: who decides reads the first, who mends the next two, who writes the post-mortem the last.
pub(super) fn sections(report: &GameDayReport) -> Vec<Section> {
    let mut all = vec![summary(report), timeline(report), evidence(report)];
    if report.course.phase.is_over() {
        all.push(Section { key: "postmortem", title: "Post-mortem", blocks: postmortem::blocks(report) });
    }
    all
}

fn summary(report: &GameDayReport) -> Section {
    let mut blocks = vec![Block::Text(gameday_sentence(report))];
    if let Some(stopped) = &report.course.stopped {
        let why = stopped.why.as_deref().unwrap_or("no reason was given");
        blocks.push(Block::Text(format!("{} stopped it: {why}", stopped.by)));
    }
    let rows = report.figures.steps.iter().enumerate().map(|(at, step)| row(report, at, step));
    let heads =
        vec!["step", "came out", "noticed after", "taken on after", "mitigated after", "well again after"];
    let caption = "Each step; times from the beginning of its fault, as it was measured";
    blocks.push(Block::Table(caption.to_owned(), heads, rows.collect()));
    let means = &report.figures.means;
    let mut rows = vec![vec![
        "this day".to_owned(),
        mean(means.detect),
        mean(means.acknowledge),
        mean(means.mitigate),
        mean(means.recover),
    ]];
    if let Some(before) = &report.before {
        let means = &before.comparison.before;
        rows.push(vec![
            format!("the one of {}", &date_of(before.at)[..10]),
            mean(means.detect),
            mean(means.acknowledge),
            mean(means.mitigate),
            mean(means.recover),
        ]);
    }
    if let Some(so_far) = report.so_far.as_ref().filter(|so_far| so_far.days > 1) {
        let means = &so_far.means;
        rows.push(vec![
            format!("all {} days", so_far.days),
            mean(means.detect),
            mean(means.acknowledge),
            mean(means.mitigate),
            mean(means.recover),
        ]);
    }
    let heads = vec!["", "MTTD", "MTTA", "mean time to mitigate", "MTTR"];
    blocks.push(Block::Table("Means; what never came is counted, and is in no mean".to_owned(), heads, rows));
    if let Some(between) =
        report.so_far.as_ref().map(|so_far| so_far.between).filter(|between| between.runs > 0)
    {
        blocks.push(Block::Text(match between.mean_ms {
            Some(ms) => format!(
                "Practice shows a weakness every {} on average (MTBF; {} of {} runs deviated).",
                long(ms),
                between.deviated,
                between.runs
            ),
            None => format!("None of {} runs deviated so far, so there is no MTBF.", between.runs),
        }));
    }
    if let Some(before) = &report.before {
        let rows = before.comparison.steps.iter().map(beside).collect();
        let heads = vec!["step", "then", "now", "noticed", "taken on", "mitigated", "well again"];
        let caption = format!("Beside the game day of {}", date_of(before.at).replace('T', " "));
        blocks.push(Block::Table(caption, heads, rows));
    }
    Section { key: "summary", title: "Summary", blocks }
}

fn row(report: &GameDayReport, at: usize, step: &StepFigures) -> Vec<String> {
    vec![
        format!("`{}`", step.step),
        outcome(&report.course, at).to_owned(),
        reaction(step.detect),
        reaction(step.acknowledge),
        reaction(step.mitigate),
        took(step.recover),
    ]
}

fn beside(step: &Compared) -> Vec<String> {
    let exit = |exit: Option<squall_experiments::exit::Exit>, there: bool| match (exit, there) {
        (Some(exit), _) => exit.meaning().to_owned(),
        (None, true) => "no run".to_owned(),
        (None, false) => "not planned".to_owned(),
    };
    vec![
        format!("`{}`", step.step),
        exit(step.exit.before, step.there.0),
        exit(step.exit.now, step.there.1),
        change(step.detect),
        change(step.acknowledge),
        change(step.mitigate),
        change(step.recover),
    ]
}

/// Everything that happened, in the order in which it did.
fn timeline(report: &GameDayReport) -> Section {
    let begun = report.course.begun.unwrap_or_default();
    let mut told: Vec<(u64, &str, String)> = report
        .record
        .iter()
        .map(|record| (gameday_moment(record), record.by.as_str(), gameday_event(record)))
        .collect();
    told.sort_by_key(|(moment, ..)| *moment);
    let rows = told.into_iter().map(|(moment, by, event)| {
        vec![
            gameday_clock(moment),
            format!("+{}", seconds(moment.saturating_sub(begun))),
            event,
            by.to_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let caption = format!("Times of {}, UTC", date_of(begun).get(..10).unwrap_or_default());
    let blocks = match rows.is_empty() {
        true => vec![Block::Text("Nothing has happened yet.".to_owned())],
        false => vec![Block::Table(caption, vec!["at", "after", "what", "by"], rows)],
    };
    Section { key: "timeline", title: "Timeline", blocks }
}

/// Where the evidence of each step is.
fn evidence(report: &GameDayReport) -> Section {
    let mut blocks = Vec::new();
    for (planned, step) in report.day.steps.iter().zip(&report.course.steps) {
        blocks.push(Block::Title(format!("`{}`", step.name)));
        if let Some((role, who)) = report.day.lead(planned) {
            blocks.push(Block::Text(format!("Led by {who} ({role}).")));
        }
        if let Some(notes) = &planned.notes {
            blocks.push(Block::Text(notes.clone()));
        }
        let mut said: Vec<String> = step
            .attempts
            .iter()
            .map(|attempt| {
                let sentence = attempt.sentence.as_deref().unwrap_or("it goes on");
                let fault = attempt.fault_began.map_or_else(
                    || "nothing was injected".to_owned(),
                    |began| match attempt.fault_ended {
                        Some(ended) => {
                            format!(
                                "its fault lasted {} from {} on",
                                seconds(ended.saturating_sub(began)),
                                gameday_clock(began)
                            )
                        }
                        None => format!("its fault is there since {}", gameday_clock(began)),
                    },
                );
                format!("run `{}`: {sentence}; {fault}", attempt.run)
            })
            .collect();
        if let Some(go) = step.go.as_ref().filter(|_| step.manual) {
            said.push(format!("{}, go by {}", gameday_clock(go.at), go.by));
        }
        if let Some(no_go) = &step.no_go {
            said.push(format!(
                "no-go by {}: {}",
                no_go.by,
                no_go.why.as_deref().unwrap_or("no reason was given")
            ));
        }
        let notes = report.course.notes.iter().filter(|note| note.step.as_ref() == Some(&step.name));
        said.extend(notes.map(|note| format!("{}, {}: {}", gameday_clock(note.at), note.by, note.text)));
        if said.is_empty() {
            said.push("nothing has happened".to_owned());
        }
        blocks.push(Block::List(said));
    }
    let notes = report.course.notes.iter().filter(|note| note.step.is_none());
    let notes: Vec<String> =
        notes.map(|note| format!("{}, {}: {}", gameday_clock(note.at), note.by, note.text)).collect();
    if !notes.is_empty() {
        blocks.push(Block::Title("Notes on the day".to_owned()));
        blocks.push(Block::List(notes));
    }
    Section { key: "evidence", title: "Steps and evidence", blocks }
}

/// A time of days or hours.
pub(super) fn long(ms: u64) -> String {
    let hours = ms as f64 / 3_600_000.0;
    match hours {
        ..2.0 => seconds(ms),
        2.0..48.0 => format!("{hours:.1} h"),
        _ => format!("{:.1} days", hours / 24.0),
    }
}
