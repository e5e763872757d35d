//! Where experiments stand by what became of their last runs, whoever ran them: the score of a controller.

use schemars::JsonSchema;
use serde::Serialize;

use super::History;
use super::score::aged;
use crate::exit::Exit;

/// The resilience score over the last result of each experiment, by the formula of [`Score`](super::Score): what is no older
/// than a day counts in full.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Standing {
    /// From 0 to 100; none where no experiment counts.
    pub score: Option<f64>,
    /// The same in a sentence: `resilience score 67 of 100 over 3 experiments (2 held, 1 deviated)`.
    pub words: String,
    /// How many of those that count held last.
    pub held: u32,
    /// How many of them deviated last.
    pub deviated: u32,
    /// How many said neither: inconclusive, refused, interrupted. They are not passed.
    pub unclear: u32,
    /// The experiments, in the order of their last runs; also those that are shown and do not count.
    pub experiments: Vec<Stood>,
}

/// An experiment by its last run that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Stood {
    /// Its title.
    pub title: String,
    /// Its last run.
    pub run: Option<String>,
    /// What that came to.
    pub verdict: String,
    /// How many days ago.
    pub days: i64,
    /// The version that was tested, where that was said.
    pub build: Option<String>,
    /// How much it counts.
    pub weight: u32,
    /// What is left of its result, from 0 to 1: nothing where it did not hold.
    pub counts: f64,
    /// How often it held before, and since which build it does what it does now.
    pub story: String,
}

impl Standing {
    /// By the last entry of each experiment of a history, on a day.
    pub fn of(history: &History, date: &str) -> Standing {
        let mut standing = Standing {
            score: None,
            words: String::new(),
            held: 0,
            deviated: 0,
            unclear: 0,
            experiments: Vec::new(),
        };
        let (mut sum, mut all) = (0.0, 0.0);
        for entry in history.latest() {
            let Some(aged) = aged(entry, date) else { continue };
            let weight = f64::from(aged.weight);
            all += weight;
            sum += weight * aged.counts;
            if aged.weight > 0 {
                match entry.exit {
                    Exit::Held => standing.held += 1,
                    Exit::Deviated => standing.deviated += 1,
                    _ => standing.unclear += 1,
                }
            }
            standing.experiments.push(Stood {
                title: aged.title,
                run: entry.runs.last().map(|run| run.0.clone()),
                verdict: aged.verdict,
                days: aged.days,
                build: entry.build.clone(),
                weight: aged.weight,
                counts: aged.counts,
                story: history.story(&entry.title).unwrap_or_default(),
            });
        }
        standing.score = (all > 0.0).then_some(100.0 * sum / all);
        standing.words = standing.in_words();
        standing
    }

    fn in_words(&self) -> String {
        let Some(score) = self.score else { return "no resilience score: no experiment counts".to_owned() };
        let count = self.held + self.deviated + self.unclear;
        let noun = if count == 1 { "experiment" } else { "experiments" };
        let unclear = match self.unclear {
            0 => String::new(),
            unclear => format!(", {unclear} without a verdict, not passed"),
        };
        // Rounded down, as every score.
        let score = score.floor();
        format!(
            "resilience score {score:.0} of 100 over {count} {noun} ({} held, {} deviated{unclear})",
            self.held, self.deviated
        )
    }
}
