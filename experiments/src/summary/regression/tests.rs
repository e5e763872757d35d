use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::summary::Summary;

/// A run of 50 requests a second: ten seconds before a fault of `during` seconds, in which each tenth of a second has so
/// many bad requests of five and answers take so long, and thirty after it, of which the first `ill` fail entirely.
#[derive(Clone, Copy)]
struct Told<'a> {
    run: &'a str,
    title: &'a str,
    content: Option<&'a str>,
    mode: &'a str,
    during: u64,
    ill: u64,
}

const TOLD: Told<'_> = Told { run: "earlier", title: "t", content: None, mode: "fast", during: 30, ill: 3 };

impl Told<'_> {
    fn log(&self, mut bad: impl FnMut() -> u64, mut micros: impl FnMut() -> u64) -> Vec<Record> {
        let mut second = |phase: &str, begun_ms: u64, ill: bool| {
            let tenths: Vec<u64> = (0..10)
                .map(|_| match phase {
                    "during" => bad(),
                    _ => u64::from(ill) * 5,
                })
                .collect();
            let failed: u64 = tenths.iter().sum();
            let mut latency = crate::distribution::Distribution::<7>::default();
            (failed..50).for_each(|_| latency.add(std::time::Duration::from_micros(micros())));
            let slots: Vec<[u64; 2]> = tenths.iter().map(|bad| [5, *bad]).collect();
            json!({
                "event": "sample", "name": "a", "phase": phase, "good": failed == 0, "begun_ms": begun_ms,
                "took_us": 1_000_000, "seen": "", "load": {
                    "requests": 50, "errors": [{ "seen": "503", "times": failed }], "latency": latency, "late": [],
                    "slots": slots
                }
            })
        };
        let end = 10 + self.during;
        let mut events = vec![json!({
            "event": "started", "run": self.run, "title": self.title, "date": "2026-11-21T10:51:12Z", "seed": 1,
            "plan": "p", "faults": 1, "version": "0", "agent": null, "planned_ms": self.during * 1000, "guards": [],
            "origin": { "content": self.content }, "hypotheses": [{
                "name": "a", "tolerate": "0%",
                "rate": { "bounds": [{ "errors": "50%" }], "mode": self.mode, "confidence": "95%" }
            }]
        })];
        events.extend((0..10).map(|at| second("baseline", at * 1000, false)));
        events.push(json!({ "event": "baseline-met" }));
        events
            .push(json!({ "event": "injecting", "part": 1, "name": "f", "changes": [], "lasts_ms": 10_000 }));
        let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
        events.push(json!({ "event": "injected", "part": 1, "applied": applied }));
        events.extend((10..end).map(|at| second("during", at * 1000, false)));
        let lifted = json!({ "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 });
        events.push(json!({ "event": "lifted", "part": 1, "lifted": lifted, "why": null }));
        events.push(json!({ "event": "method-ended" }));
        events.push(json!({ "event": "lifted", "part": null, "lifted": lifted, "why": null }));
        events.push(json!({ "event": "recovery-began" }));
        events.extend((end..end + 30).map(|at| second("recovery", at * 1000, at < end + self.ill)));
        events.push(json!({ "event": "well-again", "after_ms": 1 }));
        events.push(json!({ "event": "finished", "exit": 0, "sentence": "held" }));
        let mut at_ms = 0;
        let timed = events.into_iter().map(|mut event: Value| {
            at_ms = event["begun_ms"].as_u64().map_or(at_ms, |begun| begun + 1000).max(at_ms);
            event["at_ms"] = json!(at_ms);
            serde_json::from_value(event).unwrap()
        });
        timed.collect()
    }

    /// With the same in every second.
    fn even(&self, bad: u64, micros: u64) -> Vec<Record> {
        self.log(|| bad, || micros)
    }
}

fn trends(regression: &Regression) -> Vec<(Aspect, Trend)> {
    regression.comparisons.iter().map(|compared| (compared.aspect, compared.trend)).collect()
}

#[test]
fn a_run_like_the_earlier_one_is_no_worse() {
    let log = TOLD.even(0, 1000);
    let regression = Regression::of(&log, &log).unwrap();
    let expected = [
        (Aspect::Errors, Trend::Noise),
        (Aspect::Latency, Trend::NoWorse),
        (Aspect::Recovery, Trend::NoWorse),
    ];
    assert_eq!(trends(&regression)[1..], expected[1..], "{regression:#?}");
    assert_ne!(trends(&regression)[0].1, Trend::Worse);
    let summary = Summary::of(&log).unwrap();
    let compared = summary.clone().compared(regression);
    assert_eq!((compared.exit, &compared.sentence), (summary.exit, &summary.sentence));
    let other = Told { run: "now", ..TOLD }.even(1, 1000);
    let same = Regression::of(&other, &other).unwrap();
    assert_eq!(trends(&same)[0], (Aspect::Errors, Trend::NoWorse), "{same:#?}");
}

#[test]
fn more_errors_are_worse_and_the_run_has_deviated() {
    let (earlier, now) = (TOLD.even(0, 1000), Told { run: "now", ..TOLD }.even(1, 1000));
    let summary = Summary::of(&now).unwrap();
    let regression = Regression::of(&earlier, &now).unwrap();
    assert_eq!(trends(&regression)[0], (Aspect::Errors, Trend::Worse), "{regression:#?}");
    assert_eq!(regression.run.0, "earlier");
    let compared = summary.compared(regression);
    assert_eq!((compared.exit, compared.verdict.as_str()), (Exit::Deviated, "deviated"));
    let expected = "deviated: `a`: errors worse than in the run of 2026-11-21T10:51:12Z: 20 % were bad, 0 % then, \
                    at most 0.31 % is no worse; sure after 1.0 s; everything was undone";
    assert_eq!(compared.sentence, expected);
    // The other way round it is better.
    let better = Regression::of(&now, &earlier).unwrap();
    assert_eq!(trends(&better)[0], (Aspect::Errors, Trend::NoWorse));
}

#[test]
fn slower_answers_are_worse() {
    let (earlier, now) = (TOLD.even(0, 1000), Told { run: "now", ..TOLD }.even(0, 2000));
    let regression = Regression::of(&earlier, &now).unwrap();
    assert_eq!(trends(&regression)[1], (Aspect::Latency, Trend::Worse), "{regression:#?}");
    assert_eq!(regression.comparisons[1].earlier, "p50 1.0 ms, p99 1.0 ms");
    assert_eq!(trends(&Regression::of(&now, &earlier).unwrap())[1], (Aspect::Latency, Trend::NoWorse));
}

#[test]
fn a_later_recovery_is_worse() {
    let late = Told { run: "now", ill: 12, ..TOLD }.even(0, 1000);
    let regression = Regression::of(&TOLD.even(0, 1000), &late).unwrap();
    assert_eq!(trends(&regression)[2], (Aspect::Recovery, Trend::Worse), "{regression:#?}");
}

#[test]
fn an_outage_that_the_earlier_run_had_too_is_no_regression() {
    for bad in [4, 5] {
        let log = TOLD.even(bad, 1000);
        let regression = Regression::of(&log, &log).unwrap();
        assert!(regression.worse().next().is_none(), "{regression:#?}");
    }
}

#[test]
fn only_runs_of_the_same_experiment_are_compared() {
    let of =
        |earlier: &[Record], now: &[Record]| Regression::of(earlier, now).map(drop).unwrap_err().to_string();
    let log = TOLD.even(0, 1000);
    let named = Told { title: "u", ..TOLD }.even(0, 1000);
    assert_eq!(of(&log, &named), "it is a run of another experiment: `t`, and not `u`");
    let robust = Told { mode: "robust", ..TOLD }.even(0, 1000);
    assert_eq!(of(&log, &robust), "it is a run of another experiment: `t` claimed something else then");
    let of_content = |content| Told { content: Some(content), ..TOLD }.even(0, 1000);
    let changed = "it is a run of another experiment: `t` was changed since, or had other variables";
    assert_eq!(of(&of_content("a"), &of_content("b")), changed);
    let renamed = Told { title: "u", content: Some("a"), ..TOLD }.even(0, 1000);
    assert!(Regression::of(&of_content("a"), &renamed).is_ok(), "the same file under another title");
    assert_eq!(of(&[], &log), "it does not begin with the begin of a run");
    assert_eq!(of(&log[..12], &log), "nothing was looked at in it while a fault was live");
}

/// Of 200 such pairs none is told apart (it takes half a minute); as many as CI has time for, with a fixed seed.
#[test]
fn equal_runs_are_rarely_told_apart() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut worse = 0;
    for _ in 0..16 {
        let share = random.random_range(0.0..0.3);
        let ill = random.random_range(0..8);
        let mut run = |run| {
            let ill = ill + u64::from(random.random_bool(0.5));
            let mut other = ChaCha8Rng::seed_from_u64(random.random());
            let mut times = ChaCha8Rng::seed_from_u64(random.random());
            let bad = || (0..5).map(|_| u64::from(other.random_bool(share))).sum();
            Told { run, ill, ..TOLD }.log(bad, || times.random_range(800..3000))
        };
        let (earlier, now) = (run("earlier"), run("now"));
        worse += usize::from(Regression::of(&earlier, &now).unwrap().worse().next().is_some());
    }
    // 5 % of 16 are 0.8; four have a chance of 1 %.
    assert!(worse < 4, "{worse} of 16");
}
