//! What can happen when, and what is said where it cannot.

use super::*;

#[test]
fn a_day_goes_from_step_to_step() {
    let course = after([
        Event::Begun,
        Event::Asked { step: name("slow"), why: None },
        go("slow"),
        run_began("slow", "r1"),
        fault_began("slow", "r1", 4500),
        Event::FaultEnded { step: name("slow"), run: "r1".to_owned(), moment: 5500 },
        run_ended("slow", "r1", Exit::Held),
    ]);
    assert_eq!(course.current().map(|step| step.state.word()), Some("observing"));
    let course = after([
        Event::Begun,
        Event::NoGo { step: name("slow"), why: "not today".to_owned() },
        Event::Paused { step: name("silent"), until: 90_000 },
        go("silent"),
        run_began("silent", "r1"),
        fault_began("silent", "r1", 5000),
        run_ended("silent", "r1", Exit::Deviated),
        Event::Done { step: name("silent") },
        Event::Asked { step: name("debrief"), why: Some("`silent` deviated".to_owned()) },
        go("debrief"),
        Event::Ended,
    ]);
    let words: Vec<&str> = course.steps.iter().map(|step| step.state.word()).collect();
    assert_eq!(words, ["skipped", "done", "done"]);
    assert_eq!((course.phase, course.over, course.exit()), (Phase::Ended, Some(11_000), Exit::Deviated));
    assert_eq!(course.before(&name("silent")), None, "what was skipped says nothing");
    assert_eq!(course.before(&name("debrief")).map(|step| step.name.as_str()), Some("silent"));
    let said = refused(&course, mark("silent", Mark::Detected, 9000));
    assert_eq!(said, "the game day is over");
    let mut noted = course.clone();
    let note = Event::Noted { step: None, text: "what we learnt".to_owned() };
    noted.take(&by("Anna", 12_000, note)).expect("a debrief may be written down later");
    assert_eq!(noted.notes.len(), 1);
}

#[test]
fn who_comes_second_is_told_who_was_first() {
    let mut course = after([Event::Begun, Event::Asked { step: name("slow"), why: None }]);
    course.take(&by("Anna (1f)", 3000, go("slow"))).expect("go");
    assert_eq!(refused(&course, go("slow")), "Anna (1f) has said go to `slow` already: it is beginning");
    let no = || Event::NoGo { step: name("slow"), why: "wait".to_owned() };
    assert_eq!(refused(&course, no()), "the run of `slow` has begun");
    let mut course = after([Event::Begun]);
    course.take(&by("Anna", 2000, no())).expect("no-go");
    assert_eq!(refused(&course, go("slow")), "Anna has said no-go to `slow` already");
    assert_eq!(refused(&course, go("debrief")), "it is not the turn of `debrief`: `silent` is waiting");
}

#[test]
fn nothing_can_be_detected_before_something_was_injected() {
    let course = after([Event::Begun, go("slow"), run_began("slow", "r1")]);
    let said = refused(&course, mark("slow", Mark::Detected, 5000));
    assert_eq!(said, "nothing has been injected in `slow` yet: there is nothing to be detected");
    assert_eq!(course.in_question(), None);
    let mut course =
        after([Event::Begun, go("slow"), run_began("slow", "r1"), fault_began("slow", "r1", 5000)]);
    assert_eq!(
        refused(&course, mark("slow", Mark::Detected, 4999)),
        "the fault of `slow` began later than that"
    );
    for (who, moment) in [("Ben", 9000), ("Anna", 7000), ("Cleo", 8000)] {
        course.take(&by(who, 9000, mark("slow", Mark::Detected, moment))).expect("a mark");
    }
    let kept = course.steps[0].attempts[0].detected.clone().expect("a mark");
    assert_eq!((kept.moment, kept.by.as_str()), (7000, "Anna"), "the earliest counts");
    assert_eq!(course.in_question().map(|step| step.name.as_str()), Some("slow"));
    let back = Event::TakenBack { step: name("slow"), mark: Mark::Detected };
    course.take(&by("Anna", 9500, back.clone())).expect("it is taken back");
    assert_eq!(course.steps[0].attempts[0].detected, None);
    assert_eq!(refused(&course, back), "`slow` is not marked as detected");
}

#[test]
fn what_a_gate_refuses_and_what_was_interrupted_can_be_tried_again_or_left() {
    let refused_once = [
        Event::Begun,
        go("slow"),
        Event::Refused { step: name("slow"), why: "an incident is open".to_owned() },
    ];
    let course = after(refused_once.clone());
    let why = Some("an incident is open".to_owned());
    assert_eq!(course.steps[0].state, StepState::Asked { why });
    assert_eq!(course.exit(), Exit::Refused, "a day on which nothing could begin did not hold");
    let again = refused_once.into_iter().chain([
        go("slow"),
        run_began("slow", "r1"),
        run_ended("slow", "r1", Exit::Interrupted),
        Event::Asked { step: name("slow"), why: Some("interrupted".to_owned()) },
        go("slow"),
        run_began("slow", "r2"),
    ]);
    let course = after(again.clone());
    assert_eq!(course.steps[0].attempts.len(), 2);
    assert_eq!(refused(&course, fault_began("slow", "r1", 1)), "the run `r1` of `slow` does not go on");
    let left = after(again.take(7).chain([Event::NoGo { step: name("slow"), why: "enough".to_owned() }]));
    assert_eq!(left.steps[0].state, StepState::Done, "what ran was not skipped");
    assert_eq!(left.exit(), Exit::Interrupted);
}

#[test]
fn a_day_that_is_stopped_begins_nothing_and_waits_for_its_run() {
    let events = [
        Event::Begun,
        go("slow"),
        run_began("slow", "r1"),
        fault_began("slow", "r1", 3500),
        Event::Stopped { why: "halted".to_owned() },
    ];
    let course = after(events.clone());
    assert_eq!(course.phase, Phase::Stopping);
    assert_eq!(refused(&course, go("silent")), "the game day was stopped by squall: halted");
    assert_eq!(
        refused(&course, Event::Stopped { why: "again".to_owned() }),
        "the game day was stopped by squall: halted"
    );
    assert_eq!(refused(&course, Event::Ended), "the run of `slow` goes on");
    let course = after(events.into_iter().chain([
        mark("slow", Mark::Detected, 6000),
        run_ended("slow", "r1", Exit::Interrupted),
        Event::Ended,
    ]));
    assert_eq!((course.phase, course.exit()), (Phase::Stopped, Exit::Interrupted));
    assert!(course.steps.iter().all(|step| step.state == StepState::Stopped));

    // The run that was being begun at that moment is seen to its end.
    let course = after([
        Event::Begun,
        go("slow"),
        Event::Stopped { why: "halted".to_owned() },
        run_began("slow", "r1"),
        run_ended("slow", "r1", Exit::Interrupted),
        Event::Ended,
    ]);
    assert_eq!(course.phase, Phase::Stopped);
}

#[test]
fn a_step_that_nobody_knows_is_told_with_those_that_there_are() {
    let course = after([Event::Begun]);
    let event = Event::Noted { step: Some(name("fast")), text: "?".to_owned() };
    let mut after = course.clone();
    let said = after.take(&by("Ben", 2000, event)).expect_err("there is none");
    assert_eq!(said.what, "there is no step `fast`");
    assert_eq!(said.help.as_deref(), Some("its steps are `slow`, `silent`, `debrief`"));
}
