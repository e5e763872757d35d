//! Where a game day stands: what its events add up to.

use serde::Serialize;

use super::document::{GameDay, Step};
use super::record::{Mark, Record, Refused, Through};
use crate::exit::Exit;
use crate::name::Name;

/// Where a game day stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// How far the day is.
    pub phase: Phase,
    /// When it began.
    pub begun: Option<u64>,
    /// When it was over.
    pub over: Option<u64>,
    /// Why it was stopped, and by whom; `None` where it was not.
    pub stopped: Option<Said>,
    /// Its steps, in their order.
    pub steps: Vec<StepCourse>,
    /// What was written down.
    pub notes: Vec<Note>,
}

/// How far a day is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It did not begin.
    #[default]
    New,
    /// It goes on.
    Open,
    /// It was stopped; its last run is still ending.
    Stopping,
    /// It was stopped, and is over.
    Stopped,
    /// It is over: every step had its turn.
    Ended,
}

impl Phase {
    /// Whether nothing happens any more.
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Stopped | Phase::Ended)
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepCourse {
    /// Its name.
    pub name: Name,
    /// Whether it has no experiment: people do it.
    pub manual: bool,
    /// Where it stands.
    #[serde(flatten)]
    pub state: StepState,
    /// Who said go last, and when.
    pub go: Option<Said>,
    /// Who said no-go, when and why.
    pub no_go: Option<Said>,
    /// Why its run did not begin, the last time that it was to.
    pub refused: Option<Said>,
    /// Its runs, in their order; more than one where it was tried again.
    pub attempts: Vec<Attempt>,
    /// When it was over.
    pub over: Option<u64>,
}

/// Where a step stands, in a word.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum StepState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Nothing happens for a while before it.
    Paused {
        /// Until when.
        until: u64,
    },
    /// Somebody has to say go or no-go.
    Asked {
        /// Why, where that is not only what the document says.
        why: Option<String>,
    },
    /// It has its go; its run is about to begin.
    Beginning,
    /// Its run goes on.
    Running,
    /// Its run has ended; marks are waited for.
    Observing,
    /// It is over.
    Done,
    /// It was not done, by somebody's word.
    Skipped,
    /// The day was stopped before it was over.
    Stopped,
}

impl StepState {
    /// Whether the step is over.
    pub fn is_over(&self) -> bool {
        matches!(self, StepState::Done | StepState::Skipped | StepState::Stopped)
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            StepState::Waiting => "waiting",
            StepState::Paused { .. } => "paused",
            StepState::Asked { .. } => "asked",
            StepState::Beginning => "beginning",
            StepState::Running => "running",
            StepState::Observing => "observing",
            StepState::Done => "done",
            StepState::Skipped => "skipped",
            StepState::Stopped => "stopped",
        }
    }
}

/// One run of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Attempt {
    /// The run.
    pub run: String,
    /// When it began, as the controller wrote it down.
    pub began: u64,
    /// When its first change was made.
    pub fault_began: Option<u64>,
    /// When its last change was undone.
    pub fault_ended: Option<u64>,
    /// When the hypothesis held again.
    pub well_again: Option<u64>,
    /// When it ended, as the controller wrote it down.
    pub ended: Option<u64>,
    /// Its exit code.
    pub exit: Option<Exit>,
    /// Its closing sentence.
    pub sentence: Option<String>,
    /// When it was noticed.
    pub detected: Option<Pressed>,
    /// When somebody took it on.
    pub acknowledged: Option<Pressed>,
    /// When users felt nothing of it any more.
    pub mitigated: Option<Pressed>,
}

/// A mark that was pressed: of several the earliest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pressed {
    /// When it happened.
    pub moment: u64,
    /// By whom.
    pub by: String,
    /// How.
    pub through: Through,
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// When.
    pub at: u64,
    /// Who.
    pub by: String,
    /// Why, where that was asked.
    pub why: Option<String>,
}

/// What somebody wrote down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    /// When.
    pub at: u64,
    /// Who.
    pub by: String,
    /// The step that it is about; `None`: the day.
    pub step: Option<Name>,
    /// What.
    pub text: String,
}

