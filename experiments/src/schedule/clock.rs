//! Zones, days and times of a day, as they stand in a schedule file. All rules of zones are those compiled in (IANA), so that
//! a plan does not depend on the machine that makes it.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::suggest;
use crate::quantity::{QuantityError, as_text};

static KNOWN: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its IANA name: `Europe/Berlin`, `UTC`.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone(TimeZone, String);

impl Zone {
    /// The zone.
    pub fn get(&self) -> &TimeZone {
        &self.0
    }

    /// An instant as its clocks show it.
    pub fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.0.clone())
    }

    /// The instant of a day and time. In the gap of a change of clocks it is as much later as the gap is long; a time that comes
    /// twice is the first of them.
    pub fn instant(&self, at: civil::DateTime) -> Option<Timestamp> {
        self.0.to_ambiguous_timestamp(at).compatible().ok()
    }

    /// The instant of a day and time. In the gap of a change of clocks it is the end of the gap; a time that comes twice is the
    /// first of them.
    pub fn after_gap(&self, at: civil::DateTime) -> Option<Timestamp> {
        let found = self.0.to_ambiguous_timestamp(at);
        if !matches!(found.offset(), AmbiguousOffset::Gap { .. }) {
            return found.compatible().ok();
        }
        // The time that clocks of before the gap would show lies behind it, and the change is the last one before that.
        let late = found.later().ok()?;
        let change = self.0.preceding(late.checked_add(SignedDuration::from_secs(1)).ok()?).next()?;
        Some(change.timestamp())
    }

    /// The first instant of a day.
    pub fn midnight(&self, day: civil::Date) -> Option<Timestamp> {
        day.to_zoned(self.0.clone()).ok().map(|zoned| zoned.timestamp())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Zone(TimeZone::UTC, "UTC".to_owned())
    }
}

impl FromStr for Zone {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "UTC" {
            return Ok(Zone::default());
        }
        if let Ok(zone) = KNOWN.get(text) {
            return Ok(Zone(zone, text.to_owned()));
        }
        let names: Vec<String> = KNOWN.available().map(|name| name.to_string()).collect();
        let near = suggest::nearest(text, names.iter().map(String::as_str));
        let help = near.map_or_else(
            || "write an IANA name such as `Europe/Berlin`, or `UTC`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        Err(QuantityError::new(format!("`{text}` is not a time zone"), help))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

as_text!(Zone, "zone", "string", ["Europe/Berlin", "UTC"]);

/// A day of the calendar: `2027-12-24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub civil::Date);

impl FromStr for Day {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write year, month and day, as in `2027-12-24`";
        let wrong = || QuantityError::new(format!("`{text}` is not a day"), help);
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [year, month, day] = parts[..] else { return Err(wrong()) };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || day.len() != 2 || !parts.iter().all(|part| digits(part)) {
            return Err(wrong());
        }
        let (year, month, day) = (number(year), number(month), number(day));
        let exists = civil::Date::new(year, i8::try_from(month).unwrap_or(0), i8::try_from(day).unwrap_or(0));
        exists.map(Day).map_err(|_| {
            QuantityError::new(
                format!("there is no day `{text}`"),
                "look at a calendar: some years have no 29 February",
            )
        })
    }
}

fn number(digits: &str) -> i16 {
    digits.parse().unwrap_or(0)
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

as_text!(Day, "day", "string", ["2027-12-24"]);

/// A time of a day by the clock on the wall, to the minute: `09:00`; `24:00` is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// A whole hour, from 0 to 24.
    pub const fn hour(hour: u16) -> Self {
        TimeOfDay(hour * 60)
    }

    /// When that is on a day; see [`Zone::instant`] for changes of clocks.
    pub fn on(self, day: civil::Date, zone: &Zone) -> Option<Timestamp> {
        if self.0 == 24 * 60 {
            return zone.midnight(day.tomorrow().ok()?);
        }
        let (hour, minute) = (i8::try_from(self.0 / 60).ok()?, i8::try_from(self.0 % 60).ok()?);
        zone.instant(day.at(hour, minute, 0, 0))
    }
}

impl FromStr for TimeOfDay {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write hour and minute in quotes, as in `\"09:00\"`";
        let wrong = || QuantityError::new(format!("`{text}` is not a time of a day"), help);
        let (hour, minute) = text.trim().split_once(':').ok_or_else(wrong)?;
        let digits =
            |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hour) || !digits(minute) || minute.len() != 2 {
            return Err(wrong());
        }
        let (hour, minute) =
            (hour.parse::<u16>().map_err(|_| wrong())?, minute.parse::<u16>().map_err(|_| wrong())?);
        if minute > 59 || hour * 60 + minute > 24 * 60 {
            return Err(wrong());
        }
        Ok(TimeOfDay(hour * 60 + minute))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

as_text!(TimeOfDay, "time-of-day", "string", ["09:00", "15:30"]);

/// A day and a time by the clock on the wall: `2027-03-01 10:00`, to the second where that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    day: Day,
    time: TimeOfDay,
    second: i8,
}

