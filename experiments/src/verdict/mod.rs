//! What samples say: held, deviated, or not enough to tell, each with a known error rate.
//!
//! Pure arithmetic. Claims about single looks are judged by counting ([`during`]); claims about rates (load, and whatever
//! says `errors:`) by evidence that may be looked at at any time ([`Fast`], [`Blocks`], [`Keeps`]). The formulas, their
//! sources and their error rates are in `docs/verdicts.md`.

mod blocks;
mod counts;
mod course;
mod finding;
mod interval;
mod looks;
mod outage;
mod paired;
mod process;
mod quantile;
mod rate;
mod recovery;
mod several;
mod shift;
mod standing;
mod terms;

use serde::{Deserialize, Serialize};

pub use blocks::{Blocks, upper_mean};
pub use counts::Counts;
pub use course::Course;
pub use finding::{Asked, Finding, findings, percent, thousands};
pub use interval::{anytime_ranks, anytime_share, chance_of, lower_share, upper_share};
pub use looks::{Again, FEWEST, HeldAgain, IN_A_ROW, Tally, before, during, held_again};
pub use outage::outage;
pub use paired::Paired;
pub use process::{Process, Starts};
pub use rate::{Fast, Keeps, control_group};
pub use recovery::{WellAgain, well_again};
pub use several::e_holm;
pub use shift::{Ranks, Shift, Tick};
pub use standing::{After, Standing, beside_control};
pub use terms::{Bound, Mode, Multiple, Terms};

/// What a sample says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The system before anything was done.
    Baseline,
    /// The system while a fault was live; without any fault in the method, while the method ran.
    During,
    /// Neither: a fault was being made or undone, or two faults had a pause between them. Shown, not judged.
    Between,
    /// The system after everything was undone.
    Recovery,
}

/// What can be said of a hypothesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It held.
    Held,
    /// It did not.
    Deviated,
    /// The samples say neither.
    Inconclusive,
    /// There were no samples at all.
    NoData,
    /// It did not hold before anything was done.
    NotSteady,
}

impl Outcome {
    /// As a report says it: `held`, `no data`.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Held => "held",
            Outcome::Deviated => "deviated",
            Outcome::Inconclusive => "inconclusive",
            Outcome::NoData => "no data",
            Outcome::NotSteady => "not steady",
        }
    }
}

/// An outcome with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// What can be said.
    pub outcome: Outcome,
    /// Why, a lowercase fragment with figures.
    pub why: String,
}
