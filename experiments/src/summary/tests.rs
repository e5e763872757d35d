use std::time::Duration;

use serde_json::json;

use super::*;
use crate::evidence::{Incident, Unit};
use crate::probe::Load;
use crate::protocol::{Applied, Lifted, Refusal};
use crate::run::{Event, Record, Seen, Started, Stated};
use crate::verdict::{Outcome, Phase};

/// A log as it is written: an event every 100 ms.
struct Log(Vec<Record>);

impl Log {
    fn new(faults: u32, hypotheses: &[&str], guards: &[&str]) -> Log {
        let stated = |names: &[&str]| {
            let stated = names.iter().map(|name| Stated {
                name: (*name).to_owned(),
                tolerate: Percent::default(),
                when: Vec::new(),
                rate: None,
                recovers_within_ms: None,
                budget: None,
            });
            stated.collect()
        };
        let mut log = Log(Vec::new());
        log.push(Event::Started(Started {
            run: RunId("r".to_owned()),
            title: "Checkout survives".to_owned(),
            date: "2026-11-21T10:51:12Z".to_owned(),
            seed: 7,
            plan: "abc".to_owned(),
            faults,
            elsewhere: false,
            version: "0.1.0".to_owned(),
            agent: None,
            planned_ms: None,
            origin: None,
            hypotheses: stated(hypotheses),
            guards: stated(guards),
        }));
        log
    }

    fn push(&mut self, event: Event) -> &mut Log {
        let at_ms = self.0.len() as u64 * 100;
        self.0.push(Record { at_ms, event });
        self
    }

    fn samples(&mut self, name: &str, phase: Phase, good: u64, bad: u64) -> &mut Log {
        for at in 0..good + bad {
            let good = at < good;
            self.push(Event::Sample(Seen {
                name: name.to_owned(),
                guard: false,
                phase,
                good,
                unclear: false,
                begun_ms: self.0.len() as u64 * 100,
                took_us: 1000 + at,
                seen: if good { "200 in 1.0 ms".to_owned() } else { format!("503 in {at}.5 ms") },
                load: None,
            }));
        }
        self
    }

    fn injected(&mut self, part: u32, reversible: bool) -> &mut Log {
        self.push(Event::Injecting {
            part,
            name: "payments is silent".to_owned(),
            changes: vec![Intent { what: "drop packets to 127.0.0.1:7003".to_owned(), reversible }],
            lasts_ms: 1000,
        });
        self.push(Event::Injected {
            part,
            applied: Applied {
                targets: vec!["127.0.0.1:7003".to_owned()],
                took_us: 1500,
                ..Applied::default()
            },
        })
    }

    fn lifted(&mut self, part: Option<u32>, impaired: u64, stuck: &[&str]) -> &mut Log {
        let incidents = vec![Incident { after_ms: 20, what: "first packet dropped".to_owned() }];
        let evidence =
            Evidence { unit: Unit::Packets, matched: impaired, impaired, incidents, ..Evidence::default() };
        self.push(Event::Lifted {
            part,
            lifted: Lifted {
                evidence: part.map(|_| evidence).into_iter().collect(),
                undone: vec!["the rule is gone: table read back".to_owned()],
                stuck: stuck.iter().map(|line| (*line).to_owned()).collect(),
                others: Vec::new(),
                host: None,
                took_us: 800,
            },
            why: None,
        })
    }

    fn recovered(&mut self, name: &str) -> &mut Log {
        self.push(Event::RecoveryBegan);
        self.samples(name, Phase::Recovery, 3, 0);
        self.push(Event::WellAgain { after_ms: 1200 })
    }

    fn summary(&self) -> Summary {
        Summary::of(&self.0).unwrap()
    }
}

/// Baseline, one fault with samples, its end, recovery.
fn run(good: u64, bad: u64, impaired: u64) -> Log {
    let mut log = Log::new(1, &["checkout answers"], &[]);
    log.samples("checkout answers", Phase::Baseline, 3, 0);
    log.push(Event::BaselineMet).injected(1, true);
    log.samples("checkout answers", Phase::During, good, bad);
    log.lifted(Some(1), impaired, &[]).push(Event::MethodEnded);
    log
}

