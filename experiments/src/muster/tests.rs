use serde_json::{Value, json};

use super::*;
use crate::evidence::Evidence;
use crate::run::Event;

/// The log of a run over hosts, from its lines without their numbers.
fn log(hosts: &[&str], lines: Vec<Value>) -> Vec<Line> {
    let began = json!({
        "at_ms": 0, "fleet": "began", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "version": "0",
        "on_partial": "revert", "hosts": hosts
    });
    let numbered = (1u64..).zip(std::iter::once(began).chain(lines));
    let line = |(seq, mut line): (u64, Value)| {
        line["seq"] = seq.into();
        serde_json::from_value(line).unwrap()
    };
    numbered.map(line).collect()
}

fn on(host: &str, at_ms: u64, event: Value) -> Value {
    let mut line = event;
    line["host"] = host.into();
    line["at_ms"] = at_ms.into();
    line
}

/// A host from its beginning to the injection, at these times.
fn injected(host: &str, asked_ms: u64, injected_ms: u64) -> Vec<Value> {
    vec![
        on(
            host,
            0,
            json!({
                "event": "started", "run": "r", "title": "t", "date": "", "seed": 1, "plan": "p", "faults": 1,
                "version": "0", "agent": null, "hypotheses": [], "guards": []
            }),
        ),
        on(host, 1, json!({ "event": "baseline-met" })),
        on(
            host,
            asked_ms,
            json!({
                "event": "injecting", "part": 1, "name": "f", "changes": [{ "what": "c", "reversible": true }],
                "lasts_ms": 10
            }),
        ),
        on(
            host,
            injected_ms,
            json!({
                "event": "injected", "part": 1, "applied": { "targets": [], "notes": [], "took_us": 1 }
            }),
        ),
    ]
}

/// What is left of a host that ends in order.
fn ends(host: &str, at_ms: u64) -> Vec<Value> {
    let evidence = Evidence { matched: 9, impaired: 9, ..Evidence::default() };
    let lifted = json!({ "evidence": [evidence], "undone": [], "stuck": [], "others": [], "took_us": 1 });
    vec![
        on(host, at_ms, json!({ "event": "lifted", "part": 1, "lifted": lifted, "why": null })),
        on(host, at_ms, json!({ "event": "method-ended" })),
        on(host, at_ms, json!({ "event": "finished", "exit": 0, "sentence": "held" })),
    ]
}

