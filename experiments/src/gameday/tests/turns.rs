//! What comes next.

use super::*;

fn next(events: impl IntoIterator<Item = Event>, now: u64) -> Turn {
    after(events).turn(&day(), now)
}

fn asked(step: &str, why: Option<&str>) -> Turn {
    Turn::Say(Event::Asked { step: name(step), why: why.map(str::to_owned) })
}

#[test]
fn somebody_is_asked_unless_the_file_says_otherwise_and_the_step_before_held() {
    assert_eq!(next([], 0), Turn::Wait(None));
    assert_eq!(next([Event::Begun], 0), asked("slow", None));
    let began = [Event::Begun, go("slow")];
    assert_eq!(next(began.clone(), 0), Turn::Begin(name("slow")));
    let ran = |exit| {
        let run = [run_began("slow", "r1"), fault_began("slow", "r1", 2500), run_ended("slow", "r1", exit)];
        began.clone().into_iter().chain(run)
    };
    assert_eq!(next(ran(Exit::Held).take(3), 0), Turn::Follow(name("slow"), "r1".to_owned()));
    assert_eq!(next(ran(Exit::Held), 9000), Turn::Say(Event::Done { step: name("slow") }));
    let done = |exit| ran(exit).chain([Event::Done { step: name("slow") }]);
    let paused = Event::Paused { step: name("silent"), until: 309_000 };
    assert_eq!(next(done(Exit::Held), 9000), Turn::Say(paused.clone()), "the pause comes first");
    let pausing = |exit| done(exit).chain([paused.clone()]);
    assert_eq!(next(pausing(Exit::Held), 9000), Turn::Wait(Some(309_000)));
    assert_eq!(next(pausing(Exit::Held), 309_000), Turn::Say(go("silent")));
    assert_eq!(next(pausing(Exit::Deviated), 309_000), asked("silent", Some("`slow`: deviated")));
    assert_eq!(
        next(pausing(Exit::Modified), 309_000),
        asked("silent", Some("`slow`: a host is still modified"))
    );
    // What says nothing about the system can be tried again.
    let why = "interrupted; go tries it again, no-go goes on";
    assert_eq!(next(ran(Exit::Interrupted), 9000), asked("slow", Some(why)));
}

#[test]
fn a_day_waits_for_the_marks_that_may_still_come_in_time_and_ends_when_all_is_done() {
    let ran = [
        Event::Begun,
        Event::NoGo { step: name("slow"), why: "late".to_owned() },
        go("silent"),
        run_began("silent", "r1"),
        fault_began("silent", "r1", 10_000),
        run_ended("silent", "r1", Exit::Deviated),
    ];
    assert_eq!(next(ran.clone(), 20_000), Turn::Wait(Some(70_000)), "detected within a minute");
    assert_eq!(next(ran.clone(), 70_000), Turn::Wait(Some(130_000)), "then acknowledged");
    let done = Turn::Say(Event::Done { step: name("silent") });
    assert_eq!(next(ran.clone(), 610_000), done);
    let marks = Mark::ALL.map(|kind| mark("silent", kind, 15_000));
    assert_eq!(next(ran.clone().into_iter().chain(marks), 20_000), done);
    let ended = [Event::Done { step: name("silent") }, go("debrief")];
    assert_eq!(next(ran.clone().into_iter().chain(ended.clone()), 0), Turn::Say(Event::Ended));
    assert_eq!(next(ran.clone().into_iter().chain(ended).chain([Event::Ended]), 0), Turn::Over);
    let stopped = [Event::Stopped { why: "halted".to_owned() }];
    assert_eq!(next(ran.into_iter().chain(stopped), 0), Turn::Say(Event::Ended));
}