#[test]
fn held_says_with_which_figures() {
    let mut log = run(20, 0, 214);
    log.recovered("checkout answers");
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Held);
    assert_eq!(
        summary.sentence,
        "held: `checkout answers` was good in 20 of 20 samples during `payments is silent` and held after it"
    );
    assert_eq!(summary.reasons, []);
    assert_eq!(summary.hypotheses[0].recovered, Some(true));
    assert_eq!(summary.undone, ["the rule is gone: table read back"]);
    let incident = summary.timeline.iter().find(|moment| moment.what == "first packet dropped").unwrap();
    assert_eq!(Some(incident.at_ms), summary.parts[0].injected_at_ms.map(|at| at + 20));
}

#[test]
fn deviated_says_how_often_and_when_it_was_well_again() {
    let mut log = run(6, 14, 214);
    log.recovered("checkout answers");
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Deviated);
    assert_eq!(
        summary.sentence,
        "deviated: `checkout answers` failed in 14 of 20 samples during `payments is silent`; well again 300 ms after \
         the fault ended"
    );
    let during = &summary.hypotheses[0].during;
    assert_eq!(during.bad_in_words(), "14 × 503", "equal things are counted together");
    assert_eq!((during.median_us, during.slowest_us), (Some(1009), Some(1019)));
}

#[test]
fn the_requests_of_a_load_are_summed_up_for_each_phase() {
    let tick = |log: &mut Log, phase, millis: u64, failed: u64, short: bool| {
        let mut load = Load { requests: 50, short, ..Load::default() };
        (failed..50).for_each(|_| load.latency.add(Duration::from_millis(millis)));
        (0..50).for_each(|_| load.late.add(Duration::from_micros(40)));
        Count::add(&mut load.errors, "connection refused", failed);
        load.errors.retain(|count| count.times > 0);
        load.judge(&serde_json::from_value(json!({ "errors": "<= 1%", "p99": "<= 300ms" })).unwrap());
        log.push(Event::Sample(Seen {
            name: "checkout is fast".to_owned(),
            guard: false,
            phase,
            good: load.missed.is_empty(),
            unclear: false,
            begun_ms: log.0.len() as u64 * 100,
            took_us: 1_000_000,
            seen: "50 requests".to_owned(),
            load: Some(load),
        }));
    };
    let mut log = Log::new(1, &["checkout is fast"], &[]);
    for _ in 0..3 {
        tick(&mut log, Phase::Baseline, 10, 0, false);
    }
    log.push(Event::BaselineMet).injected(1, true);
    tick(&mut log, Phase::During, 10, 0, false);
    tick(&mut log, Phase::During, 400, 0, false);
    tick(&mut log, Phase::During, 400, 25, false);
    tick(&mut log, Phase::During, 10, 50, true);
    log.lifted(Some(1), 9, &[]).push(Event::MethodEnded);
    let summary = log.summary();
    let claim = &summary.hypotheses[0];
    let before = claim.before.load.as_ref().unwrap();
    assert_eq!((before.requests, before.failed, before.late_p99_us), (150, 0, Some(41)));
    assert_eq!(claim.before.median_us, before.p50_us);
    assert!((10_000..10_100).contains(&before.p99_us.unwrap()), "{before:?}");
    let during = claim.during.load.as_ref().unwrap();
    assert_eq!((during.requests, during.failed), (200, 75));
    assert_eq!((during.p99_us, during.errors[0].times), (None, 75));
    assert_eq!(
        (claim.during.tally.good, claim.during.tally.bad),
        (1, 2),
        "what was cut off early is no sample"
    );
    assert_eq!(claim.during.bad_in_words(), "2 × missed p99 <= 300ms, 1 × missed errors <= 1%");
    assert_eq!(summary.exit, Exit::Deviated);
    let text = serde_json::to_string(&log.0).unwrap();
    let read: Vec<Record> = serde_json::from_str(&text).unwrap();
    assert_eq!(Summary::of(&read).unwrap(), summary, "events survive JSON");
}

