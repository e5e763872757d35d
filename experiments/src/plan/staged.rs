//! The plan of one host of a run whose hosts get the fault in stages: a step for each stage.

use std::cmp::Ordering;
use std::time::Duration;

use super::{MARGIN, Plan, PlanStep};
use crate::quantity::Period;

/// What a fault may be live beyond its stages, for each stage that follows its own: all hosts wait for each other there, and
/// the agent must not end it meanwhile.
const BETWEEN: Duration = Duration::from_secs(5);

/// Where a host comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staging {
    /// The stage with which it begins, from 1; `None` where it never does.
    pub(crate) own: Option<usize>,
    /// How many stages there are.
    pub(crate) of: usize,
    /// How long each but the last is watched.
    pub(crate) bake: Period,
}

impl Plan {
    /// The same for a host of a run in stages. Its method is one step, a fault or several at the same time.
    pub(crate) fn in_stages(mut self, staging: Staging) -> Plan {
        let stages = 1..=staging.of;
        let method = std::mem::take(&mut self.steps);
        self.steps =
            stages.flat_map(|stage| method.iter().map(move |step| staging.step(step, stage))).collect();
        let time: Duration = self.steps.iter().map(|step| step.takes().get()).sum();
        self.expiry = (time + staging.waits(1) + MARGIN.get()).into();
        self.stages = u32::try_from(staging.of).unwrap_or(u32::MAX);
        self
    }
}

impl Staging {
    /// What all waits after a stage take at most.
    fn waits(self, stage: usize) -> Duration {
        let further = self.of.saturating_sub(stage);
        BETWEEN.saturating_mul(u32::try_from(further).unwrap_or(u32::MAX))
    }

    fn step(self, step: &PlanStep, stage: usize) -> PlanStep {
        let last = stage == self.of;
        let holds = |lasts: Period| if last { lasts } else { self.bake };
        match step {
            PlanStep::Parallel(children) => {
                PlanStep::Parallel(children.iter().map(|child| self.step(child, stage)).collect())
            }
            PlanStep::Elsewhere { name, lasts } => {
                PlanStep::Elsewhere { name: name.clone(), lasts: holds(*lasts) }
            }
            PlanStep::Fault { part, name, changes, lasts, .. } => {
                let (part, name) = (*part, name.clone());
                match self.own.map_or(Ordering::Less, |own| stage.cmp(&own)) {
                    Ordering::Less => PlanStep::Elsewhere { name, lasts: holds(*lasts) },
                    Ordering::Greater => PlanStep::Stays { part, name, lasts: holds(*lasts), last },
                    Ordering::Equal => {
                        let further = u32::try_from(self.of - stage).unwrap_or(u32::MAX);
                        let whole = self.bake.get().saturating_mul(further) + lasts.get() + self.waits(stage);
                        PlanStep::Fault {
                            part,
                            name,
                            changes: changes.clone(),
                            lasts: whole.into(),
                            stays: (!last).then_some(self.bake),
                        }
                    }
                }
            }
            other => other.clone(),
        }
    }
}
