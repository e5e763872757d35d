//! What a run over a fleet would do: which hosts, by which seed, and what on each.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::json;

use super::{Candidate, OnPartial, Targets, shares};
use crate::experiment::Experiment;
use crate::plan::Plan;
use crate::probe::Hypothesis;
use crate::protocol::Refusal;
use crate::quantity::Period;

/// What a run would do to all of its hosts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FleetPlan {
    /// The experiment's title. Not part of the hash.
    pub title: String,
    /// The seed of every choice, that of the hosts too.
    pub seed: u64,
    /// What becomes of the others when one host cannot take part.
    pub on_partial: OnPartial,
    /// The hosts, in order of their names.
    pub hosts: Vec<OnHost>,
    /// Those that match and are not connected: they were not chosen from. Not part of the hash.
    pub unconnected: BTreeSet<String>,
    /// What is looked at, on the hosts that watch.
    pub watched: Watched,
    /// 64 hexadecimal digits over everything that decides what is done, on all hosts (see [`Plan::hash`]), and over what is
    /// looked at: a probe sends requests and starts programs, and a guard that is missing ends nothing.
    pub hash: String,
}

/// What a run would do to one of its hosts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OnHost {
    /// The host.
    pub host: String,
    /// Whether hypotheses and guards are looked at there.
    pub watching: bool,
    /// What is done there.
    pub plan: Plan,
    /// The hash of that plan, by which the agent knows it.
    pub hash: String,
}

/// What a run looks at, as it stands in the document.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Watched {
    /// What must hold.
    pub hypothesis: Vec<Hypothesis>,
    /// What ends the run at once when it does not hold.
    pub stop_when: Vec<Hypothesis>,
    /// How long the hypothesis must hold before anything is injected; none: for a few samples.
    pub baseline: Option<Period>,
    /// Within which time it must hold again.
    pub recovery: Period,
}

impl FleetPlan {
    /// The plan of an experiment that passed `check`, on hosts that are chosen by the seed. The same experiment, seed and
    /// candidates give the same plan and the same hash.
    ///
    /// Refused as [`Targets::of`] says.
    pub fn of(experiment: &Experiment, candidates: &[Candidate], seed: u64) -> Result<FleetPlan, Refusal> {
        let targets = Targets::of(experiment, candidates, seed)?;
        Ok(FleetPlan::on(experiment, &targets, seed))
    }

    /// The plan on hosts that were chosen.
    pub fn on(experiment: &Experiment, targets: &Targets, seed: u64) -> FleetPlan {
        let hosts = shares(experiment, targets, seed).into_iter().map(|share| OnHost {
            watching: targets.watching.contains(&share.host),
            hash: share.plan.hash(),
            plan: share.plan,
            host: share.host,
        });
        let hosts: Vec<OnHost> = hosts.collect();
        let mut plan = FleetPlan {
            title: experiment.title.clone(),
            seed,
            on_partial: experiment.on_partial,
            unconnected: targets.unconnected.clone(),
            watched: Watched {
                hypothesis: experiment.hypothesis.clone(),
                stop_when: experiment.stop_when.clone(),
                baseline: experiment.baseline,
                recovery: experiment.recovery,
            },
            hash: String::new(),
            hosts,
        };
        plan.hash = digest(&plan.essence());
        plan
    }

    /// What the hash is made of, as one text of JSON.
    pub fn essence(&self) -> String {
        let hosts = self.hosts.iter().map(|host| json!([host.host, host.watching, host.hash]));
        let essence = json!({
            "fleet-plan": 2,
            "on-partial": self.on_partial,
            "watched": digest(&json!(self.watched).to_string()),
            "hosts": hosts.collect::<Vec<_>>(),
        });
        essence.to_string()
    }
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
