//! What a run would do to its hosts, before anything is done: the same experiment, seed, hosts and policy give the
//! same plan and the same hash.
//!
//! Nothing here looks at a host: process ids and addresses are resolved by the agent when it prepares, and shown as
//! an appendix that is outside the hash.

mod carve_out;
mod load;
mod overlap;
mod staged;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

pub use carve_out::CARVE_OUTS;
pub use load::PlannedLoad;
pub(crate) use staged::Staging;

use crate::change::Change;
use crate::experiment::{Action, Experiment, Step};
use crate::flow::Flow;
use crate::quantity::Period;
use crate::scope::Scope;

/// Time that a plan allows beyond its steps: applying, lifting and reading back.
pub const MARGIN: Period = Period::from_secs(30);

/// What a run would do: to each of its hosts the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The experiment's title. Not part of the hash.
    pub title: String,
    /// The seed of every choice.
    pub seed: u64,
    /// The hosts, in order of their names.
    pub hosts: Vec<String>,
    /// A short hash of the hosts' policy, or `none`.
    pub policy: String,
    /// What is done, in order.
    pub steps: Vec<PlanStep>,
    /// Of a run in stages: how many there are. Each is a step then.
    #[serde(skip_serializing_if = "is_zero")]
    pub stages: u32,
    /// What is never hit, whatever the selectors say.
    pub carve_outs: Vec<String>,
    /// After this long, counted from the first injection, everything is reverted in any case.
    pub expiry: Period,
    /// What probes of load send. Not part of the hash.
    pub loads: Vec<PlannedLoad>,
    /// What the reader should know before running it. Not part of the hash.
    pub warnings: Vec<String>,
}

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanStep {
    /// A fault: its changes are applied together and lifted together.
    Fault {
        /// The number of the step in the run, from 1, in the order of the document; children of `parallel:` count
        /// like steps of their own.
        part: u32,
        /// What the report calls it.
        name: String,
        /// What is done on each host.
        changes: Vec<Change>,
        /// How long it lasts.
        lasts: Period,
        /// Where it goes on into the next step: after how long. That step says then what becomes of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        stays: Option<Period>,
    },
    /// A fault of an earlier step goes on.
    Stays {
        /// Its number.
        part: u32,
        /// What the report calls it.
        name: String,
        /// How long it is held in this step.
        lasts: Period,
        /// Whether it ends with this step.
        last: bool,
    },
    /// Nothing is done for a while.
    Wait(Period),
    /// Steps that run at the same time; the step ends with the last of them.
    Parallel(Vec<PlanStep>),
    /// Something of the user's own.
    Action {
        /// What the report calls it.
        name: String,
        /// What is done.
        action: Action,
        /// How it is undone at the revert.
        undo: Option<Action>,
    },
    /// A fault or an action that is for other hosts of the run: nothing is done here.
    Elsewhere {
        /// What the report calls it.
        name: String,
        /// How long a fault lasts there; zero for an action, whose end all hosts wait for.
        lasts: Period,
    },
}

impl Plan {
    /// The plan of an experiment that passed `check`. `policy` is the hash of the hosts' policy, or `none`.
    ///
    /// A step that `check` would have refused is left out.
    pub fn of(experiment: &Experiment, seed: u64, hosts: &[String], policy: &str) -> Plan {
        Plan::made(experiment, seed, hosts, policy, &|_| true)
    }

    /// The plan of one host of a fleet. `here` says of the place of a step (`2`, or `2.1` inside `parallel:`) whether it is
    /// for this host; what is not is waited for. Parts have the same numbers on all hosts.
    pub fn on_host(experiment: &Experiment, seed: u64, host: &str, here: &dyn Fn(&str) -> bool) -> Plan {
        // Each host has a policy of its own, and its agent applies it.
        Plan::made(experiment, seed, &[host.to_owned()], "the host's", here)
    }

    fn made(
        experiment: &Experiment,
        seed: u64,
        hosts: &[String],
        policy: &str,
        here: &dyn Fn(&str) -> bool,
    ) -> Plan {
        let mut part = 0;
        let numbered = (1..).zip(&experiment.method);
        let steps: Vec<PlanStep> = numbered
            .filter_map(|(at, step): (usize, &Step)| PlanStep::of(step, &at.to_string(), &mut part, here))
            .collect();
        let mut hosts = hosts.to_vec();
        hosts.sort();
        let time: std::time::Duration = steps.iter().map(|step| step.takes().get()).sum();
        Plan {
            title: experiment.title.clone(),
            seed,
            hosts,
            policy: policy.to_owned(),
            expiry: (time + MARGIN.get()).into(),
            stages: 0,
            carve_outs: CARVE_OUTS.iter().map(|rule| (*rule).to_owned()).collect(),
            loads: load::of(experiment, time),
            warnings: overlap::warnings(experiment, &steps),
            steps,
        }
    }

