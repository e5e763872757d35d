//! The events of a run that never was, as a run writes them, and what is said of it.

use std::time::Duration;

use serde_json::{Value, json};
use squall_experiments::distribution::Distribution;
use squall_experiments::run::Record;
use squall_experiments::summary::Summary;

use super::{Chance, Traffic};

/// What a load got in a second.
#[derive(Default)]
pub struct Second {
    /// How long the good answers took.
    pub latency: Distribution,
    /// Requests without the expected answer.
    pub bad: u64,
}

impl Second {
    /// So many of them with bad requests by chance, and answers that all take the same.
    pub fn shared(chance: &mut Chance, traffic: &Traffic, many: usize) -> Vec<Second> {
        let mut second = || {
            let (all, bad) = traffic.draw(chance);
            let mut latency = Distribution::default();
            (bad..all).for_each(|_| latency.add(Duration::from_millis(1)));
            Second { latency, bad }
        };
        (0..many).map(|_| second()).collect()
    }
}

/// The summary of a run with one claim: what was asked of it, and each second of its baseline and of its fault.
pub fn summary(bound: &Value, mode: &str, baseline: &[Second], during: &[Second]) -> Summary {
    let planned_ms = during.len() * 1000;
    let begins_ms = baseline.len() * 1000;
    let mut log = vec![json!({
        "at_ms": 0, "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p",
        "faults": 0, "version": "0", "agent": null, "planned_ms": planned_ms, "guards": [], "hypotheses": [{
            "name": "a", "tolerate": "0%", "rate": { "bounds": [bound], "mode": mode, "confidence": "95%" }
        }]
    })];
    log.extend((0..).zip(baseline).map(|(at, second)| sample("baseline", at, second)));
    log.push(json!({ "at_ms": begins_ms, "event": "baseline-met" }));
    log.extend((baseline.len() as u64..).zip(during).map(|(at, second)| sample("during", at, second)));
    log.push(json!({ "at_ms": begins_ms + planned_ms, "event": "method-ended" }));
    let log: Vec<Record> =
        log.into_iter().map(|event| serde_json::from_value(event).expect("an event")).collect();
    Summary::of(&log).expect("a summary")
}

fn sample(phase: &str, second: u64, got: &Second) -> Value {
    let all = got.latency.total() + got.bad;
    json!({
        "at_ms": (second + 1) * 1000, "event": "sample", "name": "a", "phase": phase, "good": got.bad == 0,
        "begun_ms": second * 1000, "took_us": 1, "seen": "", "load": {
            "requests": all, "errors": [{ "seen": "503", "times": got.bad }], "latency": got.latency,
            "late": [], "slots": [[all, got.bad]]
        }
    })
}
