//! Before anything is done: the hypothesis must hold.

use std::time::Duration;

use squall_experiments::probe::When;
use squall_experiments::protocol::Refusal;
use squall_experiments::quantity::Period;
use squall_experiments::run::Event;
use squall_experiments::verdict::{Outcome, before};
use tokio::time::{Instant, sleep_until, timeout};

use super::prober::Prober;
use super::sampling::{Purpose, Sampling, Watch};
use super::{Run, Stopped, clock};

/// Allowed for a sample beyond the time that its probe allows itself.
pub(super) const SLACK: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Ends with [`Event::BaselineMet`], or with whatever stopped it.
    pub(super) async fn baseline(&self) -> Result<(), Stopped> {
        let users = self.sampling.borrow().users.len();
        for place in 0..users {
            if let Err(refusal) = self.start_prober(place).await {
                self.record(Event::Refused { part: None, refusal });
                return Err(Stopped);
            }
        }
        self.schedule(Sampling::guard);
        match self.order.experiment.baseline {
            None | Some(Period::ZERO) => {
                let due = self.sampling.borrow_mut().burst();
                self.ask(&due);
            }
            Some(period) => {
                self.schedule(Sampling::look_now);
                let end = Instant::now() + period.get();
                tokio::select! {
                    biased;
                    verdict = self.until(|| self.baseline_broken()) => return self.not_met(verdict),
                    () = sleep_until(end) => self.schedule(|sampling| sampling.rest(false)),
                }
            }
        }
        let decided = self.until(|| self.baseline_broken().map(Some).or_else(|| self.baseline_complete()));
        match timeout(self.longest_sample() + SLACK, decided).await {
            Ok(Some(verdict)) => self.not_met(verdict),
            Ok(None) => {
                self.sampling.borrow_mut().spans.method_began(clock::boot_ns());
                self.record(Event::BaselineMet);
                self.schedule(Sampling::look_on);
                Ok(())
            }
            Err(_) => {
                let why = "the prober does not answer".to_owned();
                self.record(Event::Blind { why });
                Err(Stopped)
            }
        }
    }

    /// Starts the prober of a user and tells it its probes.
    pub(super) async fn start_prober(&self, place: usize) -> Result<(), Refusal> {
        let user = self.sampling.borrow().users[place].clone();
        let probing = self.host.borrow().prober(user.as_deref());
        let probing = probing.await?;
        let sampling = self.sampling.borrow();
        let prober = Prober::start(probing, place, self.told.clone())
            .map_err(|error| Refusal::bare(format!("the prober cannot be started: {error}")))?;
        sampling.loads(place).for_each(|load| prober.tell(&load));
        let mut probers = self.probers.borrow_mut();
        if probers.len() <= place {
            probers.resize_with(place + 1, || None);
        }
        probers[place] = Some(prober);
        Ok(())
    }

    /// The longest time that a sample of a hypothesis or guard can take.
    pub(super) fn longest_sample(&self) -> Duration {
        let sampling = self.sampling.borrow();
        let watched = sampling.loaded.iter().filter(|loaded| matches!(loaded.purpose, Purpose::Watch(_)));
        watched.map(|loaded| loaded.timeout).max().unwrap_or_default()
    }

    /// Whether it is already known that the baseline cannot be met: who, and what was seen. Not met is also a run
    /// that was stopped.
    fn baseline_broken(&self) -> Option<Broken> {
        if self.is_stopped() {
            return Some(Broken::Stopped);
        }
        let sampling = self.sampling.borrow();
        // A guard trips at once. A hypothesis that tolerates nothing has failed with its first bad sample.
        // A rate has when that is sure.
        let broken = sampling.watches.iter().find(|watch| match watch.guarding.is_of_rates() {
            true => watch.guarding.not_steady().is_some(),
            false => (watch.guard || watch.tolerate.get() == 0.0) && !watch.baseline.within(watch.tolerate),
        });
        broken.map(Broken::of)
    }

    /// Whether all samples are there: `None` inside is a baseline that is met.
    fn baseline_complete(&self) -> Option<Option<Broken>> {
        let sampling = self.sampling.borrow();
        let waiting = sampling.watches.iter().any(|watch| {
            let first = watch.baseline.total() == 0 && watch.is_for(When::Before);
            first || (!watch.guard && watch.is_owed())
        });
        if waiting {
            return None;
        }
        let mut hypotheses = sampling.hypotheses().filter(|watch| watch.is_for(When::Before));
        Some(hypotheses.find_map(|watch| {
            if watch.guarding.is_of_rates() {
                let guarding = &watch.guarding;
                return guarding.not_steady().or_else(|| guarding.silent()).map(|_| Broken::of(watch));
            }
            let judged = before(watch.baseline, watch.tolerate);
            (judged.outcome != Outcome::Held).then(|| Broken::of(watch))
        }))
    }

    fn not_met(&self, broken: Broken) -> Result<(), Stopped> {
        if let Broken::By { name, seen } = broken {
            self.record(Event::BaselineNotMet { name, seen });
        }
        Err(Stopped)
    }
}

/// Why a baseline is not met.
enum Broken {
    /// Something else stopped the run.
    Stopped,
    By {
        name: String,
        seen: String,
    },
}

impl Broken {
    fn of(watch: &Watch) -> Self {
        let sure = watch.guarding.silent().or_else(|| watch.guarding.not_steady());
        let figures = sure.unwrap_or_else(|| before(watch.baseline, watch.tolerate).why);
        let seen = match &watch.bad {
            Some(bad) => format!("{bad} ({figures})"),
            None => figures,
        };
        Broken::By { name: watch.name.clone(), seen }
    }
}
