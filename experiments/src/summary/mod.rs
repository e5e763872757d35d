//! What a run's events add up to: the report, before anybody prints it.
//!
//! A summary is made of the event log and of nothing else, so that a report can be made again from an event file,
//! and a run that was cut off is reported like any other.

mod again;
mod closing;
mod fold;
mod late;
mod load;
mod rates;
mod regression;
mod samples;
mod spent;
mod timeline;
mod unclear;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::muster::Head;
use crate::protocol::{Compared, RunId};
use crate::quantity::Percent;
use crate::run::{Intent, Origin};
use crate::verdict::{Finding, Judgement, Tally};

use crate::probe::Budget;

pub use crate::probe::Count;
pub use closing::seconds;
pub use load::{LoadFigures, in_words};
pub(crate) use rates::derived;
pub use rates::{Silence, count, count_control, count_with};
pub use regression::{Aspect, Comparison, Incomparable, Regression, Trend, comparable};
pub use timeline::line;

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Which run.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// When it began: RFC 3339, UTC.
    pub date: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The seed of every choice.
    pub seed: u64,
    /// The plan's hash.
    pub plan: String,
    /// Which squall ran it.
    pub version: String,
    /// Which agent made the changes; `None` where there were none to make.
    pub agent: Option<String>,
    /// How it was started; `None` where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What the exit code means: `held`, `deviated`, `inconclusive`…
    pub verdict: String,
    /// The exit code.
    pub exit: Exit,
    /// The closing sentence.
    pub sentence: String,
    /// Everything that kept the run from `held`.
    pub reasons: Vec<Reason>,
    /// The hypotheses, in the file's order.
    pub hypotheses: Vec<Claim>,
    /// The guards, in the file's order.
    pub guards: Vec<Guard>,
    /// What was injected, in order.
    pub parts: Vec<Part>,
    /// The user's own actions, in order.
    pub actions: Vec<Action>,
    /// What was undone, and how that was verified.
    pub undone: Vec<String>,
    /// What could not be undone and is still there.
    pub stuck: Vec<String>,
    /// What is not undone because it cannot be, or because the file does not say how.
    pub not_undone: Vec<String>,
    /// What others changed on the host meanwhile.
    pub others: Vec<String>,
    /// The host before and after, compared; `None` where the agent's last word was not heard, or nothing was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Compared>,
    /// Milliseconds from the end of the last fault to the first of three good samples in a row after which it did not fail again,
    /// of the slowest hypothesis; without faults, from the end of the revert. `None` where it was not watched, or
    /// did not hold again.
    pub well_again_ms: Option<u64>,
    /// The run in a few lines.
    pub timeline: Vec<Moment>,
    /// The run compared with an earlier one; `None` where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
    /// Of a host in a run of a controller: the end of its audit log when the run had ended; whoever makes the summary of one
    /// host out of the log of all adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Head>,
}

/// One thing that kept a run from `held`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The exit code that it leads to.
    pub exit: Exit,
    /// What it is, a lowercase fragment.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The hypothesis or the guard that it is about; `None` where it is about none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

impl Reason {
    /// One that is about the run.
    pub fn new(exit: Exit, what: String) -> Self {
        Reason { exit, what, help: None, about: None }
    }

    /// The same about a hypothesis or a guard.
    #[must_use]
    pub fn about(self, name: &str) -> Self {
        Reason { about: Some(name.to_owned()), ..self }
    }
}

impl Summary {
    /// The most serious reason that is about a hypothesis or a guard.
    pub fn reason_about(&self, name: &str) -> Option<&Reason> {
        let about = self.reasons.iter().filter(|reason| reason.about.as_deref() == Some(name));
        about.reduce(|worst, next| if worst.exit.worse(next.exit) == worst.exit { worst } else { next })
    }
}

/// A hypothesis and what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What is claimed.
    pub name: String,
    /// The share of bad samples that is still steady.
    pub tolerate: Percent,
    /// What can be said of it during the fault; `None` where the run did not get that far.
    pub judgement: Option<Judgement>,
    /// What was found about each bound of a rate, with everything that it rests on; empty where single looks were counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Before anything was done.
    pub before: Figures,
    /// While a fault was live.
    pub during: Figures,
    /// After everything was undone.
    pub after: Figures,
    /// Whether it held again in time after the revert; `None` where that was not watched, or not shown either way.
    pub recovered: Option<bool>,
    /// Why it was not shown either way, where it was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unshown: Option<String>,
    /// What was spent of its budget; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Spent>,
}

/// A guard and what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// What is claimed.
    pub name: String,
    /// All its samples.
    pub samples: Tally,
    /// What was seen when it tripped.
    pub tripped: Option<String>,
    /// What was spent of its budget; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Spent>,
}

/// What was spent of a budget, from the beginning of the method until everything was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// How many requests or looks failed.
    pub failed: u64,
    /// How many might.
    pub budget: Budget,
}

/// Samples of one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many were good and bad.
    #[serde(flatten)]
    pub tally: Tally,
    /// How many said nothing about the system, and are in neither of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unclear: u64,
    /// What those saw, the most frequent first, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclear_seen: Vec<Count>,
    /// The median time that a sample took, in microseconds; of a load, that a request took.
    pub median_us: Option<u64>,
    /// The longest time that a sample took, in microseconds; of a load, that a request took.
    pub slowest_us: Option<u64>,
    /// What the bad ones saw, the most frequent first, at most five; of a load, which expectations did not hold.
    pub bad_seen: Vec<Count>,
    /// What all requests of a load came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFigures>,
}

/// One fault of the method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its number.
    pub part: u32,
    /// What the report calls it.
    pub name: String,
    /// Its changes.
    pub changes: Vec<Intent>,
    /// How long it was to last, in milliseconds.
    pub lasts_ms: u64,
    /// When the agent had made it, in milliseconds since the run began; `None` where it did not.
    pub injected_at_ms: Option<u64>,
    /// When it was undone.
    pub lifted_at_ms: Option<u64>,
    /// How long the agent took to make it, in microseconds.
    pub apply_us: Option<u64>,
    /// How long the agent took to undo it, in microseconds.
    pub lift_us: Option<u64>,
    /// What was aimed at.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// The last measurement of each change.
    pub evidence: Vec<Evidence>,
    /// Whether every change had a measured effect.
    pub measured: bool,
    /// What was undone, and how that was verified.
    pub undone: Vec<String>,
    /// What is still there.
    pub stuck: Vec<String>,
}

/// One action of the user's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its place in the method.
    pub step: String,
    /// What the report calls it.
    pub name: String,
    /// Whether it succeeded; `None` where its end was not seen.
    pub good: Option<bool>,
    /// What was seen.
    pub seen: Option<String>,
    /// Its undo; `None` where the file has none.
    pub undo: Option<Undo>,
}

/// The undo of an action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// Whether it succeeded; `None` where it was not played.
    pub good: Option<bool>,
    /// What was seen.
    pub seen: Option<String>,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// What happened.
    pub what: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Figures {
    /// What the bad samples saw, in a few words: `12 × timed out after 1s, 2 × 503`; empty without a bad one.
    pub fn bad_in_words(&self) -> String {
        Count::in_words(&self.bad_seen)
    }
}

#[cfg(test)]
mod arrival;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod tests;
