//! Every way in which a run ends otherwise, with its exit code; and after each of them nothing is live.

use std::time::Duration;

use serde_json::json;
use squall_experiments::exit::Exit;
use squall_experiments::run::Event;
use squall_experiments::verdict::Phase;

use super::world::{Afterwards, When, World, action, claim, fault};

#[test]
fn a_baseline_that_is_not_met_injects_nothing() {
    for baseline in [None, Some("30s")] {
        let world = World::new();
        world.set("h", "bad");
        let outcome = world.run(json!({ "baseline": baseline, "method": [fault("5s")] }));
        assert_eq!(outcome.summary.exit, Exit::Refused);
        assert_eq!(world.seen.asked(), ["hello"]);
        assert!(
            outcome
                .summary
                .sentence
                .starts_with("refused: `h` did not hold before anything was done: exit 1")
        );
        assert!(outcome.took < Duration::from_secs(15), "the first bad sample decides: {:?}", outcome.took);
    }
    let world = World::new();
    world.set("g", "bad");
    let outcome = world.run(json!({ "stop-when": [claim("g")], "method": [fault("5s")] }));
    assert_eq!(
        (outcome.summary.exit, world.seen.asked().len()),
        (Exit::Refused, 1),
        "a guard must hold before, too"
    );
}

#[test]
fn no_measured_effect_is_inconclusive() {
    for (impaired, said) in [(0, "no measured effect"), (2, "met too few packets to tell")] {
        let mut world = World::new();
        world.manners.impaired = impaired;
        let outcome = world.run(json!({ "method": [fault("300ms")] }));
        assert_eq!(outcome.summary.exit, Exit::Inconclusive);
        assert!(outcome.summary.sentence.contains(said), "{}", outcome.summary.sentence);
    }
}

#[test]
fn a_guard_reverts_at_once() {
    let mut world = World::new();
    world.manners.breaks = Some(world.path("g"));
    let outcome =
        world.run(json!({ "stop-when": [claim("g")], "method": [fault("20s"), { "wait": "20s" }] }));
    assert_eq!(outcome.summary.exit, Exit::Deviated);
    assert!(world.seen.is_clean());
    let late = outcome.between("injected", "lifted");
    assert!(late < 10_000, "{late} ms from the fault, which would last 20 s, to the revert");
    assert!(outcome.summary.guards[0].tripped.is_some());
    assert!(
        outcome.has(|event| matches!(event, Event::WellAgain { .. })),
        "it is watched whether all is well again"
    );
}

#[test]
fn a_guard_of_the_agents_is_looked_at_by_nobody_else_and_is_no_interruption() {
    let mut world = World::new();
    world.manners.guards = true;
    let outcome =
        world.run(json!({ "stop-when": [claim("g")], "method": [fault("20s"), { "wait": "20s" }] }));
    assert_eq!(outcome.summary.exit, Exit::Deviated, "{}", outcome.summary.sentence);
    assert!(
        outcome.summary.sentence.contains("the guard `g` did not hold: 503"),
        "{}",
        outcome.summary.sentence
    );
    assert!(world.seen.is_clean());
    assert_eq!(outcome.summary.guards[0].tripped.as_deref(), Some("503"));
    assert!(!outcome.has(|event| matches!(event, Event::Interrupted { .. })));
    let begun = outcome.log.iter().position(|event| matches!(event, Event::Injected { .. })).unwrap();
    let ours = |event: &&Event| matches!(event, Event::Sample(seen) if seen.guard);
    assert!(outcome.log[..begun].iter().any(|event| ours(&event)), "before it the conductor looks");
    // One may have been under way.
    assert!(outcome.log[begun..].iter().filter(ours).count() <= 1, "{:?}", &outcome.log[begun..]);
}

