//! On whose word runs begin here: approvals that their steps must keep to, and epochs that fence off older controllers.

use std::collections::{BTreeMap, VecDeque};

use squall_experiments::mandate::{Approved, Mandate};
use squall_experiments::protocol::{Lifted, Refusal, RunId};
use squall_experiments::quantity::Period;

use super::{Apply, Supervisor};
use crate::injection::Terms;
use crate::link::Origin;

/// Of how many runs the epoch is remembered.
const REMEMBERED: usize = 1024;

/// What runs begin by.
#[derive(Debug, Default)]
pub(super) struct Mandates {
    /// The newest epoch of each run, the oldest run first.
    epochs: VecDeque<(RunId, u64)>,
    approved: BTreeMap<RunId, Approved>,
}

impl Mandates {
    fn epoch(&self, run: &RunId) -> u64 {
        self.epochs.iter().find(|(known, _)| known == run).map_or(0, |(_, epoch)| *epoch)
    }

    fn heard(&mut self, run: &RunId, epoch: u64) {
        let newest = self.epoch(run).max(epoch);
        self.epochs.retain(|(known, _)| known != run);
        self.epochs.push_back((run.clone(), newest));
        if self.epochs.len() > REMEMBERED {
            self.epochs.pop_front();
        }
    }

    /// The run is over here.
    pub(super) fn ended(&mut self, run: &RunId) {
        self.approved.remove(run);
    }
}

impl Supervisor {
    /// Whether a run may begin by this mandate.
    pub(super) fn may_begin(&mut self, terms: &Terms, plan: &str, mandate: Mandate) -> Result<(), Refusal> {
        let run = &terms.run;
        let newest = self.mandates.epoch(run);
        if mandate.epoch < newest {
            let what =
                format!("run {run} is at epoch {newest}, and this was asked in epoch {}", mandate.epoch);
            return Err(Refusal::new(what, "another controller has taken it over"));
        }
        let of_controller =
            self.clients.get(&terms.connection).is_none_or(|client| client.origin == Origin::Controller);
        match mandate.approved {
            Some(approved) => {
                approved.verify(plan)?;
                tracing::info!(%run, plan = approved.plan, by = approved.by, "an approved plan begins");
                // What is live keeps what it began by.
                if !self.injections.contains_key(run) {
                    self.mandates.approved.insert(run.clone(), approved);
                }
            }
            None if of_controller => self.policy.permits_unapproved()?,
            None => {}
        }
        self.mandates.heard(run, mandate.epoch);
        Ok(())
    }

    /// Whether a step is in what was approved, where its run was.
    pub(super) fn is_approved(&self, apply: &Apply) -> Result<(), Refusal> {
        let Some(approved) = self.mandates.approved.get(&apply.run) else { return Ok(()) };
        let lasts = Period::from(std::time::Duration::from_nanos(apply.step.lasts));
        approved.permits(apply.step.number, &apply.step.changes, lasts)
    }

    /// Undoes a run, and lets nobody begin it again in an earlier epoch.
    pub(super) fn fence(&mut self, run: &RunId, epoch: u64) -> Lifted {
        self.mandates.heard(run, epoch);
        self.end(run, Some("another controller has taken the run over"))
    }
}
