//! What comes next on a game day: pure, so that whichever controller carries a day on does the same.

use super::course::{Attempt, Course, Phase, StepCourse, StepState};
use super::document::{GameDay, Go, Step};
use super::record::Event;
use crate::exit::Exit;
use crate::name::Name;

/// What whoever drives a day does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// This is written down.
    Say(Event),
    /// The run of this step begins.
    Begin(Name),
    /// This run of this step is followed.
    Follow(Name, String),
    /// Nothing, until somebody says something, or it is this time (milliseconds since 1970).
    Wait(Option<u64>),
    /// Nothing any more.
    Over,
}

impl Course {
    /// What comes next, at a time (milliseconds since 1970).
    pub fn turn(&self, day: &GameDay, now: u64) -> Turn {
        if let Some((step, attempt)) = self.open() {
            return Turn::Follow(step.name.clone(), attempt.run.clone());
        }
        match self.phase {
            Phase::New => return Turn::Wait(None),
            Phase::Stopping => return Turn::Say(Event::Ended),
            Phase::Stopped | Phase::Ended => return Turn::Over,
            Phase::Open => {}
        }
        let Some(current) = self.current() else { return Turn::Say(Event::Ended) };
        let Some(step) = day.step(&current.name) else { return Turn::Wait(None) };
        let name = current.name.clone();
        match &current.state {
            StepState::Waiting => match step.pause.filter(|pause| !pause.is_zero()) {
                Some(pause) => {
                    Turn::Say(Event::Paused { step: name, until: now.saturating_add(pause.as_millis()) })
                }
                None => Turn::Say(self.ask_or_go(step)),
            },
            StepState::Paused { until } if *until > now => Turn::Wait(Some(*until)),
            StepState::Paused { .. } => Turn::Say(self.ask_or_go(step)),
            StepState::Beginning => Turn::Begin(name),
            StepState::Observing => after_run(current, step, now),
            _ => Turn::Wait(None),
        }
    }

    /// Go, where nobody has to be asked.
    fn ask_or_go(&self, step: &Step) -> Event {
        let name = step.name.clone();
        let before = self.before(&step.name);
        let why = before.and_then(|before| match before.exit() {
            None | Some(Exit::Held) => None,
            Some(exit) => Some(format!("`{}`: {}", before.name, exit.meaning())),
        });
        match (step.go, &why) {
            (Go::Auto, None) => Event::Go { step: name },
            _ => Event::Asked { step: name, why },
        }
    }
}

/// After a run that says nothing about the system the step can be tried again; else the marks that are missing are waited for.
fn after_run(current: &StepCourse, step: &Step, now: u64) -> Turn {
    let name = current.name.clone();
    let last = current.last();
    if let Some(exit @ (Exit::Refused | Exit::Interrupted | Exit::Inconclusive)) = current.exit() {
        let said = last.and_then(|attempt| attempt.sentence.clone());
        let why = said.filter(|said| !said.is_empty()).unwrap_or_else(|| exit.meaning().to_owned());
        return Turn::Say(Event::Asked {
            step: name,
            why: Some(format!("{why}; go tries it again, no-go goes on")),
        });
    }
    match current.awaits(step, now) {
        Some(until) => Turn::Wait(Some(until)),
        None => Turn::Say(Event::Done { step: name }),
    }
}

impl Attempt {
    /// What a run's log says that is not known of it yet.
    pub fn is_news(&self, event: &Event) -> bool {
        match event {
            Event::FaultBegan { moment, .. } => self.fault_began.is_none_or(|known| *moment < known),
            Event::FaultEnded { moment, .. } => self.fault_ended.is_none_or(|known| *moment > known),
            Event::WellAgain { moment, .. } => self.well_again != Some(*moment),
            _ => self.is_open(),
        }
    }
}
