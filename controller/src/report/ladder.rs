//! A ramp on a terminal: a line for each step, and where the system gives way.

use std::path::Path;

use squall_experiments::exit::Exit;
use squall_experiments::ramp::Ladder;

use super::{Paint, printable};

/// The whole report, ending with a line feed. `events` is where the events of all steps are.
pub fn ladder(title: &str, ladder: &Ladder, events: Option<&Path>, paint: Paint) -> String {
    let shown = |text: &str| printable::text(text).replace('\n', " ");
    let mut text = format!("{}\n", paint.bold(&shown(title)));
    let facts = format!("ramp of {}, at most {} steps", ladder.parameter, ladder.of_most);
    text.push_str(&format!("{}\n\n{}\n", paint.dim(&shown(&facts)), paint.bold("Steps")));
    let levels: Vec<String> = ladder.steps.iter().map(|step| step.at.to_string()).collect();
    let wide = levels.iter().map(|level| level.chars().count()).max().unwrap_or(0);
    let wider = ladder.steps.iter().map(|step| step.verdict.chars().count()).max().unwrap_or(0);
    for (step, level) in ladder.steps.iter().zip(&levels) {
        let verdict = paint.verdict(step.exit, &format!("{:<wider$}", step.verdict));
        let own = format!("{}: ", step.verdict);
        let said = step.sentence.strip_prefix(&own).unwrap_or(&step.sentence);
        text.push_str(&format!("  {level:<wide$}  {verdict}  {}\n", shown(said)));
        text.push_str(&format!(
            "  {:<wide$}  {:<wider$}  {}\n",
            "",
            "",
            paint.dim(&format!("run {}", step.run))
        ));
    }
    if let Some(path) = events {
        let again = format!("events: {0} (`squall verdict {0}` makes this report again)", path.display());
        text.push_str(&format!("\n{}\n", paint.dim(&again)));
    }
    text.push_str(&format!("\n{}\n", ladder.error_in_words()));
    let code = match ladder.exit {
        Exit::Held => String::new(),
        exit => paint.dim(&format!(" (exit {})", exit as u8)),
    };
    text.push_str(&format!("\n{}{code}\n", paint.verdict(ladder.exit, &shown(&ladder.sentence))));
    match paint {
        Paint::OFF => printable::text(&text).into_owned(),
        _ => text,
    }
}

/// One JSON document.
pub fn ladder_json(title: &str, ladder: &Ladder, events: Option<&Path>) -> String {
    let mut document = serde_json::to_value(ladder).unwrap_or_default();
    document["title"] = title.into();
    document["events"] = events.map(|path| path.display().to_string()).into();
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}