impl Attempt {
    /// A mark of it.
    pub fn pressed(&self, mark: Mark) -> Option<&Pressed> {
        match mark {
            Mark::Detected => self.detected.as_ref(),
            Mark::Acknowledged => self.acknowledged.as_ref(),
            Mark::Mitigated => self.mitigated.as_ref(),
        }
    }

    pub(super) fn place(&mut self, mark: Mark) -> &mut Option<Pressed> {
        match mark {
            Mark::Detected => &mut self.detected,
            Mark::Acknowledged => &mut self.acknowledged,
            Mark::Mitigated => &mut self.mitigated,
        }
    }

    /// Whether its run goes on.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }
}

impl StepCourse {
    fn of(step: &Step) -> Self {
        StepCourse {
            name: step.name.clone(),
            manual: step.experiment.is_none(),
            state: StepState::Waiting,
            go: None,
            no_go: None,
            refused: None,
            attempts: Vec::new(),
            over: None,
        }
    }

    /// Its last run.
    pub fn last(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// The run that its figures are of: the last that injected something.
    pub fn injected(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.fault_began.is_some())
    }

    /// The exit code that it counts with: that of its last run; where none could begin, it was refused.
    pub fn exit(&self) -> Option<Exit> {
        match (self.last(), &self.refused) {
            (Some(attempt), _) => attempt.exit,
            (None, refused) => refused.as_ref().map(|_| Exit::Refused),
        }
    }

    /// Until when the first of the marks that are still missing is waited for; `None`: nothing is waited for any more.
    pub fn awaits(&self, step: &Step, now: u64) -> Option<u64> {
        let attempt = self.last()?;
        let (began, expect) = (attempt.fault_began?, step.expect.as_ref()?);
        // Who takes it on has noticed it.
        let noticed = |mark: Mark| mark == Mark::Detected && attempt.acknowledged.is_some();
        let missing =
            Mark::ALL.into_iter().filter(|mark| attempt.pressed(*mark).is_none() && !noticed(*mark));
        let until = missing.filter_map(|mark| Some(began.saturating_add(expect.within(mark)?.as_millis())));
        until.filter(|until| *until > now).min()
    }
}

impl Course {
    /// A day that has not begun.
    pub fn of(day: &GameDay) -> Self {
        Course {
            phase: Phase::New,
            begun: None,
            over: None,
            stopped: None,
            steps: day.steps.iter().map(StepCourse::of).collect(),
            notes: Vec::new(),
        }
    }

    /// Where a day stands after its events; the first that could not happen is an error, with its place from 0.
    pub fn after<'r>(
        day: &GameDay,
        records: impl IntoIterator<Item = &'r Record>,
    ) -> Result<Self, (usize, Refused)> {
        let mut course = Course::of(day);
        for (at, record) in records.into_iter().enumerate() {
            course.take(record).map_err(|refused| (at, refused))?;
        }
        Ok(course)
    }

    /// The step whose turn it is: the first that is not over.
    pub fn current(&self) -> Option<&StepCourse> {
        self.steps.iter().find(|step| !step.state.is_over())
    }

    /// The step of a name.
    pub fn step(&self, name: &Name) -> Option<&StepCourse> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// The step before another one that had its turn and was not skipped.
    pub fn before(&self, name: &Name) -> Option<&StepCourse> {
        let at = self.steps.iter().position(|step| step.name == *name)?;
        let had_its_turn = |step: &&StepCourse| step.state != StepState::Skipped || step.refused.is_some();
        self.steps[..at].iter().rev().find(had_its_turn)
    }

    /// The step that a mark is about which names none: the last in which something was injected.
    pub fn in_question(&self) -> Option<&StepCourse> {
        self.steps.iter().rev().find(|step| step.injected().is_some())
    }

    /// The step whose run goes on, with that run.
    pub fn open(&self) -> Option<(&StepCourse, &Attempt)> {
        let open = |step| StepCourse::last(step).filter(|last| last.is_open()).map(|last| (step, last));
        self.steps.iter().find_map(open)
    }

    /// The most serious exit code of its steps, see [`Exit::worse`]; a day that was stopped is interrupted.
    pub fn exit(&self) -> Exit {
        let stopped = if self.stopped.is_some() { Exit::Interrupted } else { Exit::Held };
        self.steps.iter().filter_map(StepCourse::exit).fold(stopped, Exit::worse)
    }
}
