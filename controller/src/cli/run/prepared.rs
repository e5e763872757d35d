//! An experiment that may be run: everything that can be refused was looked at, and nothing was started.

use std::net::ToSocketAddrs;
use std::path::Path;

use squall_agent::policy::Policy;
use squall_experiments::document::Document;
use squall_experiments::plan::{Plan, PlanStep};
use squall_experiments::protocol::Refusal;
use squall_experiments::suite::Subject;
use squall_experiments::targets::only_here;

use super::super::host::host_name;
use super::pipeline::Pipeline;

/// A document with what is done by each of its runs.
#[derive(Debug)]
pub struct Prepared {
    pub document: Document,
    pub subject: Subject,
    /// One for each run: they differ in their seed.
    pub plans: Vec<Plan>,
}

impl Prepared {
    /// An experiment that is run so often. An empty path is one without a file.
    pub fn of(
        document: Document,
        file: &Path,
        repeat: u32,
        seed: Option<u64>,
        pipeline: &Pipeline,
    ) -> Result<Prepared, Refusal> {
        let seed = seed.or(document.experiment.seed);
        // 32 bits are enough to repeat a run, and stay exact in every JSON reader.
        let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        only_here(&document.experiment)?;
        let policy = Policy::of_this_host()?;
        let plan = |more: u32| {
            Plan::of(&document.experiment, seed.wrapping_add(more.into()), &[host_name()], &policy.version)
        };
        let plans: Vec<Plan> = (0..repeat).map(plan).collect();
        if let Some(plan) = plans.first() {
            may_begin(plan, &policy)?;
        }
        let experiment = &document.experiment;
        let subject = Subject {
            title: document.redactor.redact(&experiment.title).into_owned(),
            file: if file.as_os_str().is_empty() { String::new() } else { pipeline.in_repository(file) },
            hash: document.hash.clone(),
            weight: experiment.weight,
            places: document.places.clone(),
        };
        Ok(Prepared { document, subject, plans })
    }
}

impl Prepared {
    /// That this host allows so many runs like this one as if they were one: the longest time that a fault may last is for all
    /// of them together.
    pub fn may_repeat(&self, times: usize) -> Result<(), Refusal> {
        let policy = Policy::of_this_host()?;
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        for step in self.plans.iter().flat_map(Plan::faults) {
            if let PlanStep::Fault { changes, lasts, .. } = step {
                let whole = lasts.get().saturating_mul(times).into();
                changes.iter().try_for_each(|change| policy.permits(change, whole))?;
            }
        }
        Ok(())
    }
}

fn may_begin(plan: &Plan, policy: &Policy) -> Result<(), Refusal> {
    // The agent asks its policy again; asked here, what is not allowed is known before the baseline.
    for step in plan.faults() {
        if let PlanStep::Fault { changes, lasts, .. } = step {
            changes.iter().try_for_each(|change| policy.permits(change, *lasts))?;
        }
    }
    // So is a name that does not resolve, unless a step of the user's own may yet make it known.
    if !plan.steps.iter().any(PlanStep::has_action) {
        plan.names().into_iter().try_for_each(resolves)?;
    }
    Ok(())
}

fn resolves(name: &str) -> Result<(), Refusal> {
    (name, 0).to_socket_addrs().map(drop).map_err(|error| {
        Refusal::new(
            format!("the name `{name}` does not resolve on this host: {error}"),
            "nothing was injected; check the spelling and this host's resolver (`getent ahosts NAME`)",
        )
    })
}
