//! The half of a run that listens: samples, the agent's notices, interruptions; and takes samples when they are due.

use std::future::pending;

use squall_experiments::guard::Stop;
use squall_experiments::probe::{ProberReply, Sample};
use squall_experiments::protocol::{Refusal, Said};
use squall_experiments::run::{Event, State};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep_until;

use super::Run;
use super::link::Notice;
use super::prober::Told;
use super::sampling::Purpose;

impl Run<'_> {
    /// Never returns; it is dropped with the run.
    pub(super) async fn listen(
        &self,
        mut answers: UnboundedReceiver<Told>,
        mut notices: UnboundedReceiver<Notice>,
        mut interruptions: UnboundedReceiver<String>,
    ) {
        loop {
            let due = self.sampling.borrow().next_due();
            let alarm = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            // In this order: an interruption goes before everything, and samples before what depends on them.
            tokio::select! {
                biased;
                Some(name) = interruptions.recv() => self.interrupted(&name),
                Some(notice) = notices.recv() => self.noticed(notice),
                Some(told) = answers.recv() => self.told(told),
                () = alarm => {
                    let due = self.sampling.borrow_mut().take_due();
                    self.ask(&due);
                }
                () = self.rescheduled.notified() => {}
            }
        }
    }

    fn interrupted(&self, name: &str) {
        let state = self.state();
        match state {
            State::Baseline | State::Method(_) | State::Recovery => {
                self.record(Event::Interrupted { by: name.to_owned() });
                let live = state.live().is_some_and(|live| !live.is_empty());
                if live {
                    self.note(&format!("{name}: reverting first, then reporting"));
                }
            }
            State::Reverting(_) if self.log.borrow().was_interrupted() => {
                self.note(&format!("{name}: still reverting; this is not skipped"));
            }
            State::Reverting(_) => {
                self.record(Event::Interrupted { by: name.to_owned() });
                self.note(&format!("{name}: the revert is under way and is finished first"));
            }
            State::New => {
                self.early.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            State::Settled | State::Finished { .. } | State::Stuck { .. } => {}
        }
    }

    fn noticed(&self, notice: Notice) {
        match notice {
            Notice::Ended { run, part, why, lifted } if run == self.order.run => {
                let holds = matches!(self.state(), State::Method(_) | State::Reverting(_));
                if !holds {
                    return;
                }
                self.record(Event::Lifted { part, lifted, why: Some(why.clone()) });
                if part.is_none() {
                    self.begun.set(false);
                    // A guard stopped it, and has said so itself.
                    if self.guarded.get() {
                        return;
                    }
                    let by = if why == "halted" { "halt".to_owned() } else { why };
                    self.note(&format!("the agent ended the run: {by}"));
                    self.record(Event::Interrupted { by });
                }
            }
            Notice::Guard { run, guard, said } if run == self.order.run => self.guard_said(guard, said),
            Notice::Saw { run, seen } if run == self.order.run => self.log.borrow_mut().saw(seen),
            Notice::Ended { .. } | Notice::Guard { .. } | Notice::Saw { .. } => {}
            Notice::Lost(why) => self.lose_agent(&why),
        }
    }

    /// The agent looked at a guard. What it sees is judged here as well, by the same rules; where it stops the run, it has
    /// done so.
    fn guard_said(&self, guard: u32, said: Said) {
        match said {
            Said::Sample(sample) => self.watched(guard as usize, &sample),
            Said::Stopped(stop) => {
                let name = self.sampling.borrow().watches.get(guard as usize).map(|watch| watch.name.clone());
                self.guarded.set(true);
                self.stop_for(name.unwrap_or_default(), stop);
            }
        }
    }

    /// The agent can no longer be reached over this connection. Only the first time counts, and not after everything
    /// was ended: an agent may leave when nobody needs it.
    pub(super) fn lose_agent(&self, why: &str) {
        if self.link.borrow_mut().take().is_none() {
            return;
        }
        if let Some(renewal) = self.renewal.borrow_mut().take() {
            renewal.abort();
        }
        let state = self.state();
        if matches!(state, State::Baseline) || (self.begun.get() && state.live().is_some()) {
            self.note(&format!("the connection to the agent broke: {why}; it reverts by itself"));
            self.record(Event::AgentLost { why: why.to_owned() });
        }
        // Whoever waits for an answer waits in vain.
        self.changed.notify_waiters();
    }

    fn told(&self, told: Told) {
        match told {
            Told::Reply(ProberReply::Sample(sample)) => self.sampled(&sample),
            Told::Reply(ProberReply::Unusable { probe, why }) => self.unusable(probe, &why),
            Told::Reply(ProberReply::Failing { probe, begun_ns, failed }) => {
                let spent = self.sampling.borrow_mut().failing(probe, begun_ns, failed);
                if let Some((name, stop)) = spent {
                    self.stop_for(name, stop);
                }
            }
            Told::Reply(ProberReply::Rested { probe }) => {
                self.sampling.borrow_mut().rested(probe);
                self.changed.notify_waiters();
            }
            Told::Gone { place, why } => self.blinded(place, &why),
        }
    }

    fn sampled(&self, sample: &Sample) {
        let purpose =
            self.sampling.borrow().loaded.get(sample.probe as usize).map(|loaded| loaded.purpose.clone());
        match purpose {
            Some(Purpose::Watch(place)) => self.watched(place, sample),
            Some(purpose) => self.acted(&purpose, sample.good, &sample.seen),
            None => {}
        }
    }

    fn watched(&self, place: usize, sample: &Sample) {
        let begun_ms = self.clock.ms_of(sample.begun_ns);
        let Some((seen, stop)) = self.sampling.borrow_mut().count(place, sample, begun_ms) else {
            return;
        };
        let over = matches!(self.state(), State::New | State::Finished { .. } | State::Stuck { .. });
        if over {
            return;
        }
        let name = seen.name.clone();
        self.record(Event::Sample(seen));
        if let Some(stop) = stop {
            self.stop_for(name, stop);
        }
    }

    /// A guard, or a budget, stops the run. In the baseline a guard is part of what must hold, and is judged there.
    pub(super) fn stop_for(&self, name: String, stop: Stop) {
        if !matches!(self.state(), State::Method(_)) {
            return;
        }
        self.record(match stop {
            Stop::Tripped(seen) => Event::GuardTripped { name, seen },
            Stop::Spent { failed, budget } => Event::BudgetSpent { name, failed, budget },
            // A guard that no longer sees guards nothing.
            Stop::Blind(seen) => {
                Event::Blind { why: format!("the guard `{name}` says nothing any more: {seen}") }
            }
        });
    }

    /// An action or an undo ended.
    fn acted(&self, purpose: &Purpose, good: bool, seen: &str) {
        let state = self.state();
        let Some(live) = state.live() else { return };
        let seen = seen.to_owned();
        match purpose {
            Purpose::Action(step) if live.running.contains(step) => {
                self.record(Event::ActionEnded { step: step.clone(), good, seen })
            }
            Purpose::Undo(step) if live.owed.contains(step) && matches!(state, State::Reverting(_)) => {
                self.record(Event::UndoPlayed { step: step.clone(), good, seen });
            }
            _ => {}
        }
    }

    /// A probe cannot be taken at all.
    fn unusable(&self, probe: u32, why: &str) {
        let purpose = {
            let mut sampling = self.sampling.borrow_mut();
            let Some(loaded) = sampling.loaded.get_mut(probe as usize) else {
                return;
            };
            loaded.unusable = Some(why.to_owned());
            loaded.purpose.clone()
        };
        if let State::Baseline | State::Method(_) = self.state() {
            let what = match &purpose {
                Purpose::Watch(place) => {
                    let sampling = self.sampling.borrow();
                    format!("`{}`", sampling.watches[*place].name)
                }
                Purpose::Action(step) => format!("the action of step {step}"),
                Purpose::Undo(step) => format!("the undo of step {step}"),
            };
            let refusal = Refusal::bare(format!("{what} cannot be run: {why}"));
            self.record(Event::Refused { part: None, refusal });
        }
        if !matches!(purpose, Purpose::Watch(_)) {
            self.acted(&purpose, false, why);
        }
        self.changed.notify_waiters();
    }

    /// A prober is gone, and with it every sample that it still owed.
    fn blinded(&self, place: usize, why: &str) {
        if let Some(prober) = self.probers.borrow_mut().get_mut(place) {
            *prober = None;
        }
        let purposes: Vec<Purpose> = {
            let mut sampling = self.sampling.borrow_mut();
            sampling.forget(place);
            let of_place = sampling.loaded.iter().filter(|loaded| loaded.place == place);
            of_place.map(|loaded| loaded.purpose.clone()).collect()
        };
        let going = matches!(
            self.state(),
            State::Baseline | State::Method(_) | State::Reverting(_) | State::Recovery | State::Settled
        );
        if going {
            self.record(Event::Blind { why: why.to_owned() });
        }
        let actions = purposes.iter().filter(|purpose| matches!(purpose, Purpose::Action(_)));
        actions.for_each(|purpose| self.acted(purpose, false, why));
    }

    pub(super) fn note(&self, text: &str) {
        self.log.borrow_mut().note(text);
    }
}
