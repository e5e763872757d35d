//! After the revert: the hypothesis must hold again.

use squall_experiments::run::{Event, State};
use tokio::time::{Instant, sleep_until, timeout};

use super::baseline::SLACK;
use super::sampling::Sampling;
use super::{Run, clock};

impl Run<'_> {
    /// Watches until every hypothesis held several times in a row, or the time is over. Not after an interruption,
    /// which wants the end, and not where nothing was done.
    pub(super) async fn recovery(&self) {
        let watched = self.sampling.borrow().watched_after().next().is_some();
        let clean = matches!(self.state(), State::Reverting(live) if live.is_empty());
        if !watched || !clean || !self.log.borrow().wants_recovery() {
            return;
        }
        let from_ns = clock::boot_ns();
        let from_ms = self.clock.ms_of(from_ns);
        self.sampling.borrow_mut().spans.recovery_began(from_ns);
        self.record(Event::RecoveryBegan);
        let end = Instant::now() + self.order.experiment.recovery.get();
        if self.order.plan.has_changes() {
            self.schedule(Sampling::look_now);
        } else {
            // Nothing was done to the host: as before the method, a look at once is enough while it is good.
            let due = self.sampling.borrow_mut().burst();
            self.ask(&due);
            self.schedule(Sampling::look_on);
        }
        let over = || !matches!(self.log.borrow().state(), State::Recovery);
        let ended = self.until(|| (over() || self.well_since().is_some()).then_some(()));
        tokio::select! {
            biased;
            () = ended => {}
            () = sleep_until(end) => {}
        }
        self.schedule(|sampling| sampling.rest(false));
        if over() {
            return;
        }
        // Samples of the fault that still hang belong to the verdict; those of the recovery may decide it.
        let answered = || self.sampling.borrow().hypotheses().all(|watch| !watch.is_owed());
        let drained = self.until(|| (over() || answered()).then_some(()));
        let _ = timeout(self.longest_sample() + SLACK, drained).await;
        if over() {
            return;
        }
        match self.well_since() {
            Some(since_ms) => self.record(Event::WellAgain { after_ms: since_ms.saturating_sub(from_ms) }),
            None => {
                let sampling = self.sampling.borrow();
                let unwell = sampling.watched_after().filter(|watch| watch.again.well().is_none());
                let names = unwell.map(|watch| watch.name.clone()).collect();
                self.record(Event::NotRecovered { names });
            }
        }
    }

    /// When the last of the hypotheses began to hold again, once all of them do.
    fn well_since(&self) -> Option<u64> {
        let sampling = self.sampling.borrow();
        let mut since = 0;
        for watch in sampling.watched_after() {
            since = since.max(watch.again.well()?);
        }
        Some(since)
    }
}
