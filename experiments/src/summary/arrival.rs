//! Order and timing of arrival change nothing: a log whose samples come in any order, late and divided among probers, adds up
//! to the same findings.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::{Claim, Regression, Summary};
use crate::distribution::Distribution;
use crate::muster::{Line, Muster, What};
use crate::run::Record;

const BOUNDS: [&str; 4] = [
    r#"[{ "errors": "5%" }, { "quantile": { "thousandths": 990, "within": "40ms" } }]"#,
    r#"[{ "errors-of-baseline": 1.5 }, { "throughput": "90%" }, "latency",
        { "quantile-of-baseline": { "thousandths": 900, "times": 1.2 } }]"#,
    r#"[{ "errors-of-control": 1.2 }, "latency-of-control"]"#,
    r#"[{ "quantile-of-control": { "thousandths": 900, "times": 1.2 } }]"#,
];

/// One group's requests of a second: 30 of them, around so many milliseconds.
fn group(random: &mut ChaCha12Rng, ms: u64) -> Value {
    let mut latency = Distribution::<7>::default();
    let mut slots = Vec::new();
    let mut failed = 0;
    for _ in 0..10 {
        let mut slow = 0;
        let mut bad = 0;
        for _ in 0..3 {
            if random.next_u32().is_multiple_of(25) {
                bad += 1;
                continue;
            }
            let took = Duration::from_millis(ms + u64::from(random.next_u32()) % (2 * ms));
            slow += u32::from(Distribution::<7>::is_beyond(took, Duration::from_millis(40)));
            latency.add(took);
        }
        failed += bad;
        slots.push(json!([3, bad, 0, 0, slow, 0]));
    }
    json!({
        "requests": 30, "errors": [{ "seen": "503", "times": failed }], "latency": latency, "late": [], "slots": slots
    })
}

/// Samples of a phase, second by second: a load of each kind of bound with its control group, and looks.
fn samples(random: &mut ChaCha12Rng, phase: &str, from: u64, seconds: u64, ms: u64) -> Vec<Value> {
    let mut all = Vec::new();
    for second in from..from + seconds {
        for (at, _) in BOUNDS.iter().enumerate() {
            let mut load = group(random, ms);
            load["control"] = group(random, 10);
            all.push(json!({
                "event": "sample", "name": format!("load {at}"), "phase": phase, "good": true, "begun_ms": second * 1000,
                "took_us": 1_000_000, "seen": "", "load": load
            }));
        }
        let good = !random.next_u32().is_multiple_of(4);
        all.push(json!({
            "event": "sample", "name": "look", "phase": phase, "good": good, "begun_ms": second * 1000 + 7,
            "took_us": 100 + random.next_u32() % 900, "seen": if good { "200 in 1 ms" } else { "503 in 1 ms" }
        }));
    }
    all
}

fn shuffle<T>(random: &mut ChaCha12Rng, items: &mut [T]) {
    for end in (1..items.len()).rev() {
        items.swap(end, random.next_u32() as usize % (end + 1));
    }
}

