//! What a run would do, for whoever decides whether it may: people, gates and the budget.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use squall_experiments::experiment::Experiment;
use squall_experiments::limits::Limits;
use squall_experiments::mandate::Approved;
use squall_experiments::plan::PlanStep;
use squall_experiments::targets::{Candidate, FleetPlan, OnHost};

use crate::api::engine::{Planned, Preview};
use crate::budget::{self, HostUse};
use crate::fleet::{HostInfo, prospect};
use crate::{muster, report};

/// What an order would do on some of these candidates, by what hosts have said of themselves. Over ten thousand hosts this is
/// a second of work.
pub(super) fn planned(order: muster::Order, candidates: &[Candidate], hosts: Vec<HostInfo>) -> Planned {
    let said: BTreeMap<String, _> = hosts.into_iter().map(|host| (host.name, host.preflight)).collect();
    let said = |host: &str| said.get(host).map_or(&Value::Null, |said| &**said);
    let mut plan = FleetPlan::on(&order.experiment, &order.targets, order.seed);
    for on in &mut plan.hosts {
        let warnings = forewarned(on, &said(&on.host)["policy"]);
        on.plan.warnings.extend(warnings);
    }
    let title = order.redactor.redact(&plan.title).into_owned();
    let mut shown = serde_json::to_value(&plan).unwrap_or_default();
    for (on, shown) in plan.hosts.iter().zip(shown["hosts"].as_array_mut().into_iter().flatten()) {
        shown["engines"] = json!(prospect::engines(&on.plan, said(&on.host)));
    }
    order.redactor.redact_value(&mut shown);
    let preview = preview(&plan, &|text| order.redactor.redact(text).into_owned());
    let origin = order.origin.unwrap_or_default();
    // A step of a ramp that deviates is what the ramp looks for.
    let weight = if origin.step.is_some() { 0 } else { order.experiment.weight };
    let tags = order.experiment.tags.iter();
    let tags = tags.map(|tag| order.redactor.redact(tag).into_owned()).collect();
    let known: BTreeMap<&str, &Candidate> =
        candidates.iter().map(|candidate| (candidate.name.as_str(), candidate)).collect();
    let used = |host: &OnHost| {
        let known = known.get(host.host.as_str());
        HostUse {
            host: host.host.clone(),
            labels: known.map(|host| host.labels.clone()).unwrap_or_default(),
            zone: known.and_then(|host| host.zone.clone()),
            faults: budget::faults(&host.plan.steps),
        }
    };
    let method = plan.hosts.iter().map(|host| host.plan.expiry.get()).max().unwrap_or_default();
    Planned {
        title,
        weight,
        content: origin.content.unwrap_or_default(),
        tags,
        shown,
        approvable: Approved::fits(&plan),
        preview,
        uses: plan.hosts.iter().map(used).collect(),
        seconds: goes_on(&order.experiment, method).as_secs(),
        hash: plan.hash,
        seed: plan.seed,
    }
}

/// What the owner of a host would refuse, by what its agent said of its policy when it connected. It does not count for the
/// hash: the host decides when the run begins.
fn forewarned(on: &OnHost, policy: &Value) -> Vec<String> {
    // An agent of a version before says nothing of it.
    let Ok(limits) = Limits::deserialize(policy) else { return Vec::new() };
    let mut warnings = Vec::new();
    for step in on.plan.faults() {
        let PlanStep::Fault { part, changes, lasts, .. } = step else { continue };
        let why = changes.iter().filter_map(|change| limits.objection(change, *lasts));
        warnings.extend(why.map(|why| format!("part {part} would be refused on {}: {why}", on.host)));
    }
    if !limits.windows.is_empty() {
        let windows = limits.windows.join(", ");
        warnings.push(format!("{} allows faults only in {windows}", on.host));
    }
    warnings
}

/// A plan in words; `redact` takes secrets out of them.
fn preview(plan: &FleetPlan, redact: &dyn Fn(&str) -> String) -> Preview {
    let mut done: Vec<(Vec<String>, String)> = Vec::new();
    for on in &plan.hosts {
        let steps = redact(&report::steps(&on.plan, ""));
        match done.iter_mut().find(|(_, known)| *known == steps) {
            Some((hosts, _)) => hosts.push(on.host.clone()),
            None => done.push((vec![on.host.clone()], steps)),
        }
    }
    let once = |lines: fn(&OnHost) -> &Vec<String>| {
        let mut known = HashSet::new();
        let lines = plan.hosts.iter().flat_map(lines).map(|line| redact(line));
        lines.filter(|line| known.insert(line.clone())).collect()
    };
    let expiry = plan.hosts.iter().map(|on| on.plan.expiry).max();
    Preview {
        watching: plan.hosts.iter().filter(|on| on.watching).map(|on| on.host.clone()).collect(),
        unconnected: plan.unconnected.iter().cloned().collect(),
        done,
        never_hit: once(|on| &on.plan.carve_outs),
        warnings: once(|on| &on.plan.warnings),
        expires: expiry.map(|expiry| expiry.to_string()).unwrap_or_default(),
    }
}

/// How long a run may go on whose method with its revert takes so long. Where nothing is claimed, nothing is looked at before and after.
fn goes_on(experiment: &Experiment, method: Duration) -> Duration {
    if experiment.hypothesis.is_empty() {
        return method;
    }
    let baseline = experiment.baseline.map_or(Duration::ZERO, |baseline| baseline.get());
    baseline + method + experiment.recovery.get()
}

#[cfg(test)]
mod tests {
    use squall_experiments::document::{self, LONGEST_FAULT, Sources};

    use super::*;

    #[test]
    fn a_run_goes_on_from_its_baseline_to_the_end_of_its_recovery() {
        let lasts = |hypothesis: &str, rest: &str| {
            let text = format!(
                "squall: 1\ntitle: x\nhypothesis: {hypothesis}\n{rest}\nmethod:\n  \
                 - {{ fault: {{ latency: {{ delay: 20ms, to: [\"10.0.0.1:80\"] }} }}, for: 60s }}\n"
            );
            let (vars, secret) = (BTreeMap::new(), |_: &str| Ok(None));
            let sources = Sources { vars, secret: &secret, longest: LONGEST_FAULT };
            let read = document::read("x.yaml", text.as_bytes(), &sources);
            let read = read.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            goes_on(&read.experiment, Duration::from_secs(90)).as_secs()
        };
        let claim = "[{ name: it answers, http: { url: \"http://127.0.0.1/\" } }]";
        assert_eq!(lasts(claim, "baseline: 5m\nrecovery: 2m"), 300 + 90 + 120);
        assert_eq!(lasts(claim, ""), 90 + 30);
        assert_eq!(lasts("[]", ""), 90, "nothing is looked at before and after");
    }
}