#[test]
fn a_line_is_that_of_a_run_with_its_host() {
    let lines = log(&["a"], injected("a", 5, 7));
    let text = serde_json::to_string(&lines[2]).unwrap();
    assert_eq!(text, r#"{"seq":3,"host":"a","at_ms":1,"event":"baseline-met"}"#);
    let alone: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (alone.at_ms, alone.event),
        (1, Event::BaselineMet),
        "a reader of one run passes over the rest"
    );
    let first = serde_json::to_string(&lines[0]).unwrap();
    assert!(first.starts_with(r#"{"seq":1,"at_ms":0,"fleet":"began","run":"r""#), "{first}");
    let read: Line = serde_json::from_str(&first).unwrap();
    assert_eq!(read, lines[0]);
    let started: Record = serde_json::from_value(serde_json::to_value(&lines[1]).unwrap()).unwrap();
    assert!(matches!(started.event, Event::Started(_)));
}

#[test]
fn how_far_hosts_were_apart_is_in_the_sum() {
    let lines = [injected("a", 5, 7), injected("b", 6, 19), ends("a", 30), ends("b", 31)].concat();
    let muster = Muster::of(&log(&["a", "b"], lines)).unwrap();
    assert_eq!(muster.exit, Exit::Held, "{muster:#?}");
    assert_eq!(
        muster.sentence,
        "held on all 2 hosts: `a`: `f` had its effect (9 of 9 matching packets impaired); no hypothesis was stated"
    );
    let expected = Start {
        part: 1,
        name: "f".to_owned(),
        hosts: 2,
        asked_ms: 1,
        injected_ms: 12,
        began_us: None,
        within_us: None,
        late: 0,
    };
    assert_eq!(muster.starts, std::slice::from_ref(&expected));
    // Where all of them tell their clocks, these count.
    let mut lines = [injected("a", 5, 7), injected("b", 6, 19), ends("a", 30), ends("b", 31)].concat();
    lines[3]["applied"]["began"] = json!({ "at_us": 6100, "within_us": 300 });
    assert_eq!(Muster::of(&log(&["a", "b"], lines.clone())).unwrap().starts, std::slice::from_ref(&expected));
    lines[7]["applied"]["began"] = json!({ "at_us": 9000, "within_us": 200 });
    lines[7]["applied"]["late_us"] = json!(2500);
    let muster = Muster::of(&log(&["a", "b"], lines)).unwrap();
    assert_eq!(muster.starts, [Start { began_us: Some(2900), within_us: Some(300), late: 1, ..expected }]);
    assert_eq!(muster.as_suite().experiments.len(), 2);
}

#[test]
fn a_log_that_breaks_off_says_what_is_still_there_and_one_without_a_host_what_is_missing() {
    let muster =
        Muster::of(&log(&["a", "b"], [injected("a", 5, 7), injected("b", 6, 9), ends("b", 9)].concat()));
    let muster = muster.unwrap();
    assert_eq!(
        (muster.exit, muster.hosts[0].exit, muster.hosts[1].exit),
        (Exit::Modified, Exit::Modified, Exit::Held)
    );
    let silent = Muster::of(&log(&["a", "b"], [injected("a", 5, 7), ends("a", 9)].concat())).unwrap();
    assert_eq!((silent.exit, silent.hosts[1].summary.is_none()), (Exit::Bug, true));
    assert_eq!(Muster::of(&[]), None);
}

#[test]
fn a_host_counts_with_what_it_found_itself() {
    let why = "called off: `b`: refused: no";
    let refused =
        json!({ "event": "refused", "part": 1, "refusal": { "what": "no", "help": null, "exit": 4 } });
    let late = json!({ "event": "interrupted", "by": why });
    let mut other = injected("b", 6, 9);
    other.pop();
    let lines = [
        injected("a", 5, 7),
        other,
        vec![
            on("b", 8, refused),
            json!({ "at_ms": 8, "fleet": "called-off", "host": "b", "why": why }),
            on("a", 9, late.clone()),
            on("b", 9, late),
        ],
        ends("a", 10)[..1].to_vec(),
    ];
    let muster = Muster::of(&log(&["a", "b"], lines.concat())).unwrap();
    // The refusal is why, though the host that refused heard of its end, too.
    assert_eq!(
        (muster.exit, muster.hosts[0].exit, muster.hosts[1].exit),
        (Exit::Refused, Exit::Held, Exit::Refused)
    );
    assert_eq!(muster.hosts[0].verdict, "reverted because of another host");
    assert_eq!(muster.stopped.as_deref(), Some(why));
}

#[test]
fn what_was_ended_on_a_host_says_by_what() {
    let lifted = serde_json::from_value(json!({
        "event": "lifted", "part": null, "why": "halted",
        "lifted": { "evidence": [], "undone": [], "stuck": [], "others": [], "took_us": 1 }
    }));
    assert_eq!(own_stop(&lifted.unwrap()), Some(("ended on the host itself: halted".to_owned(), false)));
    let tripped = Event::GuardTripped { name: "g".to_owned(), seen: "503".to_owned() };
    assert_eq!(own_stop(&tripped), Some(("the guard `g` did not hold: 503".to_owned(), true)));
    let gave_way = Event::GaveWay { stage: 2, name: "h".to_owned(), seen: "503".to_owned() };
    assert_eq!(own_stop(&gave_way), Some(("`h` did not hold in stage 2: 503".to_owned(), true)));
    assert_eq!(own_stop(&Event::MethodEnded), None);
}

#[test]
fn the_stage_in_which_a_system_gave_way_is_named_with_its_interval() {
    let grown = |reached: u32, gave_way: bool| Grown { sizes: vec![1, 2, 5], reached, gave_way }.in_words();
    assert_eq!(grown(3, true), "gave way in stage 3 of 3: not yet with 2 hosts, but with 5 hosts");
    assert_eq!(grown(2, true), "gave way in stage 2 of 3: not yet with 1 host, but with 2 hosts");
    assert_eq!(grown(1, true), "gave way in stage 1 of 3, with 1 host already");
    assert_eq!(grown(3, false), "came to stage 3 of 3, with 5 hosts");
    assert_eq!(grown(0, false), "no stage began");

    // What the log says of it: the last stage that any host began, and what came of it.
    let stage = |host: &str, step: u32| {
        on(host, 8, json!({ "event": "step-began", "step": step.to_string(), "what": "f" }))
    };
    let gave_way =
        on("a", 9, json!({ "event": "gave-way", "stage": 2, "name": "up", "seen": "3 of 9 samples bad" }));
    let lines =
        [injected("a", 5, 7), vec![stage("a", 1), stage("a", 2), gave_way], ends("a", 10)[..1].to_vec()];
    let mut lines = log(&["a"], lines.concat());
    let What::Fleet { event: FleetEvent::Began(began), .. } = &mut lines[0].what else {
        panic!("its beginning")
    };
    began.stages = vec![["a".to_owned()].into(), ["a".to_owned(), "b".to_owned()].into()];
    let muster = Muster::of(&lines).unwrap();
    assert_eq!(muster.grown, Some(Grown { sizes: vec![1, 2], reached: 2, gave_way: true }));
    assert_eq!(muster.exit, Exit::Deviated, "{muster:#?}");
    assert!(
        muster.sentence.contains("`up` did not hold in stage 2: 3 of 9 samples bad"),
        "{}",
        muster.sentence
    );
    assert!(muster.sentence.ends_with("not yet with 1 host, but with 2 hosts"), "{}", muster.sentence);
    assert!(muster.starts.is_empty());
}
