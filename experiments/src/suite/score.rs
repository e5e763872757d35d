//! One number over all experiments: how much of what is tested was shown to hold.

use serde::Serialize;

use super::history::day;
use super::{Entry, History, Tested};
use crate::exit::Exit;

/// After so many days an earlier result that held counts half.
pub const HALF_LIFE_DAYS: f64 = 30.0;
/// A result that is older than so many days counts no more, neither for nor against.
pub const FORGOTTEN_DAYS: i64 = 90;

/// The resilience score: `100 * Σ weight * age * held / Σ weight`.
///
/// `held` is 1 for an experiment that held and 0 for every other one; `age` is 1 for what was run now, and halves every
/// [`HALF_LIFE_DAYS`] days for what only the history knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// From 0 to 100.
    pub percent: f64,
    /// How many of those that were run now held.
    pub held: u32,
    /// How many of them deviated.
    pub deviated: u32,
    /// How many said neither: inconclusive, refused, interrupted, not run. They are not passed.
    pub unclear: u32,
    /// What was not in this suite, from the history.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aged: Vec<Aged>,
}

/// An earlier result that counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aged {
    /// The experiment.
    pub title: String,
    /// What it came to.
    pub verdict: String,
    /// How many days ago.
    pub days: i64,
    /// Its weight.
    pub weight: u32,
    /// What is left of it, from 0 to 1.
    pub counts: f64,
}

impl Score {
    /// The score of what was run now, and of what the history knows beside it; `None` where nothing has a weight.
    pub(super) fn of(experiments: &[Tested], history: Option<&History>, date: &str) -> Option<Score> {
        let mut score = Score { percent: 0.0, held: 0, deviated: 0, unclear: 0, aged: Vec::new() };
        let (mut sum, mut all) = (0.0, 0.0);
        for tested in experiments.iter().filter(|tested| tested.subject.weight > 0) {
            let weight = f64::from(tested.subject.weight);
            all += weight;
            match tested.exit {
                Some(Exit::Held) => {
                    score.held += 1;
                    sum += weight;
                }
                Some(Exit::Deviated) => score.deviated += 1,
                _ => score.unclear += 1,
            }
        }
        let now = |title: &str| experiments.iter().any(|tested| tested.subject.title == title);
        let latest = history.map(History::latest).unwrap_or_default();
        score.aged = latest
            .into_iter()
            .filter(|entry| !now(&entry.title) && entry.weight > 0)
            .filter_map(|entry| aged(entry, date))
            .collect();
        for aged in &score.aged {
            all += f64::from(aged.weight);
            sum += f64::from(aged.weight) * aged.counts;
        }
        score.percent = 100.0 * sum / all;
        (all > 0.0).then_some(score)
    }

    /// `resilience score 67 of 100 (2 held, 1 inconclusive or without a result)`.
    pub fn in_words(&self) -> String {
        let mut parts = vec![format!("{} held", self.held), format!("{} deviated", self.deviated)];
        if self.unclear > 0 {
            parts.push(format!("{} without a verdict, not passed", self.unclear));
        }
        if !self.aged.is_empty() {
            parts.push(format!("{} from the history", self.aged.len()));
        }
        // Rounded down: 100 is for those that are shown to hold, all of them.
        format!("resilience score {:.0} of 100 ({})", self.percent.floor(), parts.join(", "))
    }
}

/// What is left of an earlier result; `None` of one that is forgotten.
pub(super) fn aged(entry: &Entry, date: &str) -> Option<Aged> {
    let days = (day(date)? - day(&entry.at)?).max(0);
    if days > FORGOTTEN_DAYS {
        return None;
    }
    let left = (-(days as f64) / HALF_LIFE_DAYS).exp2();
    Some(Aged {
        title: entry.title.clone(),
        verdict: entry.verdict.clone(),
        days,
        weight: entry.weight,
        counts: if entry.exit == Exit::Held { left } else { 0.0 },
    })
}
