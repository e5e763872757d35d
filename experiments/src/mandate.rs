//! On whose word a run begins on a host: in which epoch of its controllers, and by which approval.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::Change;
use crate::plan::{Plan, covers};
use crate::protocol::{LONGEST_LINE, Refusal};
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
        Approved::of_fleet(fleet, submitted_by, by).for_host(host)
    }

    /// The approval of a plan, which says nothing of any host's own yet.
    pub fn of_fleet(fleet: &FleetPlan, submitted_by: &str, by: &str) -> Self {
        Approved {
            plan: fleet.hash.clone(),
            submitted_by: submitted_by.to_owned(),
            by: by.to_owned(),
            fleet: fleet.essence(),
            host: String::new(),
        }
    }

    /// The same for one of its hosts.
    pub fn for_host(self, host: &Plan) -> Self {
        Approved { host: host.essence(), ..self }
    }

    /// Whether what an approval says fits into one line to each of its hosts, with room for the rest of it.
    pub fn fits(fleet: &FleetPlan) -> bool {
        let written = |text: &str| Value::from(text).to_string().len();
        let host = fleet.hosts.iter().map(|on| written(&on.plan.essence())).max().unwrap_or_default();
        written(&fleet.essence()) + host + LONGEST_LINE / 8 <= LONGEST_LINE
    }

    /// Whether a plan with this hash is the part of a host in what was approved.
    pub fn verify(&self, plan: &str) -> Result<(), Refusal> {
        let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
        let parts: Value = serde_json::from_str(&self.fleet).unwrap_or_default();
        let parts = parts["hosts"].as_array().map_or(&[][..], Vec::as_slice);
        let listed = parts.iter().any(|part| part[2] == plan);
        if hash(&self.fleet) == self.plan && hash(&self.host) == plan && listed {
            return Ok(());
        }
        Err(mismatch("what is to be run here"))
    }

    /// Whether a step with these changes is in what was approved.
    pub fn permits(&self, part: u32, changes: &[Change], lasts: Period) -> Result<(), Refusal> {
        let plan: Value = serde_json::from_str(&self.host).unwrap_or_default();
        match covers(&plan["steps"], part, changes, lasts) {
            true => Ok(()),
            false => Err(mismatch(&format!("step {part}"))),
        }
    }
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
        let share = shares(&document.experiment, &targets, 7).remove(0);
        let approved = Approved::of(&fleet, &share.plan, "ada", "bob");
        // As it comes over the wire.
        let approved: Approved = serde_json::from_str(&serde_json::to_string(&approved).unwrap()).unwrap();
        approved.verify(&share.plan.hash()).unwrap();
        let faults: Vec<_> = share.plan.faults().collect();
        assert_eq!(faults.len(), 2);
        for step in &faults {
            let crate::plan::PlanStep::Fault { part, changes, lasts, .. } = step else { panic!("a fault") };
            approved.permits(*part, changes, *lasts).unwrap();
            assert!(approved.permits(*part + 7, changes, *lasts).is_err());
            assert!(approved.permits(*part, changes, Period::from_secs(60)).is_err());
            assert!(approved.permits(*part, &[], *lasts).is_err());
        }
        assert!(approved.verify(&"0".repeat(64)).is_err());
        let wider = Approved { host: approved.host.replace("10.0.0.1", "10.0.0.3"), ..approved.clone() };
        assert!(wider.verify(&share.plan.hash()).is_err());
        let other = Approved { plan: "1".repeat(64), ..approved };
        assert!(other.verify(&share.plan.hash()).is_err());
    }
}