    /// Whether anything is done to a host. Without changes neither an agent nor a journal is needed.
    pub fn has_changes(&self) -> bool {
        self.faults().next().is_some()
    }

    /// Whether a fault is injected, here or on another host of the run.
    pub fn has_faults(&self) -> bool {
        let is_fault = |step: &PlanStep| {
            matches!(step, PlanStep::Fault { .. })
                || matches!(step, PlanStep::Elsewhere { lasts, .. } if !lasts.is_zero())
        };
        self.steps.iter().any(|step| match step {
            PlanStep::Parallel(children) => children.iter().any(is_fault),
            single => is_fault(single),
        })
    }

    /// Whether other hosts have the fault before this one, or this one never has it: it is looked at meanwhile as if it had.
    pub fn begins_elsewhere(&self) -> bool {
        let staged = self.stages > 0 && !self.steps.first().is_some_and(PlanStep::has_fault);
        self.has_faults() && (staged || !self.has_changes())
    }

    /// Every fault step, those in `parallel:` too, in order of their parts.
    pub fn faults(&self) -> impl Iterator<Item = &PlanStep> {
        self.steps
            .iter()
            .flat_map(|step| match step {
                PlanStep::Parallel(children) => children.as_slice(),
                single => std::slice::from_ref(single),
            })
            .filter(|step| matches!(step, PlanStep::Fault { .. }))
    }

