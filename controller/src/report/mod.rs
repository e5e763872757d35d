//! What runs came to, for people, for programs and for pipelines; and their progress, for whoever waits.

mod code_quality;
mod figures;
mod fleet;
pub(crate) mod gameday;
mod github;
pub(crate) mod html;
mod human;
mod junit;
mod ladder;
mod markdown;
mod paint;
mod plan;
mod points;
mod printable;
mod progress;
mod suite;

pub use code_quality::code_quality;
pub use fleet::{fleet, fleet_json};
pub use gameday::{
    Before, GameDayReport, SoFar, gameday_clock, gameday_event, gameday_html, gameday_markdown,
    gameday_moment, gameday_sentence,
};
pub use github::{annotation, annotations, harmless, harmless_json, problems};
pub use html::{html, quoted};
pub use human::human;
pub use junit::junit;
pub use ladder::{ladder, ladder_json};
pub use markdown::markdown;
pub use paint::Paint;
pub use plan::steps;
pub use progress::Progress;
pub use suite::suite;

use std::path::Path;

use squall_experiments::suite::Suite;
use squall_experiments::summary::Summary;

/// One JSON document: the summary, where the events are, and what a history says, where there is one.
pub fn json(summary: &Summary, events: Option<&Path>, story: Option<&str>) -> String {
    let mut document = serde_json::to_value(summary).unwrap_or_default();
    document["events"] = events.map(|path| path.display().to_string()).into();
    if let Some(story) = story {
        document["story"] = story.into();
    }
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// One JSON document: the suite, with the summaries of all its runs.
pub fn suite_json(suite: &Suite) -> String {
    let mut text = serde_json::to_string_pretty(suite).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
