//! What a run came to, for people, for programs and for pipelines; and its progress, for whoever waits.

mod html;
mod human;
mod junit;
mod paint;
mod printable;
mod progress;

pub use html::{html, quoted};
pub use human::human;
pub use junit::junit;
pub use paint::Paint;
pub use progress::Progress;

use std::path::Path;

use squall_experiments::summary::Summary;

/// One JSON document: the summary, and where the events are.
pub fn json(summary: &Summary, events: Option<&Path>) -> String {
    let mut document = serde_json::to_value(summary).unwrap_or_default();
    document["events"] = events.map(|path| path.display().to_string()).into();
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