#[test]
fn well_again_counts_from_the_end_of_the_fault_to_the_first_sample_without_a_bad_one_after_it() {
    let mut log = run(0, 5, 9);
    log.samples("checkout answers", Phase::Between, 1, 0);
    log.samples("checkout answers", Phase::Between, 0, 2);
    log.recovered("checkout answers");
    // The fault ends, then: method ended, good, bad, bad, recovery, good.
    assert_eq!(log.summary().well_again_ms, Some(600));
}

#[test]
fn a_fault_without_effect_is_never_green() {
    for (impaired, why) in [
        (0, "had no measured effect: nothing used the path while it was live"),
        (2, "met too few packets to tell: 2 of 2 matching packets impaired, at least 3 are needed"),
    ] {
        let mut log = run(20, 0, impaired);
        let summary = log.recovered("checkout answers").summary();
        assert_eq!(summary.exit, Exit::Inconclusive);
        let sentence = format!("inconclusive: `payments is silent` {why}");
        assert_eq!(summary.sentence, sentence);
    }
    let mut deviated = run(0, 20, 0);
    assert_eq!(deviated.recovered("checkout answers").summary().exit, Exit::Deviated, "5 outranks 8");
}

#[test]
fn one_bad_sample_and_too_few_are_inconclusive() {
    assert_eq!(run(19, 1, 9).recovered("checkout answers").summary().exit, Exit::Inconclusive);
    assert_eq!(run(2, 0, 9).recovered("checkout answers").summary().exit, Exit::Inconclusive);
}

#[test]
fn not_recovered_is_deviated() {
    let mut log = run(20, 0, 9);
    let names = vec!["checkout answers".to_owned()];
    log.push(Event::RecoveryBegan).push(Event::NotRecovered { names, unshown: Vec::new() });
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Deviated);
    assert_eq!(
        summary.sentence,
        "deviated: `checkout answers` did not hold again in time after the revert; everything was undone"
    );
    assert_eq!(summary.hypotheses[0].recovered, Some(false));
}

#[test]
fn a_baseline_that_is_not_met_is_refused_and_nothing_was_injected() {
    let mut log = Log::new(1, &["checkout answers"], &[]);
    log.samples("checkout answers", Phase::Baseline, 0, 3);
    log.push(Event::BaselineNotMet {
        name: "checkout answers".to_owned(),
        seen: "503, 3 of 3 samples bad".to_owned(),
    });
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Refused);
    assert_eq!(
        summary.sentence,
        "refused: `checkout answers` did not hold before anything was done: 503, 3 of 3 samples bad; nothing was \
         injected"
    );
    assert_eq!(summary.hypotheses[0].judgement, None);
}

#[test]
fn a_guard_an_interruption_and_a_refusal_lead_to_their_codes() {
    let mut guard = Log::new(1, &[], &["site is up"]);
    guard
        .push(Event::BaselineMet)
        .injected(1, true)
        .push(Event::GuardTripped { name: "site is up".to_owned(), seen: "connection refused".to_owned() });
    let summary = guard.lifted(Some(1), 5, &[]).summary();
    assert_eq!(summary.exit, Exit::Deviated);
    assert_eq!(
        summary.sentence,
        "deviated: the guard `site is up` did not hold: connection refused during `payments is silent`; everything \
         was undone"
    );
    assert_eq!(summary.guards[0].tripped.as_deref(), Some("connection refused"));

    // What gave way before a further stage is one reason, also where it would be one by itself.
    for bad in [20, 0] {
        let mut grown = Log::new(1, &["checkout answers"], &[]);
        grown.push(Event::BaselineMet).injected(1, true);
        grown.samples("checkout answers", Phase::During, 20, bad);
        let (name, seen) = ("checkout answers".to_owned(), "20 of 40 samples bad".to_owned());
        let summary = grown.push(Event::GaveWay { stage: 2, name, seen }).lifted(Some(1), 5, &[]).summary();
        assert_eq!(summary.exit, Exit::Deviated);
        let deviated = summary.reasons.iter().filter(|reason| reason.exit == Exit::Deviated);
        let reasons: Vec<&str> = deviated.map(|reason| reason.what.as_str()).collect();
        assert_eq!(reasons, ["`checkout answers` did not hold in stage 2: 20 of 40 samples bad"]);
    }

    let mut signal = run(0, 20, 9);
    let summary = signal.push(Event::Interrupted { by: "SIGINT".to_owned() }).summary();
    assert_eq!(summary.exit, Exit::Interrupted, "6 outranks 5");
    assert_eq!(summary.sentence, "interrupted after 2.9 s by SIGINT; everything was undone");

    let mut refused = Log::new(1, &[], &[]);
    refused.push(Event::BaselineMet);
    refused.push(Event::Injecting {
        part: 1,
        name: "payments is silent".to_owned(),
        changes: Vec::new(),
        lasts_ms: 1,
    });
    let refusal = Refusal::new("the run `x` holds these packets", "wait for it");
    let summary = refused.push(Event::Refused { part: Some(1), refusal }).summary();
    assert_eq!(summary.exit, Exit::Refused);
    assert_eq!(summary.reasons[0].help.as_deref(), Some("wait for it"));
    assert_eq!(
        summary.sentence,
        "refused: `payments is silent` was refused: the run `x` holds these packets; nothing was injected"
    );
}

