//! The steps of the method.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use squall_experiments::change::Change;
use squall_experiments::evidence::Evidence;
use squall_experiments::plan::PlanStep;
use squall_experiments::protocol::{Lifted, Moment, Refusal, Reply, Request};
use squall_experiments::quantity::Period;
use squall_experiments::run::{Event, Intent, State};
use squall_experiments::summary::Summary;
use squall_experiments::verdict::Outcome;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::baseline::SLACK;
use super::link::{Lost, Notice};
use super::sampling::{Purpose, Sampling};
use super::{Gate, Run, Stopped, clock};

/// What a live fault did is asked this often.
const OBSERVE: Duration = Duration::from_millis(500);

/// A run that is stopped still waits this long for changes that are being made, to know what is to be undone.
const LAST_WORD: Duration = Duration::from_secs(5);

type Stepping<'a> = Pin<Box<dyn Future<Output = Result<(), Stopped>> + 'a>>;

impl Run<'_> {
    /// Carries out the steps in order. Ends with [`Event::MethodEnded`], or with whatever stopped it; nothing is left
    /// to itself: what is live stays in the state until the revert.
    pub(super) async fn method(&self) -> Result<(), Stopped> {
        self.pass(Gate::Method).await?;
        self.agreed().await?;
        if self.order.plan.has_changes() {
            self.begin().await?;
        }
        for (at, step) in (1..).zip(&self.order.plan.steps) {
            self.set_clock(step).await?;
            self.pass(Gate::Step(at)).await?;
            self.step(at.to_string(), step).await?;
            if at < self.order.plan.stages as usize {
                self.may_grow(at)?;
            }
        }
        self.pass(Gate::Step(self.order.plan.steps.len() + 1)).await?;
        self.agreed().await?;
        self.record(Event::MethodEnded);
        Ok(())
    }

    /// Between two stages: where it is sure by now that a hypothesis has failed, no further one begins, here or elsewhere. The
    /// evidence of rates may be looked at at any time; single looks are counted as they are at the end.
    fn may_grow(&self, stage: usize) -> Result<(), Stopped> {
        let summary = Summary::of(self.log.borrow().records());
        let failed = summary.into_iter().flat_map(|summary| summary.hypotheses).find_map(|claim| {
            let judgement = claim.judgement.filter(|judged| judged.outcome == Outcome::Deviated)?;
            Some((claim.name, judgement.why))
        });
        let Some((name, seen)) = failed else { return Ok(()) };
        self.record(Event::GaveWay { stage: u32::try_from(stage).unwrap_or(u32::MAX), name, seen });
        Err(Stopped)
    }

    /// Waits until the other hosts of the run are as far as this one, and it is agreed when they go on.
    async fn pass(&self, gate: Gate) -> Result<(), Stopped> {
        let gate = self.host.borrow().gate(gate);
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopped),
            agreed = gate => {
                self.agreed.set(agreed);
                self.go_on()
            }
        }
    }

    /// Waits for the instant that was agreed.
    async fn agreed(&self) -> Result<(), Stopped> {
        match self.agreed.get() {
            Some(agreed) => self.pause(agreed).await,
            None => Ok(()),
        }
    }

    /// Sees to it that an agent that is to begin together with others can be told when.
    async fn set_clock(&self, step: &PlanStep) -> Result<(), Stopped> {
        let (several, link) = (self.host.borrow().is_one_of_several(), self.link.borrow().clone());
        let Some(link) = link.filter(|_| several && has_fault(step)) else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopped),
            set = link.set_clock() => set.map_err(|lost| {
                self.lose_agent(&lost.0);
                Stopped
            }),
        }
    }

    /// The instant that was agreed, on the clock of the agent, where it can be told ahead.
    fn instant(&self) -> Option<(Instant, u64)> {
        let agreed = self.agreed.get()?;
        let clock = self.link.borrow().as_ref()?.clock()?;
        Some((agreed, clock.time(agreed)))
    }

    /// The moment at which an agent had made its changes, on the clock of this run.
    fn moment(&self, made_ns: u64) -> Option<Moment> {
        let clock = self.link.borrow().as_ref()?.clock()?;
        let now = Instant::now();
        let now_us = self.clock.now_us();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at_us = match clock.before(now, made_ns) {
            Ok(ago) => now_us.saturating_sub(micros(ago)),
            Err(ahead) => now_us.saturating_add(micros(ahead)),
        };
        Some(Moment { at_us, within_us: micros(clock.within(now)) })
    }

    /// Opens the injection on the agent, and keeps its lease.
    async fn begin(&self) -> Result<(), Stopped> {
        self.begun.set(true);
        let begin = Request::Begin {
            run: self.order.run.clone(),
            title: self.order.experiment.title.clone(),
            plan: self.order.plan.hash(),
            seed: self.order.plan.seed,
            lease_ms: u64::try_from(self.order.lease.as_millis()).unwrap_or(u64::MAX),
            deadline_ms: self.order.plan.expiry.as_millis(),
            guards: self.sampling.borrow().guards(&self.order.experiment.stop_when),
            mandate: Box::new(self.order.mandate.clone()),
        };
        match self.call(begin).await? {
            Reply::Done => {}
            // The same guards are not looked at twice: a load would be doubled.
            Reply::Guarding => self.schedule(Sampling::hand_over),
            Reply::Refused(refusal) => {
                self.begun.set(false);
                self.record(Event::Refused { part: None, refusal });
                return Err(Stopped);
            }
            other => return Err(self.misunderstood("begin", &other)),
        }
        self.watch().await?;
        let renew = Request::Renew { run: self.order.run.clone() };
        let Some(asking) = self.link.borrow().clone() else {
            return Err(Stopped);
        };
        let notices = self.notices.clone();
        let often = self.order.lease / 5;
        let renewal = tokio::spawn(async move {
            let mut ticks = interval(often);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // An agent that hangs is ended by its own timers, and its connection with it; one that is slow answers.
                if let Err(Lost(why)) = asking.call(renew.clone()).await {
                    let _ = notices.send(Notice::Lost(why));
                    return;
                }
            }
        });
        *self.renewal.borrow_mut() = Some(renewal.abort_handle());
        self.go_on()
    }

    /// Asks for what proxies see, where somebody wants to know.
    async fn watch(&self) -> Result<(), Stopped> {
        if self.log.borrow().sights.is_none() {
            return Ok(());
        }
        match self.call(Request::Watch { run: self.order.run.clone() }).await? {
            Reply::Done => Ok(()),
            other => Err(self.misunderstood("watch", &other)),
        }
    }

    fn step<'s>(&'s self, at: String, step: &'s PlanStep) -> Stepping<'s> {
        Box::pin(async move {
            // The agent is told to wait for the instant itself.
            let ahead =
                self.instant().is_some() && matches!(step, PlanStep::Fault { .. } | PlanStep::Parallel(_));
            if !ahead {
                self.agreed().await?;
            }
            self.go_on()?;
            let what = in_words(step);
            self.record(Event::StepBegan { step: at.clone(), what });
            match step {
                PlanStep::Fault { part, name, changes, lasts, stays } => {
                    let began = self.inject(*part, name, changes, *lasts).await?;
                    self.hold(*part, began + stays.unwrap_or(*lasts).get()).await?;
                    if stays.is_none() {
                        self.lift(*part).await?;
                    }
                }
                PlanStep::Stays { part, lasts, last, .. } => {
                    self.hold(*part, Instant::now() + lasts.get()).await?;
                    if *last {
                        self.lift(*part).await?;
                    }
                }
                PlanStep::Wait(period) => self.pause(Instant::now() + period.get()).await?,
                PlanStep::Elsewhere { lasts, .. } => self.elsewhere(*lasts).await?,
                PlanStep::Parallel(children) => {
                    let children = (1..).zip(children);
                    all(children.map(|(child, step)| self.step(format!("{at}.{child}"), step)).collect())
                        .await?;
                }
                PlanStep::Action { name, undo, .. } => self.action(&at, name, undo.is_some()).await?,
            }
            self.go_on()?;
            self.record(Event::StepEnded { step: at });
            Ok(())
        })
    }

    /// Waits; a stop ends it early.
    async fn pause(&self, until: Instant) -> Result<(), Stopped> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopped),
            () = sleep_until(until) => Ok(()),
        }
    }

    /// Injects a fault that lasts so long at most. Gives from when its time counts.
    async fn inject(
        &self,
        part: u32,
        name: &str,
        changes: &[Change],
        lasts: Period,
    ) -> Result<Instant, Stopped> {
        let intents =
            changes.iter().map(|change| Intent { what: change.to_string(), reversible: change.reversible() });
        self.record(Event::Injecting {
            part,
            name: name.to_owned(),
            changes: intents.collect(),
            lasts_ms: lasts.as_millis(),
        });
        let instant = self.instant();
        let apply = Request::Apply {
            run: self.order.run.clone(),
            part,
            changes: changes.to_vec(),
            lasts_ms: lasts.as_millis(),
            at_ns: instant.map(|(_, at_ns)| at_ns),
        };
        let reply = match instant {
            None => self.call(apply).await?,
            Some(_) => self.call_ahead(part, apply).await?,
        };
        let now = Instant::now();
        let mut began = now;
        match reply {
            Reply::Applied(mut applied) if self.is_live(part) => {
                if let Some((agreed, _)) = instant.filter(|_| applied.late_us.is_none()) {
                    began = agreed.min(now);
                }
                applied.began = applied.made_ns.and_then(|made_ns| self.moment(made_ns));
                self.record(Event::Injected { part, applied });
            }
            // It was ended in the same breath, and that is in the log already.
            Reply::Applied(_) => return self.go_on().map(|()| now),
            Reply::Refused(_) if instant.is_some() && self.is_stopped() => {
                if self.is_live(part) {
                    let why = Some("it was called off before it began".to_owned());
                    self.record(Event::Lifted { part: Some(part), lifted: Lifted::default(), why });
                }
                return Err(Stopped);
            }
            Reply::Refused(refusal) => {
                let part = Some(part);
                self.record(Event::Refused { part, refusal });
                return Err(Stopped);
            }
            other => return Err(self.misunderstood("apply", &other)),
        }
        self.go_on()?;
        self.sampling.borrow_mut().spans.fault_began(clock::boot_ns());
        self.schedule(Sampling::look_now);
        Ok(began)
    }

    /// Ends a fault.
    async fn lift(&self, part: u32) -> Result<(), Stopped> {
        self.sampling.borrow_mut().spans.fault_ended(clock::boot_ns());
        // The agent may have overtaken us.
        if !self.is_live(part) {
            return self.go_on();
        }
        let lift = Request::Lift { run: self.order.run.clone(), part };
        match self.call(lift).await? {
            Reply::Lifted(lifted) => self.record(Event::Lifted { part: Some(part), lifted, why: None }),
            Reply::Refused(refusal) => {
                self.record(Event::Lifted { part: Some(part), lifted: not_lifted(&refusal), why: None })
            }
            other => return Err(self.misunderstood("lift", &other)),
        }
        self.schedule(Sampling::look_now);
        self.go_on()
    }

    /// Other hosts have a fault: this one is looked at as if it were its own.
    async fn elsewhere(&self, lasts: Period) -> Result<(), Stopped> {
        // The end of an action is waited for behind the step.
        if lasts.is_zero() {
            return self.go_on();
        }
        self.sampling.borrow_mut().spans.fault_began(clock::boot_ns());
        self.schedule(Sampling::look_now);
        self.pause(Instant::now() + lasts.get()).await?;
        self.sampling.borrow_mut().spans.fault_ended(clock::boot_ns());
        self.schedule(Sampling::look_now);
        self.go_on()
    }

    /// Holds a live part until its time is over, and asks what it does meanwhile.
    async fn hold(&self, part: u32, until: Instant) -> Result<(), Stopped> {
        let mut last: Vec<Evidence> = Vec::new();
        let mut next = Instant::now() + OBSERVE;
        while next < until && self.is_live(part) {
            self.pause(next).await?;
            let observe = Request::Observe { run: self.order.run.clone(), part };
            let asked = tokio::select! {
                biased;
                () = self.stopped() => return Err(Stopped),
                reply = self.call(observe) => Some(reply?),
                () = sleep_until(until) => None,
            };
            match asked {
                Some(Reply::Measured(evidence)) if evidence != last && self.is_live(part) => {
                    last.clone_from(&evidence);
                    self.record(Event::Measured { part, evidence });
                }
                _ => {}
            }
            next += OBSERVE;
        }
        if self.is_live(part) { self.pause(until).await } else { self.go_on() }
    }

    /// Does something of the user's own and waits for its end.
    async fn action(&self, step: &str, name: &str, undo: bool) -> Result<(), Stopped> {
        let purpose = Purpose::Action(step.to_owned());
        self.record(Event::ActionBegan { step: step.to_owned(), name: name.to_owned(), undo });
        let patience = self.play(&purpose);
        let ended = self.until(|| (!self.is_running(step)).then_some(()));
        tokio::select! {
            biased;
            () = self.stopped() => return Err(Stopped),
            () = ended => {}
            () = sleep(patience) => self.record(Event::ActionEnded {
                step: step.to_owned(),
                good: false,
                seen: "no answer from the prober".to_owned(),
            }),
        }
        self.go_on()
    }

    /// Starts an action or an undo; returns how long to wait for its end.
    pub(super) fn play(&self, purpose: &Purpose) -> Duration {
        let (number, timeout) = {
            let sampling = self.sampling.borrow();
            let number = sampling.number(purpose);
            (number, number.map_or(Duration::ZERO, |number| sampling.loaded[number as usize].timeout))
        };
        self.ask(number.as_slice());
        timeout + SLACK
    }

    /// Asks the agent; a run that is stopped meanwhile still waits a little, to know what was done. No answer means
    /// that the agent is lost.
    async fn call(&self, request: Request) -> Result<Reply, Stopped> {
        let Some(asked) = self.link.borrow().as_ref().map(|link| link.call(request)) else {
            return Err(Stopped);
        };
        let hurried = async {
            self.stopped().await;
            sleep(LAST_WORD).await;
        };
        let answer = tokio::select! {
            biased;
            answer = self.answer(asked) => answer,
            () = hurried => Err(Lost(format!("no answer for {} s", LAST_WORD.as_secs()))),
        };
        answer.map_err(|lost| {
            self.lose_agent(&lost.0);
            Stopped
        })
    }

    /// The same for a step that begins at an instant: one that is stopped before is called off.
    async fn call_ahead(&self, part: u32, apply: Request) -> Result<Reply, Stopped> {
        let Some(link) = self.link.borrow().clone() else { return Err(Stopped) };
        let called_off = async {
            self.stopped().await;
            // Its answer says nothing that the other one does not.
            drop(link.call(Request::Lift { run: self.order.run.clone(), part }));
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            reply = self.call(apply) => reply,
            never = called_off => match never {},
        }
    }

    /// The answer to a question, unless the agent is lost meanwhile.
    pub(super) async fn answer(
        &self,
        asked: impl Future<Output = Result<Reply, Lost>>,
    ) -> Result<Reply, Lost> {
        tokio::select! {
            biased;
            answer = asked => answer,
            () = self.until(|| self.link.borrow().is_none().then_some(())) => {
                Err(Lost("the connection is closed".to_owned()))
            }
        }
    }

    fn misunderstood(&self, asked: &str, reply: &Reply) -> Stopped {
        self.lose_agent(&format!("it answered `{asked}` with {reply:?}"));
        Stopped
    }

    fn is_live(&self, part: u32) -> bool {
        self.log.borrow().state().live().is_some_and(|live| live.parts.contains_key(&part))
    }

    pub(super) fn is_running(&self, step: &str) -> bool {
        let log = self.log.borrow();
        log.state().live().is_some_and(|live| live.running.contains(step))
    }

    pub(super) fn is_reverting(&self) -> bool {
        matches!(self.log.borrow().state(), State::Reverting(_))
    }
}

