//! Schedules, their calendars and their chances.

mod calendars;
mod chance;
mod clocks;
mod documents;
mod uniform;

use jiff::Timestamp;

use super::*;

/// A schedule with this timing, in a zone.
fn schedule(when: &str, rest: &str) -> Schedule {
    let text = format!("schedule: 1\nname: night\nwhen: {when}\nexperiment: \"squall: 1\"\n{rest}\n");
    match read("s.yaml", text.as_bytes()) {
        Ok(schedule) => schedule,
        Err(problems) => panic!("{}", problems.render(false)),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// The entries between two instants, of one group, with nothing barred but the schedule's own exceptions.
fn entries(schedule: &Schedule, from: &str, to: &str) -> Vec<Entry> {
    let (from, to) = (at(from), at(to));
    let bars = schedule.bars(&Default::default(), from, to).expect("exceptions");
    let groups = [String::new()];
    Outlook { schedule, seed: 7, since: from, bars: &bars, groups: &groups }.entries(from, to, 100_000)
}

/// Their times by the clocks of the schedule's zone, and a mark at those that are barred.
fn times(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
    let shown = |entry: &Entry| {
        let mark = if entry.barred.is_some() { " barred" } else { "" };
        format!("{}{mark}", schedule.zone.zoned(entry.at).strftime("%m-%d %H:%M%:z"))
    };
    entries(schedule, from, to).iter().map(shown).collect()
}
