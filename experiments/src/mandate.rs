//! On whose word a run begins on a host: in which epoch of its controllers, and by which approval.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::Change;
use crate::plan::{Plan, covers};
use crate::protocol::Refusal;
use crate::quantity::Period;
use crate::targets::FleetPlan;

/// What comes with a run of a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mandate {
    /// How often the run was taken over by another controller: the agent refuses an earlier epoch than it has heard of.
    #[serde(default)]
    pub epoch: u64,
    /// Who has approved what, where somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
}

/// An approval, with everything that its hash was made of as far as it concerns one host. An agent can see by it that what
/// it is told is what the hash means. That somebody approved it, it has from its controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The hash that was approved: that of the plan of all hosts.
    pub plan: String,
    /// Who submitted it.
    pub submitted_by: String,
    /// Who approved it.
    pub by: String,
    /// What that hash was made of: [`FleetPlan::essence`].
    pub fleet: String,
    /// What the hash of this host's plan was made of: [`Plan::essence`].
    pub host: String,
}

impl Approved {
    /// The approval of a plan for one of its hosts.
    pub fn of(fleet: &FleetPlan, host: &Plan, submitted_by: &str, by: &str) -> Self {
        Approved {
            plan: fleet.hash.clone(),
            submitted_by: submitted_by.to_owned(),
            by: by.to_owned(),
            fleet: fleet.essence(),
            host: host.essence(),
        }
    }

    /// Whether a run is the part of a host in what was approved. Without a name, of whichever host is in it.
    pub fn verify(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (fleet, plan) = (read(&self.fleet), read(&self.host));
        let [host] = plan["hosts"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(mismatch("what is to be run here"));
        };
        let parts = fleet["hosts"].as_array().map_or(&[][..], Vec::as_slice);
        let listed = parts.iter().any(|part| part[0] == *host && part[2] == asked.plan);
        if hash(&self.fleet) != self.plan || hash(&self.host) != asked.plan || !listed {
            return Err(mismatch("what is to be run here"));
        }
        if asked.host.is_some_and(|name| *host != name) {
            return Err(mismatch(&format!("what is to be run here, for host {host}:")));
        }
        if plan["seed"] != asked.seed {
            return Err(mismatch(&format!("the seed {}", asked.seed)));
        }
        let expiry = serde_json::from_value::<Period>(plan["expiry"].clone());
        match expiry.is_ok_and(|expiry| asked.lasts_ms <= expiry.as_millis()) {
            true => Ok(()),
            false => Err(mismatch(&format!("a run of {} ms", asked.lasts_ms))),
        }
    }

    /// How often a step with these changes stands in what was approved; never is an error.
    pub fn permits(&self, part: u32, changes: &[Change], lasts: Period) -> Result<usize, Refusal> {
        let plan: Value = serde_json::from_str(&self.host).unwrap_or_default();
        match covers(&plan["steps"], part, changes, lasts) {
            0 => Err(mismatch(&format!("step {part}"))),
            often => Ok(often),
        }
    }
}

/// What a host is asked to begin.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The hash of its plan.
    pub plan: &'a str,
    /// What the host is called in its fleet, where it belongs to one.
    pub host: Option<&'a str>,
    /// The seed of what is chosen there.
    pub seed: u64,
    /// After how many milliseconds everything is undone at the latest.
    pub lasts_ms: u64,
}

fn mismatch(what: &str) -> Refusal {
    Refusal::new(
        format!("{what} is not what was approved"),
        "look at the controller's audit log: it asks for what nobody has seen",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Sources, read};
    use crate::targets::{Candidate, Targets, shares};

    #[test]
    fn an_approval_is_for_its_hosts_and_steps_and_for_nothing_else() {
        let text = "squall: 1\ntitle: T\non: { pick: all }\nhypothesis: []\nmethod:\n  - fault: { latency: { delay: 20ms, to: [\"10.0.0.1:80\", \"10.0.0.2:80\"] } }\n    for: 2s\n  \
                    - parallel:\n      - fault: { refuse: { to: [\"10.0.0.1:81\"] } }\n        for: 3s\n";
        let document = read("t.yaml", text.as_bytes(), &Sources::default())
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let hosts = ["a", "b"].map(|name| Candidate {
            name: name.to_owned(),
            connected: true,
            ..Candidate::default()
        });
        let targets = Targets::of(&document.experiment, &hosts, 7).unwrap();
        let fleet = FleetPlan::on(&document.experiment, &targets, 7);
        let [share, share_of_b] = shares(&document.experiment, &targets, 7).try_into().ok().unwrap();
        let approved = Approved::of(&fleet, &share.plan, "ada", "bob");
        // As it comes over the wire.
        let approved: Approved = serde_json::from_str(&serde_json::to_string(&approved).unwrap()).unwrap();
        let (plan, lasts_ms) = (share.plan.hash(), share.plan.expiry.as_millis());
        let asked = Asked { plan: &plan, host: Some("a"), seed: 7, lasts_ms };
        approved.verify(&asked).unwrap();
        approved.verify(&Asked { host: None, lasts_ms: lasts_ms - 1, ..asked }).unwrap();
        for other in [
            Asked { host: Some("b"), ..asked },
            Asked { seed: 8, ..asked },
            Asked { lasts_ms: lasts_ms + 1, ..asked },
            Asked { plan: &"0".repeat(64), ..asked },
        ] {
            approved.verify(&other).unwrap_err();
        }
        // That of another host of the same run is no word for this one.
        let theirs = Approved::of(&fleet, &share_of_b.plan, "ada", "bob");
        let theirs_hash = share_of_b.plan.hash();
        theirs.verify(&Asked { plan: &theirs_hash, host: Some("b"), ..asked }).unwrap();
        theirs.verify(&Asked { plan: &theirs_hash, ..asked }).unwrap_err();
        let faults: Vec<_> = share.plan.faults().collect();
        assert_eq!(faults.len(), 2);
        for step in &faults {
            let crate::plan::PlanStep::Fault { part, changes, lasts, .. } = step else { panic!("a fault") };
            assert_eq!(approved.permits(*part, changes, *lasts).unwrap(), 1);
            assert!(approved.permits(*part + 7, changes, *lasts).is_err());
            assert!(approved.permits(*part, changes, Period::from_secs(60)).is_err());
            assert!(approved.permits(*part, &[], *lasts).is_err());
        }
        let wider = Approved { host: approved.host.replace("10.0.0.1", "10.0.0.3"), ..approved.clone() };
        assert!(wider.verify(&asked).is_err());
        let other = Approved { plan: "1".repeat(64), ..approved };
        assert!(other.verify(&asked).is_err());
    }
}
