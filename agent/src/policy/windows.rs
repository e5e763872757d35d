//! When faults may be live on this host.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use squall_experiments::quantity::{Period, QuantityError};
use squall_experiments::schedule::{TimeOfDay, Zone};

/// One time of the week, as in `Mon-Fri 09:00-17:00 Europe/Berlin`. It begins on each of its days; one that ends before it
/// begins ends on the day after. By the clock on the wall there: a night in which that is turned back is an hour longer.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    text: String,
    /// By the number of the day, Monday first.
    days: [bool; 7],
    from: TimeOfDay,
    to: TimeOfDay,
    zone: Zone,
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Window {
    /// From when to when it is open, where it begins on a day.
    fn on(&self, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())] {
            return None;
        }
        let last = if self.to > self.from { date } else { date.tomorrow().ok()? };
        let (from, to) = (self.from.on(date, &self.zone)?, self.to.on(last, &self.zone)?);
        Some((from, to)).filter(|(from, to)| from < to)
    }

    /// The times at which it is open, from the one that may still be open at an instant to a week later.
    fn times(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        let first = self.zone.zoned(now).date().checked_sub(1.day()).ok();
        let days = first.into_iter().flat_map(|first| first.series(1.day()).take(10));
        days.filter_map(|date| self.on(date)).filter(move |(_, to)| *to > now)
    }

    /// An instant as the clock on the wall shows it there.
    fn shown(&self, at: Timestamp) -> String {
        format!("{} {}", self.zone.zoned(at).strftime("%a %F %H:%M"), self.zone)
    }
}

/// When what begins now must be over, all windows taken together: one that begins where another ends goes on. `None` where
/// none is open.
pub(super) fn open_until(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    let open = |at: Timestamp| {
        let times = windows.iter().flat_map(|window| window.times(at));
        times.filter(|(from, _)| *from <= at).map(|(_, to)| to).max()
    };
    let mut until = open(now)?;
    // Two weeks of windows end to end are longer than any fault.
    for _ in 0..32 {
        match open(until) {
            Some(later) if later > until => until = later,
            _ => break,
        }
    }
    Some(until)
}

/// Why nothing may begin now that lasts so long; `None` where it may, or where there are no windows.
pub(super) fn objection(windows: &[Window], now: Timestamp, lasts: Period) -> Option<String> {
    if windows.is_empty() {
        return None;
    }
    let texts: Vec<String> = windows.iter().map(|window| format!("`{window}`")).collect();
    let allowed = texts.join(", ");
    let Some(until) = open_until(windows, now) else {
        let nexts = windows.iter().filter_map(|window| {
            window.times(now).map(|(from, _)| from).min().map(|from| (from, window.shown(from)))
        });
        let next = nexts.min().map_or_else(String::new, |(_, next)| format!("; next from {next}"));
        return Some(format!("this host's policy allows faults only in {allowed}{next}"));
    };
    let left = until.duration_since(now).unsigned_abs();
    (lasts.get() > left).then(|| {
        let shown = windows.first().map_or_else(String::new, |window| window.shown(until));
        format!("{lasts} is longer than this host's policy allows faults for now: until {shown} ({allowed})")
    })
}

