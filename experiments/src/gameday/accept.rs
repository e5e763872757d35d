//! Which events can happen now, and what they lead to.

use super::course::{Attempt, Course, Note, Phase, Pressed, Said, StepCourse, StepState};
use super::record::{Event, Mark, Record, Refused, Through};
use crate::name::Name;

impl Course {
    /// Takes an event. The same course and event always lead to the same course; one that cannot happen changes nothing.
    pub fn take(&mut self, record: &Record) -> Result<(), Refused> {
        let said = |why: Option<&String>| Said { at: record.at, by: record.by.clone(), why: why.cloned() };
        match &record.event {
            Event::Begun => {
                if self.phase != Phase::New {
                    return Err(Refused::bare("the game day has begun already"));
                }
                (self.phase, self.begun) = (Phase::Open, Some(record.at));
                return Ok(());
            }
            _ if self.phase == Phase::New => return Err(Refused::bare("the game day has not begun")),
            Event::Noted { step, text } => {
                if let Some(step) = step {
                    self.place(step)?;
                }
                let (by, step, text) = (record.by.clone(), step.clone(), text.clone());
                self.notes.push(Note { at: record.at, by, step, text });
                return Ok(());
            }
            _ if self.phase.is_over() => return Err(self.is_over()),
            Event::Stopped { why } => return self.stop(said(Some(why))),
            Event::Ended => return self.end(record.at),
            _ => {}
        }
        let Some(name) = record.event.step() else { return Ok(()) };
        let at = self.place(name)?;
        match &record.event {
            // What a run says is true, also of a day that was stopped meanwhile.
            Event::RunBegan { run, .. } => return self.run_began(at, run, record.at),
            Event::FaultBegan { run, moment, .. } => {
                let place = &mut self.attempt(at, run)?.fault_began;
                *place = Some(place.map_or(*moment, |known| known.min(*moment)));
                return Ok(());
            }
            Event::FaultEnded { run, moment, .. } => {
                self.attempt(at, run)?.fault_ended = Some(*moment);
                return Ok(());
            }
            Event::WellAgain { run, moment, .. } => {
                self.attempt(at, run)?.well_again = Some(*moment);
                return Ok(());
            }
            Event::RunEnded { run, exit, sentence, .. } => {
                let attempt = self.attempt(at, run)?;
                (attempt.ended, attempt.exit) = (Some(record.at), Some(*exit));
                attempt.sentence = Some(sentence.clone());
                let step = &mut self.steps[at];
                if step.state == StepState::Running {
                    step.state = StepState::Observing;
                }
                return Ok(());
            }
            Event::Marked { mark, moment, through, .. } => {
                let pressed = Pressed { moment: *moment, by: record.by.clone(), through: *through };
                return self.mark(at, *mark, pressed);
            }
            Event::TakenBack { mark, .. } => return self.take_back(at, *mark),
            _ => {}
        }
        if self.phase == Phase::Stopping {
            return Err(self.is_over());
        }
        if let Event::NoGo { why, .. } = &record.event {
            return self.no_go(at, said(Some(why)));
        }
        self.has_its_turn(at)?;
        let step = &mut self.steps[at];
        match (&record.event, &step.state) {
            (Event::Paused { until, .. }, StepState::Waiting) => {
                step.state = StepState::Paused { until: *until }
            }
            (
                Event::Asked { why, .. },
                StepState::Waiting | StepState::Paused { .. } | StepState::Observing,
            ) => step.state = StepState::Asked { why: why.clone() },
            (Event::Go { .. }, StepState::Waiting | StepState::Paused { .. } | StepState::Asked { .. }) => {
                step.go = Some(said(None));
                (step.state, step.over) = match step.manual {
                    true => (StepState::Done, Some(record.at)),
                    false => (StepState::Beginning, None),
                };
            }
            (Event::Refused { why, .. }, StepState::Beginning) => {
                step.refused = Some(said(Some(why)));
                step.state = StepState::Asked { why: Some(why.clone()) };
            }
            (Event::Done { .. }, StepState::Observing) => {
                (step.state, step.over) = (StepState::Done, Some(record.at));
            }
            _ => return Err(not_now(step, &record.event)),
        }
        Ok(())
    }

    fn place(&self, name: &Name) -> Result<usize, Refused> {
        self.steps.iter().position(|step| step.name == *name).ok_or_else(|| {
            let known: Vec<String> = self.steps.iter().map(|step| format!("`{}`", step.name)).collect();
            Refused::new(format!("there is no step `{name}`"), format!("its steps are {}", known.join(", ")))
        })
    }

    fn is_over(&self) -> Refused {
        match (&self.stopped, self.phase) {
            (Some(said), _) => {
                let why = said.why.as_deref().unwrap_or_default();
                Refused::bare(format!("the game day was stopped by {}: {why}", said.by))
            }
            _ => Refused::bare("the game day is over"),
        }
    }

