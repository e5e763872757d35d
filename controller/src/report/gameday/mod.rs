//! The report of a game day for people: a page for who decides, timeline and evidence for who mends, and the skeleton of a
//! post-mortem, with what is known filled in. Programs read what the interface tells of a day, of which it is made.

mod html;
mod markdown;
mod parts;
mod postmortem;
mod words;

pub use html::gameday_html;
pub(crate) use html::gameday_pieces;
pub use markdown::gameday_markdown;
pub use words::{gameday_clock, gameday_event, gameday_moment, gameday_sentence};

use schemars::JsonSchema;
use serde::Serialize;
use squall_experiments::gameday::{Between, Comparison, Course, DayFigures, GameDay, Means, Record};

/// Everything that is known of a game day.
#[derive(Clone, Debug)]
pub struct GameDayReport {
    /// Its name among all days.
    pub id: String,
    /// Who began it.
    pub by: String,
    /// What was planned.
    pub day: GameDay,
    /// What happened.
    pub record: Vec<Record>,
    /// Where it stands.
    pub course: Course,
    /// How long everything took.
    pub figures: DayFigures,
    /// The day of the same name before it.
    pub before: Option<Before>,
    /// All days of that name up to this one.
    pub so_far: Option<SoFar>,
}

/// The day before.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Before {
    /// Its id.
    pub id: String,
    /// When it began: milliseconds since 1970.
    pub at: u64,
    /// Step by step.
    #[schemars(with = "serde_json::Value")]
    pub comparison: Comparison,
}

/// Several days together.
#[derive(Clone, Debug)]
pub struct SoFar {
    /// How many.
    pub days: u64,
    /// The means over all their steps.
    pub means: Means,
    /// How often what they look at gives way.
    pub between: Between,
}

#[cfg(test)]
mod tests;
