//! A run compared with an earlier one of the same experiment: whether the system bears the same fault worse than then.
//!
//! What was seen while the fault was live is compared as a bound by the baseline is, with the earlier run in the
//! baseline's place: half of the error is spent on what the earlier run does not exclude, the other half on the evidence.

mod again;
mod comparable;
mod phase;

use serde::{Deserialize, Serialize};

use super::samples::Samples;
use super::{Reason, Summary, closing};
use crate::exit::Exit;
use crate::probe::When;
use crate::protocol::RunId;
use crate::run::{Event, Record};
use crate::verdict::{Outcome, findings};

pub use comparable::{Incomparable, comparable};

/// A run compared with an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// The earlier run.
    pub run: RunId,
    /// When it began: RFC 3339, UTC.
    pub date: String,
    /// Which squall ran it.
    pub version: String,
    /// What it came to; `None` where it was cut off.
    pub sentence: Option<String>,
    /// What was compared, in the order of the hypotheses.
    pub comparisons: Vec<Comparison>,
}

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which hypothesis.
    pub claim: String,
    /// What of it.
    pub aspect: Aspect,
    /// What can be said.
    pub trend: Trend,
    /// Why, a lowercase fragment with figures.
    pub why: String,
    /// In the earlier run, in a few words.
    pub earlier: String,
    /// In this one.
    pub now: String,
    /// The evidence that it is worse, corrected for all that was compared; it decides at 1/α. `None` for a recovery, which
    /// is compared by its intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<f64>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// The share of bad requests or looks while the fault was live.
    Errors,
    /// How long answers took while it was live.
    Latency,
    /// How long after it the system was well again.
    Recovery,
}

impl Aspect {
    /// As a report says it.
    pub fn word(self) -> &'static str {
        match self {
            Aspect::Errors => "errors",
            Aspect::Latency => "latency",
            Aspect::Recovery => "recovery",
        }
    }
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trend {
    /// It is sure that this run is worse.
    Worse,
    /// It is sure that it is not.
    NoWorse,
    /// Neither: noise explains what differs.
    Noise,
    /// One of the two runs has nothing to compare.
    NoData,
}

impl Trend {
    /// As a report says it.
    pub fn word(self) -> &'static str {
        match self {
            Trend::Worse => "worse",
            Trend::NoWorse => "no worse",
            Trend::Noise => "not worse beyond noise",
            Trend::NoData => "no data",
        }
    }
}

impl From<Outcome> for Trend {
    fn from(outcome: Outcome) -> Trend {
        match outcome {
            Outcome::Deviated => Trend::Worse,
            Outcome::Held => Trend::NoWorse,
            Outcome::Inconclusive | Outcome::NotSteady => Trend::Noise,
            Outcome::NoData => Trend::NoData,
        }
    }
}

impl Regression {
    /// Compares a run with an earlier one.
    ///
    /// # Errors
    /// Where the earlier run is one of another experiment, or has nothing to compare.
    pub fn of(earlier: &[Record], now: &[Record]) -> Result<Regression, Incomparable> {
        let begun = comparable::started(now).ok_or(Incomparable::NoRun)?;
        let content = begun.origin.as_ref().and_then(|origin| origin.content.as_deref());
        comparable(earlier, &begun.title, content, &begun.hypotheses)?;
        let (Some(then), Some(this)) = (Summary::of(earlier), Summary::of(now)) else {
            return Err(Incomparable::NoRun);
        };
        let runs = [samples(earlier), samples(now)];
        let mut asked = Vec::new();
        let mut compared = Vec::new();
        for stated in begun.hypotheses.iter().filter(|stated| stated.is_for(When::During)) {
            for aspect in [Aspect::Errors, Aspect::Latency] {
                if let Some((ask, told)) = phase::ask(stated, aspect, &runs, begun.planned_ms) {
                    asked.push(ask);
                    compared.push((stated, told));
                }
            }
        }
        let found = findings(&asked).into_iter().zip(compared).zip(asked);
        let mut comparisons: Vec<Comparison> =
            found.map(|((found, (stated, told)), asked)| told.judged(stated, &found, &asked)).collect();
        for stated in &begun.hypotheses {
            let at = comparisons.iter().rposition(|other| other.claim == stated.name);
            if let Some(recovery) = again::compare(stated, [&then, &this]) {
                comparisons.insert(at.map_or(comparisons.len(), |at| at + 1), recovery);
            }
        }
        let ended = earlier.iter().any(|record| matches!(record.event, Event::Finished { .. }));
        Ok(Regression {
            run: then.run,
            date: then.date,
            version: then.version,
            sentence: ended.then_some(then.sentence),
            comparisons,
        })
    }

    /// What is worse than it was.
    pub fn worse(&self) -> impl Iterator<Item = &Comparison> {
        self.comparisons.iter().filter(|compared| compared.trend == Trend::Worse)
    }
}

impl Summary {
    /// The same run, which now has deviated too where it is worse than the earlier one.
    #[must_use]
    pub fn compared(mut self, regression: Regression) -> Summary {
        for worse in regression.worse() {
            let what = format!(
                "`{}`: {} worse than in the run of {}: {}",
                worse.claim,
                worse.aspect.word(),
                regression.date,
                worse.why
            );
            self.reasons.push(Reason::new(Exit::Deviated, what));
            self.exit = self.exit.worse(Exit::Deviated);
        }
        if regression.worse().next().is_some() {
            self.verdict = self.exit.meaning().to_owned();
            self.sentence = closing::sentence(&self);
        }
        self.regression = Some(regression);
        self
    }
}

fn samples(log: &[Record]) -> Samples<'_> {
    let mut samples = Samples::default();
    log.iter().for_each(|record| {
        if let Event::Sample(seen) = &record.event {
            samples.add(seen);
        }
    });
    samples
}

#[cfg(test)]
mod tests;
