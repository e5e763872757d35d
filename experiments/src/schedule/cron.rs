//! Cron expressions: five fields, as POSIX and crontab(5) have them.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::clock::Zone;
use crate::quantity::{QuantityError, as_text};

const EXAMPLE: &str = "`30 2 * * MON-FRI` is half past two from Monday to Friday";

/// The fields, in their order.
const FIELDS: [&str; 5] = ["minute", "hour", "day of the month", "month", "day of the week"];

/// A cron expression: minute, hour, day of the month, month, day of the week.
///
/// When clocks are put forward, a time that they skip is run right after the gap; when they are put back, a fixed time is run
/// once, the first time, and what runs every so many minutes goes on.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Cron {
    /// Its times in a zone, from an instant on (that one too), in their order.
    pub fn times(&self, zone: &Zone, from: Timestamp) -> impl Iterator<Item = Timestamp> {
        // The crate looks at whole seconds: what is left of one belongs to the time before.
        let rest = i64::from(from.subsec_nanosecond());
        let up =
            if rest > 0 { SignedDuration::from_nanos(1_000_000_000 - rest) } else { SignedDuration::ZERO };
        let from = from.checked_add(up).unwrap_or(from);
        let times = self.pattern.iter_from(zone.zoned(from), croner::Direction::Forward);
        times.map(|zoned| zoned.timestamp())
    }
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

impl FromStr for Cron {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(QuantityError::new(
                format!("`{text}` has {} fields, and a cron expression has 5", fields.len()),
                format!("write minute, hour, day of the month, month and day of the week: {EXAMPLE}"),
            ));
        }
        for (at, field) in fields.iter().enumerate() {
            let mut alone = ["*"; 5];
            alone[at] = field;
            // A name of a month or a weekday is what it is; letters of a day are only `L` and `W`.
            if parser().parse(&alone.join(" ")).is_err() {
                return Err(QuantityError::new(
                    format!("`{field}` is no {} of a cron expression", FIELDS[at]),
                    EXAMPLE,
                ));
            }
        }
        let free = |field: &str| matches!(field, "*" | "?");
        if !free(fields[2]) && !free(fields[4]) {
            return Err(QuantityError::new(
                format!("`{text}` names days of the month and of the week, and cron would take either"),
                "name one of them, and make a second schedule for the other",
            ));
        }
        let wrong =
            |error: croner::errors::CronError| QuantityError::new(format!("`{text}`: {error}"), EXAMPLE);
        let pattern = parser().parse(&fields.join(" ")).map_err(wrong)?;
        // Within 8 years there is every date that there is, but for 29 February across a century.
        let begin = date(2024, 1, 1)
            .to_zoned(TimeZone::UTC)
            .map_err(|error| QuantityError::new(error.to_string(), EXAMPLE))?;
        if pattern.find_next_occurrence(&begin, true).is_err() {
            return Err(QuantityError::new(format!("`{text}` never comes"), "no month has such a day"));
        }
        Ok(Cron { text: fields.join(" "), pattern })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

as_text!(Cron, "cron", "string", ["30 2 * * MON-FRI"]);
