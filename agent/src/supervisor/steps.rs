//! Steps of runs: their names are resolved, their instant is waited for, and then they are made.

use std::collections::BTreeSet;
use std::time::Duration;

use squall_experiments::flow::Flow;
use squall_experiments::protocol::{LONGEST_AHEAD, Message, Refusal, Reply, RunId};
use squall_experiments::quantity::Period;

use super::{Heard, Part, Supervisor};
use crate::host::aim::{Aim, Resolved};
use crate::host::sys;
use crate::host::view::Viewpoint;
use crate::host::witness::{Question, Sights};
use crate::injection::{Injection, Step};
use crate::link::Connection;
use crate::resolve::{self, Answers, Asked, Follower};

/// A request whose names have been resolved.
#[derive(Debug)]
pub struct Ready {
    connection: Connection,
    number: u64,
    apply: Apply,
    answers: Result<Answers, Refusal>,
    /// What probes have seen before.
    sights: Sights,
}

#[derive(Debug)]
pub(super) struct Apply {
    pub(super) run: RunId,
    pub(super) step: Step,
    /// Not before this instant, on the boot clock.
    pub(super) at: Option<u64>,
}

/// A step that waits for its instant.
#[derive(Debug)]
pub(super) struct Appointed {
    at: u64,
    ready: Ready,
}

impl Appointed {
    /// Its instant, on the boot clock.
    pub(super) fn due(&self) -> u64 {
        self.at
    }

    fn is(&self, run: &RunId, part: Option<u32>) -> bool {
        let Apply { run: own, step, .. } = &self.ready.apply;
        own == run && part.is_none_or(|part| part == step.number)
    }
}

impl Supervisor {
    /// Whether the host's policy and what was approved let a step be made, and whether its instant is one. What was approved
    /// is taken then.
    pub(super) fn may_apply(&mut self, apply: &Apply) -> Result<(), Refusal> {
        if apply.step.changes.is_empty() {
            return Err(Refusal::bare("there is nothing to apply"));
        }
        let ahead = Duration::from_nanos(apply.at.unwrap_or(0).saturating_sub(sys::boot_nanos()));
        if ahead > LONGEST_AHEAD {
            let (ahead, longest) = (ahead.as_secs(), LONGEST_AHEAD.as_secs());
            let what = format!("step {} is to begin in {ahead} s", apply.step.number);
            return Err(Refusal::new(what, format!("order it {longest} s ahead at most")));
        }
        if self.appointed.iter().any(|one| one.is(&apply.run, Some(apply.step.number))) {
            let what = format!("part {} of this run waits for its instant already", apply.step.number);
            return Err(Refusal::bare(what));
        }
        let lasts = Period::from(Duration::from_nanos(apply.step.lasts));
        apply.step.changes.iter().try_for_each(|change| self.policy.permits(change, lasts))?;
        self.mandates.take(apply)
    }

    /// Resolves every name, then comes back through [`Supervisor::resolved`].
    pub(super) fn resolve(&self, connection: Connection, number: u64, apply: Apply) {
        let heard = self.heard.clone();
        let changes = apply.step.changes.iter();
        let questions: Vec<Question> =
            changes.clone().filter_map(|change| self.machine.question(change)).collect();
        let wanted = changes.flat_map(|change| {
            let names = change.flow().into_iter().flat_map(Flow::names);
            names.map(|name| (Viewpoint::of(change), name.to_owned()))
        });
        let wanted: BTreeSet<Asked> = wanted.collect();
        let (policy, ours) = (self.policy.clone(), self.ours());
        tokio::task::spawn_local(async move {
            let answers = resolve::addresses(wanted).await;
            let resolved = answers.as_ref().map(resolve::resolved).unwrap_or_default();
            let sights = if questions.is_empty() {
                Sights::default()
            } else {
                // Answers are waited for, which the worker's own thread never does.
                let ask = move || Question::ask(questions, &policy, &resolved, &ours);
                tokio::task::spawn_blocking(ask).await.unwrap_or_default()
            };
            let _ = heard.send(Heard::First(Ready { connection, number, apply, answers, sights }));
        });
    }

