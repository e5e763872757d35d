//! Looks that say nothing, too few looks, and events that end too early: none of them makes a run green or convicts it.

use std::cell::Cell;

use serde_json::{Value, json};

use super::Summary;
use crate::exit::Exit;
use crate::run::Record;

/// A run of one claim, with looks ten times a second in each phase: `+` is a good one, `-` a bad one, `?` one that says nothing.
struct Run {
    claim: Value,
    faults: u32,
    baseline: String,
    during: String,
    after: String,
    said: Value,
}

impl Run {
    fn new(claim: Value) -> Run {
        let said = json!({ "event": "well-again", "after_ms": 1 });
        let (baseline, after) = ("+".repeat(100), "+".repeat(300));
        Run { claim, faults: 1, baseline, during: "+".repeat(300), after, said }
    }

    /// A claim that at most 5 % of the looks are bad.
    fn of_rate() -> Run {
        let rate = json!({ "bounds": [{ "errors": "5%" }], "mode": "fast", "confidence": "95%" });
        Run::new(json!({ "rate": rate }))
    }

    fn during(self, looks: impl Into<String>) -> Run {
        Run { during: looks.into(), ..self }
    }

    /// What was seen after the fault, and that it was not shown to hold again.
    fn unshown(self, looks: impl Into<String>) -> Run {
        let said = json!({ "event": "not-recovered", "names": [], "unshown": ["a"] });
        Run { after: looks.into(), said, ..self }
    }

