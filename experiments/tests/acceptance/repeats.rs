//! The error over the repeats of an experiment, from events to the verdict over all of them.

use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::run::Record;
use squall_experiments::suite::{Subject, Tested};
use squall_experiments::summary::Summary;

use super::{Chance, TOLERATED, Traffic, in_full, replicates};

/// How often each experiment is run.
const RUNS: u32 = 10;
/// How long each run is, in seconds.
const LASTS: u64 = 60;

/// A run in which exactly as many of 50 requests a second are bad as is tolerated.
fn run(chance: &mut Chance) -> Summary {
    let traffic = Traffic::new(50.0, TOLERATED);
    let mut log = vec![
        json!({
            "at_ms": 0, "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p",
            "faults": 0, "version": "0", "agent": null, "planned_ms": LASTS * 1000, "guards": [], "hypotheses": [{
                "name": "a", "tolerate": "0%",
                "rate": { "bounds": [{ "errors": "1%" }], "mode": "fast", "confidence": "95%" }
            }]
        }),
        json!({ "at_ms": 0, "event": "baseline-met" }),
    ];
    log.extend((0..LASTS).map(|second| sample(second * 1000, traffic.draw(chance))));
    log.push(json!({ "at_ms": LASTS * 1000, "event": "method-ended" }));
    let log: Vec<Record> =
        log.into_iter().map(|event| serde_json::from_value(event).expect("an event")).collect();
    Summary::of(&log).expect("a summary")
}

fn sample(begun_ms: u64, (all, bad): (u64, u64)) -> Value {
    json!({
        "at_ms": begun_ms + 1000, "event": "sample", "name": "a", "phase": "during", "good": bad == 0,
        "begun_ms": begun_ms, "took_us": 1, "seen": "", "load": {
            "requests": all, "errors": [{ "seen": "503", "times": bad }], "latency": [[1_000_000, all - bad]],
            "late": [], "slots": [[all, bad]]
        }
    })
}

#[test]
fn many_runs_at_the_tolerance_deviate_no_more_often_than_one() {
    let many = replicates() / 4;
    let (mut deviated, mut uncorrected, mut held) = (0, 0, 0);
    for replicate in 0..many as u64 {
        let mut chance = Chance::new(70_000_009 + replicate);
        let runs: Vec<(Summary, Option<String>)> = (0..RUNS).map(|_| (run(&mut chance), None)).collect();
        uncorrected += usize::from(runs.iter().any(|(summary, _)| summary.exit == Exit::Deviated));
        let tested = Tested::of(Subject::default(), RUNS, runs);
        deviated += usize::from(tested.exit == Some(Exit::Deviated));
        held += usize::from(tested.exit == Some(Exit::Held));
    }
    println!(
        "{RUNS} runs at the tolerance, {many} times: {deviated} deviated, {uncorrected} without correction, {held} held"
    );
    assert!(deviated * 20 <= many && held * 20 <= many, "{deviated} deviated, {held} held of {many}");
    // That the correction is needed is seen only in many.
    assert!(!in_full() || uncorrected > 2 * deviated, "{uncorrected} {deviated}");
}
