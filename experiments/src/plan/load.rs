//! What probes of load would send: said before the run, because somebody has to answer it.

use std::time::Duration;

use serde::Serialize;

use crate::experiment::Experiment;
use crate::probe::{Hypothesis, LoadProbe};
use crate::quantity::{Period, Rate};
use crate::verdict::IN_A_ROW;

/// The load of one hypothesis or guard.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedLoad {
    /// Which hypothesis or guard.
    pub name: String,
    /// Whom it asks.
    pub url: String,
    /// How often.
    pub rate: Rate,
    /// How long it can go on: baseline, method, recovery.
    pub at_most: Period,
    /// How many requests that are, those to a control group among them.
    pub requests: u64,
    /// Whether each of them is sent to a control group too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
}

/// The load of every hypothesis and guard. `method` is how long the steps take.
pub(super) fn of(experiment: &Experiment, method: Duration) -> Vec<PlannedLoad> {
    let planned = |claim: &Hypothesis, load: &LoadProbe, recovery: Duration| {
        // Without a baseline of its own there are a few samples in a row.
        let baseline = match experiment.baseline {
            None | Some(Period::ZERO) => claim.every.get() * IN_A_ROW,
            Some(baseline) => baseline.get(),
        };
        let time = baseline + method + recovery;
        PlannedLoad {
            name: claim.name.clone(),
            url: load.url.clone(),
            rate: load.rate,
            at_most: time.into(),
            requests: load.rate.within(time) * if load.control.is_some() { 2 } else { 1 },
            control: load.control.is_some(),
        }
    };
    let hypotheses = experiment.hypothesis.iter().map(|claim| (claim, experiment.recovery.get()));
    // Guards are not watched after the revert.
    let guards = experiment.stop_when.iter().map(|claim| (claim, Duration::ZERO));
    let loads = hypotheses.chain(guards);
    loads.filter_map(|(claim, recovery)| Some(planned(claim, claim.load.as_ref()?, recovery))).collect()
}
