//! The one state machine of a run.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use crate::exit::Exit;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// Nothing happened yet.
    #[default]
    New,
    /// The hypothesis is watched before anything is done.
    Baseline,
    /// The steps are carried out.
    Method(Live),
    /// Everything that is live is being undone. Nothing new is injected any more.
    Reverting(Live),
    /// Nothing is live; the hypothesis is watched until it holds again.
    Recovery,
    /// Nothing is live and nothing more is watched; only the closing is missing.
    Settled,
    /// The end of a run that left its host as it was.
    Finished {
        /// The exit code.
        exit: Exit,
    },
    /// The end of a run that could not: its host is still modified.
    Stuck {
        /// What is still live.
        live: Live,
        /// What is still there, in words.
        left: Vec<String>,
    },
}

/// What a run holds on its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// Its parts that were begun and not yet undone.
    pub parts: BTreeMap<u32, Part>,
    /// Its actions that were begun and did not end yet, by their step.
    pub running: BTreeSet<String>,
    /// Undos of actions that are still to be played, by their step, in the order of the actions.
    pub owed: Vec<String>,
    /// Whether the agent said, of the run as a whole, that something is still there.
    pub left: bool,
}

/// How far a live part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Asked for; whether it was made is not known.
    Injecting,
    /// Made.
    Injected,
    /// Undone in part; something is still there.
    Stuck,
}

impl Live {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        *self == Live::default()
    }
}

impl State {
    /// What the run holds now; `None` where it cannot hold anything.
    pub fn live(&self) -> Option<&Live> {
        match self {
            State::Method(live) | State::Reverting(live) | State::Stuck { live, .. } => Some(live),
            _ => None,
        }
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Finished { .. } | State::Stuck { .. })
    }

    fn name(&self) -> &'static str {
        match self {
            State::New => "new",
            State::Baseline => "baseline",
            State::Method(_) => "method",
            State::Reverting(_) => "reverting",
            State::Recovery => "recovery",
            State::Settled => "settled",
            State::Finished { .. } => "finished",
            State::Stuck { .. } => "stuck",
        }
    }
}

/// An event that cannot happen in a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot happen while the run is `{state}`")]
pub struct Illegal {
    /// The state's name.
    pub state: &'static str,
    /// The event, shortened.
    pub event: String,
}

/// The state that a log leads to; the first event that could not happen is an error.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<State, Illegal> {
    events.into_iter().try_fold(State::New, next)
}

/// The state after an event. Pure: the same state and event always lead to the same state.
pub fn next(state: State, event: &Event) -> Result<State, Illegal> {
    use Event as E;
    use State as S;
    let name = state.name();
    let after = match (state, event) {
        (S::New, E::Started(_)) => Some(S::Baseline),
        (S::New | S::Finished { .. } | S::Stuck { .. }, _) => None,

        // Looking at the system changes nothing.
        (state, E::Sample(_)) => Some(state),

        (S::Baseline, E::BaselineMet) => Some(S::Method(Live::default())),
        (
            S::Baseline,
            E::BaselineNotMet { .. }
            | E::Refused { part: None, .. }
            | E::GuardTripped { .. }
            | E::Interrupted { .. }
            | E::AgentLost { .. }
            | E::Blind { .. },
        ) => Some(S::Reverting(Live::default())),

        (S::Method(live), event) => in_method(live, event),
        (S::Reverting(live), event) => in_reverting(live, event),

        (S::Recovery, E::WellAgain { .. } | E::NotRecovered { .. }) => Some(S::Settled),
        (S::Recovery | S::Settled, E::Interrupted { .. } | E::Blind { .. }) => Some(S::Settled),
        (S::Settled, E::Finished { exit, .. }) => finished(*exit),
        _ => None,
    };
    after.ok_or_else(|| Illegal { state: name, event: format!("{event:?}").chars().take(80).collect() })
}

