//! Calendar files (RFC 5545), as far as holidays and freezes need them: events of days or of times in any zone, that recur
//! daily, weekly, monthly or yearly, with exceptions and altered instances.
//!
//! What is not understood is refused, never left out: a freeze that nobody sees is worse than a file that nobody takes.

mod event;
mod lines;
mod rule;
mod stamp;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::bars::Bar;
use super::clock::Zone;
use event::Event;

/// The longest file, in bytes.
pub const LONGEST: usize = 1 << 20;
/// How many events it may have.
pub const MOST_EVENTS: usize = 10_000;
/// How many days and periods are looked at for one question; those of long rules count more often.
const MOST_STEPS: usize = 1_000_000;

/// Why a calendar cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalendarError {
    /// It is too long.
    #[error("it has {0} bytes, and a calendar may have {LONGEST}; help: take out what is past")]
    Long(usize),
    /// It holds more events than can be looked at.
    #[error("it has more than {MOST_EVENTS} events; help: take out what is past")]
    Many,
    /// It is no calendar.
    #[error("it is no calendar: {0}; help: it begins with `BEGIN:VCALENDAR` and ends with `END:VCALENDAR`")]
    None(&'static str),
    /// A line that is not understood.
    #[error("line {line}: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Its events recur so often that they cannot be looked at.
    #[error(
        "its events recur too often to be looked at; help: let them recur by days, weeks, months or years"
    )]
    Often,
}

/// The events of a calendar file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    events: Vec<Event>,
}

impl Calendar {
    /// Reads a calendar file. One without events is valid: nothing is barred.
    pub fn read(text: &str) -> Result<Self, CalendarError> {
        if text.len() > LONGEST {
            return Err(CalendarError::Long(text.len()));
        }
        if text.trim().is_empty() {
            return Err(CalendarError::None("it is empty"));
        }
        let mut events = Vec::new();
        let mut open: Vec<String> = Vec::new();
        let mut event: Option<event::Draft> = None;
        let mut whole = false;
        for line in lines::content(text) {
            let line = line?;
            match (line.name.as_str(), open.len()) {
                ("BEGIN", _) => {
                    open.push(line.value.to_ascii_uppercase());
                    if open[0] != "VCALENDAR" {
                        return Err(CalendarError::None("it begins with something else"));
                    }
                    if open.len() == 2 && open[1] == "VEVENT" {
                        event = Some(event::Draft::at(line.number));
                    }
                }
                ("END", _) => {
                    if open.pop() != Some(line.value.to_ascii_uppercase()) {
                        return Err(line.wrong(format!("`END:{}` ends nothing", line.value)));
                    }
                    whole |= open.is_empty();
                    if open.len() == 1
                        && let Some(draft) = event.take()
                    {
                        events.push(draft.finish()?);
                        if events.len() > MOST_EVENTS {
                            return Err(CalendarError::Many);
                        }
                    }
                }
                (_, 0) => return Err(CalendarError::None("it begins with something else")),
                // Alarms and the like within an event are not of it.
                (_, 2) => {
                    if let Some(draft) = &mut event {
                        draft.take(&line)?;
                    }
                }
                _ => {}
            }
        }
        if !open.is_empty() || !whole {
            return Err(CalendarError::None("it breaks off"));
        }
        Ok(Calendar { events })
    }

    /// What its events bar between two instants. Days, and times without a zone, are meant by the clocks of `zone`.
    ///
    /// Errors: [`CalendarError::Often`]. An event that recurs for ever is looked at only within these bounds.
    pub fn bars(&self, zone: &Zone, from: Timestamp, to: Timestamp) -> Result<Vec<Bar>, CalendarError> {
        let mut bars = Vec::new();
        let mut steps = MOST_STEPS;
        // An altered instance takes the place of the one that recurs.
        let mut altered: HashMap<&str, HashSet<Timestamp>> = HashMap::new();
        for (uid, instance) in self.events.iter().filter_map(Event::alters) {
            altered.entry(uid).or_default().extend(instance.instant(zone));
        }
        let none = HashSet::new();
        for event in &self.events {
            let altered = match event.alters() {
                Some(_) => &none,
                None => altered.get(event.uid()).unwrap_or(&none),
            };
            event.bars(zone, (from, to), altered, &mut steps, &mut bars)?;
        }
        Ok(bars)
    }
}
