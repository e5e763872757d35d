//! One event: when it begins, how long it is, how it recurs, and what it is called.

use std::collections::HashSet;

use jiff::civil::DateTime;
use jiff::{SignedDuration, SpanRelativeTo, Timestamp};

use super::CalendarError;
use super::lines::Line;
use super::rule::Rule;
use super::stamp::{Place, Stamp};
use crate::schedule::bars::Bar;
use crate::schedule::clock::Zone;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    uid: String,
    start: Stamp,
    length: Length,
    rule: Option<Rule>,
    /// Further instances.
    more: Vec<Stamp>,
    /// Instances that are none.
    without: Vec<Stamp>,
    /// The instance of a recurring event that this one stands for.
    instance: Option<Stamp>,
    cancelled: bool,
    summary: String,
}

/// How long an event is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    /// Whole days, however long each is.
    Days(i64),
    Time(Lasting),
}

/// How long what begins at a time lasts: so many days by the clocks of the event, and then so long. A day in which clocks change has
/// 23 or 25 hours (section 3.3.6).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lasting {
    days: i64,
    rest: SignedDuration,
}

impl Lasting {
    /// As long, whatever clocks do.
    fn exactly(rest: SignedDuration) -> Self {
        Lasting { days: 0, rest }
    }

    /// By days of 24 hours.
    fn nominal(self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.days) + self.rest
    }
}

/// An event of which lines are still to come.
#[derive(Debug, Default)]
pub(super) struct Draft {
    line: usize,
    uid: String,
    start: Option<Stamp>,
    end: Option<Stamp>,
    duration: Option<Lasting>,
    rule: Option<Rule>,
    more: Vec<Stamp>,
    without: Vec<Stamp>,
    instance: Option<Stamp>,
    cancelled: bool,
    summary: String,
}

impl Draft {
    /// One that begins on this line.
    pub(super) fn at(line: usize) -> Self {
        Draft { line, ..Draft::default() }
    }

    /// Takes a line of the event.
    pub(super) fn take(&mut self, line: &Line) -> Result<(), CalendarError> {
        match line.name.as_str() {
            "UID" => self.uid.clone_from(&line.value),
            "DTSTART" => self.start = Some(Stamp::read(&line.value, line)?),
            "DTEND" => self.end = Some(Stamp::read(&line.value, line)?),
            "DURATION" => self.duration = Some(duration(line)?),
            "RRULE" if self.rule.is_some() => {
                return Err(line.wrong("an event recurs by one rule; help: make it two events"));
            }
            "RRULE" => self.rule = Some(Rule::read(line)?),
            "EXRULE" => return Err(line.wrong("`EXRULE` is not understood; help: list the days in `EXDATE`")),
            "RDATE" => self.more.extend(Stamp::all(line)?),
            "EXDATE" => self.without.extend(Stamp::all(line)?),
            "RECURRENCE-ID" if line.parameter("RANGE").is_some() => {
                return Err(line.wrong("`RANGE` is not understood; help: end the event and begin another"));
            }
            "RECURRENCE-ID" => self.instance = Some(Stamp::read(&line.value, line)?),
            "STATUS" => self.cancelled = line.value.eq_ignore_ascii_case("CANCELLED"),
            "SUMMARY" => self.summary = plain(&line.value),
            _ => {}
        }
        Ok(())
    }

    /// The event, now that its end was seen.
    pub(super) fn finish(self) -> Result<Event, CalendarError> {
        let wrong = |what: &str| CalendarError::Line { line: self.line, what: what.to_owned() };
        let start = self.start.clone().ok_or_else(|| wrong("an event without `DTSTART`"))?;
        let utc = Zone::default();
        let whole = start.place == Place::Day;
        let length = match (&self.end, self.duration) {
            (Some(end), _) if whole != (end.place == Place::Day) => {
                return Err(wrong("an event begins with a day and ends with a time, or the other way round"));
            }
            (Some(end), _) if whole => Length::Days((end.wall.date() - start.wall.date()).get_days().into()),
            (Some(end), _) => {
                let (Some(from), Some(to)) = (start.instant(&utc), end.instant(&utc)) else {
                    return Err(wrong("an event at the end of time"));
                };
                Length::Time(Lasting::exactly(to.duration_since(from)))
            }
            (None, Some(duration)) if whole && duration.nominal().as_secs() % 86_400 != 0 => {
                return Err(wrong("an event of whole days lasts a part of one; help: begin it with a time"));
            }
            (None, Some(duration)) if whole => Length::Days(duration.nominal().as_secs() / 86_400),
            (None, Some(duration)) => Length::Time(duration),
            // Section 3.6.1: without an end, a day lasts a day and a time is a moment.
            (None, None) if whole => Length::Days(1),
            (None, None) => Length::Time(Lasting::exactly(SignedDuration::ZERO)),
        };
        if matches!(length, Length::Days(days) if days < 0)
            || matches!(length, Length::Time(time) if time.nominal().is_negative())
        {
            return Err(wrong("an event ends before it begins"));
        }
        let length = if length == Length::Days(0) { Length::Days(1) } else { length };
        let summary =
            if self.summary.is_empty() { "an event without a name".to_owned() } else { self.summary };
        Ok(Event {
            uid: self.uid,
            start,
            length,
            rule: self.rule,
            more: self.more,
            without: self.without,
            instance: self.instance,
            cancelled: self.cancelled,
            summary,
        })
    }
}

