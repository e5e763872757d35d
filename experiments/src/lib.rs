//! The model of Squall: pure data and arithmetic, no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`experiment`] | the document that a user writes |
//! | [`document`] | from text to an experiment, with every problem of it |
//! | [`name`] | names of things that a controller keeps |
//! | [`quantity`] | values with units: periods, percentages, shares |
//! | [`fleet`] | what a controller and the hosts of its fleet say to each other |
//! | [`peer`], [`flow`] | whose traffic a fault concerns |
//! | [`url`] | the parts of an HTTP address |
//! | [`scope`] | whose processes and sockets a fault concerns |
//! | [`stages`] | over how many hosts a fault grows |
//! | [`targets`] | which hosts of a fleet, and what each of them does |
//! | [`probe`] | how the steady state is looked at, and what is expected |
//! | [`distribution`] | many latencies, counted in buckets |
//! | [`ramp`] | one parameter harder from run to run, until the system gives way |
//! | [`faults`] | what a user asks for, one file per fault |
//! | [`change`] | what is done to one host: a short, closed list |
//! | [`plan`] | what a run would do, and its hash |
//! | [`impairment`] | what a bad network does to packets |
//! | [`ailment`] | what a dependency does wrong to connections |
//! | [`protocol`] | what a conductor and an agent say to each other |
//! | [`evidence`] | what was measured of a change |
//! | [`witness`] | whether a fault is felt, by probes and connections |
//! | [`run`] | one execution: its events, and the one state machine over them |
//! | [`guard`] | what stops a run while it goes on |
//! | [`verdict`] | tallies of samples, and what they say |
//! | [`summary`] | what a run's events add up to |
//! | [`curve`] | how a claim went over time, for whoever draws it |
//! | [`muster`] | one run over several hosts: its log, and what it adds up to |
//! | [`schedule`] | when experiments run: by cron, once, or at random within bounds |
//! | [`gameday`] | several runs with people watching: the document, what happened, what was measured |
//! | [`suite`] | several experiments, repeated or not, as one gate: verdict, score, history |
//! | [`exit`] | the exit codes of every squall command |

pub mod ailment;
pub mod change;
pub mod curve;
#[cfg(test)]
mod decoding;
pub mod distribution;
pub mod document;
pub mod evidence;
pub mod exit;
pub mod experiment;
pub mod faults;
pub mod fleet;
pub mod flow;
pub mod gameday;
pub mod guard;
pub mod impairment;
pub mod limits;
pub mod mandate;
pub mod meeting;
pub mod muster;
pub mod name;
pub mod peer;
pub mod plan;
pub mod probe;
pub mod protocol;
pub mod quantity;
pub mod ramp;
pub mod run;
pub mod schedule;
pub mod scope;
pub mod stages;
pub mod suite;
pub mod summary;
pub mod targets;
pub mod url;
pub mod verdict;
pub mod witness;
