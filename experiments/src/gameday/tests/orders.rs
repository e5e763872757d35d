//! Whatever is tried in whatever order: what was taken leads, told again, to the same course.

use proptest::prelude::*;

use super::*;

/// An event that somebody, or the controller, might try at any time.
fn tried() -> impl Strategy<Value = Event> {
    let step = || prop::sample::select(vec!["slow", "silent", "debrief", "nowhere"]).prop_map(name);
    let run = || prop::sample::select(vec!["r1", "r2"]).prop_map(str::to_owned);
    let kind = || prop::sample::select(Mark::ALL.to_vec());
    let exit = prop::sample::select(vec![Exit::Held, Exit::Deviated, Exit::Interrupted]);
    prop_oneof![
        1 => Just(Event::Begun),
        4 => (step(), 0..90_000u64).prop_map(|(step, until)| Event::Paused { step, until }),
        4 => step().prop_map(|step| Event::Asked { step, why: None }),
        12 => step().prop_map(|step| Event::Go { step }),
        1 => step().prop_map(|step| Event::NoGo { step, why: "no".to_owned() }),
        1 => step().prop_map(|step| Event::Refused { step, why: "no".to_owned() }),
        12 => (step(), run()).prop_map(|(step, run)| Event::RunBegan { step, run }),
        12 => (step(), run(), 0..90_000u64)
            .prop_map(|(step, run, moment)| Event::FaultBegan { step, run, moment }),
        4 => (step(), run(), 0..90_000u64)
            .prop_map(|(step, run, moment)| Event::FaultEnded { step, run, moment }),
        4 => (step(), run(), 0..90_000u64)
            .prop_map(|(step, run, moment)| Event::WellAgain { step, run, moment }),
        6 => (step(), run(), exit).prop_map(|(step, run, exit)| {
            Event::RunEnded { step, run, exit, sentence: exit.meaning().to_owned() }
        }),
        6 => step().prop_map(|step| Event::Done { step }),
        12 => (step(), kind(), 0..90_000u64).prop_map(|(step, mark, moment)| {
            Event::Marked { step, mark, moment, through: Through::Webhook }
        }),
        2 => (step(), kind()).prop_map(|(step, mark)| Event::TakenBack { step, mark }),
        2 => prop::option::of(step()).prop_map(|step| Event::Noted { step, text: "seen".to_owned() }),
        1 => Just(Event::Stopped { why: "enough".to_owned() }),
        1 => Just(Event::Ended),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let who = prop::sample::select(vec!["squall", "Anna", "Ben"]);
    let record = (who, 0..90_000u64, tried()).prop_map(|(who, at, event)| by(who, at, event));
    prop::collection::vec(record, 0..200).prop_map(|mut records| {
        // Otherwise most of what is tried would only be told that nothing has begun.
        records.insert(0, by("Anna", 0, Event::Begun));
        records
    })
}

/// What is true of every course.
fn is_sound(course: &Course) -> Result<(), TestCaseError> {
    let live = course.steps.iter().filter(|step| step.last().is_some_and(Attempt::is_open)).count();
    prop_assert!(live <= 1, "one run at a time: {course:?}");
    prop_assert!(!course.phase.is_over() || live == 0, "a day that is over has no run: {course:?}");
    let first = course.steps.iter().position(|step| !step.state.is_over()).unwrap_or(course.steps.len());
    let begun = |step: &StepCourse| step.go.is_some();
    prop_assert!(!course.steps.iter().skip(first + 1).any(begun), "steps have their turns: {course:?}");
    for attempt in course.steps.iter().flat_map(|step| &step.attempts) {
        for pressed in Mark::ALL.into_iter().filter_map(|mark| attempt.pressed(mark)) {
            let known = attempt.fault_began.is_some_and(|began| pressed.moment >= began);
            prop_assert!(known, "a mark without a fault: {course:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_was_taken_leads_to_the_same_course_when_it_is_told_again(tried in records()) {
        let mut course = Course::of(&day());
        let mut taken = Vec::new();
        for record in tried {
            let before = course.clone();
            match course.take(&record) {
                Ok(()) => taken.push(record),
                Err(_) => prop_assert_eq!(&course, &before, "what was refused changes nothing"),
            }
            is_sound(&course)?;
        }
        // As the store keeps them.
        let kept: Vec<String> = taken.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
        let read: Vec<Record> = kept.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(&read, &taken);
        let again = Course::after(&day(), &read);
        prop_assert_eq!(again, Ok(course));
    }

    /// People and alerts press at the same time: which of them is heard first decides nothing.
    #[test]
    fn marks_lead_to_the_same_figures_in_any_order(
        (marks, shuffled) in prop::collection::vec((prop::sample::select(Mark::ALL.to_vec()), 10_000..90_000u64), 1..12)
            .prop_flat_map(|marks| (Just(marks.clone()), Just(marks).prop_shuffle())),
    ) {
        let course = |marks: Vec<(Mark, u64)>| {
            let began = [Event::Begun, go("slow"), run_began("slow", "r1"), fault_began("slow", "r1", 10_000)];
            let marks = marks.into_iter().map(|(kind, moment)| mark("slow", kind, moment));
            after(began.into_iter().chain(marks))
        };
        let (one, other) = (course(marks), course(shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(DayFigures::of(&day(), &one, 100_000), DayFigures::of(&day(), &other, 100_000));
    }
}
