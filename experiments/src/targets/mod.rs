//! Which hosts of a fleet an experiment concerns: the `on:` of the document and of its steps.
//!
//! Hosts are chosen once, before anything is done, by the seed of the run: the same seed and the same hosts give the same
//! choice, in whatever order the hosts are listed. Everything here is pure; a controller says which hosts there are.

mod choice;
mod fleet_plan;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::experiment::{Experiment, Step};
use crate::protocol::Refusal;
use crate::quantity::Pick;
use crate::stages::Stages;

pub use choice::{Choice, choose};
pub use fleet_plan::{FleetPlan, OnHost, Watched};
pub(crate) use share::share_error;
pub use share::{Share, shares};

/// Which hosts of a fleet. What is given must all match; what is matched and connected may be picked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Hosts {
    /// Labels that a host must carry, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The zone that it must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The cell that it must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// Hosts by their names. Each of them must be known, connected, and match the rest, or nothing is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name: Vec<String>,
    /// How many of the hosts that match and are connected.
    #[serde(default)]
    pub pick: Pick,
    /// Over what the picked ones are spread as evenly as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// Over what hosts are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Zones: none gets a second host before each that has one left got a first. Hosts without a zone count as one zone.
    Zone,
}

/// What becomes of the other hosts when one cannot take part, or no longer can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnPartial {
    /// They revert at once.
    #[default]
    Revert,
    /// They go on without it. The run is not called held all the same.
    Continue,
}

impl OnPartial {
    /// Whether it is what nobody has to write.
    pub fn is_usual(&self) -> bool {
        *self == OnPartial::default()
    }
}

/// A host that a controller knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its name, which no other has.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its cell.
    #[serde(default)]
    pub cell: Option<String>,
    /// Whether it can be reached now; others are never chosen.
    pub connected: bool,
}

/// The hosts of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Targets {
    /// Every host that takes part, in order of their names.
    pub hosts: BTreeSet<String>,
    /// Those on which the hypotheses and guards are looked at.
    pub watching: BTreeSet<String>,
    /// For each step with a fault or an action, by its place in the method (`2`, or `2.1` inside `parallel:`), its hosts.
    pub steps: BTreeMap<String, BTreeSet<String>>,
    /// Those that match and are not connected: they were not chosen from.
    pub unconnected: BTreeSet<String>,
    /// Of a run in stages: the hosts that have the fault in each stage, those of the stages before among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<BTreeSet<String>>,
}

impl Targets {
    /// Chooses the hosts of an experiment. Steps with the same `on:` have the same hosts. The hypotheses and guards are looked
    /// at on the hosts of the document's own `on:`; without one, on every host of a step.
    ///
    /// Refused where a step says no host and the document neither, and where a selector finds too few.
    pub fn of(experiment: &Experiment, candidates: &[Candidate], seed: u64) -> Result<Targets, Refusal> {
        let mut targets = Targets::default();
        if let Some(on) = &experiment.on {
            let choice = choose(on, candidates, seed)?;
            targets.watching.extend(choice.chosen);
            targets.unconnected.extend(choice.unconnected);
        }
        for (place, step) in places(&experiment.method) {
            let Some(on) = step.on.as_ref().or(experiment.on.as_ref()) else {
                return Err(Refusal::new(
                    format!("step {place} does not say on which hosts"),
                    "give it an `on:`, or the experiment one for all its steps: \
                     `on: { labels: { role: web }, pick: 1 }`",
                ));
            };
            let choice = choose(on, candidates, seed)?;
            targets.unconnected.extend(choice.unconnected);
            let mut chosen: BTreeSet<String> = choice.chosen.into_iter().collect();
            if let Some(stages) = &experiment.stages {
                targets.stages = grown(stages, on, candidates, seed, chosen.len())?;
                // Where the last stage has not all of them, the others are only looked at.
                chosen = targets.stages.last().cloned().unwrap_or(chosen);
            }
            targets.steps.insert(place, chosen);
        }
        let chosen = targets.steps.values().flatten().cloned();
        targets.hosts = targets.watching.iter().cloned().chain(chosen).collect();
        if experiment.on.is_none() {
            targets.watching.clone_from(&targets.hosts);
        }
        if targets.hosts.is_empty() {
            return Err(Refusal::new(
                "the experiment does not say on which hosts it is looked at",
                "give it an `on:`: `on: { labels: { role: web } }`",
            ));
        }
        Ok(targets)
    }
}

/// The hosts of each stage, of so many that were chosen. The lowest ranks come first, so none that had the fault loses it.
fn grown(
    stages: &Stages,
    on: &Hosts,
    candidates: &[Candidate],
    seed: u64,
    hosts: usize,
) -> Result<Vec<BTreeSet<String>>, Refusal> {
    let Some(sizes) = stages.of(hosts) else {
        return Err(Refusal::new(
            format!("the stages do not fit {hosts} hosts: `{on}`"),
            "each stage has more hosts than the one before, and no more than were chosen",
        ));
    };
    let of = |size: usize| {
        let pick = Pick::Count(u32::try_from(size).unwrap_or(u32::MAX));
        let choice = choose(&Hosts { pick, ..on.clone() }, candidates, seed)?;
        Ok(choice.chosen.into_iter().collect())
    };
    sizes.into_iter().map(of).collect()
}

/// Whether an experiment says anything about hosts: only a controller can run it then.
pub fn is_for_a_fleet(experiment: &Experiment) -> bool {
    experiment.on.is_some() || places(&experiment.method).iter().any(|(_, step)| step.on.is_some())
}

/// That an experiment for a fleet cannot be run by a command on one host; nothing where it is none.
pub fn only_here(experiment: &Experiment) -> Result<(), Refusal> {
    if !is_for_a_fleet(experiment) {
        return Ok(());
    }
    Err(Refusal::new(
        "`on` chooses hosts of a controller, and this command runs on this host alone",
        "run it by a controller, or leave `on` out: the fault then concerns this host",
    ))
}

/// Every step that does something, with its place.
fn places(method: &[Step]) -> Vec<(String, &Step)> {
    let mut all = Vec::new();
    for (at, step) in (1..).zip(method) {
        match &step.parallel {
            Some(children) => {
                let children = (1..).zip(children);
                all.extend(children.map(|(child, step)| (format!("{at}.{child}"), step)));
            }
            None => all.push((at.to_string(), step)),
        }
    }
    all.retain(|(_, step)| step.fault.is_some() || step.action.is_some());
    all
}

impl fmt::Display for Hosts {
    /// As it is written in a file, without braces: `labels role=web, zone a, pick 50%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
            parts.push(format!("labels {}", labels.collect::<Vec<_>>().join(" ")));
        }
        parts.extend(self.zone.iter().map(|zone| format!("zone {zone}")));
        parts.extend(self.cell.iter().map(|cell| format!("cell {cell}")));
        if !self.name.is_empty() {
            parts.push(format!("name {}", self.name.join(" ")));
        }
        if self.pick != Pick::All || parts.is_empty() {
            parts.push(format!("pick {}", self.pick));
        }
        if let Some(Spread::Zone) = self.spread {
            parts.push("spread over zones".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests;
