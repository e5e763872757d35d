use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::probe::Budget;
use crate::protocol::{Applied, Lifted, Refusal, RunId};
use crate::run::{Record, Seen, Started};
use crate::verdict::Phase;

fn started() -> Event {
    Event::Started(Started {
        run: RunId("20261121-105112000-0001".to_owned()),
        title: "t".to_owned(),
        date: "2026-11-21T10:51:12Z".to_owned(),
        seed: 7,
        plan: "abc".to_owned(),
        faults: 1,
        elsewhere: false,
        version: "0.1.0".to_owned(),
        agent: None,
        planned_ms: None,
        origin: None,
        hypotheses: Vec::new(),
        guards: Vec::new(),
    })
}

fn injecting(part: u32) -> Event {
    Event::Injecting { part, name: format!("fault {part}"), changes: Vec::new(), lasts_ms: 1000 }
}

fn injected(part: u32) -> Event {
    Event::Injected { part, applied: Applied::default() }
}

fn lifted(part: Option<u32>, clean: bool) -> Event {
    let stuck = if clean { Vec::new() } else { vec!["a rule".to_owned()] };
    Event::Lifted { part, lifted: Lifted { stuck, ..Lifted::default() }, why: None }
}

fn finished(exit: Exit) -> Event {
    Event::Finished { exit, sentence: String::new() }
}

fn action(step: &str, undo: bool) -> Event {
    Event::ActionBegan { step: step.to_owned(), name: step.to_owned(), undo }
}

fn ended(step: &str, good: bool) -> Event {
    Event::ActionEnded { step: step.to_owned(), good, seen: String::new() }
}

fn undo(step: &str, good: bool) -> Event {
    Event::UndoPlayed { step: step.to_owned(), good, seen: String::new() }
}

fn sample() -> Event {
    Event::Sample(Seen {
        name: "h".to_owned(),
        guard: false,
        phase: Phase::Baseline,
        good: true,
        unclear: false,
        begun_ms: 1,
        took_us: 1,
        seen: "200".to_owned(),
        load: None,
    })
}

fn stuck() -> Event {
    Event::Stuck { left: vec!["a rule".to_owned()], sentence: String::new() }
}

fn interrupted() -> Event {
    Event::Interrupted { by: "SIGINT".to_owned() }
}

/// One event of every kind, for parts 1 and 2 and the actions `1` and `2`.
fn alphabet() -> Vec<Event> {
    let mut all = vec![
        started(),
        sample(),
        Event::BaselineMet,
        Event::BaselineNotMet { name: "h".to_owned(), seen: String::new() },
        Event::StepBegan { step: "1".to_owned(), what: String::new() },
        Event::StepEnded { step: "1".to_owned() },
        Event::MethodEnded,
        Event::GuardTripped { name: "g".to_owned(), seen: String::new() },
        Event::BudgetSpent { name: "g".to_owned(), failed: 3, budget: Budget(3) },
        interrupted(),
        Event::AgentLost { why: String::new() },
        Event::Blind { why: String::new() },
        Event::RecoveryBegan,
        Event::WellAgain { after_ms: 3 },
        Event::NotRecovered { names: Vec::new(), unshown: Vec::new() },
        finished(Exit::Held),
        finished(Exit::Modified),
        stuck(),
        lifted(None, true),
        lifted(None, false),
    ];
    for part in [1, 2] {
        all.extend([injecting(part), injected(part), lifted(Some(part), true), lifted(Some(part), false)]);
        all.push(Event::Measured { part, evidence: Vec::new() });
    }
    for part in [None, Some(1), Some(2)] {
        let refusal = Refusal::bare("no");
        all.push(Event::Refused { part, refusal });
    }
    for step in ["1", "2"] {
        all.extend([action(step, true), action(step, false), ended(step, true), ended(step, false)]);
        all.extend([undo(step, true), undo(step, false)]);
    }
    all
}

/// What the run holds, counted apart from the state machine: by the plainest reading of the accepted events.
#[derive(Default)]
struct Ledger {
    parts: BTreeSet<u32>,
    owed: BTreeSet<String>,
    left: bool,
}

impl Ledger {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Injecting { part, .. } => drop(self.parts.insert(*part)),
            Event::Refused { part: Some(part), .. } => drop(self.parts.remove(part)),
            Event::Lifted { part, lifted, .. } => match (part, lifted.stuck.is_empty()) {
                (Some(part), true) => drop(self.parts.remove(part)),
                (Some(part), false) => drop(self.parts.insert(*part)),
                (None, true) => {
                    self.parts.clear();
                    self.left = false;
                }
                (None, false) => self.left = true,
            },
            Event::ActionBegan { step, undo: true, .. } => drop(self.owed.insert(step.clone())),
            Event::UndoPlayed { step, good: true, .. } => drop(self.owed.remove(step)),
            _ => {}
        }
    }

    fn is_clear(&self) -> bool {
        self.parts.is_empty() && self.owed.is_empty() && !self.left
    }
}

