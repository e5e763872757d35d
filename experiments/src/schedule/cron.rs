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

/// The fields, in their order, each with the values that it takes.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 (Sunday is both) or SUN to SAT"),
];

/// A cron expression: minute, hour, day of the month, month, day of the week.
///
/// Where its hours are listed (`2`, `2,14`, `1-3`), every time of a day is run once, whatever clocks do: one that they skip right
/// after the gap (several of them there together), one that comes twice the first time. Where they are not (`*`, `*/2`), it
/// runs every so many minutes or hours, and goes on over a change of clocks.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
    listed: bool,
}

/// Longer than clocks of any zone were ever put forward: Samoa skipped 30 December 2011.
const GAP: SignedDuration = SignedDuration::from_hours(25);

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
        let listed = self.listed.then(|| self.listed_times(zone, from));
        let passing = (!self.listed).then(|| {
            let times = self.pattern.iter_from(zone.zoned(from), croner::Direction::Forward);
            times.map(|zoned| zoned.timestamp())
        });
        listed.into_iter().flatten().chain(passing.into_iter().flatten())
    }

    /// Every time of a day once. The crate knows only single times of a day as such, so it is asked for what clocks would show if
    /// they never changed, and that is looked up in the zone.
    fn listed_times(&self, zone: &Zone, from: Timestamp) -> impl Iterator<Item = Timestamp> {
        let wall = zone.zoned(from.checked_sub(GAP).unwrap_or(from)).datetime();
        let begin = wall.to_zoned(TimeZone::UTC).unwrap_or_else(|_| from.to_zoned(TimeZone::UTC));
        let walls = self.pattern.iter_from(begin, croner::Direction::Forward);
        let mut last = None;
        walls
            .filter_map(|wall| zone.after_gap(wall.datetime()))
            .skip_while(move |at| *at < from)
            .filter(move |at| last.replace(*at) != Some(*at))
    }
}

/// Whether a field of hours names hours, and not every so many.
fn lists(hours: &str) -> bool {
    let steps = |part: &str| part.contains(['*', '?']) || (part.contains('/') && !part.contains('-'));
    !hours.split(',').any(steps)
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

impl FromStr for Cron {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            let noun = if fields.len() == 1 { "field" } else { "fields" };
            return Err(QuantityError::new(
                format!("`{text}` has {} {noun}, and a cron expression has 5", fields.len()),
                format!("write minute, hour, day of the month, month and day of the week: {EXAMPLE}"),
            ));
        }
        for (at, field) in fields.iter().enumerate() {
            let mut alone = ["*"; 5];
            alone[at] = field;
            // A name of a month or a weekday is what it is; letters of a day are only `L` and `W`.
            if parser().parse(&alone.join(" ")).is_err() {
                let (name, takes) = FIELDS[at];
                let article = if name == "hour" { "an" } else { "a" };
                return Err(QuantityError::new(
                    format!("`{field}` is no {name} of a cron expression"),
                    format!(
                        "{article} {name} is {takes}, `*`, or several of them as `1,3`, `1-3` or `*/2`: {EXAMPLE}"
                    ),
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
        Ok(Cron { text: fields.join(" "), pattern, listed: lists(fields[1]) })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

as_text!(Cron, "cron", "string", ["30 2 * * MON-FRI"]);
