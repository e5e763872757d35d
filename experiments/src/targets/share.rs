//! What each host of a fleet does: the experiment as it is carried out there.

use super::{OnPartial, Targets};
use crate::experiment::Experiment;
use crate::plan::{Plan, Staging};
use crate::probe::Hypothesis;
use crate::quantity::Percent;

/// One host's part of an experiment.
#[derive(Clone, Debug)]
pub struct Share {
    /// The host.
    pub host: String,
    /// What is looked at there. Without hypotheses and guards where it is not looked at.
    pub experiment: Experiment,
    /// What is done there: what is for other hosts only is waited for.
    pub plan: Plan,
}

/// The parts of all hosts, in order of their names.
///
/// Where a claim is looked at on several hosts, each of them gets its share of the error: the chance that it is wrongly said
/// of even one of them that it deviates is the one that the claim asks for, however the hosts depend on each other
/// (Bonferroni). The same holds for guards about rates, which would else trip by chance the more often the more hosts there are.
pub fn shares(experiment: &Experiment, targets: &Targets, seed: u64) -> Vec<Share> {
    let watching = targets.watching.len();
    let share = |host: &String| {
        let mut own = experiment.clone();
        // Hosts are chosen; which, stands in the choice.
        own.on = None;
        own.on_partial = OnPartial::default();
        if targets.watching.contains(host) {
            own.hypothesis
                .iter_mut()
                .chain(&mut own.stop_when)
                .for_each(|claim| share_error(claim, watching));
        } else {
            own.hypothesis.clear();
            own.stop_when.clear();
            own.baseline = None;
        }
        let here = |place: &str| targets.steps.get(place).is_none_or(|hosts| hosts.contains(host));
        let mut plan = Plan::on_host(&own, seed, host, &here);
        if let Some(stages) = own.stages.take() {
            let first = targets.stages.iter().position(|hosts| hosts.contains(host));
            let (of, bake) = (targets.stages.len(), stages.bake);
            plan = plan.in_stages(Staging { own: first.map(|stage| stage + 1), of, bake });
        }
        Share { host: host.clone(), experiment: own, plan }
    };
    targets.hosts.iter().map(share).collect()
}

/// Leaves a claim about a rate one of so many equal shares of its error.
pub(crate) fn share_error(claim: &mut Hypothesis, shares: usize) {
    let Some(terms) = claim.terms().filter(|_| shares > 1) else { return };
    let share = (100.0 - terms.confidence.get()) / shares as f64;
    // A share of what lies between 0 and 100 does, too.
    claim.confidence = Percent::new(100.0 - share).ok().or(claim.confidence);
}
