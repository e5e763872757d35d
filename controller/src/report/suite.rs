//! The report of a suite on a terminal: a line for each experiment, and what they come to.

use squall_experiments::exit::Exit;
use squall_experiments::suite::{Suite, Tested};
use squall_experiments::summary::seconds;

use super::{Paint, printable};

/// The whole report, ending with a line feed.
pub fn suite(suite: &Suite, paint: Paint) -> String {
    let width = suite.experiments.iter().map(|tested| tested.verdict.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", paint.bold("Experiments"));
    for tested in &suite.experiments {
        experiment(tested, width, paint, &mut text);
    }
    if let Some(score) = &suite.score {
        text.push_str(&format!("\n{}\n", score.in_words()));
        for aged in &score.aged {
            text.push_str(&format!(
                "  {}: {} {} days ago, counts {:.2}\n",
                aged.title, aged.verdict, aged.days, aged.counts
            ));
        }
    }
    text.push_str(&format!("\n{}\n", paint.dim(&format!("took {}", seconds(suite.took_ms)))));
    let code = match suite.exit {
        Exit::Held => String::new(),
        exit => paint.dim(&format!(" (exit {})", exit as u8)),
    };
    text.push_str(&format!("\n{}{code}\n", paint.verdict(suite.exit, &suite.sentence)));
    match paint {
        Paint::OFF => printable::text(&text).into_owned(),
        _ => text,
    }
}

fn experiment(tested: &Tested, width: usize, paint: Paint, text: &mut String) {
    let verdict = format!("{:<width$}", tested.verdict);
    let verdict = match tested.exit {
        Some(exit) => paint.verdict(exit, &verdict),
        None => paint.dim(&verdict),
    };
    let shown = |text: &str| printable::text(text).replace('\n', " ");
    text.push_str(&format!("  {verdict}  {}\n", shown(&tested.name())));
    let mut line = |what: &str| text.push_str(&format!("  {:<width$}    {what}\n", ""));
    if tested.exit.is_some() {
        line(&shown(&tested.sentence));
    }
    if let Some(story) = &tested.story {
        line(&shown(story));
    }
    if tested.exit.is_some_and(|exit| exit != Exit::Held) {
        for ran in tested.runs.iter().filter(|ran| ran.summary.exit != Exit::Held) {
            if let Some(events) = &ran.events {
                line(&paint.dim(&format!("squall verdict {events}")));
            }
        }
    }
}