impl Moment {
    /// When that is in a zone. Of a time that comes twice it is the first.
    ///
    /// Errors: a time that clocks skip there on that day.
    pub fn at(self, zone: &Zone) -> Result<Timestamp, QuantityError> {
        let wrong = || {
            QuantityError::new(format!("there is no `{self}`"), "name a day between now and the year 9998")
        };
        if self.time == TimeOfDay::hour(24) {
            return self.time.on(self.day.0, zone).ok_or_else(wrong);
        }
        let (hour, minute) = (i8::try_from(self.time.0 / 60), i8::try_from(self.time.0 % 60));
        let wall = self.day.0.at(hour.map_err(|_| wrong())?, minute.map_err(|_| wrong())?, self.second, 0);
        let found = zone.0.to_ambiguous_timestamp(wall);
        if let AmbiguousOffset::Gap { .. } = found.offset() {
            let (early, late) = (found.earlier(), found.later());
            let name = |at: Result<Timestamp, jiff::Error>| {
                at.map(|at| zone.zoned(at).strftime("%H:%M").to_string()).unwrap_or_default()
            };
            return Err(QuantityError::new(
                format!("clocks in `{zone}` skip `{self}`"),
                format!("write `{}` or `{}`", name(early), name(late)),
            ));
        }
        found.compatible().map_err(|_| wrong())
    }
}

impl FromStr for Moment {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write day and time by the clocks of the zone, as in `2027-03-01 10:00`";
        let trimmed = text.trim();
        let (day, time) = trimmed
            .split_once([' ', 'T'])
            .ok_or_else(|| QuantityError::new(format!("`{text}` is not a day with a time"), help))?;
        let (time, second) = match time.rsplit_once(':') {
            Some((time, second)) if time.contains(':') => {
                let read = second.parse().ok().filter(|read| (0..60).contains(read) && second.len() == 2);
                let wrong = || QuantityError::new(format!("`{second}` is no second of a minute"), help);
                (time, read.ok_or_else(wrong)?)
            }
            _ => (time, 0),
        };
        let moment = Moment { day: day.parse()?, time: time.parse()?, second };
        match moment.time == TimeOfDay::hour(24) && second > 0 {
            true => Err(QuantityError::new(format!("`{text}` is behind the end of its day"), help)),
            false => Ok(moment),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.day, self.time)?;
        match self.second {
            0 => Ok(()),
            second => write!(f, ":{second:02}"),
        }
    }
}

as_text!(Moment, "moment", "string", ["2027-03-01 10:00"]);

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    /// From Monday to Friday.
    pub const WORKING: [Weekday; 5] = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri];

    /// That of a day.
    pub fn of(day: civil::Date) -> Self {
        match day.weekday() {
            civil::Weekday::Monday => Weekday::Mon,
            civil::Weekday::Tuesday => Weekday::Tue,
            civil::Weekday::Wednesday => Weekday::Wed,
            civil::Weekday::Thursday => Weekday::Thu,
            civil::Weekday::Friday => Weekday::Fri,
            civil::Weekday::Saturday => Weekday::Sat,
            civil::Weekday::Sunday => Weekday::Sun,
        }
    }
}