#[test]
fn random_logs_never_finish_while_anything_is_held_and_fold_to_the_same_state() {
    let alphabet = alphabet();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut finished_runs, mut stuck_runs, mut held_at_end) = (0, 0, 0);
    for _ in 0..20_000 {
        let mut state = State::New;
        let mut log = Vec::new();
        let mut ledger = Ledger::default();
        for _ in 0..random.random_range(5..120) {
            // Most of the events are illegal most of the time; the first two open the method half of the time.
            let event = match log.len() {
                0 => started(),
                1 if random.random_bool(0.5) => Event::BaselineMet,
                _ => alphabet[random.random_range(0..alphabet.len())].clone(),
            };
            let before = state.clone();
            match next(state, &event) {
                Ok(after) => {
                    ledger.note(&event);
                    log.push(event);
                    state = after;
                }
                Err(_) => state = before,
            }
        }
        assert_eq!(fold(&log).unwrap(), state);
        match &state {
            State::Finished { exit } => {
                finished_runs += 1;
                assert!(ledger.is_clear(), "finished while held: {log:#?}");
                assert_ne!(*exit, Exit::Modified);
            }
            State::Recovery | State::Settled => assert!(ledger.is_clear(), "{log:#?}"),
            State::Stuck { .. } => {
                stuck_runs += 1;
                held_at_end += u32::from(!ledger.is_clear());
            }
            _ => {}
        }
    }
    assert!(
        finished_runs > 500 && stuck_runs > 500 && held_at_end > 100,
        "the walk is too tame to show anything: {finished_runs} finished, {stuck_runs} stuck, {held_at_end} held"
    );
}

#[test]
fn a_log_survives_its_way_through_a_file() {
    let records: Vec<Record> =
        alphabet().into_iter().enumerate().map(|(at, event)| Record { at_ms: at as u64, event }).collect();
    let text: Vec<String> = records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    let read: Vec<Record> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, records);
    assert!(text[0].starts_with(r#"{"at_ms":0,"event":"started","run":"#), "{}", text[0]);
}

#[test]
fn a_whole_run_passes_through_every_state() {
    let log = [
        started(),
        sample(),
        Event::BaselineMet,
        injecting(1),
        injected(1),
        sample(),
        lifted(Some(1), true),
        action("2", true),
        ended("2", true),
        Event::MethodEnded,
        undo("2", true),
        Event::RecoveryBegan,
        Event::WellAgain { after_ms: 12 },
        finished(Exit::Held),
    ];
    assert_eq!(fold(&log).unwrap(), State::Finished { exit: Exit::Held });
    for cut in 0..log.len() {
        let state = fold(&log[..cut]).unwrap();
        assert!(!state.is_over());
        let live = state.live().cloned().unwrap_or_default();
        assert_eq!(live.parts.contains_key(&1), (4..7).contains(&cut), "after {cut} events");
        assert_eq!(live.owed.len(), usize::from((8..11).contains(&cut)), "after {cut} events");
    }
}

#[test]
fn what_is_live_must_end_before_the_run_does() {
    let live = [started(), Event::BaselineMet, injecting(1), interrupted()];
    for closing in [finished(Exit::Interrupted), Event::RecoveryBegan, Event::MethodEnded] {
        let error = next(fold(&live).unwrap(), &closing).unwrap_err();
        assert_eq!(error.state, "reverting");
    }
    let clean = next(fold(&live).unwrap(), &lifted(Some(1), true)).unwrap();
    assert!(next(clean, &finished(Exit::Interrupted)).is_ok());
    let left = next(fold(&live).unwrap(), &lifted(Some(1), false)).unwrap();
    assert!(next(left.clone(), &finished(Exit::Interrupted)).is_err());
    assert!(matches!(next(left.clone(), &stuck()).unwrap(), State::Stuck { .. }));
    let retried = next(left, &lifted(Some(1), true)).unwrap();
    assert!(next(retried, &finished(Exit::Interrupted)).is_ok());
}

#[test]
fn an_undo_waits_for_its_action_and_a_failed_one_stays_owed() {
    let log = [started(), Event::BaselineMet, action("1", true), interrupted()];
    let state = fold(&log).unwrap();
    assert!(next(state.clone(), &undo("1", true)).is_err(), "the action still runs");
    let state = next(state, &ended("1", true)).unwrap();
    let state = next(state, &undo("1", false)).unwrap();
    assert!(next(state.clone(), &finished(Exit::Interrupted)).is_err());
    assert!(matches!(next(state, &stuck()).unwrap(), State::Stuck { live, .. } if live.owed == ["1"]));
}

#[test]
fn nothing_is_injected_before_the_baseline_is_met_nor_after_the_revert_began() {
    assert!(fold(&[started(), injecting(1)]).is_err());
    assert!(fold(&[started(), Event::BaselineMet, Event::MethodEnded, injecting(1)]).is_err());
    let not_met = Event::BaselineNotMet { name: "h".to_owned(), seen: "503".to_owned() };
    assert!(fold(&[started(), not_met.clone(), Event::BaselineMet]).is_err());
    let refused = State::Finished { exit: Exit::Refused };
    assert_eq!(fold(&[started(), not_met, finished(Exit::Refused)]).unwrap(), refused);
}
