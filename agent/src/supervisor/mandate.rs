//! On whose word runs begin here: approvals that their steps must keep to, and epochs that fence off older controllers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use squall_experiments::mandate::{Approved, Asked, Mandate};
use squall_experiments::protocol::{Guard, Lifted, Refusal, Reply, RunId};
use squall_experiments::quantity::Period;

use super::{Apply, Part, Supervisor};
use crate::fleet::identity::Vault;
use crate::injection::Terms;
use crate::link::Origin;

/// Of how many runs the epoch is remembered: of those that began here, and again of those that were fenced off.
const REMEMBERED: usize = 1024;

/// What runs begin by.
#[derive(Debug, Default)]
pub(super) struct Mandates {
    /// The newest epoch in which each run began, the oldest run first.
    begun: Epochs,
    /// The same of those that another controller took over. Kept beside the membership: a worker may end, and a host be
    /// started again, before the older controller is heard.
    fenced: Epochs,
    approved: BTreeMap<RunId, Held>,
    /// Where the membership in a fleet lies.
    link: Option<PathBuf>,
}

/// An approval of a run that is live.
#[derive(Debug)]
struct Held {
    approved: Approved,
    /// The steps that were applied by it.
    taken: Vec<Taken>,
}

/// A step of a run, by all that was approved of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    part: u32,
    lasts: u64,
    changes: String,
}

impl Taken {
    fn of(apply: &Apply) -> Self {
        let changes = serde_json::to_string(&apply.step.changes).unwrap_or_default();
        Taken { part: apply.step.number, lasts: apply.step.lasts, changes }
    }
}

/// Epochs of runs, of each the newest.
#[derive(Debug, Default)]
struct Epochs(VecDeque<(RunId, u64)>);

impl Epochs {
    fn of(&self, run: &RunId) -> u64 {
        self.0.iter().find(|(known, _)| known == run).map_or(0, |(_, epoch)| *epoch)
    }

    fn heard(&mut self, run: &RunId, epoch: u64) {
        let newest = self.of(run).max(epoch);
        self.0.retain(|(known, _)| known != run);
        self.0.push_back((run.clone(), newest));
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// One a line. Lines that are not understood say nothing.
    fn read(text: &str) -> Self {
        let mut epochs = Epochs::default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<(RunId, u64)>(line).ok());
        lines.for_each(|(run, epoch)| epochs.heard(&run, epoch));
        epochs
    }

    fn written(&self) -> String {
        // Our own runs have short names.
        let short = self.0.iter().filter(|(run, _)| run.0.len() <= 128);
        short.filter_map(|entry| serde_json::to_string(entry).ok()).map(|line| line + "\n").collect()
    }
}

impl Mandates {
    fn epoch(&self, run: &RunId) -> u64 {
        self.begun.of(run).max(self.fenced.of(run))
    }

    fn begun(&mut self, run: &RunId, mandate: Mandate) {
        self.begun.heard(run, mandate.epoch);
        if let Some(approved) = mandate.approved {
            tracing::info!(%run, plan = approved.plan, by = approved.by, "an approved plan begins");
            self.approved.insert(run.clone(), Held { approved, taken: Vec::new() });
        }
    }

    fn fence(&mut self, run: &RunId, epoch: u64) {
        self.fenced.heard(run, epoch);
        let Some(link) = &self.link else { return };
        if let Err(error) = Vault::open(link).and_then(|vault| vault.keep_fences(&self.fenced.written())) {
            tracing::error!(%run, %error, "that an older controller is fenced off is not kept beyond this worker");
        }
    }

    /// The run is over here.
    pub(super) fn ended(&mut self, run: &RunId) {
        self.approved.remove(run);
    }

    /// Whether a step is in what was approved, where its run was, and not yet as often as it stands there. It is taken
    /// then, until it is [given back](Mandates::give_back).
    pub(super) fn take(&mut self, apply: &Apply) -> Result<(), Refusal> {
        let Some(held) = self.approved.get_mut(&apply.run) else { return Ok(()) };
        let (step, lasts) = (Taken::of(apply), Period::from(Duration::from_nanos(apply.step.lasts)));
        let often = held.approved.permits(step.part, &apply.step.changes, lasts)?;
        if held.taken.iter().filter(|taken| **taken == step).count() >= often {
            return Err(Refusal::new(
                format!("step {} was applied already as often as it was approved", step.part),
                "look at the controller's audit log: it asks for what nobody has seen",
            ));
        }
        held.taken.push(step);
        Ok(())
    }

    /// A step was not applied.
    pub(super) fn give_back(&mut self, (run, part): &Part) {
        if let Some(held) = self.approved.get_mut(run)
            && let Some(place) = held.taken.iter().rposition(|taken| taken.part == *part)
        {
            held.taken.remove(place);
        }
    }

    /// What this host is called in its fleet.
    fn own_name(&self) -> Result<String, Refusal> {
        let membership = self.link.as_ref().map_or(Ok(None), |link| Vault::open(link)?.membership());
        let membership = membership.and_then(|known| known.ok_or_else(|| io::ErrorKind::NotFound.into()));
        membership.map(|known| known.joined.name).map_err(|error| {
            Refusal::new(
                format!("it cannot be told for which host this was approved: {error}"),
                "see `link/` in the agent's state directory",
            )
        })
    }
}

impl Supervisor {
    /// Where this host's membership in a fleet lies, if it may have one.
    pub fn belongs(&mut self, link: Option<PathBuf>) {
        let kept = link.as_ref().map_or(Ok(None), |link| Vault::open(link)?.fences());
        match kept {
            Ok(kept) => self.mandates.fenced = Epochs::read(&kept.unwrap_or_default()),
            Err(error) => tracing::error!(%error, "which controllers are fenced off cannot be read"),
        }
        self.mandates.link = link;
    }

