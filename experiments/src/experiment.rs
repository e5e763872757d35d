//! The document that a user writes: the same model for YAML, JSON and the one-line form of the command line.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::probe::{HttpProbe, Hypothesis, ProcessProbe};
use crate::quantity::Period;
use crate::ramp::Ramp;
use crate::scope::Scope;
use crate::stages::Stages;
use crate::targets::{Hosts, OnPartial};

/// The format version that this build reads.
pub const FORMAT: u32 = 1;

/// An experiment: what the system does when it is well, what is done to it, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Experiment {
    /// The version of the format; this build reads 1.
    #[schemars(extend("const" = FORMAT))]
    pub squall: u32,
    /// What this experiment shows, in one sentence.
    pub title: String,
    /// More words, for whoever reads the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Values that stand in the rest of the file as `${name}`; the command line may replace them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Makes every choice that Squall makes repeatable; chosen and reported when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Which hosts of a controller: those on which the hypotheses and guards are looked at, and on which every step is done
    /// that names no others. Without it each step names its own, and all of them are looked at. A command that runs on one
    /// host refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Hosts>,
    /// What becomes of the other hosts when one cannot take part, or no longer can.
    #[serde(default, skip_serializing_if = "OnPartial::is_usual")]
    pub on_partial: OnPartial,
    /// What holds while the system is well. An empty list is allowed and must be written as such: the run then has no
    /// baseline and no recovery, and its verdict says only whether every fault was measured.
    pub hypothesis: Vec<Hypothesis>,
    /// How long the hypothesis must hold before anything is injected; without it, three samples taken at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Period>,
    /// What is done, in order.
    pub method: Vec<Step>,
    /// Run the whole again and again, with one parameter of a fault harder each time, until the hypothesis no longer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Let the fault come to more and more of its hosts, as long as the hypothesis holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Stages>,
    /// Guards: the first of them that does not hold reverts everything at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_when: Vec<Hypothesis>,
    /// After the revert the hypothesis must hold again within this time.
    #[serde(default = "thirty_seconds")]
    pub recovery: Period,
    /// How much this experiment counts in the resilience score of a suite; 0 is shown and not counted.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

fn is_one(weight: &u32) -> bool {
    *weight == 1
}

fn thirty_seconds() -> Period {
    Period::from_secs(30)
}

/// One step of the method. Exactly one of `fault`, `wait`, `parallel` and `action` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What the report calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Inject a fault; needs `for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Whose traffic or processes the fault concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#in: Option<Scope>,
    /// On which hosts of a controller a fault is injected, or an action done; without it those of the experiment. A command
    /// that runs on one host refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Hosts>,
    /// How long the fault lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#for: Option<Period>,
    /// Do nothing for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// Steps that run at the same time; the step ends with the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Vec<Step>>,
    /// Do something of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// How your own action is undone; played at the revert, also after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Action>,
}

/// Something of the user's own, done by the unprivileged prober. It succeeds with HTTP 2xx or exit code 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Send an HTTP request.
    Http(HttpProbe),
    /// Run a program.
    Process(ProcessProbe),
}

impl Action {
    /// How long it may take.
    pub fn timeout(&self) -> Period {
        match self {
            Action::Http(http) => http.timeout,
            Action::Process(process) => process.timeout,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Http(http) => write!(f, "{} {}", http.method, http.url),
            Action::Process(process) => f.write_str(&process.argv.join(" ")),
        }
    }
}
