//! What is measured: of a step, of a day, of days, and of the log of a run.

use serde_json::{Value, json};

use super::*;
use crate::muster::Line;

/// A day whose first run deviated from 10 s on, with marks so many milliseconds later.
fn marked(marks: &[(Mark, u64)]) -> Course {
    let began = [Event::Begun, go("slow"), run_began("slow", "r1"), fault_began("slow", "r1", 10_000)];
    let marks = marks.iter().map(|(kind, after)| mark("slow", *kind, 10_000 + after));
    let ended = [
        Event::WellAgain { step: name("slow"), run: "r1".to_owned(), moment: 100_000 },
        run_ended("slow", "r1", Exit::Deviated),
        Event::Done { step: name("slow") },
        Event::NoGo { step: name("silent"), why: "late".to_owned() },
        go("debrief"),
        Event::Ended,
    ];
    after(began.into_iter().chain(marks).chain(ended))
}

fn figures(course: &Course) -> DayFigures {
    DayFigures::of(&day(), course, 1 << 40)
}

#[test]
fn times_are_counted_from_the_fault_and_what_never_came_is_no_part_of_a_mean() {
    let all =
        figures(&marked(&[(Mark::Detected, 2000), (Mark::Acknowledged, 5000), (Mark::Mitigated, 60_000)]));
    let step = &all.steps[0];
    let took = |reaction: Option<Reaction>| reaction.map(|reaction| reaction.took);
    assert_eq!(took(step.detect), Some(Took::AfterMs(2000)));
    assert_eq!(took(step.acknowledge), Some(Took::AfterMs(5000)));
    assert_eq!(took(step.mitigate), Some(Took::AfterMs(60_000)));
    assert_eq!(step.recover, Some(Took::AfterMs(90_000)));
    assert_eq!(all.steps[1].detect, None, "nothing was injected in it");

    // Who takes it on has noticed it.
    let unmarked = figures(&marked(&[(Mark::Acknowledged, 5000)]));
    assert_eq!(took(unmarked.steps[0].detect), Some(Took::AfterMs(5000)));

    let never = figures(&marked(&[]));
    // It was watched until the day was over, at 10 s of this record.
    assert_eq!(took(never.steps[0].detect), Some(Took::NotWithinMs(0)));
    let means = Means::over(all.steps.iter().chain(&never.steps).chain(&unmarked.steps));
    assert_eq!(means.detect, Mean { n: 2, mean_ms: Some(3500), never: 1 });
    assert_eq!(means.mitigate, Mean { n: 1, mean_ms: Some(60_000), never: 2 });
    assert_eq!(means.recover, Mean { n: 3, mean_ms: Some(90_000), never: 0 });
    assert_eq!(Means::over(&[]).detect, Mean::default(), "no mean of nothing");
}

#[test]
fn what_held_had_nothing_to_recover_from_and_what_was_expected_is_met_or_not() {
    let events = [
        Event::Begun,
        Event::NoGo { step: name("slow"), why: "late".to_owned() },
        go("silent"),
        run_began("silent", "r1"),
        fault_began("silent", "r1", 10_000),
        mark("silent", Mark::Detected, 70_000),
        mark("silent", Mark::Acknowledged, 130_001),
        Event::WellAgain { step: name("silent"), run: "r1".to_owned(), moment: 20_000 },
        run_ended("silent", "r1", Exit::Held),
    ];
    let (day, course) = (day(), after(events));
    let step = |now| DayFigures::of(&day, &course, now).steps[1].clone();
    let met = |reaction: Option<Reaction>| reaction.and_then(|reaction| reaction.met);
    let early = step(200_000);
    assert_eq!((early.recover, met(early.detect), met(early.acknowledge)), (None, Some(true), Some(false)));
    assert_eq!(met(early.mitigate), None, "it may still come in time");
    assert_eq!(met(step(610_000).mitigate), Some(false));
    // The day waits for what may still come in time, and for nothing else.
    let silent = course.step(&name("silent")).expect("a step");
    assert_eq!(silent.awaits(&day.steps[1], 200_000), Some(610_000));
    assert_eq!(silent.awaits(&day.steps[1], 610_000), None);
}

