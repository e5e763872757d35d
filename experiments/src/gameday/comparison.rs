//! A game day beside the one before it of the same name: step by step, by their names.

use serde::Serialize;

use super::figures::{DayFigures, Means, StepFigures, Took};
use crate::exit::Exit;
use crate::name::Name;

/// A day beside the one before.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// The means then.
    pub before: Means,
    /// The means now.
    pub now: Means,
    /// The steps of both: those of this day in their order, then those that are no more.
    pub steps: Vec<Compared>,
}

/// A step beside the one of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Compared {
    /// The step.
    pub step: Name,
    /// Its exit codes then and now.
    pub exit: Pair<Exit>,
    /// Whether it was there then and is there now.
    pub there: (bool, bool),
    /// Time to detect.
    pub detect: Option<Change>,
    /// Time to acknowledge.
    pub acknowledge: Option<Change>,
    /// Time to mitigate.
    pub mitigate: Option<Change>,
    /// Time to recover.
    pub recover: Option<Change>,
}

/// A value then and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pair<T> {
    /// Then; `None` where there was none.
    pub before: Option<T>,
    /// Now; `None` where there is none.
    pub now: Option<T>,
}

/// How a time changed, where something was injected both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Sooner, by so many milliseconds.
    SoonerMs(u64),
    /// Later, by so many milliseconds.
    LaterMs(u64),
    /// Not then, and now.
    CameThisTime,
    /// Then, and not now.
    NotThisTime,
    /// Neither time.
    NeverBoth,
}

impl Change {
    fn of(before: Option<Took>, now: Option<Took>) -> Option<Self> {
        Some(match (before?, now?) {
            (Took::AfterMs(then), Took::AfterMs(now)) if now <= then => Change::SoonerMs(then - now),
            (Took::AfterMs(then), Took::AfterMs(now)) => Change::LaterMs(now - then),
            (Took::NotWithinMs(_), Took::AfterMs(_)) => Change::CameThisTime,
            (Took::AfterMs(_), Took::NotWithinMs(_)) => Change::NotThisTime,
            (Took::NotWithinMs(_), Took::NotWithinMs(_)) => Change::NeverBoth,
        })
    }
}

impl Comparison {
    /// The figures of a day beside those of the one before.
    pub fn of(before: &DayFigures, now: &DayFigures) -> Self {
        let find = |steps: &'_ [StepFigures], name: &Name| steps.iter().position(|step| step.step == *name);
        let gone = before.steps.iter().filter(|step| find(&now.steps, &step.step).is_none());
        let names = now.steps.iter().chain(gone).map(|step| &step.step);
        let steps = names.map(|name| {
            let then = find(&before.steps, name).and_then(|at| before.steps.get(at));
            let now = find(&now.steps, name).and_then(|at| now.steps.get(at));
            Compared::of(name, then, now)
        });
        Comparison { before: before.means, now: now.means, steps: steps.collect() }
    }
}

impl Compared {
    fn of(name: &Name, before: Option<&StepFigures>, now: Option<&StepFigures>) -> Self {
        let change =
            |which: fn(&StepFigures) -> Option<Took>| Change::of(before.and_then(which), now.and_then(which));
        Compared {
            step: name.clone(),
            exit: Pair { before: before.and_then(|step| step.exit), now: now.and_then(|step| step.exit) },
            there: (before.is_some(), now.is_some()),
            detect: change(|step| step.detect.map(|reaction| reaction.took)),
            acknowledge: change(|step| step.acknowledge.map(|reaction| reaction.took)),
            mitigate: change(|step| step.mitigate.map(|reaction| reaction.took)),
            recover: change(|step| step.recover),
        }
    }
}