    fn log(&self) -> Vec<Record> {
        let mut claim = json!({ "name": "a", "tolerate": "0%" });
        claim.as_object_mut().unwrap().extend(self.claim.as_object().unwrap().clone());
        let mut events = vec![json!({
            "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": self.faults,
            "version": "0", "agent": null, "planned_ms": 30_000, "guards": [], "hypotheses": [claim]
        })];
        let now = Cell::new(0u64);
        let looks = |events: &mut Vec<Value>, phase: &str, looks: &str| {
            for look in looks.chars() {
                let seen = ["no data", "refused", "connected"]
                    [['?', '-', '+'].iter().position(|known| *known == look).unwrap()];
                events.push(json!({
                    "event": "sample", "name": "a", "phase": phase, "good": look == '+', "unclear": look == '?',
                    "begun_ms": now.get(), "took_us": 1, "seen": seen, "at_ms": now.get()
                }));
                now.set(now.get() + 100);
            }
        };
        looks(&mut events, "baseline", &self.baseline);
        events.push(json!({ "event": "baseline-met" }));
        if self.faults > 0 {
            let applied = json!({ "targets": [], "notes": [], "took_us": 1 });
            events
                .push(json!({ "event": "injecting", "part": 1, "name": "f", "changes": [], "lasts_ms": 1 }));
            events.push(json!({ "event": "injected", "part": 1, "applied": applied }));
        }
        looks(&mut events, "during", &self.during);
        let lifted = json!({
            "event": "lifted", "at_ms": now.get(),
            "lifted": { "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 }, "why": null
        });
        if self.faults > 0 {
            let mut own = lifted.clone();
            own["part"] = json!(1);
            events.push(own);
        }
        events.push(json!({ "event": "method-ended" }));
        let mut whole = lifted;
        whole["part"] = Value::Null;
        events.push(whole);
        events.push(json!({ "event": "recovery-began" }));
        looks(&mut events, "recovery", &self.after);
        events.push(self.said.clone());
        let mut log: Vec<Record> = Vec::new();
        for mut event in events {
            let earlier = log.last().map_or(0, |last| last.at_ms);
            event["at_ms"] = json!(event["at_ms"].as_u64().unwrap_or_default().max(earlier));
            log.push(serde_json::from_value(event).unwrap());
        }
        log
    }

    #[track_caller]
    fn judged(&self, exit: Exit, sentence: &str) {
        let summary = Summary::of(&self.log()).unwrap();
        // What changes nothing has its effect as soon as it is there; evidence is not what this is about.
        assert_eq!(summary.exit, exit, "{}", summary.sentence);
        assert!(summary.sentence.starts_with(sentence), "{}", summary.sentence);
    }
}

#[test]
fn a_rate_is_held_only_if_looks_that_say_nothing_might_have_been_bad() {
    Run::of_rate().judged(Exit::Held, "held: `a`: 0 % of 300 requests failed, at most 5 % allowed");
    Run::of_rate().during("?+".repeat(300)).judged(
        Exit::Inconclusive,
        "inconclusive: `a`: 300 of 600 samples say nothing: no data; 0 % of 300 requests failed, at most 5 % allowed",
    );
    let few = format!("{}??{}", "+".repeat(200), "+".repeat(200));
    Run::of_rate().during(few).judged(
        Exit::Held,
        "held: `a`: 2 of 402 samples say nothing: no data; 0 % of 400 requests failed, at most 5 % allowed",
    );
    Run::of_rate().during("?".repeat(300)).judged(
        Exit::Inconclusive,
        "inconclusive: `a`: 300 of 300 samples say nothing: no data; no requests began while it was watched",
    );
}

#[test]
fn a_rate_has_deviated_only_if_looks_that_say_nothing_might_have_been_good() {
    Run::of_rate()
        .during("-+".repeat(20))
        .judged(Exit::Deviated, "deviated: `a`: 50 % of 40 requests failed");
    let silent = format!("{}-", "?".repeat(30)).repeat(20);
    Run::of_rate().during(silent).judged(
        Exit::Inconclusive,
        "inconclusive: `a`: 600 of 620 samples say nothing: no data; 100 % of 20 requests failed, at most 5 % allowed",
    );
    let loud = format!("{}?", "-".repeat(30)).repeat(3);
    Run::of_rate()
        .during(loud)
        .judged(Exit::Deviated, "deviated: `a`: 3 of 93 samples say nothing: no data; 100 %");
}

#[test]
fn without_a_fault_what_says_nothing_did_not_hold_either() {
    let calm = || Run { faults: 0, ..Run::of_rate() };
    calm().during("").judged(Exit::Held, "held: ");
    let why = "inconclusive: `a`: 5 of 5 samples say nothing: no data; nothing was seen while the method ran";
    calm().during("?????").judged(Exit::Inconclusive, why);
}

#[test]
fn bounds_by_the_baseline_are_not_widened_by_what_it_did_not_say() {
    let rate = json!({ "bounds": [{ "errors-of-baseline": 1.5 }], "mode": "fast", "confidence": "95%" });
    let run = |baseline: String, during: String| {
        Run { baseline, ..Run::new(json!({ "rate": rate })) }.during(during)
    };
    let tenth = "-+++++++++".repeat(60);
    run(tenth.clone(), "-+".repeat(100)).judged(Exit::Deviated, "deviated: `a`: 50 %");
    // They may all have been bad: then as many may be now.
    run(tenth.replace("-+++++", "-?????"), "-+".repeat(100)).judged(
        Exit::Inconclusive,
        "inconclusive: `a`: 300 of 600 samples of the baseline say nothing: no data; 50 % of 200 requests failed",
    );
}

#[test]
fn a_budget_that_looks_without_an_answer_may_have_spent_is_not_kept() {
    let rate = json!({ "bounds": [], "mode": "robust", "confidence": "95%" });
    let run = || Run::new(json!({ "rate": rate, "budget": "3 failed" }));
    let why = "`a`: 0 failed since the method began, at most 3 may, and";
    run().during("+??").judged(Exit::Held, &format!("held: {why} 2 samples say nothing"));
    run().during("+???").judged(Exit::Inconclusive, &format!("inconclusive: {why} 3 samples say nothing"));
    let beside = Run::new(json!({ "tolerate": "90%", "budget": "3 failed" }));
    beside
        .during("++++++???")
        .judged(Exit::Inconclusive, &format!("inconclusive: {why} 3 samples say nothing"));
}

#[test]
fn what_is_not_shown_after_the_fault_is_no_deviation() {
    let looks = || Run::new(json!({}));
    let note =
        "held: `a` was good in 300 of 300 samples during `f`; it is not shown that `a` held again after it";
    looks().unshown("++").judged(Exit::Held, note);
    let why = "inconclusive: `a` was not shown to hold again after the revert: ";
    looks().unshown("++-").judged(
        Exit::Inconclusive,
        &format!("{why}1 of 3 samples were bad then, which shows neither; a longer `recovery` may tell"),
    );
    looks().unshown("?????").judged(
        Exit::Inconclusive,
        &format!("{why}5 of 5 samples say nothing: no data; 0 of 0 other samples were bad then"),
    );
    Run::of_rate()
        .unshown("?+".repeat(50))
        .judged(Exit::Inconclusive, &format!("{why}50 of 100 samples say nothing"));
    Run::new(json!({ "recovers_within_ms": 1000 })).unshown("++").judged(Exit::Inconclusive, why);
}

#[test]
fn single_looks_recover_within_a_time_as_they_are_shown_to_be_well_again() {
    let run = |after: &str| Run {
        after: after.to_owned(),
        ..Run::new(json!({ "recovers_within_ms": 1000, "tolerate": "5%" }))
    };
    // A single bad look while somebody else is still waited for.
    run(&format!("{}-{}", "+".repeat(15), "+".repeat(15))).judged(Exit::Held, "held: ");
    run("-----+++").judged(Exit::Held, "held: ");
    let late = "deviated: `a` was well again 1.5 s after the fault ended, not within 1.0 s";
    run(&format!("{}+++", "-".repeat(15))).judged(Exit::Deviated, late);
    let relapse = format!("{}--{}", "+".repeat(12), "+".repeat(5));
    run(&relapse)
        .judged(Exit::Deviated, "deviated: `a` was well again 1.4 s after the fault ended, not within 1.0 s");
    // Nor does one that never ends go unseen.
    run(&format!("{}{}", "+".repeat(3), "-".repeat(20)))
        .judged(Exit::Deviated, "deviated: `a` held again after the fault, and then failed until the end");
    let unknown = "inconclusive: `a` was seen to be well again 1.2 s after the fault ended, and whether it was so within 1.0 s is not \
                   known: ";
    run("-----++--++-+++").judged(Exit::Inconclusive, &format!("{unknown}one bad sample says too little"));
    run("----------?++++").judged(
        Exit::Inconclusive,
        "inconclusive: `a` was seen to be well again 1.1 s after the fault ended",
    );
}

#[test]
fn what_was_cut_off_did_not_hold() {
    let whole = Run::new(json!({})).log();
    assert_eq!(Summary::of(&whole).unwrap().exit, Exit::Held);
    let lifted = whole.iter().position(|record| format!("{:?}", record.event).starts_with("Lifted")).unwrap();
    for end in [5, 102, 103, lifted, lifted + 1, lifted + 2, lifted + 20, whole.len()] {
        let cut = Summary::of(&whole[..end]).unwrap().cut_off();
        let live = (103..=lifted).contains(&end);
        let (exit, begins) = match live {
            true => (Exit::Modified, "a host is still modified"),
            false => (Exit::Inconclusive, "inconclusive: the run was cut off after "),
        };
        assert_eq!((cut.exit, cut.verdict.as_str()), (exit, exit.meaning()), "{end}: {}", cut.sentence);
        assert!(cut.sentence.starts_with(begins), "{end}: {}", cut.sentence);
    }
    let mut bad = Run::new(json!({}));
    bad.during = "-".repeat(30);
    assert_eq!(Summary::of(&bad.log()).unwrap().cut_off().exit, Exit::Deviated, "what deviated has");
}
