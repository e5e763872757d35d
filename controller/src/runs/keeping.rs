//! The log of a run on its way to the store, which may be away for a while: nothing of it is lost then, and a run that nobody
//! could tell of afterwards does not go on.

use std::time::Duration;

use squall_experiments::muster::{FleetEvent, Line, What};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use crate::store::{LEASE_MS, RunRow, Store, StoreError};

/// How long a run goes on while the store does not answer: longer than a database takes to be started anew, and short enough
/// that everything is undone before another controller may take the run for abandoned.
pub(super) const BEARABLE: Duration = Duration::from_millis(LEASE_MS * 3 / 4);
/// How often the store is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// For how long; what is not kept by then is lost.
const LONGEST: Duration = Duration::from_secs(600);
/// How many events are kept at once.
const TOGETHER: usize = 1000;

/// Keeps one run.
pub(super) struct Keeper {
    store: Store,
    run: String,
    epoch: u64,
    interrupt: UnboundedSender<String>,
    /// After how long without the store the run ends.
    bearable: Duration,
}

impl Keeper {
    pub(super) fn new(
        store: &Store,
        run: &RunRow,
        interrupt: UnboundedSender<String>,
        bearable: Duration,
    ) -> Self {
        Keeper { store: store.clone(), run: run.id.clone(), epoch: run.epoch, interrupt, bearable }
    }

    /// Keeps that the run goes on now. An error where that is not kept within a bearable time: then it must not begin.
    pub(super) async fn begins(&self) -> Result<(), StoreError> {
        timeout(self.bearable, self.state("running")).await.map_err(|_| self.silent())?
    }

    fn silent(&self) -> StoreError {
        StoreError::Away(format!("no answer within {} s", self.bearable.as_secs()))
    }

    /// Keeps all lines in their order until no more can come. Interrupts the run when it is not bearable any more that the
    /// store does not answer, or when it refuses; an error is what the store said last.
    ///
    /// The last line gets the end of the audit log: with it every report of the run publishes that.
    pub(super) async fn lines(&self, mut lines: UnboundedReceiver<Line>) -> Result<(), StoreError> {
        let mut next = 0;
        let mut together = Vec::new();
        while lines.recv_many(&mut together, TOGETHER).await > 0 {
            let mut batch = Vec::with_capacity(together.len());
            for mut line in together.drain(..) {
                if let What::Fleet { event: FleetEvent::Finished { audit, .. }, .. } = &mut line.what {
                    let head = self.patiently(|| self.store.audit_head()).await;
                    // A log that has lost its head is no reason to lose the end of the run, too.
                    *audit = head
                        .inspect_err(|error| tracing::error!(run = self.run, %error, "the report has no head of the audit log"))
                        .ok();
                }
                batch.push(serde_json::to_string(&line).unwrap_or_default());
            }
            // What was kept though its answer was lost is found out by asking again: events have numbers.
            let kept = || self.store.append(self.epoch, &self.run, next, &batch);
            next = self.patiently(kept).await?;
        }
        Ok(())
    }

    /// Keeps what became of the run.
    pub(super) async fn state(&self, state: &str) -> Result<(), StoreError> {
        self.patiently(|| self.store.set_run_state(&self.run, state, self.epoch)).await
    }

    /// Asks the store until it answers. When that is not bearable any more the run is interrupted, whether the store says that
    /// it cannot or says nothing at all.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let since = Instant::now();
        let mut told = false;
        let mut tell = |why: &StoreError| {
            if !std::mem::replace(&mut told, true) {
                tracing::error!(run = self.run, error = %why, "what a run says cannot be kept: it ends");
                let _ = self.interrupt.send("its events cannot be kept".to_owned());
            }
        };
        loop {
            let mut asking = std::pin::pin!(ask());
            let answer = match timeout(self.bearable.saturating_sub(since.elapsed()), &mut asking).await {
                Ok(answer) => answer,
                Err(_) => {
                    tell(&self.silent());
                    asking.await
                }
            };
            let error = match answer {
                Ok(kept) => return Ok(kept),
                Err(error) => error,
            };
            let lost = !error.is_of_the_database() || since.elapsed() >= LONGEST;
            // A disk that is full, or read-only, does not come back by itself as soon as a database does.
            let bearable = matches!(error, StoreError::Away(_)) && since.elapsed() < self.bearable;
            if lost || !bearable {
                tell(&error);
            }
            if lost {
                return Err(error);
            }
            sleep(AGAIN).await;
        }
    }
}

/// Keeps that a run was not begun, and gives its approval back where it has used one: with patience, whoever waits for it.
pub(crate) async fn refused(store: Store, run: String, approved: bool) {
    // There is nothing to be interrupted.
    let (interrupt, _) = unbounded_channel();
    let keeper = Keeper { store, run, epoch: 0, interrupt, bearable: BEARABLE };
    if let Err(error) = keeper.state("refused").await {
        tracing::error!(run = keeper.run, %error, "that a run was refused cannot be kept");
    }
    let given = || keeper.store.give_approval_back(&keeper.run);
    if approved && let Err(error) = keeper.patiently(given).await {
        tracing::error!(run = keeper.run, %error, "an approval that was not used cannot be given back");
    }
}