/// An agent that refuses to lift says that something is still there.
pub(super) fn not_lifted(refusal: &Refusal) -> Lifted {
    Lifted { stuck: vec![refusal.what.clone()], ..Lifted::default() }
}

/// Whether something of it is for this host's agent.
fn has_fault(step: &PlanStep) -> bool {
    match step {
        PlanStep::Fault { .. } => true,
        PlanStep::Parallel(children) => children.iter().any(has_fault),
        _ => false,
    }
}

fn in_words(step: &PlanStep) -> String {
    match step {
        PlanStep::Fault { name, stays: Some(held), .. } => format!("{name} for {held}, and it stays"),
        PlanStep::Fault { name, lasts, .. } => format!("{name} for {lasts}"),
        PlanStep::Stays { name, lasts, .. } => format!("{name} stays, for {lasts}"),
        PlanStep::Wait(period) => format!("wait {period}"),
        PlanStep::Elsewhere { name, lasts } if lasts.is_zero() => format!("{name}, on other hosts"),
        PlanStep::Elsewhere { name, lasts } => format!("{name} for {lasts}, on other hosts"),
        PlanStep::Parallel(children) => format!("{} steps at the same time", children.len()),
        PlanStep::Action { name, .. } => name.clone(),
    }
}

/// Runs steps at the same time, to the end of the last one; the first stop is the result, after all have noticed it.
async fn all(mut steps: Vec<Stepping<'_>>) -> Result<(), Stopped> {
    let mut result = Ok(());
    std::future::poll_fn(|context| {
        steps.retain_mut(|step| match step.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(stopped)) => {
                result = Err(stopped);
                false
            }
        });
        if steps.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}
