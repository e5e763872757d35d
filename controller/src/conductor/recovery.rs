//! After the revert: the hypothesis must hold again.

use squall_experiments::run::{Event, State};
use squall_experiments::verdict::Standing;
use tokio::time::{Instant, sleep_until, timeout};

use super::baseline::SLACK;
use super::sampling::Sampling;
use super::{Run, clock};

impl Run<'_> {
    /// Watches until it is shown of every hypothesis that it holds again, or the time is over: of a rate by evidence, of
    /// looks by several good ones in a row. Not after an interruption, which wants the end, and not where nothing was
    /// done.
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
        let ended = self.until(|| match self.standing(false) {
            Standing::Well(since_ms) => Some(Some(since_ms)),
            _ => over().then_some(None),
        });
        let shown = tokio::select! {
            biased;
            shown = ended => shown,
            () = sleep_until(end) => None,
        };
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
        // What was shown stays shown: only so is its error the stated one, however late the last answers come.
        let event = match shown.map_or_else(|| self.standing(true), Standing::Well) {
            Standing::Well(since_ms) => Event::WellAgain { after_ms: since_ms.saturating_sub(from_ms) },
            Standing::Open | Standing::Unwell => {
                let sampling = self.sampling.borrow();
                let standing = |wanted: Standing| {
                    let these = sampling.watched_after().filter(move |watch| watch.standing(true) == wanted);
                    these.map(|watch| watch.name.clone()).collect()
                };
                Event::NotRecovered { names: standing(Standing::Unwell), unshown: standing(Standing::Open) }
            }
        };
        self.record(event);
    }

    /// What is known of all hypotheses together.
    fn standing(&self, over: bool) -> Standing {
        self.sampling.borrow().standing(over)
    }
}
