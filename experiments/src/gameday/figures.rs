//! How long people and systems took on a game day, and the means over steps and days.
//!
//! All times of a step are counted from the beginning of its fault as its run measured it: the first change on the first host.
//! That is kinder to nobody: an incident is not known to have begun by those who have not noticed it yet.
//!
//! | figure | from the fault's beginning until |
//! |---|---|
//! | time to detect | the earliest mark that says *detected* or *acknowledged*: who takes it on has noticed it |
//! | time to acknowledge | the earliest mark that says *acknowledged* |
//! | time to mitigate | the earliest mark that says *mitigated* |
//! | time to recover | the hypothesis held again, where the run deviated; where it held there was nothing to recover from |
//!
//! MTTD, MTTA and MTTR are the arithmetic means of the first, the second and the last, each over the steps in which it was
//! there. What never came while anybody watched is *not within* that time, a value that is only known from below (right-censored):
//! it is counted and said beside the mean, and is never a part of it. MTTR is *mean time to restoration* (IEC 60050-192, 192-07-23);
//! MTTD and MTTA are as incident management uses them (AWS Security Incident Response Guide, *Metrics summary*).

use serde::Serialize;

use super::course::{Course, StepCourse};
use super::document::{GameDay, Step};
use super::record::Mark;
use crate::exit::Exit;
use crate::name::Name;

/// How long something took, in milliseconds from the beginning of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Took {
    /// It came after this time.
    AfterMs(u64),
    /// It did not come within this time; then nobody watched any more, or it is still going on.
    NotWithinMs(u64),
}

impl Took {
    /// The time, where it came.
    pub fn after_ms(self) -> Option<u64> {
        match self {
            Took::AfterMs(ms) => Some(ms),
            Took::NotWithinMs(_) => None,
        }
    }
}

/// How long people took, beside what was expected of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reaction {
    /// How long.
    #[serde(flatten)]
    pub took: Took,
    /// Within which time it was expected, in milliseconds; `None` where nothing was expected.
    pub expected_ms: Option<u64>,
    /// Whether it came within that time; `None` where nothing was expected, or it may still come in time.
    pub met: Option<bool>,
}

/// The figures of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepFigures {
    /// The step.
    pub step: Name,
    /// Where it stands, in a word: see [`StepState`](super::StepState).
    pub state: &'static str,
    /// The run that the figures are of: the last that injected something, else the last.
    pub run: Option<String>,
    /// Its exit code; `None` while it goes on, and where there was no run.
    pub exit: Option<Exit>,
    /// When its fault began: milliseconds since 1970. `None`: nothing was injected, and no time is counted.
    pub fault_began: Option<u64>,
    /// How long the fault was there, in milliseconds.
    pub fault_ms: Option<u64>,
    /// Time to detect.
    pub detect: Option<Reaction>,
    /// Time to acknowledge.
    pub acknowledge: Option<Reaction>,
    /// Time to mitigate.
    pub mitigate: Option<Reaction>,
    /// Time to recover.
    pub recover: Option<Took>,
}

/// A mean over what came, and how often it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mean {
    /// Over how many values.
    pub n: u64,
    /// Their mean, in milliseconds; `None` where there are none.
    pub mean_ms: Option<u64>,
    /// How often it did not come: no part of the mean.
    pub never: u64,
}

/// The means over steps, of one day or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Means {
    /// MTTD.
    pub detect: Mean,
    /// MTTA.
    pub acknowledge: Mean,
    /// The mean time to mitigate.
    pub mitigate: Mean,
    /// MTTR.
    pub recover: Mean,
}

/// The figures of a day.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DayFigures {
    /// Its steps, in their order.
    pub steps: Vec<StepFigures>,
    /// The means over them.
    pub means: Means,
}

