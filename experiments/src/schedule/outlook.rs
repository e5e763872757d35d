//! What a schedule comes to: its entries in a stretch of time, and why some of them will not run.

use jiff::Timestamp;
use jiff::civil::Date;

use super::bars::Bars;
use super::clock::{Weekday, Zone};
use super::document::{Schedule, Timing};
use super::random::{Draw, Random};

/// Everything that decides what a schedule does.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    /// The schedule.
    pub schedule: &'a Schedule,
    /// The seed of every coin.
    pub seed: u64,
    /// Since when it is there: the first day of all spacing, and nothing is before it.
    pub since: Timestamp,
    /// When nothing runs. They reach from `since` to the end of what is asked.
    pub bars: &'a Bars,
    /// The groups of hosts, each with coins of its own: see [`Random::groups`].
    pub groups: &'a [String],
}

/// A time at which a schedule runs, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// The group of hosts; empty: all that opted in.
    pub group: String,
    /// The seed of the run.
    pub seed: u64,
    /// Why it will not run.
    pub barred: Option<String>,
    /// A run of this group at or after this instant is too near: the day's minimum spacing.
    pub apart: Option<Timestamp>,
}

/// A day of a random schedule, with its hours.
struct Hours {
    day: Date,
    from: Timestamp,
    to: Timestamp,
    /// Whether people work: nothing bars all of its hours.
    works: bool,
}

impl Outlook<'_> {
    /// The entries from an instant on and before another, by time, at most so many; the same whenever they are asked for.
    /// Entries that something bars are among them, with why.
    pub fn entries(&self, from: Timestamp, to: Timestamp, most: usize) -> Vec<Entry> {
        let (name, zone) = (self.schedule.name.as_str(), &self.schedule.zone);
        let from = from.max(self.since);
        if from >= to {
            return Vec::new();
        }
        let fixed = |at: Timestamp| Entry {
            at,
            group: String::new(),
            seed: Draw::about(self.seed, &[name, &at.to_string()]).seed,
            barred: self.barred(at),
            apart: None,
        };
        let mut entries: Vec<Entry> = match &self.schedule.when {
            Timing::Cron(cron) => {
                cron.times(zone, from).take_while(|at| *at < to).take(most).map(fixed).collect()
            }
            Timing::At(moment) => {
                moment.at(zone).ok().filter(|at| (from..to).contains(at)).map(fixed).into_iter().collect()
            }
            Timing::Random(random) => self.random(random, from, to),
        };
        entries.sort_by(|a, b| (a.at, &a.group).cmp(&(b.at, &b.group)));
        entries.truncate(most);
        entries
    }

    fn barred(&self, at: Timestamp) -> Option<String> {
        self.bars.at(at).map(|bar| bar.why.clone())
    }

    fn random(&self, random: &Random, from: Timestamp, to: Timestamp) -> Vec<Entry> {
        let days = self.days(random, to);
        let spacing = random.apart as usize;
        let mut entries = Vec::new();
        for group in self.groups {
            // How many work days have begun, and the number of the last one on which this group ran.
            let (mut worked, mut last) = (0usize, None::<usize>);
            // The ends of the hours of the last work days: those are what a run must not lie behind.
            let mut recent = std::collections::VecDeque::new();
            for hours in &days {
                let rested = last.is_none_or(|last| worked - last >= spacing);
                let draw = Draw::of(self.seed, self.schedule.name.as_str(), group, hours.day);
                let apart = (recent.len() >= spacing).then(|| recent.front().copied()).flatten();
                if rested && draw.coin < random.chance() {
                    let seconds = (hours.to.as_second() - hours.from.as_second()).unsigned_abs();
                    let after = std::time::Duration::from_secs(draw.below(seconds));
                    let at = hours.from.checked_add(after).unwrap_or(hours.from);
                    let barred = self.barred(at);
                    // A time that had passed when the schedule was made is none.
                    if barred.is_none() && at >= self.since {
                        last = Some(worked);
                    }
                    if (from..to).contains(&at) {
                        let apart = Some(apart.unwrap_or(self.since));
                        entries.push(Entry { at, group: group.clone(), seed: draw.seed, barred, apart });
                    }
                }
                if hours.works {
                    worked += 1;
                    recent.push_back(hours.to);
                    if recent.len() > spacing {
                        recent.pop_front();
                    }
                }
            }
        }
        entries
    }

    /// The days of the week on which it may run, from the first to the one in which `to` lies.
    fn days(&self, random: &Random, to: Timestamp) -> Vec<Hours> {
        let zone: &Zone = &self.schedule.zone;
        let (first, last) = (zone.zoned(self.since).date(), zone.zoned(to).date());
        let days = first.series(jiff::Span::new().days(1)).take_while(|day| *day <= last);
        let hours = |day: Date| {
            let (from, to) = (random.from.on(day, zone)?, random.to.on(day, zone)?);
            // Hours that a change of clocks skips as a whole are none.
            (from < to).then(|| Hours { day, from, to, works: self.bars.over(from, to).is_none() })
        };
        days.filter(|day| random.days.contains(&Weekday::of(*day))).filter_map(hours).collect()
    }
}
