pub(crate) mod agent;
mod endings;
mod world;

use serde_json::json;
use squall_experiments::exit::Exit;
use squall_experiments::run::Event;
use squall_experiments::verdict::Phase;

use world::{EVERY, When, World, action, claim, fault};

#[test]
fn a_fault_that_does_no_harm_is_held() {
    let world = World::new();
    let outcome = world.run(json!({ "method": [fault("700ms")] }));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert_eq!(world.seen.asked(), ["hello", "begin", "apply", "lift", "end"]);
    assert!(world.seen.is_clean());
    assert_eq!(*world.seen.lasts.lock().unwrap(), [700], "exactly what the file says: a policy limits it");
    let part = &outcome.summary.parts[0];
    assert_eq!(part.undone, ["part 1 is gone: read back"]);
    assert!(outcome.has(|event| matches!(event, Event::Measured { .. })), "it is observed while it lasts");
    let during = outcome.summary.hypotheses[0].during.tally.total();
    let lasted = outcome.between("injected", "lifted");
    assert!(lasted >= 700, "{lasted} ms");
    assert!(during >= 3, "{during} samples in {lasted} ms");
    assert!(during <= lasted / EVERY + 2, "{during} samples in {lasted} ms, one each {EVERY} ms");
    assert_eq!(outcome.summary.hypotheses[0].before.tally.total(), 3);
    assert!(outcome.summary.agent.unwrap().contains("guardian 1"));
}

#[test]
fn a_fault_that_does_harm_is_deviated_and_the_harm_ends_with_it() {
    let mut world = World::new();
    world.manners.breaks = Some(world.path("h"));
    let outcome = world.run(json!({ "method": [fault("700ms")] }));
    assert_eq!(outcome.summary.exit, Exit::Deviated);
    let claim = &outcome.summary.hypotheses[0];
    assert_eq!((claim.before.tally.bad, claim.during.tally.good, claim.after.tally.bad), (0, 0, 0));
    assert!(claim.during.tally.bad >= 3);
    assert_eq!(claim.recovered, Some(true));
    assert!(outcome.summary.sentence.contains("well again"), "{}", outcome.summary.sentence);
}

#[test]
fn secrets_are_nowhere() {
    let mut world = World::new();
    world.manners.breaks = Some(world.path("h"));
    let outcome = world.run(json!({ "method": [fault("200ms")] }));
    assert!(outcome.text.contains("‹secret›"));
    assert!(!outcome.text.contains("hunter2"));
    assert!(!format!("{:?}", outcome.summary).contains("hunter2"));
}

#[test]
fn samples_do_not_wait_for_a_slow_agent() {
    let mut world = World::new();
    world.manners.apply_takes = std::time::Duration::from_millis(600);
    let outcome = world.run(json!({ "method": [fault("200ms")] }));
    let between = outcome.log.iter().filter(|event| match event {
        Event::Sample(seen) => seen.phase == Phase::Between,
        _ => false,
    });
    // Fifteen on an idle machine; one that waited for the agent would be the only one.
    assert!(between.count() >= 3, "samples wait for the agent, who works for 600 ms");
    assert_eq!(outcome.summary.exit, Exit::Held);
}

#[test]
fn parallel_faults_are_live_at_the_same_time_and_waits_are_waited() {
    let world = World::new();
    let outcome = world.run(json!({ "method": [
        { "parallel": [fault("900ms"), fault("200ms"), { "wait": "300ms" }] },
        { "wait": "200ms" },
    ]}));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert_eq!(world.seen.asked(), ["hello", "begin", "apply", "apply", "lift", "lift", "end"]);
    let lifted: Vec<Option<u32>> = outcome
        .log
        .iter()
        .filter_map(|event| match event {
            Event::Lifted { part, .. } => Some(*part),
            _ => None,
        })
        .collect();
    assert_eq!(lifted, [Some(2), Some(1), None], "the shorter one ends first");
    let took = outcome.took.as_millis();
    assert!(took >= 1100, "{took} ms: 900 for the group and 200 for the wait");
    let at = |wanted: When| outcome.log.iter().position(wanted).unwrap();
    let both = at(|event| matches!(event, Event::Injected { part: 2, .. }))
        .max(at(|event| matches!(event, Event::Injected { part: 1, .. })));
    assert!(both < at(|event| matches!(event, Event::Lifted { .. })), "both were live before one was lifted");
}

#[test]
fn actions_are_undone_in_reverse_order() {
    let world = World::new();
    let outcome = world.run(json!({ "hypothesis": [], "method": [
        { "name": "one", "action": action("act"), "undo": action("undo") },
        { "name": "two", "action": action("act2"), "undo": action("undo2") },
    ]}));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert_eq!(world.samples(), ["act", "act2", "undo2", "undo"]);
    assert_eq!(world.seen.asked().len(), 0, "a plan without changes needs no agent");
    assert_eq!(outcome.summary.undone.len(), 2);
}

#[test]
fn a_plan_without_faults_takes_no_time_of_its_own() {
    let world = World::new();
    let mut slow = claim("h");
    slow["every"] = json!("60s");
    let outcome = world.run(json!({ "hypothesis": [slow], "method": [{ "action": action("act") }] }));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert!(outcome.took.as_secs() < 30, "it waited for the next sample: {:?}", outcome.took);
    let claim = &outcome.summary.hypotheses[0];
    assert_eq!((claim.before.tally.good, claim.after.tally.good), (3, 3));
    assert_eq!(outcome.summary.not_undone.len(), 1, "the action has no undo, and the report says so");
}

#[test]
fn a_baseline_of_no_time_is_a_look_at_once() {
    let world = World::new();
    let outcome = world.run(json!({ "baseline": "0s", "method": [{ "wait": "10ms" }] }));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert_eq!(outcome.summary.hypotheses[0].before.tally.total(), 3);
}

#[test]
fn a_baseline_lasts_as_long_as_it_says() {
    let world = World::new();
    let outcome = world.run(json!({ "baseline": "400ms", "method": [fault("200ms")] }));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    let before = outcome.summary.hypotheses[0].before.tally.total();
    let lasted = outcome.between("started", "injecting");
    assert!(lasted >= 400, "{lasted} ms");
    assert!(before > 3, "more than a look: {before} samples in {lasted} ms");
    assert!(before <= lasted / EVERY + 2, "{before} samples in {lasted} ms, one each {EVERY} ms");
}
