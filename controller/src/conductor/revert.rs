//! The revert: everything that is live ends, however the method ended.

use std::time::Duration;

use squall_experiments::protocol::{Active, Lifted, Reply, Request};
use squall_experiments::run::{Event, State};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::link::Link;
use super::method::not_lifted;
use super::sampling::{Purpose, Sampling};
use super::{Run, clock};

/// The host of a lost agent is looked at for so many leases before it counts as still modified: one until the agent
/// notices, one to undo.
const CONFIRM: u32 = 2;

/// A host that answers a question slower than this is asked again.
const ANSWER: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Undoes everything: parts in reverse order, then actions in reverse order. What cannot be undone stays in the
    /// state. Nothing skips this; every wait in it is bounded.
    pub(super) async fn revert(&self) {
        self.sampling.borrow_mut().spans.revert_began(clock::boot_ns());
        self.schedule(|sampling| sampling.rest(true));
        self.schedule(|sampling| sampling.rest(false));
        self.lift_all().await;
        if let Some(renewal) = self.renewal.borrow_mut().take() {
            renewal.abort();
        }
        if self.begun.get() {
            self.confirm().await;
        }
        self.link.borrow_mut().take();
        self.undo_actions().await;
    }

    /// Asks for everything at once, so that the agent never waits for us.
    async fn lift_all(&self) {
        let run = self.order.run.clone();
        let parts: Vec<u32> =
            self.state().live().map(|live| live.parts.keys().rev().copied().collect()).unwrap_or_default();
        let (mut asked, end) = {
            let link = self.link.borrow();
            let Some(link) = link.as_ref().filter(|_| self.begun.get()) else {
                return;
            };
            let lift = |part: u32| {
                let run = run.clone();
                (part, link.call(Request::Lift { run, part }))
            };
            let asked: Vec<_> = parts.into_iter().map(lift).collect();
            (asked, link.call(Request::End { run: run.clone() }))
        };
        for (part, answer) in asked.drain(..) {
            let lifted = match self.answer(answer).await {
                Ok(Reply::Lifted(lifted)) => lifted,
                Ok(Reply::Refused(refusal)) => not_lifted(&refusal),
                Ok(other) => return self.lose_agent(&format!("it answered `lift` with {other:?}")),
                Err(lost) => return self.lose_agent(&lost.0),
            };
            let part = Some(part);
            self.record(Event::Lifted { part, lifted, why: None });
        }
        let lifted = match self.answer(end).await {
            Ok(Reply::Lifted(lifted)) => lifted,
            Ok(Reply::Done) => Lifted::default(),
            Ok(Reply::Refused(refusal)) => not_lifted(&refusal),
            Ok(other) => return self.lose_agent(&format!("it answered `end` with {other:?}")),
            Err(lost) => return self.lose_agent(&lost.0),
        };
        // A halt, a deadline or a lost lease may have ended the run before we did.
        if self.begun.replace(false) {
            let part = None;
            self.record(Event::Lifted { part, lifted, why: None });
        }
    }

    /// The agent is lost with an injection open: it reverts by itself, and this waits until the host says so.
    async fn confirm(&self) {
        self.note("asking the host whether everything was undone");
        let deadline = Instant::now() + self.order.lease * CONFIRM;
        while Instant::now() < deadline {
            if let Some(lifted) = self.look_at_host().await {
                self.begun.set(false);
                let why = Some("the agent reverted by itself".to_owned());
                self.record(Event::Lifted { part: None, lifted, why });
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the host says of this run: `None` while it is still live there, or nobody can say.
    async fn look_at_host(&self) -> Option<Lifted> {
        let resident = self.host.borrow_mut().resident();
        match resident.await {
            Ok(Some(stream)) => {
                let (notices, _nobody) = mpsc::unbounded_channel();
                let link = Link::open(stream, notices).ok()?;
                timeout(ANSWER, link.hello()).await.ok()?.ok()?;
                let answer = timeout(ANSWER, link.call(Request::Status)).await.ok()?;
                let Ok(Reply::Status(active)) = answer else {
                    return None;
                };
                said_by(active.iter().find(|active| active.run == self.order.run))
            }
            Ok(None) => {
                let undone = self.host.borrow_mut().recover().ok()?;
                let undone = match undone.is_empty() {
                    true => vec!["no agent and no journal is left on this host".to_owned()],
                    false => undone,
                };
                Some(Lifted { undone, ..Lifted::default() })
            }
            Err(_) => None,
        }
    }

    /// Plays the undos of all actions that began, the last one first. One that fails does not stop the others.
    async fn undo_actions(&self) {
        let State::Reverting(live) = self.state() else {
            return;
        };
        for step in &live.running {
            let patience = self.patience(&Purpose::Action(step.clone()));
            let ended = self.until(|| (!self.is_running(step)).then_some(()));
            if timeout(patience, ended).await.is_err() {
                self.record(Event::ActionEnded {
                    step: step.clone(),
                    good: false,
                    seen: "it did not end".to_owned(),
                });
            }
        }
        for step in live.owed.iter().rev() {
            let purpose = Purpose::Undo(step.clone());
            let failed = |seen: String| Event::UndoPlayed { step: step.clone(), good: false, seen };
            if let Err(why) = self.see_again(&purpose).await {
                self.record(failed(why));
                continue;
            }
            let records = self.log.borrow().records().len();
            let patience = self.play(&purpose);
            let played = self.until(|| self.log.borrow().undo_since(records, step).then_some(()));
            if timeout(patience, played).await.is_err() {
                self.record(failed("it did not end".to_owned()));
            }
        }
        debug_assert!(self.is_reverting());
    }

    /// A prober that is gone is started once more: undos need it.
    async fn see_again(&self, purpose: &Purpose) -> Result<(), String> {
        let (place, unusable) = {
            let sampling = self.sampling.borrow();
            let number = sampling.number(purpose).ok_or("it is not in the plan")?;
            let loaded = &sampling.loaded[number as usize];
            (loaded.place, loaded.unusable.clone())
        };
        if let Some(why) = unusable {
            return Err(why);
        }
        let gone = self.probers.borrow().get(place).is_none_or(Option::is_none);
        if gone {
            self.start_prober(place).await.map_err(|refusal| refusal.what)?;
        }
        Ok(())
    }

    fn patience(&self, purpose: &Purpose) -> Duration {
        let sampling: &Sampling = &self.sampling.borrow();
        let timeout = sampling.number(purpose).map(|number| sampling.loaded[number as usize].timeout);
        timeout.unwrap_or_default() + super::baseline::SLACK
    }
}

fn said_by(active: Option<&Active>) -> Option<Lifted> {
    match active {
        None => Some(Lifted {
            undone: vec!["the agent of this host holds nothing of this run".to_owned()],
            ..Lifted::default()
        }),
        Some(active) if active.stuck => Some(Lifted {
            stuck: active.changes.iter().map(|(what, _)| what.clone()).collect(),
            ..Lifted::default()
        }),
        Some(_) => None,
    }
}
