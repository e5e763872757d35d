//! At random within bounds, as Netflix's Chaos Monkey does it (its `schedule` and `constrainer`), with its mean kept: one coin for
//! each group and work day, a time uniform over the day's hours, and a minimum of work days between two.
//!
//! Nothing is drawn in a row: every coin is a hash of seed, schedule, group and day, so that one day can be asked for alone.

use std::collections::BTreeMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clock::{TimeOfDay, Weekday};

/// At random within bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Random {
    /// How many work days lie between two runs of a group on average: 1 is every work day.
    #[schemars(range(min = 1, max = 1000))]
    pub mean: u32,
    /// How many work days lie between two runs of a group at least; it holds also against what was really run.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub apart: u32,
    /// Business hours begin, by the clocks of the zone.
    #[serde(default = "nine")]
    pub from: TimeOfDay,
    /// Business hours end.
    #[serde(default = "fifteen")]
    pub to: TimeOfDay,
    /// The days of the week on which people work.
    #[serde(default = "working")]
    #[schemars(length(min = 1))]
    pub days: Vec<Weekday>,
    /// The label by which hosts are grouped: each value that hosts which opted in carry has coins of its own. Without it all of them
    /// are one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
}

fn one() -> u32 {
    1
}

fn nine() -> TimeOfDay {
    TimeOfDay::hour(9)
}

fn fifteen() -> TimeOfDay {
    TimeOfDay::hour(15)
}

fn working() -> Vec<Weekday> {
    Weekday::WORKING.to_vec()
}

impl Random {
    /// The chance of a work day on which the minimum has passed. With it the mean holds: after `apart - 1` days without a coin,
    /// the days to the next one are geometric with the mean `mean - apart + 1`.
    pub fn chance(&self) -> f64 {
        1.0 / f64::from(self.mean.saturating_sub(self.apart) + 1)
    }

    /// The groups among hosts that carry these labels: what each group's hosts carry. One group of all without `per`; hosts
    /// without that label are in none.
    pub fn groups<'h>(&self, hosts: impl IntoIterator<Item = &'h BTreeMap<String, String>>) -> Vec<String> {
        let Some(per) = &self.per else { return vec![String::new()] };
        let values: std::collections::BTreeSet<&String> =
            hosts.into_iter().filter_map(|labels| labels.get(per)).collect();
        values.into_iter().filter(|value| !value.is_empty()).cloned().collect()
    }
}

/// What chance says for one group on one day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The coin, from 0 to 1 without 1.
    pub coin: f64,
    /// The place within the hours, in parts of 2^64.
    place: u64,
    /// The seed of the run.
    pub seed: u64,
}

impl Draw {
    /// The draw of a group on a day.
    pub fn of(seed: u64, schedule: &str, group: &str, day: Date) -> Self {
        Draw::about(seed, &[schedule, group, &day.to_string()])
    }

    /// The draw about something that these words name.
    pub fn about(seed: u64, words: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for word in words {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        let mut bytes = [0; 24];
        hasher.finalize_xof().fill(&mut bytes);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at * 8 + byte]));
        // 53 bits are what a float holds; 32 bits of seed stay exact in every JSON reader.
        Draw { coin: (word(0) >> 11) as f64 / (1u64 << 53) as f64, place: word(1), seed: word(2) >> 32 }
    }

    /// A number below `end`, uniform; 0 where that is 0.
    pub fn below(&self, end: u64) -> u64 {
        u64::try_from((u128::from(self.place) * u128::from(end)) >> 64).unwrap_or(0)
    }
}
