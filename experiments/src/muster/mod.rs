//! One run over several hosts: its log, and what it adds up to.
//!
//! Each host has a run of its own, with the events of any run; a log of all of them holds each event with its host, and
//! beside them what concerns all. The lines of one host, taken alone, are the event file of its run.

mod head;
mod merge;
mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::protocol::RunId;
use crate::run::Record;
use crate::suite::{Ran, Subject, Suite, Tested};
use crate::summary::{Summary, seconds};
use crate::targets::OnPartial;

pub use head::{Head, NoHead, Published};
pub use words::own_stop;

/// One line of the log of a run over several hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// From 1, without gaps, in the order in which the controller heard of it. Events of one host keep their order.
    pub seq: u64,
    /// What it is about.
    #[serde(flatten)]
    pub what: What,
}

/// What a line is about. Times count from the beginning of the run, the same for all hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// An event of the run on one host.
    OnHost {
        /// The host.
        host: String,
        /// The event.
        #[serde(flatten)]
        record: Record,
    },
    /// Something that concerns all.
    Fleet {
        /// Milliseconds since the run began.
        at_ms: u64,
        /// What happened.
        #[serde(flatten)]
        event: FleetEvent,
    },
}

/// What concerns all hosts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fleet", rename_all = "kebab-case")]
pub enum FleetEvent {
    /// The first line of every log.
    Began(Began),
    /// All hosts that take part were ready, and went on together.
    Passed {
        /// Beyond what: `the baseline`, `step 1`, `the method`.
        gate: String,
        /// How many hosts.
        hosts: u32,
    },
    /// One host stopped, and all others revert.
    CalledOff {
        /// The host that stopped.
        host: String,
        /// What the others are told: they are interrupted by this.
        why: String,
    },
    /// One host stopped, and the others go on without it.
    LeftOut {
        /// The host that stopped.
        host: String,
        /// Why.
        why: String,
    },
    /// A person, a signal or a halt stopped the run on all hosts.
    Interrupted {
        /// Who or what.
        by: String,
    },
    /// The last line.
    Finished {
        /// The exit code.
        exit: Exit,
        /// The closing sentence.
        sentence: String,
        /// The end of the controller's audit log, when this was kept; `None` of a controller that did not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audit: Option<Head>,
    },
}

/// Where and what a run over several hosts is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Began {
    /// Its name, the same on all hosts.
    pub run: RunId,
    /// The experiment's title.
    pub title: String,
    /// Wall-clock time of the controller, RFC 3339 in UTC.
    pub date: String,
    /// The same to the millisecond, since 1970; `None` in a log that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The seed of every choice, that of the hosts too.
    pub seed: u64,
    /// The hash of the plan of all hosts.
    pub plan: String,
    /// Which squall.
    pub version: String,
    /// What becomes of the others when one host cannot take part.
    pub on_partial: OnPartial,
    /// The hosts that were chosen.
    pub hosts: BTreeSet<String>,
    /// Those that matched and were not connected.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unconnected: BTreeSet<String>,
    /// Of a run in stages: the hosts that have the fault in each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<BTreeSet<String>>,
}

/// What became of a run over several hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Muster {
    /// Where and what it is.
    #[serde(flatten)]
    pub began: Began,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What the exit code means.
    pub verdict: String,
    /// The most serious exit code of all hosts: see [`Exit::worse`]. A host that reverted because of another one counts only
    /// with what it found itself: a deviation, or something that could not be undone.
    pub exit: Exit,
    /// The closing sentence.
    pub sentence: String,
    /// Why all were stopped, where they were.
    pub stopped: Option<String>,
    /// How far a run in stages came; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown: Option<Grown>,
    /// How far apart the hosts were, for each fault that several of them had.
    pub starts: Vec<Start>,
    /// The hosts, in order of their names.
    pub hosts: Vec<OnHost>,
    /// The end of the controller's audit log when the run had ended: `squall audit verify --head` says whether it is still in
    /// the log. `None` of a run that was cut off, or of a controller that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Head>,
}

/// How far a run in stages came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// How many hosts each stage has.
    pub sizes: Vec<u32>,
    /// The last stage that began, from 1; 0 where none did.
    pub reached: u32,
    /// Whether the system gave way in it.
    pub gave_way: bool,
}

/// How far apart the hosts of one fault were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The part's number.
    pub part: u32,
    /// What the report calls it.
    pub name: String,
    /// On how many hosts it was injected.
    pub hosts: u32,
    /// Milliseconds from the first host that was told to inject to the last, by the controller's clock.
    pub asked_ms: u64,
    /// Milliseconds from the first host whose agent said that it is there to the last, by the controller's clock: it holds how
    /// long each took, and the way of its answer.
    pub injected_ms: u64,
    /// Microseconds from the first host on which it was in force to the last, by the hosts' own clocks; `None` where one of
    /// them does not tell its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_us: Option<u64>,
    /// No clock was further off than so many microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_us: Option<u64>,
    /// How many hosts were told after the instant at which all were to begin.
    #[serde(default)]
    pub late: u32,
}

/// What a host had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnHost {
    /// The host.
    pub host: String,
    /// Its exit code, as far as it counts: see [`Muster::exit`].
    pub exit: Exit,
    /// In a few words: `held`, `reverted because of another host`.
    pub verdict: String,
    /// What became of its run; `None` where nothing was heard of it.
    pub summary: Option<Summary>,
}

impl Muster {
    /// The same of a log that ends before the run did: what would have come is not known, so that nothing is said to have held.
    #[must_use]
    pub fn cut_off(mut self) -> Muster {
        let exit = self.exit.worse(Exit::Inconclusive);
        if exit != self.exit {
            let after = seconds(self.took_ms);
            self.sentence = format!("inconclusive: the run was cut off after {after}, before its last event");
            self.verdict = exit.meaning().to_owned();
            self.exit = exit;
        }
        self
    }

    /// The hosts as a suite, for reports that know no fleet: each is an experiment of its own, with its one run.
    pub fn as_suite(&self) -> Suite {
        let tested = |on: &OnHost| Tested {
            subject: Subject {
                title: format!("{} on {}", self.began.title, on.host),
                weight: 1,
                ..Subject::default()
            },
            repeats: 1,
            verdict: on.verdict.clone(),
            exit: on.summary.as_ref().map(|summary| summary.exit.worse(on.exit)),
            sentence: on.summary.as_ref().map_or_else(String::new, |summary| summary.sentence.clone()),
            runs: (on.summary.iter().cloned())
                .map(|summary| Ran { summary, events: None, may_be_chance: false })
                .collect(),
            story: None,
        };
        Suite {
            date: self.began.date.clone(),
            took_ms: self.took_ms,
            verdict: self.verdict.clone(),
            exit: self.exit,
            sentence: self.sentence.clone(),
            score: None,
            experiments: self.hosts.iter().map(tested).collect(),
            ramp: None,
            audit: self.audit.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