    fn stop(&mut self, said: Said) -> Result<(), Refused> {
        if self.phase != Phase::Open {
            return Err(self.is_over());
        }
        for step in self.steps.iter_mut().filter(|step| !step.state.is_over()) {
            (step.state, step.over) = (StepState::Stopped, Some(said.at));
        }
        (self.phase, self.stopped) = (Phase::Stopping, Some(said));
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Refused> {
        if let Some((step, _)) = self.open() {
            return Err(Refused::bare(format!("the run of `{}` goes on", step.name)));
        }
        if let Some(step) = self.current() {
            return Err(Refused::bare(format!("the step `{}` is not over", step.name)));
        }
        let ended = if self.phase == Phase::Stopping { Phase::Stopped } else { Phase::Ended };
        (self.phase, self.over) = (ended, Some(at));
        Ok(())
    }

    fn run_began(&mut self, at: usize, run: &str, when: u64) -> Result<(), Refused> {
        let step = &mut self.steps[at];
        // A run that was being begun while the day was stopped is the day's all the same: somebody has to see it end.
        let late = step.state == StepState::Stopped && step.go.is_some();
        if step.state != StepState::Beginning && !late {
            return Err(Refused::bare(format!("no run of `{}` was to begin", step.name)));
        }
        if step.last().is_some_and(Attempt::is_open) {
            return Err(Refused::bare(format!("a run of `{}` goes on", step.name)));
        }
        step.attempts.push(Attempt { run: run.to_owned(), began: when, ..Attempt::default() });
        if !late {
            step.state = StepState::Running;
        }
        Ok(())
    }

    /// The run of a step that goes on.
    fn attempt(&mut self, at: usize, run: &str) -> Result<&mut Attempt, Refused> {
        let step = &mut self.steps[at];
        let none = || Refused::bare(format!("the run `{run}` of `{}` does not go on", step.name));
        let open = |attempt: &&mut Attempt| attempt.run == run && attempt.is_open();
        step.attempts.last_mut().filter(open).ok_or_else(none)
    }

    fn mark(&mut self, at: usize, mark: Mark, pressed: Pressed) -> Result<(), Refused> {
        let step = &mut self.steps[at];
        let name = &step.name;
        let injected = step.attempts.iter_mut().rev().find(|attempt| attempt.fault_began.is_some());
        let Some(attempt) = injected else {
            let what = format!("nothing has been injected in `{name}` yet: there is nothing to be {mark}");
            return Err(Refused::new(
                what,
                "press it again when the fault is there; a note can be written at any time",
            ));
        };
        if attempt.fault_began.is_some_and(|began| pressed.moment < began) {
            let what = format!("the fault of `{name}` began later than that");
            return Err(Refused::new(what, "what was there before is not its doing; write a note"));
        }
        let place = attempt.place(mark);
        if place.as_ref().is_none_or(|known| key(&pressed) < key(known)) {
            *place = Some(pressed);
        }
        Ok(())
    }

    fn take_back(&mut self, at: usize, mark: Mark) -> Result<(), Refused> {
        let step = &mut self.steps[at];
        let name = &step.name;
        let injected = step.attempts.iter_mut().rev().find(|attempt| attempt.fault_began.is_some());
        let taken = injected.and_then(|attempt| attempt.place(mark).take());
        taken.map(drop).ok_or_else(|| Refused::bare(format!("`{name}` is not marked as {mark}")))
    }

    fn no_go(&mut self, at: usize, said: Said) -> Result<(), Refused> {
        let step = &mut self.steps[at];
        match &step.state {
            StepState::Waiting | StepState::Paused { .. } | StepState::Asked { .. } => {
                let ran = !step.attempts.is_empty();
                step.state = if ran { StepState::Done } else { StepState::Skipped };
                (step.over, step.no_go) = (Some(said.at), Some(said));
                Ok(())
            }
            StepState::Beginning | StepState::Running => Err(Refused::new(
                format!("the run of `{}` has begun", step.name),
                "halt the run, or stop the game day",
            )),
            _ => Err(settled(step)),
        }
    }

    fn has_its_turn(&self, at: usize) -> Result<(), Refused> {
        let step = &self.steps[at];
        match self.current() {
            Some(current) if current.name == step.name => Ok(()),
            Some(current) if !step.state.is_over() => Err(Refused::bare(format!(
                "it is not the turn of `{}`: `{}` is {}",
                step.name,
                current.name,
                current.state.word()
            ))),
            _ => Err(settled(step)),
        }
    }
}

/// Of two marks the earlier; where they are of one moment, always the same of the two.
fn key(pressed: &Pressed) -> (u64, &str, u8) {
    let through = match pressed.through {
        Through::Page => 0,
        Through::Api => 1,
        Through::Webhook => 2,
    };
    (pressed.moment, &pressed.by, through)
}

/// What somebody has decided already.
fn settled(step: &StepCourse) -> Refused {
    let (name, word) = (&step.name, step.state.word());
    match (&step.no_go, &step.go) {
        (Some(said), _) => Refused::bare(format!("{} has said no-go to `{name}` already", said.by)),
        (None, Some(said)) => {
            Refused::bare(format!("{} has said go to `{name}` already: it is {word}", said.by))
        }
        _ => Refused::bare(format!("`{name}` is {word}")),
    }
}

fn not_now(step: &StepCourse, event: &Event) -> Refused {
    match (event, &step.state) {
        (Event::Go { .. }, _) => settled(step),
        (_, state) => {
            Refused::bare(format!("`{}` is {}, and that cannot happen now", step.name, state.word()))
        }
    }
}
