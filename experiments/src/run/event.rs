//! What happens in a run, in the order in which it happened: the lines of the event file.

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::probe::{Budget, Hypothesis, Load, When};
use crate::protocol::{Applied, Lifted, Refusal, RunId};
use crate::quantity::{Percent, Period};
use crate::ramp;
use crate::verdict::{Phase, Terms};

/// One line of the event file: `{"at_ms":1203,"event":"sample",…}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since the run began, on the boot clock. Never decreases from line to line.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first event of every run; the baseline begins.
    Started(Started),
    /// One look at the system.
    Sample(Seen),
    /// The hypothesis held before anything was done; the method begins.
    BaselineMet,
    /// It did not; nothing was done, and nothing will be.
    BaselineNotMet {
        /// The hypothesis or guard that did not hold.
        name: String,
        /// What was seen instead, with its figures.
        seen: String,
    },
    /// A step of the method began.
    StepBegan {
        /// Its place in the method: `2`, or `2.1` inside `parallel:`.
        step: String,
        /// What it does, in words.
        what: String,
    },
    /// A step of the method ended as intended.
    StepEnded {
        /// Its place.
        step: String,
    },
    /// The agent is asked to make the changes of one part. From here on the part is live.
    Injecting {
        /// The part's number.
        part: u32,
        /// What the report calls it.
        name: String,
        /// Its changes.
        changes: Vec<Intent>,
        /// How long it is to last, in milliseconds.
        lasts_ms: u64,
    },
    /// The agent made the changes.
    Injected {
        /// The part's number.
        part: u32,
        /// What was aimed at.
        applied: Applied,
    },
    /// Something was refused; nothing of it was done, and the run reverts.
    Refused {
        /// The part; `None` where it is not about one part.
        part: Option<u32>,
        /// Why.
        refusal: Refusal,
    },
    /// What a live part did so far.
    Measured {
        /// The part's number.
        part: u32,
        /// One for each of its changes.
        evidence: Vec<Evidence>,
    },
    /// The agent undid a part, or everything that was left of the run.
    Lifted {
        /// The part's number; `None` is the whole run.
        part: Option<u32>,
        /// What was measured, what was undone, and what could not be.
        lifted: Lifted,
        /// Why, where this run did not ask for it: `halted`.
        why: Option<String>,
    },
    /// An action of the user's own began.
    ActionBegan {
        /// Its place in the method.
        step: String,
        /// What the report calls it.
        name: String,
        /// Whether the file says how to undo it.
        undo: bool,
    },
    /// It ended. When it failed, the run reverts.
    ActionEnded {
        /// Its place in the method.
        step: String,
        /// Whether it succeeded.
        good: bool,
        /// What was seen: `exit 0 in 3 ms`.
        seen: String,
    },
    /// The undo of an action was played.
    UndoPlayed {
        /// The action's place in the method.
        step: String,
        /// Whether it succeeded.
        good: bool,
        /// What was seen.
        seen: String,
    },
    /// The method ended as intended; the run reverts what is left.
    MethodEnded,
    /// A guard did not hold; the run reverts at once.
    GuardTripped {
        /// The guard.
        name: String,
        /// What was seen.
        seen: String,
    },
    /// Before a further stage it was sure that a hypothesis has failed; the run reverts at once.
    GaveWay {
        /// The last stage that was carried out, from 1.
        stage: u32,
        /// The hypothesis.
        name: String,
        /// What was seen, with its figures.
        seen: String,
    },
    /// A guard or hypothesis has spent its budget; the run reverts at once.
    BudgetSpent {
        /// Whose budget.
        name: String,
        /// How many requests or looks had failed.
        failed: u64,
        /// How many might.
        budget: Budget,
    },
    /// A person, a signal or a halt stopped the run; it reverts at once.
    Interrupted {
        /// Who or what: `SIGINT`, `halted`.
        by: String,
    },
    /// The connection to the agent broke; the agent reverts by itself.
    AgentLost {
        /// What was seen of it.
        why: String,
    },
    /// The system can no longer be looked at; the run reverts.
    Blind {
        /// Why.
        why: String,
    },
    /// Everything is undone; the hypothesis is watched until it holds again.
    RecoveryBegan,
    /// The hypothesis holds again.
    WellAgain {
        /// Milliseconds from the end of the revert to the first of the good samples that showed it.
        after_ms: u64,
    },
    /// The time was over before all of it did.
    NotRecovered {
        /// The hypotheses that did not hold again.
        names: Vec<String>,
        /// Those about a rate of which too little was seen to show either.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unshown: Vec<String>,
    },
    /// The last event of a run that left its host as it was.
    Finished {
        /// The exit code.
        exit: Exit,
        /// The closing sentence.
        sentence: String,
    },
    /// The last event of a run that could not.
    Stuck {
        /// What is still there, a line each.
        left: Vec<String>,
        /// The closing sentence.
        sentence: String,
    },
}

