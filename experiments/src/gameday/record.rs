//! What happens on a game day, in the order in which it was heard of. Events are only ever added.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::name::Name;

/// One event: when it was heard of, by whom, and what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was written down: milliseconds since 1970.
    pub at: u64,
    /// Who did it, as the audit log names them; `squall` is the controller itself.
    pub by: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. Every `moment` is milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The day began: its first event.
    Begun,
    /// Nothing happens for a while before a step.
    Paused {
        /// The step.
        step: Name,
        /// Until when.
        until: u64,
    },
    /// Somebody has to say go or no-go to a step.
    Asked {
        /// The step.
        step: Name,
        /// Why, where that is not only what the document says: `payments deviated`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Go: the step's run begins. A step without an experiment is over with it: what people did is done.
    Go {
        /// The step.
        step: Name,
    },
    /// No-go: the step is skipped. One that has run already is left as it is, and not tried again.
    NoGo {
        /// The step.
        step: Name,
        /// Why.
        why: String,
    },
    /// The step's run did not begin: a gate, the budget, its hosts, its document. The step is asked again.
    Refused {
        /// The step.
        step: Name,
        /// Why.
        why: String,
    },
    /// The step's run began.
    RunBegan {
        /// The step.
        step: Name,
        /// The run.
        run: String,
    },
    /// The first change of the run was made on a host.
    FaultBegan {
        /// The step.
        step: Name,
        /// The run.
        run: String,
        /// When, as the run measured it.
        moment: u64,
    },
    /// The last change of the run was undone.
    FaultEnded {
        /// The step.
        step: Name,
        /// The run.
        run: String,
        /// When, as the run measured it.
        moment: u64,
    },
    /// After the fault the hypothesis held again, on all hosts that look at it.
    WellAgain {
        /// The step.
        step: Name,
        /// The run.
        run: String,
        /// When the good samples that showed it began.
        moment: u64,
    },
    /// The run ended.
    RunEnded {
        /// The step.
        step: Name,
        /// The run.
        run: String,
        /// Its exit code.
        exit: Exit,
        /// Its closing sentence.
        sentence: String,
    },
    /// A step whose run has ended is over: the marks that were waited for came, their time is over, or somebody said go on.
    Done {
        /// The step.
        step: Name,
    },
    /// Somebody, or an alert, says that something was detected, acknowledged or mitigated.
    Marked {
        /// The step whose fault it is about.
        step: Name,
        /// What.
        mark: Mark,
        /// When it happened; not before the fault began.
        moment: u64,
        /// How it was said.
        through: Through,
    },
    /// A mark was pressed by mistake.
    TakenBack {
        /// The step.
        step: Name,
        /// What.
        mark: Mark,
    },
    /// Somebody wrote something down.
    Noted {
        /// The step that it is about; `None`: the day.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<Name>,
        /// What.
        text: String,
    },
    /// The day is stopped: nothing more begins. What goes on is halted.
    Stopped {
        /// Why.
        why: String,
    },
    /// The last event, but for notes.
    Ended,
}

/// What people, or alerts, do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// It was noticed.
    Detected,
    /// Somebody has taken it on.
    Acknowledged,
    /// Users feel nothing of it any more, by what people did.
    Mitigated,
}

impl Mark {
    /// All, in the order in which they come.
    pub const ALL: [Mark; 3] = [Mark::Detected, Mark::Acknowledged, Mark::Mitigated];
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mark::Detected => "detected",
            Mark::Acknowledged => "acknowledged",
            Mark::Mitigated => "mitigated",
        })
    }
}

impl std::str::FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Mark::ALL.into_iter().find(|mark| mark.to_string() == text);
        found.ok_or_else(|| format!("`{text}` is no mark: it is `detected`, `acknowledged` or `mitigated`"))
    }
}

/// How a mark was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// On the page.
    Page,
    /// By the command line, or a program.
    Api,
    /// By a tool that alerts.
    Webhook,
}

/// Why an event cannot happen now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// A lowercase fragment with the object in backticks.
    pub what: String,
    /// What to do, where there is something.
    pub help: Option<String>,
}

impl Refused {
    /// Without anything to do about it.
    pub fn bare(what: impl Into<String>) -> Self {
        Refused { what: what.into(), help: None }
    }

    /// With what to do.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Refused { what: what.into(), help: Some(help.into()) }
    }
}

impl Event {
    /// The step that it is about; `None`: the day.
    pub fn step(&self) -> Option<&Name> {
        match self {
            Event::Begun | Event::Stopped { .. } | Event::Ended => None,
            Event::Noted { step, .. } => step.as_ref(),
            Event::Paused { step, .. }
            | Event::Asked { step, .. }
            | Event::Go { step }
            | Event::NoGo { step, .. }
            | Event::Refused { step, .. }
            | Event::RunBegan { step, .. }
            | Event::FaultBegan { step, .. }
            | Event::FaultEnded { step, .. }
            | Event::WellAgain { step, .. }
            | Event::RunEnded { step, .. }
            | Event::Done { step }
            | Event::Marked { step, .. }
            | Event::TakenBack { step, .. } => Some(step),
        }
    }
}
