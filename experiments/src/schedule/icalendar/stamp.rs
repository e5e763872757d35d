//! Days and times of a calendar file (RFC 5545, sections 3.3.4 and 3.3.5).

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};

use super::CalendarError;
use super::lines::Line;
use crate::schedule::clock::Zone;

/// A day or a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stamp {
    /// By the clocks of its place.
    pub wall: DateTime,
    pub place: Place,
}

/// Whose clocks are meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// A whole day, wherever somebody is.
    Day,
    /// A time, wherever somebody is.
    Anywhere,
    /// A time in this zone.
    In(Zone),
}

impl Stamp {
    /// When it is for somebody in a zone.
    pub(super) fn instant(&self, zone: &Zone) -> Option<Timestamp> {
        self.on(self.wall, zone)
    }

    /// When another wall time of the same place is.
    pub(super) fn on(&self, wall: DateTime, zone: &Zone) -> Option<Timestamp> {
        match &self.place {
            Place::Day => zone.midnight(wall.date()),
            Place::Anywhere => zone.instant(wall),
            Place::In(own) => own.instant(wall),
        }
    }

    /// The wall time of an instant at its place.
    pub(super) fn wall_of(&self, at: Timestamp, zone: &Zone) -> DateTime {
        match &self.place {
            Place::In(own) => own.zoned(at).datetime(),
            Place::Day | Place::Anywhere => zone.zoned(at).datetime(),
        }
    }

    /// The values of a line, divided by commas.
    pub(super) fn all(line: &Line) -> Result<Vec<Self>, CalendarError> {
        line.value.split(',').map(|text| Stamp::read(text, line)).collect()
    }

    /// One value of a line.
    pub(super) fn read(text: &str, line: &Line) -> Result<Self, CalendarError> {
        let wrong =
            || line.wrong(format!("`{text}` is neither a day (`20271224`) nor a time (`20271224T090000`)"));
        if line.parameter("VALUE").is_some_and(|kind| !matches!(kind, "DATE" | "DATE-TIME")) {
            return Err(line.wrong("periods are not understood; help: write it as an event of its own"));
        }
        let (day, time) = text.split_once('T').map_or((text, None), |(day, time)| (day, Some(time)));
        let day = date(day).ok_or_else(wrong)?;
        let Some(time) = time else {
            return Ok(Stamp { wall: day.to_datetime(Time::midnight()), place: Place::Day });
        };
        let (time, utc) = time.strip_suffix('Z').map_or((time, false), |time| (time, true));
        let wall = day.to_datetime(clock(time).ok_or_else(wrong)?);
        let place = match (utc, line.parameter("TZID")) {
            (true, _) => Place::In(Zone::default()),
            (false, None) => Place::Anywhere,
            (false, Some(zone)) => {
                let zone = zone.trim_start_matches('/').parse().map_err(|_| {
                    line.wrong(format!(
                        "the zone `{zone}` is not known; help: name it as IANA does, as in `Europe/Berlin`"
                    ))
                })?;
                Place::In(zone)
            }
        };
        Ok(Stamp { wall, place })
    }
}

/// `20271224`.
fn date(text: &str) -> Option<Date> {
    (text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    Date::new(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?).ok()
}

/// `090000`; a leap second is the one before.
fn clock(text: &str) -> Option<Time> {
    (text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    let second: i8 = text[4..].parse().ok()?;
    Time::new(text[..2].parse().ok()?, text[2..4].parse().ok()?, second.min(59 + second / 61), 0).ok()
}
