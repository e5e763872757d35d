use serde_json::{Value, json};

use super::*;

/// The first event of a run with one load that allows 1 % of errors.
fn started() -> Value {
    json!({
        "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 1,
        "version": "0", "agent": null, "guards": [{ "name": "site", "tolerate": "0%" }], "hypotheses": [{
            "name": "a", "tolerate": "0%",
            "rate": { "bounds": [{ "errors": "1%" }], "mode": "fast", "confidence": "90%" }
        }]
    })
}

/// A second of load: five requests in each tenth of it, of which so many fail.
fn second(phase: &str, begun_ms: u64, failed: u64) -> Value {
    let slots: Vec<[u64; 2]> = (0..10).map(|_| [5, failed]).collect();
    json!({
        "event": "sample", "name": "a", "phase": phase, "good": failed == 0, "begun_ms": begun_ms, "took_us": 1_000_000,
        "seen": "", "load": {
            "requests": 50, "errors": [{ "seen": "503", "times": failed * 10 }],
            "latency": [[1_003_519, 50 - failed * 10]], "late": [], "slots": slots
        }
    })
}

fn log(events: Vec<Value>) -> Vec<Record> {
    let mut at_ms = 0;
    let timed = events.into_iter().map(|mut event| {
        at_ms = event["begun_ms"].as_u64().map_or(at_ms, |begun| begun + 1000).max(at_ms);
        event["at_ms"] = json!(at_ms);
        serde_json::from_value(event).unwrap()
    });
    timed.collect()
}

/// Ten seconds before a fault that begins at 10.3 s, and `seconds` with it, of which each tenth request fails.
fn run(seconds: u64) -> Vec<Record> {
    let mut events = vec![started()];
    events.extend((0..10).map(|at| second("baseline", 300 + at * 1000, 0)));
    let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
    events.push(json!({ "event": "injected", "part": 1, "applied": applied, "begun_ms": 9300 }));
    events.extend((0..seconds).map(|at| second("during", 10_300 + at * 1000, 1)));
    log(events)
}

#[test]
fn a_window_begins_with_the_first_fault_and_nothing_is_counted_twice() {
    let curve = &curves(&run(20))[0];
    assert_eq!((curve.window_ms, curve.load, curve.guard), (1000, true, false));
    assert!(curve.windows.iter().any(|window| window.from_ms == 10_300), "{curve:#?}");
    let total = |windows: &[Window]| -> (u64, u64) {
        windows.iter().fold((0, 0), |sum, window| (sum.0 + window.all, sum.1 + window.bad))
    };
    assert_eq!(total(&curve.windows), (1500, 200));
    let before = curve.windows.iter().filter(|window| window.to_ms <= 10_300);
    assert!(before.clone().count() >= 5 && before.clone().all(|window| window.bad == 0), "{curve:#?}");
    assert!(curve.windows.is_sorted_by_key(|window| window.from_ms));
    let phases: Vec<(Phase, u64, u64)> =
        curve.phases.iter().map(|(phase, sum)| (*phase, sum.all, sum.bad)).collect();
    assert_eq!(phases, [(Phase::Baseline, 500, 0), (Phase::During, 1000, 200)]);
}

#[test]
fn the_bands_are_the_intervals_of_the_verdict() {
    let curve = &curves(&run(20))[0];
    for window in &curve.windows {
        // Of the confidence that the file asks for.
        assert_eq!(window.low, lower_share(window.all, window.bad, 0.05));
        assert_eq!(window.high, upper_share(window.all, window.bad, 0.05));
        assert!(window.low <= window.share() && window.share() <= window.high);
    }
    let during = &curve.phases[1].1;
    assert_eq!((during.low, during.high), anytime_share(1000, 200, 0.1));
}

#[test]
fn a_quantile_among_the_failed_has_no_time() {
    let curve = &curves(&run(20))[0];
    let (before, during) = (curve.phases[0].1.latency.unwrap(), curve.phases[1].1.latency.unwrap());
    let millisecond = Some(Duration::from_nanos(1_003_519));
    assert_eq!((before.p50.time, before.p99.time), (millisecond, millisecond));
    assert_eq!((during.p50.time, during.p99.time), (millisecond, None), "a fifth failed");
    assert_eq!((before.p50.low, before.p50.high), (millisecond, millisecond));
    assert_eq!(before.p99.high, millisecond);
    assert_eq!(curve.windows[2].latency.unwrap().p99.high, None, "50 requests do not bound p99");
}

#[test]
fn a_long_run_has_longer_windows_and_not_more() {
    for seconds in [1, 60, 600, 5000] {
        let log = run(seconds);
        let curve = &curves(&log)[0];
        assert!(curve.windows.len() as u64 <= MOST + 2, "{seconds}: {}", curve.windows.len());
        let all: u64 = curve.windows.iter().map(|window| window.all).sum();
        assert_eq!(all, 500 + seconds * 50);
    }
}

#[test]
fn looks_are_windows_of_their_own_and_those_that_say_nothing_are_apart() {
    let look = |begun: u64, good: bool, unclear: bool| {
        json!({
            "event": "sample", "name": "site", "guard": true, "phase": "during", "good": good, "unclear": unclear,
            "begun_ms": begun, "took_us": 2000, "seen": "200"
        })
    };
    let mut events = vec![started()];
    events.extend((0..30).map(|at| look(at * 1000, at % 10 != 3, at == 5)));
    let curves = curves(&log(events));
    assert!(curves[0].windows.is_empty(), "nobody looked at it");
    let guard = &curves[1];
    assert_eq!((guard.guard, guard.load, guard.window_ms), (true, false, 1000));
    let sum = &guard.phases[0].1;
    assert_eq!((sum.all, sum.bad, sum.unclear), (29, 3, 1));
}

#[test]
fn a_log_without_a_begin_has_no_curves() {
    assert_eq!(curves(&run(20)[1..]), []);
    assert_eq!(curves(&[]), []);
}