#[test]
fn a_budget_is_counted_from_the_method_on_and_reverts_at_once() {
    let mut world = World::new();
    world.manners.breaks = Some(world.path("h"));
    let mut claim = claim("h");
    claim["budget"] = json!("4 failed");
    let outcome = world.run(json!({ "hypothesis": [claim], "method": [fault("20s")] }));
    assert_eq!(outcome.summary.exit, Exit::Deviated, "{}", outcome.summary.sentence);
    assert!(world.seen.is_clean());
    let spent = outcome.log.iter().find_map(|event| match event {
        Event::BudgetSpent { name, failed, .. } => Some((name.as_str(), *failed)),
        _ => None,
    });
    assert_eq!(spent, Some(("h", 4)), "exactly when it is spent");
    assert!(outcome.summary.hypotheses[0].budget.is_some_and(|spent| spent.failed >= 4));
    let said = &outcome.summary.sentence;
    assert!(said.contains("failed since the method began, at most 4 may"), "{said}");
}

#[test]
fn an_interruption_at_any_moment_reverts_first() {
    let moments: [(&str, When); 6] = [
        ("start", |event| matches!(event, Event::Started(_))),
        ("baseline", |event| matches!(event, Event::Sample(seen) if seen.phase == Phase::Baseline)),
        ("applying", |event| matches!(event, Event::Injecting { .. })),
        ("during", |event| matches!(event, Event::Sample(seen) if seen.phase == Phase::During)),
        ("reverting", |event| matches!(event, Event::MethodEnded)),
        ("recovery", |event| matches!(event, Event::RecoveryBegan)),
    ];
    for (moment, when) in moments {
        let mut world = World::new();
        world.manners.apply_takes = Duration::from_millis(100);
        world.interrupt = Some(when);
        // Until the end of the method nothing but the interruption can end the fault in time.
        let lasts = if matches!(moment, "reverting" | "recovery") { "400ms" } else { "20s" };
        let method = json!([{ "action": action("act"), "undo": action("undo") }, fault(lasts)]);
        let outcome = world.run(json!({ "method": method }));
        assert_eq!(outcome.summary.exit, Exit::Interrupted, "{moment}: {}", outcome.summary.sentence);
        assert!(world.seen.is_clean(), "{moment}");
        let asked = world.seen.asked();
        let has = |word: &str| asked.iter().any(|asked| asked == word);
        assert_eq!(has("begin"), has("end"), "{moment}: it is not left to the lease: {asked:?}");
        let samples = world.samples();
        let count = |name: &str| samples.iter().filter(|sample| *sample == name).count();
        assert_eq!(count("act"), count("undo"), "{moment}: what was done is undone");
        assert!(outcome.took < Duration::from_secs(10), "{moment}: {:?}", outcome.took);
    }
}

#[test]
fn a_signal_from_before_the_run_is_not_lost() {
    let mut world = World::new();
    world.early = true;
    let outcome = world.run(json!({ "method": [{ "action": action("act") }, fault("20s")] }));
    assert_eq!(outcome.summary.exit, Exit::Interrupted);
    assert!(outcome.summary.sentence.contains("nothing was injected"), "{}", outcome.summary.sentence);
    assert_eq!((world.seen.asked().len(), world.samples().len()), (1, 0), "nothing but the greeting");
}

#[test]
fn a_second_signal_does_not_skip_the_revert() {
    let mut world = World::new();
    world.manners.lift_takes = Duration::from_millis(200);
    world.interrupt = Some(|event| {
        matches!(event, Event::Sample(seen) if seen.phase == Phase::During)
            || matches!(event, Event::Interrupted { .. })
    });
    let outcome = world.run(json!({ "method": [fault("20s")] }));
    assert_eq!(outcome.summary.exit, Exit::Interrupted);
    assert!(world.seen.is_clean());
    assert!(outcome.notes.iter().any(|note| note.contains("still reverting")), "{:?}", outcome.notes);
}

#[test]
fn a_refused_fault_is_reported_with_its_help() {
    let mut world = World::new();
    world.manners.refuses_apply = true;
    let method = json!([{ "action": action("act"), "undo": action("undo") }, fault("5s")]);
    let outcome = world.run(json!({ "hypothesis": [], "method": method }));
    assert_eq!(outcome.summary.exit, Exit::Refused);
    assert_eq!(outcome.summary.reasons[0].help.as_deref(), Some("start it first"));
    assert_eq!(world.samples(), ["act", "undo"], "what was done before is undone");
}

