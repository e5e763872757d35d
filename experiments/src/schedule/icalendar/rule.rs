//! How an event recurs (RFC 5545, section 3.3.10): by days, weeks, months or years.

use jiff::Span;
use jiff::civil::{Date, Weekday};

use super::CalendarError;
use super::lines::Line;
use super::stamp::{Place, Stamp};
use crate::schedule::clock::Zone;

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    every: Every,
    interval: i64,
    count: Option<u64>,
    until: Option<Stamp>,
    weekdays: Vec<(Option<i8>, Weekday)>,
    month_days: Vec<i8>,
    months: Vec<i8>,
    positions: Vec<i32>,
    week_begins: Weekday,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Every {
    Day,
    Week,
    Month,
    Year,
}

impl Rule {
    /// Reads the value of an `RRULE`. A part that is not understood is refused.
    pub(super) fn read(line: &Line) -> Result<Self, CalendarError> {
        let wrong = |part: &str| line.wrong(format!("`{part}` is not understood in a rule of recurrence"));
        let mut rule = Rule {
            every: Every::Day,
            interval: 1,
            count: None,
            until: None,
            weekdays: Vec::new(),
            month_days: Vec::new(),
            months: Vec::new(),
            positions: Vec::new(),
            week_begins: Weekday::Monday,
        };
        let mut every = None;
        for part in line.value.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            let wrong = || wrong(part);
            match name.to_ascii_uppercase().as_str() {
                "FREQ" => {
                    every = Some(match value.to_ascii_uppercase().as_str() {
                        "DAILY" => Every::Day,
                        "WEEKLY" => Every::Week,
                        "MONTHLY" => Every::Month,
                        "YEARLY" => Every::Year,
                        _ => return Err(wrong()),
                    });
                }
                "INTERVAL" => {
                    rule.interval =
                        value.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(wrong)?;
                }
                "COUNT" => rule.count = Some(value.parse().map_err(|_| wrong())?),
                "UNTIL" => rule.until = Some(Stamp::read(value, line)?),
                "BYDAY" => rule.weekdays = list(value, weekday).ok_or_else(wrong)?,
                "BYMONTHDAY" => rule.month_days = list(value, |n| within(n, 31)).ok_or_else(wrong)?,
                "BYMONTH" => {
                    rule.months = list(value, |n| within(n, 12).filter(|n: &i8| *n > 0)).ok_or_else(wrong)?;
                }
                "BYSETPOS" => rule.positions = list(value, |n| within(n, 366)).ok_or_else(wrong)?,
                "WKST" => rule.week_begins = weekday(value).ok_or_else(wrong)?.1,
                _ => return Err(wrong()),
            }
        }
        rule.every = every.ok_or_else(|| line.wrong("a rule of recurrence without `FREQ`"))?;
        let numbered = rule.weekdays.iter().any(|(number, _)| number.is_some());
        if matches!(rule.every, Every::Day | Every::Week) && numbered {
            return Err(line.wrong("a numbered weekday means something only by months or years"));
        }
        if rule.every == Every::Week && !rule.month_days.is_empty() {
            return Err(line.wrong("days of the month mean nothing by weeks"));
        }
        Ok(rule)
    }

    /// The days on which it recurs, from the one on which it starts on and within a window, in their order.
    pub(super) fn days(
        &self,
        start: &Stamp,
        zone: &Zone,
        (from, to): (Date, Date),
        steps: &mut usize,
    ) -> Result<Vec<Date>, CalendarError> {
        let first = start.wall.date();
        let mut found = Vec::new();
        let mut counted = 0;
        // What is counted has to be counted from its beginning; else nothing before the window matters.
        let mut period = if self.count.is_some() { 0 } else { self.periods(first, from) };
        loop {
            let Some(begins) = self.period(first, period) else { return Ok(found) };
            if begins > to {
                return Ok(found);
            }
            period += 1;
            *steps = steps.checked_sub(self.work()).ok_or(CalendarError::Often)?;
            for day in self.within(begins, first) {
                *steps = steps.checked_sub(1).ok_or(CalendarError::Often)?;
                if day < first {
                    continue;
                }
                if day > to
                    || self.is_over(start, day, zone)
                    || self.count.is_some_and(|count| counted >= count)
                {
                    return Ok(found);
                }
                counted += 1;
                if day >= from {
                    found.push(day);
                }
            }
        }
    }

    /// How many steps it takes to look at a period, whether or not a day of it is found: each day is compared with all that
    /// the rule lists, and sixteen comparisons are a step.
    fn work(&self) -> usize {
        let listed = self.weekdays.len() + self.month_days.len() + self.months.len() + self.positions.len();
        let days = match self.every {
            Every::Day => 1,
            Every::Week => 7,
            Every::Month => 31,
            // Without a list, it is one date of each year.
            Every::Year if listed == 0 => 1,
            Every::Year => 366,
        };
        1 + days * (1 + listed) / 16
    }

    fn is_over(&self, start: &Stamp, day: Date, zone: &Zone) -> bool {
        let Some(until) = &self.until else { return false };
        let wall = day.to_datetime(start.wall.time());
        match (&until.place, start.on(wall, zone), until.instant(zone)) {
            (Place::Day, ..) => day > until.wall.date(),
            (_, Some(at), Some(until)) => at > until,
            _ => wall > until.wall,
        }
    }

    /// How many periods surely end before a day.
    fn periods(&self, first: Date, day: Date) -> i64 {
        let days = i64::from((day - first).get_days());
        let longest = match self.every {
            Every::Day => 1,
            Every::Week => 7,
            Every::Month => 31,
            Every::Year => 366,
        };
        (days / (longest * self.interval) - 2).max(0)
    }

    /// The first day of a period, counted from the one in which the rule starts.
    fn period(&self, first: Date, number: i64) -> Option<Date> {
        let step = number.checked_mul(self.interval)?;
        let span = |begins: Date, span: Result<Span, jiff::Error>| begins.checked_add(span.ok()?).ok();
        match self.every {
            Every::Day => span(first, Span::new().try_days(step)),
            Every::Week => {
                let back = first.weekday().since(self.week_begins);
                span(first.checked_sub(Span::new().days(back)).ok()?, Span::new().try_weeks(step))
            }
            Every::Month => span(first.first_of_month(), Span::new().try_months(step)),
            Every::Year => span(first.first_of_year(), Span::new().try_years(step)),
        }
    }

    /// The days of a period, in their order.
    fn within(&self, begins: Date, first: Date) -> Vec<Date> {
        let mut days = match self.every {
            Every::Day => vec![begins],
            Every::Week => {
                let week = begins.series(Span::new().days(1)).take(7);
                week.filter(|day| match self.weekdays.is_empty() {
                    true => day.weekday() == first.weekday(),
                    false => self.is_weekday(*day),
                })
                .collect()
            }
            Every::Month => self.in_month(begins, first),
            Every::Year if self.months.is_empty() && self.month_days.is_empty() => {
                self.in_year(begins, first)
            }
            Every::Year => {
                let months = begins.series(Span::new().months(1)).take(12);
                months
                    .filter(|month| self.is_month(*month))
                    .flat_map(|month| self.in_month(month, first))
                    .collect()
            }
        };
        days.retain(|day| self.is_month(*day));
        if self.every == Every::Day {
            days.retain(|day| self.is_weekday(*day) && self.is_month_day(*day));
        }
        if self.positions.is_empty() {
            return days;
        }
        let count = i32::try_from(days.len()).unwrap_or(i32::MAX);
        let place = |position: &i32| if *position > 0 { position - 1 } else { count + position };
        let mut places: Vec<usize> =
            self.positions.iter().filter_map(|p| usize::try_from(place(p)).ok()).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| days.get(place).copied()).collect()
    }

    fn in_month(&self, begins: Date, first: Date) -> Vec<Date> {
        let length = begins.days_in_month();
        let days = begins.series(Span::new().days(1)).take(usize::from(length.unsigned_abs()));
        if self.weekdays.is_empty() && self.month_days.is_empty() {
            return days.filter(|day| day.day() == first.day()).collect();
        }
        days.filter(|day| {
            let numbered = (Some((day.day() - 1) / 7 + 1), Some(-((length - day.day()) / 7 + 1)));
            self.is_month_day(*day) && self.is_numbered(*day, numbered)
        })
        .collect()
    }

    fn in_year(&self, begins: Date, first: Date) -> Vec<Date> {
        if self.weekdays.is_empty() {
            return Date::new(begins.year(), first.month(), first.day()).into_iter().collect();
        }
        let length = begins.days_in_year();
        let days = begins.series(Span::new().days(1)).take(usize::from(length.unsigned_abs()));
        days.filter(|day| {
            let number = day.day_of_year();
            let (ahead, back) = ((number - 1) / 7 + 1, -((length - number) / 7 + 1));
            self.is_numbered(*day, (i8::try_from(ahead).ok(), i8::try_from(back).ok()))
        })
        .collect()
    }

    fn is_numbered(&self, day: Date, (ahead, back): (Option<i8>, Option<i8>)) -> bool {
        let is = |(number, weekday): &(Option<i8>, Weekday)| {
            *weekday == day.weekday() && (number.is_none() || *number == ahead || *number == back)
        };
        self.weekdays.is_empty() || self.weekdays.iter().any(is)
    }

    fn is_weekday(&self, day: Date) -> bool {
        self.weekdays.is_empty() || self.weekdays.iter().any(|(_, weekday)| *weekday == day.weekday())
    }

    fn is_month(&self, day: Date) -> bool {
        self.months.is_empty() || self.months.contains(&day.month())
    }

    fn is_month_day(&self, day: Date) -> bool {
        let back = day.day() - day.days_in_month() - 1;
        self.month_days.is_empty() || self.month_days.contains(&day.day()) || self.month_days.contains(&back)
    }
}

/// The parts of a list, each once.
fn list<T: PartialEq>(text: &str, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let part = one(part)?;
        // There are a few hundred different ones at most.
        if !found.contains(&part) {
            found.push(part);
        }
    }
    Some(found)
}

/// A whole number between `-most` and `most`, but not zero.
fn within<T: TryFrom<i32>>(text: &str, most: i32) -> Option<T> {
    let number: i32 = text.parse().ok()?;
    (number != 0 && number.abs() <= most).then(|| T::try_from(number).ok()).flatten()
}

/// `MO`, `-1FR`, `2TU`.
fn weekday(text: &str) -> Option<(Option<i8>, Weekday)> {
    let (number, name) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let weekday = match name.to_ascii_uppercase().as_str() {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    };
    let number = match number {
        "" => None,
        text => Some(within(text, 53)?),
    };
    Some((number, weekday))
}