/// Where and what a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Its name.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// Wall-clock time, RFC 3339 in UTC. Everything else is counted from here on the boot clock.
    pub date: String,
    /// The seed of every choice.
    pub seed: u64,
    /// The plan's hash.
    pub plan: String,
    /// How many faults the plan holds.
    pub faults: u32,
    /// Whether there are none only because they are for other hosts of the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// Which squall ran it.
    pub version: String,
    /// Which agent makes the changes, with its policy; `None` where the plan holds no change.
    pub agent: Option<String>,
    /// How long the method was to take, in milliseconds; `None` where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_ms: Option<u64>,
    /// How it was started; `None` where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What is claimed.
    pub hypotheses: Vec<Stated>,
    /// What stops the run.
    pub guards: Vec<Stated>,
}

/// How a run was started: for whoever repeats it, or compares another run with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// What the experiment does and claims, as a hash: see [`crate::document::Document::content`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The command that repeats it, with its seed, as one types it in a POSIX shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The version that is tested: a commit, a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The system that it ran on: `Linux 6.1.0-32-amd64 (x86_64)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Of which ramp it is a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<ramp::Step>,
}

/// A hypothesis or guard, as far as a verdict needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stated {
    /// What is claimed.
    pub name: String,
    /// The share of bad samples that is still steady.
    pub tolerate: Percent,
    /// In which parts of the run it is looked at; in all where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// What is claimed of a rate; `None` where single looks are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Terms>,
    /// After the fault it must hold again within this time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovers_within_ms: Option<u64>,
    /// How many requests or looks may fail before the run is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

impl Stated {
    /// Whether it is looked at in a part of the run.
    pub fn is_for(&self, when: When) -> bool {
        self.when.is_empty() || self.when.contains(&when)
    }
}

impl From<&Hypothesis> for Stated {
    fn from(hypothesis: &Hypothesis) -> Self {
        Stated {
            name: hypothesis.name.clone(),
            tolerate: hypothesis.expect.tolerate,
            when: hypothesis.when.clone(),
            rate: hypothesis.terms(),
            recovers_within_ms: hypothesis.recovers_within.map(Period::as_millis),
            budget: hypothesis.budget,
        }
    }
}

/// A sample of a hypothesis or a guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Which hypothesis or guard.
    pub name: String,
    /// Whether it is a guard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guard: bool,
    /// What it says something about.
    pub phase: Phase,
    /// Whether all expectations held.
    pub good: bool,
    /// Whether it says nothing about the system; see [`crate::probe::Sample::unclear`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclear: bool,
    /// When it was begun, in milliseconds since the run began.
    pub begun_ms: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What was seen: `200 in 3.1 ms`.
    pub seen: String,
    /// What the requests of a load came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

impl Seen {
    /// Whether it is a sample to judge by: a stretch of load that was cut off early only counts in sums, and a sample
    /// that says nothing only as such.
    pub fn is_whole(&self) -> bool {
        !self.unclear && !self.load.as_ref().is_some_and(|load| load.short)
    }
}

/// A change that is about to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// In words.
    pub what: String,
    /// Whether the host can be brought back to what it was.
    pub reversible: bool,
}