impl Mean {
    /// Over what came, with the number of those that did not.
    pub fn over(values: impl IntoIterator<Item = Took>) -> Self {
        let (mut sum, mut mean) = (0u128, Mean::default());
        for value in values {
            match value {
                Took::AfterMs(ms) => (sum, mean.n) = (sum + u128::from(ms), mean.n + 1),
                Took::NotWithinMs(_) => mean.never += 1,
            }
        }
        let rounded = (sum + u128::from(mean.n) / 2).checked_div(u128::from(mean.n));
        mean.mean_ms = rounded.and_then(|ms| u64::try_from(ms).ok());
        mean
    }
}

impl Means {
    /// Over steps, of one day or of several. A step counts where something was injected.
    pub fn over<'s>(steps: impl IntoIterator<Item = &'s StepFigures>) -> Self {
        let (mut detect, mut acknowledge, mut mitigate, mut recover) = (vec![], vec![], vec![], vec![]);
        for step in steps {
            detect.extend(step.detect.map(|reaction| reaction.took));
            acknowledge.extend(step.acknowledge.map(|reaction| reaction.took));
            mitigate.extend(step.mitigate.map(|reaction| reaction.took));
            recover.extend(step.recover);
        }
        Means {
            detect: Mean::over(detect),
            acknowledge: Mean::over(acknowledge),
            mitigate: Mean::over(mitigate),
            recover: Mean::over(recover),
        }
    }
}

impl DayFigures {
    /// The figures of a day as it stands now (milliseconds since 1970); of one that is over they do not change any more.
    pub fn of(day: &GameDay, course: &Course, now: u64) -> Self {
        let watched = course.over.unwrap_or(now);
        let steps: Vec<StepFigures> = day
            .steps
            .iter()
            .filter_map(|step| Some(StepFigures::of(step, course.step(&step.name)?, watched)))
            .collect();
        DayFigures { means: Means::over(&steps), steps }
    }
}

impl StepFigures {
    fn of(step: &Step, course: &StepCourse, watched: u64) -> Self {
        let attempt = course.injected().or_else(|| course.last());
        let began = attempt.and_then(|attempt| attempt.fault_began);
        let reaction = |mark: Mark, moments: [Option<u64>; 2]| {
            let began = began?;
            let came = moments.into_iter().flatten().min();
            let took = match came {
                Some(moment) => Took::AfterMs(moment.saturating_sub(began)),
                None => Took::NotWithinMs(watched.saturating_sub(began)),
            };
            let expected_ms =
                step.expect.and_then(|expect| expect.within(mark)).map(|within| within.as_millis());
            let met = expected_ms.and_then(|within| match took {
                Took::AfterMs(ms) => Some(ms <= within),
                Took::NotWithinMs(ms) => (ms >= within).then_some(false),
            });
            Some(Reaction { took, expected_ms, met })
        };
        let pressed = |mark| attempt.and_then(|attempt| attempt.pressed(mark)).map(|pressed| pressed.moment);
        let acknowledged = pressed(Mark::Acknowledged);
        let recover = attempt.filter(|attempt| attempt.exit == Some(Exit::Deviated)).and_then(|attempt| {
            let began = began?;
            Some(match attempt.well_again {
                Some(moment) => Took::AfterMs(moment.saturating_sub(began)),
                None => Took::NotWithinMs(attempt.ended.unwrap_or(watched).saturating_sub(began)),
            })
        });
        StepFigures {
            step: step.name.clone(),
            state: course.state.word(),
            run: attempt.map(|attempt| attempt.run.clone()),
            exit: attempt.and_then(|attempt| attempt.exit),
            fault_began: began,
            fault_ms: attempt
                .and_then(|attempt| attempt.fault_ended)
                .zip(began)
                .map(|(ended, began)| ended.saturating_sub(began)),
            detect: reaction(Mark::Detected, [pressed(Mark::Detected), acknowledged]),
            acknowledge: reaction(Mark::Acknowledged, [acknowledged, None]),
            mitigate: reaction(Mark::Mitigated, [pressed(Mark::Mitigated), None]),
            recover,
        }
    }
}