/// The events of a run on one host; `turn` alters the order of the samples of each phase, and `late` their arrival.
fn run(seed: u64, turn: Option<u64>) -> Vec<Value> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut phases = [
        samples(&mut random, "baseline", 0, 15, 10),
        samples(&mut random, "during", 15, 25, 10 + seed % 3 * 6),
        samples(&mut random, "recovery", 40, 20, 10),
    ];
    let mut late = ChaCha12Rng::seed_from_u64(turn.unwrap_or_default());
    if turn.is_some() {
        phases.iter_mut().for_each(|phase| shuffle(&mut late, phase));
    }
    let [before, during, after] = phases;
    let loads = BOUNDS.iter().enumerate().map(|(at, bounds)| {
        let bounds: Value = serde_json::from_str(bounds).unwrap();
        let rate =
            json!({ "bounds": bounds, "mode": if at == 0 { "robust" } else { "fast" }, "confidence": "95%" });
        json!({ "name": format!("load {at}"), "tolerate": "0%", "rate": rate, "recovers_within_ms": 60_000 })
    });
    let stated: Vec<Value> = loads.chain([json!({ "name": "look", "tolerate": "10%" })]).collect();
    let lifted = json!({ "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 });
    let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
    let fixed = |at_ms: u64, mut event: Value| {
        event["at_ms"] = at_ms.into();
        event
    };
    let mut log = vec![fixed(
        0,
        json!({
            "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 1,
            "version": "0", "agent": null, "planned_ms": 25_000, "guards": [], "hypotheses": stated
        }),
    )];
    let mut arrive = |log: &mut Vec<Value>, samples: Vec<Value>, from: u64, until: u64| {
        // When a sample is heard of is no part of what it says; only the log's own clock never goes back.
        let mut times: Vec<u64> = (0..samples.len() as u64)
            .map(|at| match turn {
                Some(_) => from + u64::from(late.next_u32()) % (until - from),
                None => from + at * (until - from) / samples.len() as u64,
            })
            .collect();
        times.sort_unstable();
        log.extend(samples.into_iter().zip(times).map(|(sample, at)| fixed(at, sample)));
    };
    arrive(&mut log, before, 0, 15_000);
    log.push(fixed(15_000, json!({ "event": "baseline-met" })));
    log.push(fixed(
        15_000,
        json!({ "event": "injecting", "part": 1, "name": "f", "changes": [], "lasts_ms": 25_000 }),
    ));
    log.push(fixed(15_000, json!({ "event": "injected", "part": 1, "applied": applied })));
    arrive(&mut log, during, 15_000, 40_000);
    log.push(fixed(40_000, json!({ "event": "lifted", "part": 1, "lifted": lifted, "why": null })));
    log.push(fixed(40_000, json!({ "event": "method-ended" })));
    log.push(fixed(40_000, json!({ "event": "lifted", "part": null, "lifted": lifted, "why": null })));
    log.push(fixed(40_000, json!({ "event": "recovery-began" })));
    arrive(&mut log, after, 40_000, 60_000);
    log.push(fixed(60_000, json!({ "event": "well-again", "after_ms": 1 })));
    log
}

fn records(log: &[Value]) -> Vec<Record> {
    log.iter().map(|event| serde_json::from_value(event.clone()).unwrap()).collect()
}

/// Everything that is said of the claims, and the sentence.
fn said(log: &[Record]) -> (Vec<Claim>, String) {
    let summary = Summary::of(log).unwrap();
    (summary.hypotheses, summary.sentence)
}

#[test]
fn order_and_timing_of_arrival_change_no_verdict_of_any_kind() {
    for seed in 0..3 {
        let straight = records(&run(seed, None));
        let expected = said(&straight);
        let found: Vec<usize> = expected.0.iter().map(|claim| claim.findings.len()).collect();
        assert_eq!(found, [2, 4, 2, 1, 0]);
        for turn in 1..4 {
            let turned = records(&run(seed, Some(turn)));
            assert_ne!(straight, turned);
            assert_eq!(said(&turned), expected, "seed {seed}, turn {turn}");
            let [one, other] = [&straight, &turned].map(|now| Regression::of(&straight, now).unwrap());
            assert_eq!(one, other, "seed {seed}, turn {turn}");
        }
    }
}

#[test]
fn how_the_hosts_of_a_fleet_come_in_between_each_other_changes_nothing() {
    let hosts = ["a", "b", "c"];
    let runs: Vec<Vec<Value>> = hosts.iter().zip(0..).map(|(_, seed)| run(seed, None)).collect();
    let log = |turn: Option<u64>| -> Vec<Line> {
        let mut random = ChaCha12Rng::seed_from_u64(turn.unwrap_or_default());
        let began = json!({
            "at_ms": 0, "fleet": "began", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p",
            "version": "0", "on_partial": "revert", "hosts": hosts
        });
        let mut left: Vec<_> = runs
            .iter()
            .zip(hosts)
            .map(|(run, host)| run.iter().map(move |event| (host, event.clone())).collect::<Vec<_>>())
            .map(|run| run.into_iter().peekable())
            .collect();
        let mut lines = vec![began];
        while left.iter_mut().any(|run| run.peek().is_some()) {
            let place = match turn {
                // The events of one host keep their order: its connection sees to that.
                Some(_) => random.next_u32() as usize % hosts.len(),
                None => left.iter_mut().position(|run| run.peek().is_some()).unwrap_or_default(),
            };
            if let Some((host, mut event)) = left[place].next() {
                event["host"] = host.into();
                lines.push(event);
            }
        }
        let numbered = (1u64..).zip(lines).map(|(seq, mut line)| {
            line["seq"] = seq.into();
            serde_json::from_value(line).unwrap()
        });
        numbered.collect()
    };
    let straight = log(None);
    let expected = Muster::of(&straight).unwrap();
    assert!(expected.hosts.iter().all(|on| on.summary.as_ref().is_some_and(|sum| sum.hypotheses.len() == 5)));
    let order = |lines: &[Line]| -> Vec<String> {
        let host = |line: &Line| match &line.what {
            What::OnHost { host, .. } => host.clone(),
            What::Fleet { .. } => String::new(),
        };
        lines.iter().map(host).collect()
    };
    for turn in 1..4 {
        let turned = log(Some(turn));
        assert_ne!(order(&straight), order(&turned));
        assert_eq!(Muster::of(&turned).unwrap(), expected, "turn {turn}");
    }
}
