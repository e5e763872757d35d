//! How often a rate that was well again in time is said to have been late: `recovers-within`, as a run says it.

use serde_json::{Value, json};
use squall_experiments::run::Record;
use squall_experiments::summary::Summary;
use squall_experiments::verdict::{After, Counts, Mode, Standing};

use super::{Chance, TOLERATED, Traffic, in_full, replicates};

/// Requests a second.
const RATE: f64 = 50.0;
/// How long the baseline and the fault are, and how long is watched at most after it, in seconds.
const PHASES: [u64; 3] = [60, 10, 60];
/// When it was well again after the fault, in seconds: exactly as late as it is claimed to be.
const WELL: u64 = 10;

/// The tenths of a second of a phase, by the share of bad requests in each.
fn drawn(chance: &mut Chance, seconds: u64, share: impl Fn(u64) -> f64) -> Vec<(u64, u64)> {
    (0..seconds * 10).map(|slot| Traffic::new(RATE / 10.0, share(slot)).draw(chance)).collect()
}

fn samples(log: &mut Vec<Value>, phase: &str, from_s: u64, slots: &[(u64, u64)]) {
    for (at, second) in (from_s..).zip(slots.chunks(10)) {
        let (all, bad) = second.iter().fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1));
        log.push(json!({
            "at_ms": (at + 1) * 1000, "event": "sample", "name": "a", "phase": phase, "good": bad == 0,
            "begun_ms": at * 1000, "took_us": 1, "seen": "", "load": {
                "requests": all, "errors": [{ "seen": "503", "times": bad }], "latency": [[1_000_000, all - bad]],
                "late": [], "slots": slots_of(second)
            }
        }));
    }
}

fn slots_of(second: &[(u64, u64)]) -> Vec<[u64; 2]> {
    second.iter().map(|(all, bad)| [*all, *bad]).collect()
}

/// Whether the run says that it was not well again in time, and whether it says that it is not known.
fn late(chance: &mut Chance, usual: f64, mode: Mode, share: impl Fn(u64) -> f64) -> (bool, bool) {
    let [baseline, fault, most] = PHASES;
    let before = drawn(chance, baseline, |_| usual);
    let during = drawn(chance, fault, |_| share(0));
    let mut after = drawn(chance, most, share);
    let all_of_baseline = before.iter().fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1));
    let asked = After {
        tolerated: TOLERATED,
        usual: all_of_baseline.1 as f64 / all_of_baseline.0 as f64,
        mode,
        alpha: 0.05,
        alpha_unwell: 0.05,
    };
    let standing = |slots: &[(u64, u64)], over| {
        let mut counts = Counts::default();
        (0..).step_by(100).zip(slots).for_each(|(at, (all, bad))| counts.add(at, *all, *bad));
        asked.standing(&counts, over)
    };
    // A run asks at every sample, and ends as soon as it is shown.
    let shown = (1..=most).find(|second| {
        matches!(standing(&after[..*second as usize * 10], *second == most), Standing::Well(_))
    });
    let said = match shown {
        Some(second) => {
            after.truncate(second as usize * 10);
            json!({ "event": "well-again", "after_ms": 1 })
        }
        None if standing(&after, true) == Standing::Unwell => {
            json!({ "event": "not-recovered", "names": ["a"], "unshown": [] })
        }
        None => json!({ "event": "not-recovered", "names": [], "unshown": ["a"] }),
    };
    let mut log = vec![json!({
        "at_ms": 0, "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p",
        "faults": 1, "version": "0", "agent": null, "planned_ms": fault * 1000, "guards": [], "hypotheses": [{
            "name": "a", "tolerate": "0%", "recovers_within_ms": WELL * 1000,
            "rate": { "bounds": [{ "errors": "1%" }], "mode": mode, "confidence": "95%" }
        }]
    })];
    samples(&mut log, "baseline", 0, &before);
    let (from, to) = (baseline * 1000, (baseline + fault) * 1000);
    log.push(json!({ "at_ms": from, "event": "baseline-met" }));
    log.push(
        json!({ "at_ms": from, "event": "injecting", "part": 1, "name": "f", "changes": [], "lasts_ms": 1 }),
    );
    let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
    log.push(json!({ "at_ms": from, "event": "injected", "part": 1, "applied": applied }));
    samples(&mut log, "during", baseline, &during);
    let lifted = json!({ "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 });
    log.push(json!({ "at_ms": to, "event": "lifted", "part": 1, "lifted": lifted, "why": null }));
    log.push(json!({ "at_ms": to, "event": "method-ended" }));
    log.push(json!({ "at_ms": to, "event": "lifted", "part": null, "lifted": lifted, "why": null }));
    log.push(json!({ "at_ms": to, "event": "recovery-began" }));
    samples(&mut log, "recovery", baseline + fault, &after);
    let mut said = said;
    said["at_ms"] = json!((baseline + fault + most) * 1000);
    log.push(said);
    let log: Vec<Record> =
        log.into_iter().map(|event| serde_json::from_value(event).expect("an event")).collect();
    let summary = Summary::of(&log).expect("a summary");
    let says = |what: &str| summary.reasons.iter().any(|reason| reason.what.contains(what));
    (says("not within"), says("was not shown to hold again"))
}

#[test]
fn what_was_well_again_in_time_is_rarely_said_to_be_late() {
    // What fails until then, and what fails afterwards and before the fault.
    for (seed, broken, usual) in [
        (80, 1.0, 0.0),
        (81, 1.0, 0.001),
        (82, 1.0, 0.005),
        (83, 0.2, 0.001),
        (84, 0.2, 0.005),
        (85, 0.05, 0.001),
        (86, 1.0, TOLERATED),
    ] {
        for mode in [Mode::Fast, Mode::Robust] {
            let many = replicates() / 2;
            let ends: Vec<(bool, bool)> = (0..many as u64)
                .map(|replicate| {
                    let mut chance = Chance::new(seed * 1_000_003 + replicate);
                    late(&mut chance, usual, mode, |slot| if slot < WELL * 10 { broken } else { usual })
                })
                .collect();
            let of = |pick: fn(&(bool, bool)) -> bool| {
                ends.iter().filter(|end| pick(end)).count() as f64 / many as f64
            };
            let (late, unshown) = (of(|end| end.0), of(|end| end.1));
            println!(
                "{broken} bad until the limit, {usual} after it, {mode:?}: {late:.4} late, {unshown:.4} not shown"
            );
            assert!(late <= if in_full() { 0.05 } else { 0.08 }, "{broken} {usual} {mode:?}: {late}");
        }
    }
}

#[test]
fn what_was_late_is_said_to_be_late() {
    // What fails for so many seconds more than it may, and in how many runs that must be said at least.
    for (seed, broken, more, least) in [(90, 1.0, 1, 0.95), (91, 0.2, 3, 0.95), (92, 0.05, 20, 0.8)] {
        let many = replicates() / 4;
        let said = (0..many as u64).filter(|replicate| {
            let mut chance = Chance::new(seed * 1_000_003 + replicate);
            let until = (WELL + more) * 10;
            late(&mut chance, 0.001, Mode::Robust, |slot| if slot < until { broken } else { 0.001 }).0
        });
        let share = said.count() as f64 / many as f64;
        println!("{broken} bad until {more} s after the limit: {share:.4} said to be late");
        assert!(share >= least, "{broken} {more}: {share}");
    }
}
