//! What came of experiments before: a line of JSON for each, oldest first.

use serde::{Deserialize, Serialize};

use super::Tested;
use crate::exit::Exit;
use crate::protocol::RunId;

/// One experiment of one suite, as a line of a history file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When its suite began: RFC 3339, UTC.
    pub at: String,
    /// Its title, by which it is known again.
    pub title: String,
    /// The hash of its text.
    pub hash: String,
    /// What the exit code means.
    pub verdict: String,
    /// The exit code.
    pub exit: Exit,
    /// How much it counts in the score.
    pub weight: u32,
    /// Its runs.
    pub runs: Vec<RunId>,
    /// What was tested: a commit, a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}

impl Entry {
    /// The line of an experiment; `None` where it was not run.
    pub(super) fn of(tested: &Tested, date: &str, build: Option<&str>) -> Option<Entry> {
        Some(Entry {
            at: date.to_owned(),
            title: tested.subject.title.clone(),
            hash: tested.subject.hash.clone(),
            verdict: tested.verdict.clone(),
            exit: tested.exit?,
            weight: tested.subject.weight,
            runs: tested.runs.iter().map(|ran| ran.summary.run.clone()).collect(),
            build: build.map(str::to_owned),
        })
    }
}

/// A line that is no entry.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not an entry of a history: {why}")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
    /// A lowercase fragment.
    pub why: String,
}

/// The entries of a history file, and those that came since.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
    /// How many of them the file holds.
    read: usize,
    /// How many bytes of the file are whole lines.
    whole: u64,
}

impl History {
    /// The history in the bytes of a file. A last line without its end was cut off, and is passed over; any other line that is
    /// no entry is an error.
    pub fn read(bytes: &[u8]) -> Result<History, Unreadable> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut history = History { whole: whole as u64, ..History::default() };
        for (line, bytes) in (1..).zip(bytes[..whole].split(|byte| *byte == b'\n')) {
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let entry: Entry =
                serde_json::from_slice(bytes).map_err(|error| Unreadable { line, why: error.to_string() })?;
            if day(&entry.at).is_none() {
                return Err(Unreadable { line, why: format!("`{}` is no date", entry.at) });
            }
            history.entries.push(entry);
        }
        history.read = history.entries.len();
        Ok(history)
    }

    /// A history that is in no file: entries, the oldest first.
    pub fn of(entries: Vec<Entry>) -> History {
        History { read: entries.len(), entries, whole: 0 }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// How many bytes of the file were read as whole lines. What follows them was cut off while it was written.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// What is to be appended to the whole lines of the file: an entry for each experiment since it was read.
    pub fn news(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries[self.read..] {
            // It holds nothing that JSON cannot say.
            text.push_str(&serde_json::to_string(entry).unwrap_or_default());
            text.push('\n');
        }
        text
    }

    /// The last entry of each experiment, in the order in which they first came.
    pub(super) fn latest(&self) -> Vec<&Entry> {
        let mut latest: Vec<&Entry> = Vec::new();
        for entry in &self.entries {
            match latest.iter_mut().find(|known| known.title == entry.title) {
                Some(known) => *known = entry,
                None => latest.push(entry),
            }
        }
        latest
    }

    /// `held 12 times, deviated since 2026-11-20 (build 4fed865)`; `None` for an experiment that was never run.
    pub fn story(&self, title: &str) -> Option<String> {
        let own: Vec<&Entry> = self.entries.iter().filter(|entry| entry.title == title).collect();
        let last = own.last()?;
        let count = |exit: Exit| own.iter().filter(|entry| entry.exit == exit).count();
        let (held, deviated) = (count(Exit::Held), count(Exit::Deviated));
        let mut conclusive =
            own.iter().rev().filter(|entry| matches!(entry.exit, Exit::Held | Exit::Deviated)).peekable();
        let mut parts = Vec::new();
        if let Some(now) = conclusive.peek().map(|entry| entry.exit) {
            let series: Vec<_> = conclusive.take_while(|entry| entry.exit == now).collect();
            let (word, before) = match now {
                Exit::Held => ("held", deviated),
                _ => ("deviated", held),
            };
            let other = if now == Exit::Held { "deviated" } else { "held" };
            if before > 0 {
                parts.push(format!("{other} {}", times(before)));
            }
            if let Some(first) = series.last() {
                let build =
                    first.build.as_ref().map_or_else(String::new, |build| format!(" (build {build})"));
                let times = if before > 0 { String::new() } else { format!(" {}", times(series.len())) };
                parts.push(format!("{word}{times} since {}{build}", first.at.get(..10).unwrap_or_default()));
            }
        }
        let unclear = own.len() - held - deviated;
        if unclear > 0 {
            parts.push(format!("without a verdict {}", times(unclear)));
        }
        if own.iter().rev().nth(1).is_some_and(|before| before.hash != last.hash) {
            parts.push("its file has changed since the last time".to_owned());
        }
        Some(parts.join(", "))
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// The number of a day, by which days are counted: Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `days_from_civil`. `None` for what does not begin with a date.
pub(super) fn day(date: &str) -> Option<i64> {
    let mut parts = date.get(..10)?.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}