#[test]
fn the_time_between_deviations_is_that_of_all_looks_over_their_number() {
    let hour = 3_600_000;
    let runs = [
        (10 * hour, Exit::Deviated),
        (0, Exit::Held),
        (4 * hour, Exit::Inconclusive),
        (4 * hour, Exit::Deviated),
        (11 * hour, Exit::Refused),
    ];
    let between = Between::of(runs, 20 * hour);
    let expected = Between {
        runs: 3,
        deviated: 2,
        observed_ms: 20 * hour,
        mean_ms: Some(10 * hour),
        since_ms: Some(10 * hour),
    };
    assert_eq!(between, expected);
    let none = Between::of([(hour, Exit::Held)], 3 * hour);
    assert_eq!((none.observed_ms, none.mean_ms, none.since_ms), (2 * hour, None, None));
    assert_eq!(Between::of([(hour, Exit::Refused)], 3 * hour), Between::default());
}

#[test]
fn a_day_is_compared_step_by_step() {
    let before = figures(&marked(&[(Mark::Detected, 5000), (Mark::Mitigated, 9000)]));
    let mut now = figures(&marked(&[(Mark::Detected, 2000), (Mark::Acknowledged, 4000)]));
    now.steps.retain(|step| step.step.as_str() != "debrief");
    let comparison = Comparison::of(&before, &now);
    let slow = &comparison.steps[0];
    assert_eq!(slow.detect, Some(Change::SoonerMs(3000)));
    assert_eq!(slow.acknowledge, Some(Change::CameThisTime));
    assert_eq!(slow.mitigate, Some(Change::NotThisTime));
    assert_eq!(slow.recover, Some(Change::SoonerMs(0)));
    let last = comparison.steps.last().expect("a step");
    assert_eq!((last.step.as_str(), last.there), ("debrief", (true, false)));
    assert_eq!(comparison.steps.len(), 3);
}

fn seen(lines: &[Value]) -> Vec<Seen> {
    let mut watch = Watch::from(1);
    let numbered = (1u64..).zip(lines).flat_map(|(seq, line)| {
        let mut line = line.clone();
        line["seq"] = seq.into();
        let line: Line = serde_json::from_value(line).unwrap_or_else(|error| panic!("{seq}: {error}"));
        watch.line(&line)
    });
    numbered.collect()
}

#[test]
fn a_log_tells_when_the_first_fault_began_the_last_ended_and_all_hosts_were_well() {
    let applied = |began: Option<u64>| {
        let mut applied = json!({ "targets": [], "notes": [], "took_us": 1 });
        if let Some(at_us) = began {
            applied["began"] = json!({ "at_us": at_us, "within_us": 10 });
        }
        applied
    };
    let lifted = json!({ "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 });
    let lines = [
        json!({ "at_ms": 0, "fleet": "began", "run": "r", "title": "t", "date": "", "at": 1_000_000, "seed": 1,
                "plan": "p", "version": "0", "on_partial": "revert", "hosts": ["a", "b"] }),
        json!({ "host": "a", "at_ms": 120, "event": "injected", "part": 1, "applied": applied(Some(100_000)) }),
        json!({ "host": "b", "at_ms": 130, "event": "injected", "part": 1, "applied": applied(None) }),
        json!({ "host": "a", "at_ms": 500, "event": "lifted", "part": 1, "lifted": lifted, "why": null }),
        json!({ "host": "a", "at_ms": 501, "event": "recovery-began" }),
        json!({ "host": "b", "at_ms": 600, "event": "lifted", "part": null, "lifted": lifted, "why": null }),
        json!({ "host": "b", "at_ms": 601, "event": "recovery-began" }),
        json!({ "host": "b", "at_ms": 900, "event": "well-again", "after_ms": 250 }),
        json!({ "host": "a", "at_ms": 950, "event": "well-again", "after_ms": 20 }),
        json!({ "at_ms": 1000, "fleet": "finished", "exit": 5, "sentence": "deviated" }),
    ];
    let ended = || Seen::Ended(Exit::Deviated, "deviated".to_owned());
    let all = [Seen::FaultBegan(1_000_100), Seen::FaultEnded(1_000_600), Seen::WellAgain(1_000_851), ended()];
    assert_eq!(seen(&lines), all);
    // A host that never was well again: nobody says that all were.
    let without = [&lines[..8], &lines[9..]].concat();
    assert_eq!(seen(&without), [Seen::FaultBegan(1_000_100), Seen::FaultEnded(1_000_600), ended()]);
}