#[test]
fn what_cannot_be_undone_is_stuck_and_named() {
    let mut world = World::new();
    world.manners.stuck = true;
    let outcome = world.run(json!({ "method": [fault("200ms")] }));
    assert_eq!(outcome.summary.exit, Exit::Modified);
    assert_eq!(outcome.summary.stuck[0], "the rule is still there");
    assert!(outcome.has(|event| matches!(event, Event::Stuck { .. })));
    assert!(!outcome.has(|event| matches!(event, Event::Finished { .. })));
}

#[test]
fn a_lost_agent_is_confirmed_by_the_host_or_counts_as_still_modified() {
    for (afterwards, exit) in [
        (Afterwards::Clean, Exit::Interrupted),
        (Afterwards::Resident, Exit::Interrupted),
        (Afterwards::Unknown, Exit::Modified),
    ] {
        let mut world = World::new();
        world.manners.dies = true;
        world.afterwards = afterwards;
        let outcome = world.run(json!({ "method": [fault("20s")] }));
        assert_eq!(outcome.summary.exit, exit, "{}", outcome.summary.sentence);
        assert!(outcome.has(|event| matches!(event, Event::AgentLost { .. })));
        assert_eq!(outcome.has(|event| matches!(event, Event::Stuck { .. })), exit == Exit::Modified);
    }
}

#[test]
fn an_agent_that_hangs_is_noticed() {
    let mut world = World::new();
    world.manners.hangs = true;
    let outcome = world.run(json!({ "method": [fault("60s")] }));
    assert_eq!(outcome.summary.exit, Exit::Interrupted, "{}", outcome.summary.sentence);
    assert!(outcome.has(|event| matches!(event, Event::AgentLost { .. })));
    assert!(
        outcome.took < Duration::from_secs(45),
        "{:?}: noticed only when the fault would have ended",
        outcome.took
    );

    world.interrupt = Some(|event| matches!(event, Event::Injected { .. }));
    let outcome = world.run(json!({ "method": [fault("60s")] }));
    assert_eq!(outcome.summary.exit, Exit::Interrupted, "{}", outcome.summary.sentence);
    assert!(
        outcome.took < Duration::from_secs(30),
        "{:?}: the revert does not wait for it longer than for any answer",
        outcome.took
    );
}

#[test]
fn a_halt_from_elsewhere_ends_the_run() {
    let mut world = World::new();
    world.manners.ends = Some("halted");
    let outcome = world.run(json!({ "method": [fault("20s"), { "wait": "20s" }] }));
    assert_eq!(outcome.summary.exit, Exit::Interrupted);
    assert!(outcome.summary.sentence.contains("by halt"), "{}", outcome.summary.sentence);
    assert_eq!(outcome.summary.parts[0].name, "payments is silent");
    assert!(outcome.took < Duration::from_secs(15), "{:?}", outcome.took);
}

#[test]
fn a_part_that_the_agent_lifts_by_itself_is_no_incident() {
    let mut world = World::new();
    world.manners.overtakes = true;
    let outcome = world.run(json!({ "hypothesis": [], "method": [fault("1s")] }));
    assert_eq!(outcome.summary.exit, Exit::Held, "{}", outcome.summary.sentence);
    assert_eq!(world.seen.asked(), ["hello", "begin", "apply", "end"]);
}

#[test]
fn not_well_again_in_time_is_deviated() {
    let mut world = World::new();
    world.manners.breaks = Some(world.path("h"));
    world.manners.ruins = true;
    let outcome = world.run(json!({ "recovery": "2s", "method": [fault("200ms")] }));
    assert_eq!(outcome.summary.exit, Exit::Deviated);
    assert_eq!(outcome.summary.hypotheses[0].recovered, Some(false));
    assert!(outcome.summary.sentence.contains("did not hold again in time"), "{}", outcome.summary.sentence);
}

