//! One execution of an experiment: what happened ([`Event`]), and where it stands ([`State`]).
//!
//! The event log is the truth. A state is never stored: it is what [`next`] makes of the log, so that history and
//! state cannot disagree, and a log that was cut off by a crash still says what was live.

mod event;
mod state;

pub use event::{Event, Intent, Origin, Record, Seen, Started, Stated};
pub use state::{Illegal, Live, Part, State, fold, next};