    /// Begins a run on the word of its mandate: a plan, by its hash, that is over after so many milliseconds.
    pub(super) fn begin_by(
        &mut self,
        terms: Terms,
        (plan, lasts_ms): (&str, u64),
        guards: Vec<Guard>,
        mandate: Mandate,
    ) -> Result<Reply, Refusal> {
        self.may_begin(&terms, (plan, lasts_ms), &mandate)?;
        let run = terms.run.clone();
        let begun = self.begin(terms, guards)?;
        // Not before: what is refused leaves nothing by which a later one would be judged.
        self.mandates.begun(&run, mandate);
        Ok(begun)
    }

    fn may_begin(
        &self,
        terms: &Terms,
        (plan, lasts_ms): (&str, u64),
        mandate: &Mandate,
    ) -> Result<(), Refusal> {
        let run = &terms.run;
        let newest = self.mandates.epoch(run);
        if mandate.epoch < newest {
            let what =
                format!("run {run} is at epoch {newest}, and this was asked in epoch {}", mandate.epoch);
            return Err(Refusal::new(what, "another controller has taken it over"));
        }
        let of_controller =
            self.clients.get(&terms.connection).is_none_or(|client| client.origin == Origin::Controller);
        match &mandate.approved {
            Some(approved) => {
                let own = if of_controller { Some(self.mandates.own_name()?) } else { None };
                approved.verify(&Asked { plan, host: own.as_deref(), seed: terms.seed, lasts_ms })
            }
            None if of_controller => self.policy.permits_unapproved(),
            None => Ok(()),
        }
    }

    /// Undoes a run, and lets nobody begin it again in an earlier epoch.
    pub(super) fn fence(&mut self, run: &RunId, epoch: u64) -> Lifted {
        self.mandates.fence(run, epoch);
        self.end(run, Some("another controller has taken the run over"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(run: &str) -> RunId {
        RunId(run.to_owned())
    }

    #[test]
    fn a_step_is_applied_as_often_as_it_was_approved_and_no_more() {
        use squall_experiments::document::{Sources, read};
        use squall_experiments::plan::PlanStep;
        use squall_experiments::targets::{Candidate, FleetPlan, Targets, shares};

        use crate::injection::Step;

        let text = "squall: 1\ntitle: T\non: { pick: all }\nhypothesis: []\nmethod:\n  - fault: { refuse: { to: [\"10.0.0.1:80\"] } }\n    for: 2s\n";
        let document = read("t.yaml", text.as_bytes(), &Sources::default()).unwrap();
        let host = Candidate { name: "a".to_owned(), connected: true, ..Candidate::default() };
        let targets = Targets::of(&document.experiment, &[host], 7).unwrap();
        let fleet = FleetPlan::on(&document.experiment, &targets, 7);
        let plan = shares(&document.experiment, &targets, 7).remove(0).plan;
        let approved = Some(Approved::of(&fleet, &plan, "ada", "bob"));
        let Some(PlanStep::Fault { part, changes, lasts, .. }) = plan.faults().next() else {
            panic!("a fault")
        };
        let run = named("r");
        let apply = |number, run: &RunId| {
            let lasts = lasts.as_millis() * 1_000_000;
            Apply { run: run.clone(), step: Step { number, changes: changes.clone(), lasts }, at: None }
        };
        let mut mandates = Mandates::default();
        mandates.begun(&run, Mandate { epoch: 0, approved });
        mandates.take(&apply(*part, &run)).unwrap();
        let refusal = mandates.take(&apply(*part, &run)).unwrap_err();
        assert!(refusal.what.contains("as often as it was approved"), "{refusal}");
        // One that was not applied is still to be.
        mandates.give_back(&(run.clone(), *part));
        mandates.take(&apply(*part, &run)).unwrap();
        assert!(mandates.take(&apply(*part + 1, &run)).is_err(), "nobody approved it");
        mandates.take(&apply(*part, &named("unapproved"))).unwrap();
        mandates.ended(&run);
        assert!(mandates.approved.is_empty());
    }

    #[test]
    fn who_is_fenced_off_is_kept_and_a_line_that_is_damaged_is_no_more_than_that() {
        let (first, second) = (named("first"), named("a \"second\"\n[\"first\",9]"));
        let mut epochs = Epochs::default();
        epochs.heard(&first, 3);
        epochs.heard(&second, 1);
        epochs.heard(&first, 2);
        let kept = Epochs::read(&format!("\0\0 9\n{}[\"first\"\n", epochs.written()));
        assert_eq!((kept.of(&first), kept.of(&second), kept.0.len()), (3, 1, 2));
        for run in 0..REMEMBERED {
            epochs.heard(&named(&format!("run-{run}")), 1);
        }
        assert_eq!((epochs.of(&first), epochs.0.len()), (0, REMEMBERED));
    }

    #[test]
    fn runs_that_begin_push_out_nobody_who_was_fenced_off_not_even_over_a_restart() {
        let link = std::env::temp_dir().join(format!("squall-fences-{}", std::process::id()));
        let run = named("taken-over");
        let mut before = Mandates { link: Some(link.clone()), ..Mandates::default() };
        before.fence(&run, 2);
        for other in 0..2 * REMEMBERED {
            before.begun(&named(&format!("run-{other}")), Mandate::default());
        }
        assert_eq!(before.epoch(&run), 2);
        let kept = Vault::open(&link).unwrap().fences().unwrap();
        assert_eq!(Epochs::read(&kept.unwrap_or_default()).of(&run), 2);
        std::fs::remove_dir_all(link).unwrap();
    }
}