#[test]
fn nothing_is_injected_while_a_rate_says_nothing() {
    for more in [json!({ "expect": { "errors": "<= 5%" } }), json!({ "budget": "3 failed" })] {
        let world = World::new();
        world.set("h", "nothing");
        let mut silent = claim("h");
        silent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let outcome = world.run(json!({ "hypothesis": [silent], "method": [fault("200ms")] }));
        assert_eq!(outcome.summary.exit, Exit::Refused, "{}", outcome.summary.sentence);
        let not_met = outcome.log.iter().any(|event| matches!(event, Event::BaselineNotMet { .. }));
        assert!(
            not_met && !world.seen.asked().iter().any(|asked| asked == "apply"),
            "{:?}",
            outcome.summary.reasons
        );
        assert!(outcome.summary.sentence.contains("no data"), "{}", outcome.summary.sentence);
    }
}

#[test]
fn what_says_nothing_after_the_fault_did_not_deviate() {
    let mut world = World::new();
    world.change = Some((|event| matches!(event, Event::RecoveryBegan), "h", "nothing"));
    let outcome = world.run(json!({ "recovery": "400ms", "method": [fault("700ms")] }));
    let claim = &outcome.summary.hypotheses[0];
    assert_eq!((claim.recovered, claim.unshown.is_some()), (None, true), "{}", outcome.summary.sentence);
    assert_eq!(outcome.summary.exit, Exit::Inconclusive, "{}", outcome.summary.sentence);
}

#[test]
fn a_probe_that_hangs_during_the_fault_still_counts() {
    let mut world = World::new();
    world.change = Some((|event| matches!(event, Event::Injected { .. }), "h", "hang"));
    let outcome = world.run(json!({ "recovery": "100ms", "method": [fault("600ms")] }));
    let during = outcome.summary.hypotheses[0].during.tally;
    assert!(during.bad >= 3, "{during:?}: the last of them end 400 ms after the fault did");
    assert_eq!(outcome.summary.exit, Exit::Deviated);
}

#[test]
fn an_action_that_fails_is_inconclusive_and_undone() {
    let world = World::new();
    world.set("act", "bad");
    let method = json!([{ "action": action("act"), "undo": action("undo") }, { "action": action("act2") }]);
    let outcome = world.run(json!({ "hypothesis": [], "method": method }));
    assert_eq!(outcome.summary.exit, Exit::Inconclusive);
    assert_eq!(world.samples(), ["act", "undo"], "nothing is done after it");
}

#[test]
fn an_undo_that_fails_leaves_the_host_modified_and_does_not_stop_the_others() {
    let world = World::new();
    world.set("undo2", "bad");
    let outcome = world.run(json!({ "hypothesis": [], "method": [
        { "name": "one", "action": action("act"), "undo": action("undo") },
        { "name": "two", "action": action("act2"), "undo": action("undo2") },
    ]}));
    assert_eq!(outcome.summary.exit, Exit::Modified);
    assert_eq!(world.samples(), ["act", "act2", "undo2", "undo"]);
    assert_eq!(outcome.summary.stuck, ["the undo of `two` failed: exit 1 with password ‹secret›"]);
}

#[test]
fn a_program_that_is_not_there_is_refused_before_anything_is_done() {
    for name in ["h", "act2"] {
        let world = World::new();
        world.set(name, "unusable");
        let method = json!([{ "action": action("act") }, { "action": action("act2") }, fault("1s")]);
        let outcome = world.run(json!({ "method": method }));
        assert_eq!(outcome.summary.exit, Exit::Refused, "{name}");
        assert!(outcome.summary.sentence.contains("no such program"), "{}", outcome.summary.sentence);
        assert!(!world.samples().contains(&"act".to_owned()));
    }
}

#[test]
fn without_its_prober_a_run_reverts_and_still_undoes_actions() {
    let mut world = World::new();
    world.change = Some((|event| matches!(event, Event::Injected { .. }), "h", "die"));
    let method = json!([{ "action": action("act"), "undo": action("undo") }, fault("20s")]);
    let outcome = world.run(json!({ "method": method }));
    assert_eq!(outcome.summary.exit, Exit::Inconclusive, "{}", outcome.summary.sentence);
    assert!(world.seen.is_clean());
    assert_eq!(world.samples().last().map(String::as_str), Some("undo"));
}
