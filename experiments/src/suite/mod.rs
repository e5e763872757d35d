//! Several experiments as one gate: each of them run once or more often, one verdict, a score, and what was before.
//!
//! Pure arithmetic over the summaries of runs; the rules are in `docs/verdicts.md`.

mod history;
mod repeat;
mod score;
mod standing;

use serde::Serialize;

use crate::document::Places;
use crate::exit::Exit;
use crate::muster::Head;
use crate::ramp::Ladder;
use crate::summary::Summary;

pub use history::{Entry, History, Unreadable};
pub use score::{Aged, FORGOTTEN_DAYS, HALF_LIFE_DAYS, Score};
pub use standing::{Standing, Stood};

/// Which experiment, as far as a report must know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Subject {
    /// Its title.
    pub title: String,
    /// Its file, as the command line names it.
    pub file: String,
    /// The hash of its text.
    pub hash: String,
    /// How much it counts in the score.
    pub weight: u32,
    /// Where its parts stand in the file.
    #[serde(skip)]
    pub places: Places,
}

/// One run of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ran {
    /// What it came to.
    #[serde(flatten)]
    pub summary: Summary,
    /// Where its events are.
    pub events: Option<String>,
    /// It deviated by itself, but that is too little evidence for the one deviation of so many runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_be_chance: bool,
}

/// One experiment of a suite, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tested {
    /// Which one.
    #[serde(flatten)]
    pub subject: Subject,
    /// How often it was to be run.
    pub repeats: u32,
    /// What the exit code means, or `not run`.
    pub verdict: String,
    /// The exit code of all its runs together; `None` where it was not run.
    pub exit: Option<Exit>,
    /// The closing sentence.
    pub sentence: String,
    /// Its runs.
    pub runs: Vec<Ran>,
    /// How often it held before, and since when it does what it does now; `None` without a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub story: Option<String>,
}

impl Tested {
    /// The verdict over the runs that took place, each with the place of its events, of the `repeats` that were asked for.
    pub fn of(subject: Subject, repeats: u32, runs: Vec<(Summary, Option<String>)>) -> Tested {
        let judged = repeat::judge(&runs, repeats);
        let runs = runs.into_iter().zip(&judged.chance);
        let ran = runs.map(|((summary, events), chance)| Ran { summary, events, may_be_chance: *chance });
        Tested {
            subject,
            repeats,
            verdict: judged.exit.map_or("not run", Exit::meaning).to_owned(),
            exit: judged.exit,
            sentence: judged.sentence,
            runs: ran.collect(),
            story: None,
        }
    }

    /// Its name in a list: the title, and how often it was run where that is not once.
    pub fn name(&self) -> String {
        match self.repeats {
            1 => self.subject.title.clone(),
            repeats => format!("{} ({} of {repeats} runs)", self.subject.title, self.runs.len()),
        }
    }
}

/// What became of a suite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suite {
    /// When it began: RFC 3339, UTC.
    pub date: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What the exit code means.
    pub verdict: String,
    /// The most serious exit code of all experiments: see [`Exit::worse`].
    pub exit: Exit,
    /// One sentence.
    pub sentence: String,
    /// The score; `None` where no experiment counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// The experiments, in the order in which they were named.
    pub experiments: Vec<Tested>,
    /// Where the experiments are the steps of a ramp: what they show together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ladder>,
    /// Of the hosts of a run of a controller: the end of its audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Head>,
}

impl Suite {
    /// The suite of experiments that began at `date`. With a history each experiment is added to it and gets its story;
    /// `build` is what the history calls the version under test.
    pub fn of(
        mut experiments: Vec<Tested>,
        date: &str,
        took_ms: u64,
        history: Option<&mut History>,
        build: Option<&str>,
    ) -> Suite {
        let exits = experiments.iter().filter_map(|tested| tested.exit);
        // What was not run has not held: somebody has ended the suite, if only after the last run was over.
        let unrun = experiments.iter().any(|tested| tested.exit.is_none());
        let exit = match exits.fold(Exit::Held, Exit::worse) {
            Exit::Held if unrun => Exit::Interrupted,
            exit => exit,
        };
        let score = Score::of(&experiments, history.as_deref(), date);
        if let Some(history) = history {
            for tested in &mut experiments {
                if let Some(entry) = Entry::of(tested, date, build) {
                    history.add(entry);
                }
                tested.story = history.story(&tested.subject.title);
            }
        }
        Suite {
            date: date.to_owned(),
            took_ms,
            verdict: exit.meaning().to_owned(),
            exit,
            sentence: sentence(exit, &experiments),
            score,
            experiments,
            ramp: None,
            audit: None,
        }
    }

    /// The same where the experiments are the steps of a ramp: the suite says what the ramp found.
    pub fn climbed(self, ladder: Ladder) -> Suite {
        let (exit, sentence) = (ladder.exit, ladder.sentence.clone());
        Suite { exit, verdict: exit.meaning().to_owned(), sentence, ramp: Some(ladder), ..self }
    }
}

/// `deviated: 1 of 3 experiments deviated, 1 held, 1 not run`.
fn sentence(exit: Exit, experiments: &[Tested]) -> String {
    let all = experiments.len();
    let noun = if all == 1 { "experiment" } else { "experiments" };
    let mut words: Vec<(&str, usize)> = Vec::new();
    for tested in experiments {
        match words.iter_mut().find(|(word, _)| *word == tested.verdict) {
            Some((_, count)) => *count += 1,
            None => words.push((&tested.verdict, 1)),
        }
    }
    // What decided comes first.
    words.sort_by_key(|(word, _)| *word != exit.meaning());
    let counts: Vec<String> = words
        .iter()
        .enumerate()
        .map(|(at, (word, count))| match at {
            0 => format!("{count} of {all} {noun} {word}"),
            _ => format!("{count} {word}"),
        })
        .collect();
    match counts.is_empty() {
        true => format!("{}: there was no experiment", exit.meaning()),
        false => format!("{}: {}", exit.meaning(), counts.join(", ")),
    }
}

#[cfg(test)]
mod tests;
