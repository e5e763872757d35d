//! Where a system gives way: one experiment, run again and again with one parameter of one fault harder, until its hypothesis
//! no longer holds.
//!
//! Each step is a run of its own, with its own baseline, lease, undo and recovery, of the same document with another value:
//! so a step is a run like any other, and between two steps the system is shown to be well again. Which value comes next
//! follows from what became of those before ([`Search`]), and what all of them show, from their events ([`Ladder`]).

mod by;
mod ladder;
mod level;
mod search;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::experiment::Experiment;
use crate::plan::Plan;
use crate::quantity::Period;
use crate::targets::share_error;

pub use by::{By, Factor};
pub use ladder::{Ladder, Rung};
pub use level::Level;
pub use search::{Came, Search};

/// The most steps that a ramp may take.
pub const MOST_STEPS: usize = 20;

/// Find the value of a parameter at which the hypothesis first fails. Each step is a run of the whole experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ramp {
    /// A fault, by its kind or the name of its step, and one of its parameters: `latency.delay`. What stands there in the
    /// method is replaced.
    pub parameter: String,
    /// The mildest value, which comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Level>,
    /// The hardest value: nothing harder is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Level>,
    /// How to get there: `2x` makes each step twice as hard as the one before; `bisection` tries both ends, and then halves what
    /// lies between the hardest value that held and the mildest that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// How exactly the value is wanted: what lies between is halved until both are so close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Level>,
    /// Instead of `from`, `to` and `by`: the values themselves, from the mildest to the hardest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
}

/// One step of a ramp: which, and of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The ramp, as it stands in the document.
    pub ramp: Ramp,
    /// The value that this run has.
    pub at: Level,
}

impl Ramp {
    /// The values that are tried one after the other while the hypothesis holds; none where the ramp is not sound.
    pub fn rungs(&self) -> Vec<Level> {
        if !self.levels.is_empty() {
            return self.levels.clone();
        }
        let (Some(from), Some(to), Some(by)) = (self.from, self.to, self.by) else { return Vec::new() };
        match by {
            By::Bisection => vec![from, to],
            By::Factor(_) if from.is_zero() || to.is_zero() => Vec::new(),
            By::Factor(factor) => {
                let upward = from.amount() < to.amount();
                let before_end = |level: Level| match upward {
                    true => level.amount() < to.amount(),
                    false => level.amount() > to.amount(),
                };
                let mut rungs = Vec::new();
                let mut times = 1.0;
                let mut next = from;
                while before_end(next) && rungs.len() <= MOST_STEPS {
                    rungs.push(next);
                    times *= if upward { factor.get() } else { 1.0 / factor.get() };
                    let further = from.times(times);
                    // Where numbers are too small for the factor, it stands still.
                    next = if further == next { to } else { further };
                }
                rungs.push(to);
                rungs
            }
        }
    }

    /// The most steps that it may take, whatever becomes of them.
    pub fn most(&self) -> usize {
        let rungs = self.rungs();
        let narrowed = rungs.windows(2).enumerate().map(|(at, pair)| match pair {
            // Up to the harder of the two, and then between them.
            [low, high] => at + 2 + self.within.map_or(0, |within| within.halvings(low.apart(*high))),
            _ => 0,
        });
        narrowed.max().unwrap_or(rungs.len()).max(rungs.len())
    }

    /// Whether a value lies between the mildest and the hardest.
    pub fn covers(&self, level: Level) -> bool {
        let rungs = self.rungs();
        let (Some(first), Some(last)) = (rungs.first(), rungs.last()) else { return false };
        let (low, high) = (first.amount().min(last.amount()), first.amount().max(last.amount()));
        level.is_like(*first) && (low..=high).contains(&level.amount())
    }

    /// Gives each claim and guard of a step its share of the error: the chance that any step is wrongly said to have deviated is
    /// the one that the document asks for, and so is the chance that any is wrongly said to hold (Bonferroni).
    pub fn share_error(&self, experiment: &mut Experiment) {
        let claims = experiment.hypothesis.iter_mut().chain(&mut experiment.stop_when);
        claims.for_each(|claim| share_error(claim, self.most()));
    }

    /// How long faults are live in all steps together, at most.
    pub fn injects(&self, experiment: &Experiment) -> Period {
        let plan = Plan::of(experiment, 0, &[], "none");
        let one: std::time::Duration = plan.steps.iter().map(|step| step.takes().get()).sum();
        times(one, self.most())
    }

    /// How long all steps take together, at most: baselines, methods and recoveries.
    pub fn takes(&self, experiment: &Experiment) -> Period {
        let around = experiment.baseline.unwrap_or(Period::ZERO).get() + experiment.recovery.get();
        (self.injects(experiment).get() + times(around, self.most()).get()).into()
    }
}

fn times(one: std::time::Duration, steps: usize) -> Period {
    one.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)).into()
}

#[cfg(test)]
mod tests;