/// Steps are carried out; everything that stops them leads to the revert.
fn in_method(mut live: Live, event: &Event) -> Option<State> {
    match event {
        Event::StepBegan { .. } | Event::StepEnded { .. } => Some(State::Method(live)),
        Event::Injecting { part, .. } => {
            let new = live.parts.insert(*part, Part::Injecting).is_none();
            new.then_some(State::Method(live))
        }
        Event::ActionBegan { step, undo, .. } => {
            let new = live.running.insert(step.clone()) && !live.owed.contains(step);
            if *undo {
                live.owed.push(step.clone());
            }
            new.then_some(State::Method(live))
        }
        Event::ActionEnded { step, good: true, .. } => {
            live.running.remove(step).then_some(State::Method(live))
        }
        Event::ActionEnded { step, good: false, .. } => {
            live.running.remove(step).then_some(State::Reverting(live))
        }
        Event::Lifted { part, lifted, .. } if lifted.stuck.is_empty() && part.is_some() => {
            lift(&mut live, *part, true)?;
            Some(State::Method(live))
        }
        Event::Injected { .. } | Event::Measured { .. } => progress(live, event).map(State::Method),
        Event::MethodEnded if live.parts.is_empty() && live.running.is_empty() => {
            Some(State::Reverting(live))
        }
        Event::GuardTripped { .. } | Event::GaveWay { .. } | Event::BudgetSpent { .. } => {
            Some(State::Reverting(live))
        }
        Event::Lifted { .. }
        | Event::Refused { .. }
        | Event::Interrupted { .. }
        | Event::AgentLost { .. }
        | Event::Blind { .. } => in_reverting(live, event),
        _ => None,
    }
}

/// Nothing begins any more; what is live ends.
fn in_reverting(mut live: Live, event: &Event) -> Option<State> {
    match event {
        Event::Lifted { part, lifted, .. } => lift(&mut live, *part, lifted.stuck.is_empty())?,
        Event::Injected { .. } | Event::Measured { .. } => live = progress(live, event)?,
        // All or none: a part that was refused was never made.
        Event::Refused { part: Some(part), .. } => match live.parts.get(part) {
            Some(Part::Injecting) => drop(live.parts.remove(part)),
            _ => return None,
        },
        Event::Refused { part: None, .. } => {}
        Event::ActionEnded { step, .. } => live.running.remove(step).then_some(())?,
        Event::UndoPlayed { step, good, .. } if !live.running.contains(step) => {
            let at = live.owed.iter().position(|owed| owed == step)?;
            if *good {
                live.owed.remove(at);
            }
        }
        Event::Interrupted { .. } | Event::AgentLost { .. } | Event::Blind { .. } => {}
        Event::RecoveryBegan if live.is_empty() => return Some(State::Recovery),
        Event::Finished { exit, .. } if live.is_empty() => return finished(*exit),
        Event::Stuck { left, .. } if !left.is_empty() => {
            return Some(State::Stuck { live, left: left.clone() });
        }
        _ => return None,
    }
    Some(State::Reverting(live))
}

fn finished(exit: Exit) -> Option<State> {
    (exit != Exit::Modified).then_some(State::Finished { exit })
}

fn progress(mut live: Live, event: &Event) -> Option<Live> {
    match event {
        Event::Injected { part, .. } => {
            let at = live.parts.get_mut(part).filter(|at| **at == Part::Injecting)?;
            *at = Part::Injected;
        }
        Event::Measured { part, .. } => drop(live.parts.get(part)?),
        _ => return None,
    }
    Some(live)
}

/// A part that is not live any more may be lifted again: lifting is idempotent.
fn lift(live: &mut Live, part: Option<u32>, clean: bool) -> Option<()> {
    match (part, clean) {
        (Some(part), true) => drop(live.parts.remove(&part)),
        (Some(part), false) => drop(live.parts.insert(part, Part::Stuck)),
        (None, true) => {
            live.parts.clear();
            live.left = false;
        }
        (None, false) => live.left = true,
    }
    Some(())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