fn days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = [false; 7];
    if text == "daily" {
        return Some([true; 7]);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        // `Sat-Mon` goes over the end of the week.
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

fn time(text: &str) -> Option<TimeOfDay> {
    text.parse().ok().filter(|_| text.len() == 5)
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: String| format!("`{text}` is no window: {why}; write `Mon-Fri 09:00-17:00 Europe/Berlin`");
        let words: Vec<&str> = text.split(' ').collect();
        let [named, times, zone] = words[..] else {
            return Err(wrong("days, times and a time zone are needed, with one blank between".to_owned()));
        };
        let days =
            days(named).ok_or_else(|| wrong(format!("`{named}` names no days (`Mon,Wed-Fri`, `daily`)")))?;
        let unclear = || wrong(format!("`{times}` is no time from and to (`09:00-17:00`)"));
        let (from, to) = times.split_once('-').ok_or_else(unclear)?;
        let from = time(from).filter(|from| *from < TimeOfDay::hour(24)).ok_or_else(unclear)?;
        let to = time(to).ok_or_else(unclear)?;
        if to == from {
            return Err(wrong("it ends when it begins (`00:00-24:00` is a whole day)".to_owned()));
        }
        let zone: Zone = zone.parse().map_err(|error: QuantityError| wrong(error.to_string()))?;
        Ok(Window { text: text.to_owned(), days, from, to, zone })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Window {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Window {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_on_its_days_by_the_clock_there() {
        let office = windows(&["Mon-Fri 09:00-17:00 Europe/Berlin"]);
        // 2026-11-20 is a Friday; Berlin is an hour ahead in winter, two in summer.
        for (now, until) in [
            ("2026-11-20T07:59:59Z", None),
            ("2026-11-20T08:00:00Z", Some("2026-11-20T16:00:00Z")),
            ("2026-11-20T15:59:59Z", Some("2026-11-20T16:00:00Z")),
            ("2026-11-20T16:00:00Z", None),
            ("2026-11-21T10:00:00Z", None),
            ("2026-07-20T07:00:00Z", Some("2026-07-20T15:00:00Z")),
        ] {
            assert_eq!(open_until(&office, at(now)), until.map(at), "{now}");
        }
        let whole = Period::from_secs(3600);
        assert_eq!(objection(&office, at("2026-11-20T14:59:00Z"), whole), None);
        let late = objection(&office, at("2026-11-20T15:30:00Z"), whole).unwrap();
        assert!(late.contains("until Fri 2026-11-20 17:00 Europe/Berlin"), "{late}");
        let closed = objection(&office, at("2026-11-20T16:30:00Z"), whole).unwrap();
        assert!(closed.ends_with("next from Mon 2026-11-23 09:00 Europe/Berlin"), "{closed}");
        assert_eq!(objection(&[], at("2026-11-20T16:30:00Z"), whole), None);
    }

    #[test]
    fn nights_weekends_and_windows_end_to_end_are_one() {
        let nights = windows(&["Fri-Sun 22:00-06:00 UTC"]);
        assert_eq!(open_until(&nights, at("2026-11-23T05:00:00Z")), Some(at("2026-11-23T06:00:00Z")));
        assert_eq!(open_until(&nights, at("2026-11-24T05:00:00Z")), None);
        let joined = windows(&["Fri 20:00-24:00 UTC", "Sat 00:00-02:00 UTC"]);
        assert_eq!(open_until(&joined, at("2026-11-20T21:00:00Z")), Some(at("2026-11-21T02:00:00Z")));
        let always = windows(&["daily 00:00-24:00 UTC"]);
        let far = open_until(&always, at("2026-11-20T21:00:00Z")).unwrap();
        assert!(far > at("2026-11-30T00:00:00Z"), "{far}");
        // The clock there is turned back at 3:00 in this night, which is an hour longer.
        let turned = windows(&["Sat 22:00-06:00 Europe/Berlin"]);
        assert_eq!(open_until(&turned, at("2026-10-24T20:00:00Z")), Some(at("2026-10-25T05:00:00Z")));
    }

    #[test]
    fn what_is_no_window_is_refused_and_says_why() {
        for (text, why) in [
            ("", "days, times and a time zone"),
            ("Mon 09:00-17:00", "days, times and a time zone"),
            ("Mo 09:00-17:00 UTC", "`Mo` names no days"),
            ("Mon 9:00-17:00 UTC", "no time from and to"),
            ("Mon 09:00-24:01 UTC", "no time from and to"),
            ("Mon 09:00-09:00 UTC", "ends when it begins"),
            ("Mon 24:00-06:00 UTC", "no time from and to"),
            ("Mon 09:00-17:00 Berlin", "`Berlin` is not a time zone"),
            ("Mon 09:00-17:00 Europe/Berlim", "`Europe/Berlim` is not a time zone"),
        ] {
            let said = text.parse::<Window>().unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