impl Event {
    /// By what it is known among its instances.
    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// The instance that it stands for, of the recurring event of the same name.
    pub(super) fn alters(&self) -> Option<(&str, &Stamp)> {
        self.instance.as_ref().map(|instance| (self.uid.as_str(), instance))
    }

    /// Adds what it bars between two instants; instances that begin at `altered` are another event's.
    pub(super) fn bars(
        &self,
        zone: &Zone,
        (from, to): (Timestamp, Timestamp),
        altered: &HashSet<Timestamp>,
        steps: &mut usize,
        bars: &mut Vec<Bar>,
    ) -> Result<(), CalendarError> {
        if self.cancelled {
            return Ok(());
        }
        let without = |at: &Timestamp| {
            altered.contains(at) || self.without.iter().any(|stamp| stamp.instant(zone).as_ref() == Some(at))
        };
        let mut add = |start: &Stamp, wall: DateTime| {
            let Some(begin) = start.on(wall, zone) else { return };
            let end = match self.length {
                Length::Days(days) => {
                    let last = wall.date().checked_add(jiff::Span::new().days(days));
                    last.ok().and_then(|day| zone.midnight(day))
                }
                Length::Time(Lasting { days: 0, rest }) => begin.checked_add(rest).ok(),
                Length::Time(Lasting { days, rest }) => {
                    let last = wall.checked_add(jiff::Span::new().days(days)).ok();
                    last.and_then(|last| start.on(last, zone)?.checked_add(rest).ok())
                }
            };
            let end = end.unwrap_or(Timestamp::MAX);
            if begin < to && end > from && !without(&begin) {
                bars.push(Bar { from: begin, to: end, why: self.summary.clone() });
            }
        };
        for stamp in &self.more {
            add(stamp, stamp.wall);
        }
        // Section 3.8.5.3: the start is the first instance, whether or not the rule says so.
        add(&self.start, self.start.wall);
        let Some(rule) = &self.rule else { return Ok(()) };
        let longest = match self.length {
            Length::Days(days) => SignedDuration::from_hours(days.saturating_mul(25)),
            Length::Time(Lasting { days, rest }) => {
                SignedDuration::from_hours(days.saturating_mul(25)).saturating_add(rest)
            }
        };
        let begin = from.checked_sub(longest).unwrap_or(Timestamp::MIN);
        let window = (self.start.wall_of(begin, zone).date(), self.start.wall_of(to, zone).date());
        for day in rule.days(&self.start, zone, window, steps)? {
            if day != self.start.wall.date() {
                add(&self.start, day.to_datetime(self.start.wall.time()));
            }
        }
        Ok(())
    }
}

/// `P1D`, `PT1H30M` (section 3.3.6).
fn duration(line: &Line) -> Result<Lasting, CalendarError> {
    let wrong = || line.wrong(format!("`{}` is no duration (`P1D`, `PT1H30M`)", line.value));
    let span: jiff::Span = line.value.parse().map_err(|_| wrong())?;
    // A span of which whole days are taken out has its sign still.
    let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
    let rest = span.weeks(0).days(0).to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Ok(Lasting { days, rest })
}

/// A text without its escapes (section 3.3.11), on one line.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n' | 'N') | None => out.push(' '),
                Some(other) => out.push(other),
            },
            (letter, _) => out.push(if letter.is_control() { ' ' } else { letter }),
        }
    }
    out.trim().chars().take(200).collect()
}