#[test]
fn what_is_stuck_or_unknown_outranks_everything() {
    let mut stuck = Log::new(1, &[], &[]);
    stuck.push(Event::BaselineMet).injected(1, true);
    stuck.push(Event::Interrupted { by: "SIGINT".to_owned() });
    stuck.lifted(Some(1), 9, &["the rule is still there"]);
    let summary = stuck.summary();
    assert_eq!(summary.exit, Exit::Modified);
    assert_eq!(summary.stuck, ["the rule is still there"]);
    assert_eq!(summary.sentence, "a host is still modified: the rule is still there");
    let summary = stuck.lifted(None, 0, &[]).summary();
    assert_eq!(summary.exit, Exit::Interrupted, "a later undo of everything succeeded");

    let mut cut = Log::new(1, &[], &[]);
    let summary = cut.push(Event::BaselineMet).injected(1, true).summary();
    assert_eq!(summary.exit, Exit::Modified);
    assert_eq!(summary.stuck, ["`payments is silent`: whether it was undone is not known"]);
}

#[test]
fn actions_without_undo_and_kills_are_listed_as_not_undone() {
    let mut log = Log::new(1, &[], &[]);
    log.push(Event::BaselineMet).injected(1, false).lifted(Some(1), 9, &[]);
    for (step, undo) in [("2", true), ("3", false)] {
        log.push(Event::ActionBegan { step: step.to_owned(), name: format!("action {step}"), undo });
        log.push(Event::ActionEnded { step: step.to_owned(), good: true, seen: "exit 0".to_owned() });
    }
    log.push(Event::MethodEnded);
    let owed = log.summary();
    assert_eq!(owed.stuck, ["the undo of `action 2` was not played"]);
    log.push(Event::UndoPlayed { step: "2".to_owned(), good: true, seen: "exit 0".to_owned() });
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Held);
    assert_eq!(
        summary.not_undone,
        [
            "`payments is silent`: drop packets to 127.0.0.1:7003",
            "`action 3`: the file has no `undo:` for it"
        ]
    );
    assert_eq!(
        summary.undone,
        ["`action 2`: its undo was played: exit 0"],
        "a kill is not undone, whatever the agent says of its end"
    );
    assert_eq!(
        summary.sentence,
        "held: `payments is silent` had its effect (9 of 9 matching packets impaired); no hypothesis was stated"
    );
}

#[test]
fn a_failed_action_is_inconclusive() {
    let mut log = Log::new(0, &["checkout answers"], &[]);
    log.samples("checkout answers", Phase::Baseline, 3, 0).push(Event::BaselineMet);
    log.push(Event::ActionBegan { step: "1".to_owned(), name: "flush".to_owned(), undo: false });
    log.push(Event::ActionEnded { step: "1".to_owned(), good: false, seen: "exit 3".to_owned() });
    let summary = log.summary();
    assert_eq!(summary.exit, Exit::Inconclusive);
    assert_eq!(summary.sentence, "inconclusive: the action `flush` failed: exit 3");
    assert_eq!(summary.hypotheses[0].judgement.as_ref().unwrap().outcome, Outcome::Held);
}

#[test]
fn a_summary_survives_json() {
    let summary = run(6, 14, 214).summary();
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}
