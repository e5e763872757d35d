//! A game day: a planned sequence of runs with people watching, what happened on it, and what was measured.
//!
//! Pure: a document and the record of one day give its course, the same every time; whoever drives the day asks the course
//! what may happen next, and adds to the record.
//!
//! | file | what it is for |
//! |---|---|
//! | [`document`] | the file that a user writes |
//! | [`record`] | what happens on a day, in the order in which it happened |
//! | [`course`] | where a day stands |
//! | `accept` | which events can happen now, and what they lead to |
//! | [`turn`] | what comes next |
//! | [`watch`] | what a run's own log tells a game day |
//! | [`figures`] | how long people and systems took, and the means over steps and days |
//! | [`between`] | how often a system gives way: the time between deviations |
//! | [`comparison`] | a day beside the one before |

mod accept;
pub mod between;
pub mod comparison;
pub mod course;
pub mod document;
pub mod figures;
pub mod record;
pub mod turn;
pub mod watch;

#[cfg(test)]
mod tests;

pub use between::Between;
pub use comparison::{Change, Compared, Comparison, Pair};
pub use course::{Attempt, Course, Note, Phase, Pressed, Said, StepCourse, StepState};
pub use document::{Expect, Experiment, GameDay, Go, Step, read, schema};
pub use figures::{DayFigures, Mean, Means, Reaction, StepFigures, Took};
pub use record::{Event, Mark, Record, Refused, Through};
pub use turn::Turn;
pub use watch::{Seen, Watch};