    /// Every change of every fault, in order of their parts.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.faults().flat_map(|step| match step {
            PlanStep::Fault { changes, .. } => changes.as_slice(),
            _ => &[],
        })
    }

    /// Whether two plans may want the same traffic or processes of a host, so that they must not be carried out at the same
    /// time. In doubt they do: names are not resolved, and processes not looked for.
    pub fn collides(&self, other: &Plan) -> bool {
        overlap::wanted(self).any(|mine| overlap::wanted(other).any(|theirs| overlap::meet(&mine, &theirs)))
    }

    /// The names that the host itself must resolve before its changes can be aimed. Those of a fault in a container or in a
    /// named network namespace mean what they do there, which only an agent can ask.
    pub fn names(&self) -> BTreeSet<&str> {
        let elsewhere = |flow: &&Flow| matches!(flow.scope, Some(Scope::Container(_) | Scope::Netns(_)));
        self.changes()
            .filter_map(Change::flow)
            .filter(|flow| !elsewhere(flow))
            .flat_map(Flow::names)
            .collect()
    }

    /// 64 hexadecimal digits over everything that decides what is done: selectors (lists of peers in order, doubles
    /// removed), parameters, durations, actions, carve-outs, policy, seed, hosts and expiry. Titles, names and
    /// warnings are outside. Actions count with the values of their secrets, as they will be done.
    pub fn hash(&self) -> String {
        blake3::hash(self.essence().as_bytes()).to_hex().to_string()
    }

    /// What the hash is made of, as one text of JSON.
    pub fn essence(&self) -> String {
        canonical(json!({
            "plan": 1,
            "steps": self.steps.iter().map(PlanStep::essence).collect::<Vec<_>>(),
            "carve-outs": self.carve_outs,
            "policy": self.policy,
            "seed": self.seed,
            "hosts": self.hosts,
            "expiry": self.expiry,
        }))
        .to_string()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(stages: &u32) -> bool {
    *stages == 0
}

/// How often the steps of a plan's [essence](Plan::essence) hold a fault with this number, these changes and this time.
pub(crate) fn covers(steps: &Value, part: u32, changes: &[Change], lasts: Period) -> usize {
    let wanted = canonical(json!({ "changes": changes }));
    holds(steps, part, &wanted["changes"], lasts.as_millis())
}

fn holds(steps: &Value, part: u32, changes: &Value, lasts_ms: u64) -> usize {
    let own = |step: &Value| {
        let lasts = serde_json::from_value::<Period>(step["lasts"].clone());
        step["part"] == part
            && step["changes"] == *changes
            && lasts.is_ok_and(|lasts| lasts.as_millis() == lasts_ms)
    };
    let inside = |step: &Value| holds(&step["parallel"], part, changes, lasts_ms);
    steps.as_array().into_iter().flatten().map(|step| usize::from(own(step)) + inside(step)).sum()
}

impl PlanStep {
    fn has_fault(&self) -> bool {
        match self {
            PlanStep::Fault { .. } => true,
            PlanStep::Parallel(children) => children.iter().any(PlanStep::has_fault),
            _ => false,
        }
    }

    /// Whether something of the user's own is done in it.
    pub fn has_action(&self) -> bool {
        match self {
            PlanStep::Action { .. } => true,
            PlanStep::Parallel(children) => children.iter().any(PlanStep::has_action),
            PlanStep::Fault { .. }
            | PlanStep::Stays { .. }
            | PlanStep::Wait(_)
            | PlanStep::Elsewhere { .. } => false,
        }
    }

    fn of(step: &Step, at: &str, part: &mut u32, here: &dyn Fn(&str) -> bool) -> Option<PlanStep> {
        if let (Some(fault), Some(lasts)) = (&step.fault, step.r#for) {
            *part += 1;
            let changes = fault.changes(step.r#in.as_ref());
            let words = || {
                let aims: Vec<String> = changes.iter().map(aim).collect();
                format!("{} {}", fault.name(), aims.join(" and "))
            };
            let name = step.name.clone().unwrap_or_else(words);
            if !here(at) {
                return Some(PlanStep::Elsewhere { name, lasts });
            }
            Some(PlanStep::Fault { part: *part, name, changes, lasts, stays: None })
        } else if let Some(wait) = step.wait {
            Some(PlanStep::Wait(wait))
        } else if let Some(children) = &step.parallel {
            let children = (1..).zip(children);
            let step =
                |(child, step): (usize, &Step)| PlanStep::of(step, &format!("{at}.{child}"), part, here);
            Some(PlanStep::Parallel(children.filter_map(step).collect()))
        } else {
            let action = step.action.clone()?;
            let name = step.name.clone().unwrap_or_else(|| action.to_string());
            if !here(at) {
                return Some(PlanStep::Elsewhere { name, lasts: Period::ZERO });
            }
            Some(PlanStep::Action { name, action, undo: step.undo.clone() })
        }
    }

    /// How long the step takes at most, without applying and lifting. The undo of an action counts too.
    pub fn takes(&self) -> Period {
        match self {
            PlanStep::Fault { stays: Some(held), .. } => *held,
            PlanStep::Fault { lasts, .. }
            | PlanStep::Stays { lasts, .. }
            | PlanStep::Elsewhere { lasts, .. } => *lasts,
            PlanStep::Wait(wait) => *wait,
            PlanStep::Parallel(children) => {
                children.iter().map(PlanStep::takes).max().unwrap_or(Period::ZERO)
            }
            PlanStep::Action { action, undo, .. } => {
                let undo = undo.as_ref().map_or(Period::ZERO, Action::timeout);
                (action.timeout().get() + undo.get()).into()
            }
        }
    }

    /// What the hash covers of it.
    fn essence(&self) -> Value {
        match self {
            PlanStep::Fault { part, changes, lasts, stays, .. } => {
                let mut essence = json!({ "part": part, "changes": changes, "lasts": lasts });
                if let Some(stays) = stays {
                    essence["stays"] = json!(stays);
                }
                essence
            }
            PlanStep::Stays { part, lasts, last, .. } => {
                json!({ "goes-on": part, "held": lasts, "ends": last })
            }
            PlanStep::Wait(wait) => json!({ "wait": wait }),
            PlanStep::Elsewhere { lasts, .. } => json!({ "elsewhere": lasts }),
            PlanStep::Parallel(children) => {
                json!({ "parallel": children.iter().map(PlanStep::essence).collect::<Vec<_>>() })
            }
            PlanStep::Action { action, undo, .. } => json!({ "action": action, "undo": undo }),
        }
    }
}

/// Whom a change concerns, for a name that the report repeats often.
fn aim(change: &Change) -> String {
    match change {
        Change::Block(block) => block.flow.to_string(),
        Change::Shape(shape) => shape.flow.to_string(),
        Change::Redirect(redirect) => redirect.flow.to_string(),
        Change::Disconnect(disconnect) => disconnect.flow.to_string(),
        Change::Signal(signal) => format!("{} of {}", signal.pick, signal.scope),
        Change::Pause(pause) => format!("{} of {}", pause.pick, pause.scope),
    }
}

/// One text for one meaning: keys sorted, lists of peers sorted and without doubles.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map
                .into_iter()
                .map(|(key, value)| {
                    let mut value = canonical(value);
                    if let (true, Value::Array(items)) = (key == "to" || key == "from", &mut value) {
                        items.sort_by_key(Value::to_string);
                        items.dedup();
                    }
                    (key, value)
                })
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests;
