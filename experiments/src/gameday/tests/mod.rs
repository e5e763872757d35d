//! Game days: their file, their course, and what is measured.

mod courses;
mod documents;
mod orders;
mod times;
mod turns;

use super::*;
use crate::exit::Exit;
use crate::name::Name;

/// A day of three steps: two runs, the second by itself, and one for people.
fn day() -> GameDay {
    let text = "gameday: 1
name: payments
title: Payments go away
roles: { lead: Anna, on-call: Ben }
steps:
  - { name: slow, experiment: slow.yaml, lead: lead }
  - name: silent
    experiment: silent.yaml
    go: auto
    pause: 5m
    expect: { detected-within: 1m, acknowledged-within: 2m, mitigated-within: 10m }
  - { name: debrief, notes: What surprised us? }
";
    read("day.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn by(who: &str, at: u64, event: Event) -> Record {
    Record { at, by: who.to_owned(), event }
}

fn go(step: &str) -> Event {
    Event::Go { step: name(step) }
}

fn mark(step: &str, mark: Mark, moment: u64) -> Event {
    Event::Marked { step: name(step), mark, moment, through: Through::Api }
}

fn run_began(step: &str, run: &str) -> Event {
    Event::RunBegan { step: name(step), run: run.to_owned() }
}

fn run_ended(step: &str, run: &str, exit: Exit) -> Event {
    Event::RunEnded { step: name(step), run: run.to_owned(), exit, sentence: exit.meaning().to_owned() }
}

fn fault_began(step: &str, run: &str, moment: u64) -> Event {
    Event::FaultBegan { step: name(step), run: run.to_owned(), moment }
}

/// The course after events, a second apart from 1000 on, of `squall`.
fn after(events: impl IntoIterator<Item = Event>) -> Course {
    let records: Vec<Record> = (1..).zip(events).map(|(at, event)| by("squall", at * 1000, event)).collect();
    Course::after(&day(), &records).unwrap_or_else(|(at, refused)| panic!("{at}: {refused}"))
}

/// What a course says to an event that cannot happen.
fn refused(course: &Course, event: Event) -> String {
    let mut after = course.clone();
    let said = after.take(&by("Ben", 99_000, event)).expect_err("it cannot happen").to_string();
    assert_eq!(after, *course, "what cannot happen changes nothing");
    said
}