    /// Makes the changes of a request whose names have been resolved; one whose instant is still to come waits for it.
    pub(super) fn apply(&mut self, ready: Ready) {
        let now = sys::boot_nanos();
        match ready.apply.at {
            Some(at) if at > now => self.appoint(at, ready),
            Some(at) => self.make(ready, Some(now - at)),
            None => self.make(ready, None),
        }
    }

    /// What can be refused is refused now, while nobody has begun.
    fn appoint(&mut self, at: u64, ready: Ready) {
        let Ready { connection, number, apply: Apply { run, step, .. }, answers, sights } = &ready;
        let rehearsed = answers.as_ref().map_err(Clone::clone).and_then(|answers| {
            let (nothing, resolved) = (Resolved::new(), resolve::resolved(answers));
            let mut injection = self.taken(run)?;
            let aim =
                Aim::new(&self.policy, &nothing, self.ours()).having_seen(sights).led_by(&self.controllers);
            let (machine, records, others) = (&mut self.machine, &self.records, &self.injections);
            let rehearsed = injection.rehearse(step, machine, records, (&aim, &resolved), others);
            self.injections.insert(run.clone(), injection);
            rehearsed
        });
        match rehearsed {
            Ok(()) => self.appointed.push(Appointed { at, ready }),
            Err(refusal) => {
                self.mandates.give_back(&(run.clone(), step.number));
                let message = Message::Answer { number: *number, reply: Reply::Refused(refusal) };
                self.send(*connection, message);
            }
        }
    }

    /// See the name.
    pub(super) fn begin_those_whose_instant_has_come(&mut self) {
        let now = sys::boot_nanos();
        let come: Vec<Appointed> = self.appointed.extract_if(.., |one| one.at <= now).collect();
        come.into_iter().for_each(|one| self.make(one.ready, None));
    }

    /// Steps of a run, or one of them, are not begun any more.
    pub(super) fn call_off(&mut self, run: &RunId, part: Option<u32>) {
        let off: Vec<Appointed> = self.appointed.extract_if(.., |one| one.is(run, part)).collect();
        for Appointed { ready: Ready { connection, number, apply, .. }, .. } in off {
            self.mandates.give_back(&(apply.run, apply.step.number));
            let refusal = Refusal::bare("it was called off before its instant came");
            self.send(connection, Message::Answer { number, reply: Reply::Refused(refusal) });
        }
    }

    fn make(&mut self, ready: Ready, late: Option<u64>) {
        let Ready { connection, number, apply, answers, sights } = ready;
        let Apply { run, step, .. } = apply;
        let part = (run.clone(), step.number);
        let applied = answers.and_then(|answers| {
            let (nothing, resolved) = (Resolved::new(), resolve::resolved(&answers));
            let mut injection = self.taken(&run)?;
            let aim =
                Aim::new(&self.policy, &nothing, self.ours()).having_seen(&sights).led_by(&self.controllers);
            let (machine, records, others) = (&mut self.machine, &self.records, &self.injections);
            let applied = injection.apply(step, machine, records, (&aim, &resolved), others);
            self.injections.insert(run, injection);
            let mut applied = applied?;
            applied.notes.extend(resolve::notes(&answers));
            applied.late_us = late.map(|late| late / 1000);
            self.follow(&part, answers);
            Ok(applied)
        });
        if applied.is_err() {
            self.mandates.give_back(&part);
        }
        let reply = applied.map_or_else(Reply::Refused, Reply::Applied);
        self.send(connection, Message::Answer { number, reply });
    }

    /// An injection out of its place, into which it goes back: all others are looked at beside it.
    fn taken(&mut self, run: &RunId) -> Result<Injection, Refusal> {
        self.injections.remove(run).ok_or_else(|| Refusal::bare(format!("run {run} has ended")))
    }

    /// Asks the names of a step again from now on, as long as it is live.
    fn follow(&mut self, part: &Part, answers: Answers) {
        let follow = |(asked, answer)| {
            let (heard, part) = (self.heard.clone(), part.clone());
            resolve::follow(asked, answer, move |news| drop(heard.send(Heard::Again(part.clone(), news))))
        };
        let followers: Vec<Follower> = answers.into_iter().map(follow).collect();
        if !followers.is_empty() {
            self.followers.insert(part.clone(), followers);
        }
    }
}
