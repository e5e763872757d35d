//! The log of a run on its way to the store, which may be away for a while: nothing of it is lost then, and a run that nobody
//! could tell of afterwards does not go on.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep};

use crate::store::{RunRow, Store, StoreError};

/// How long a run goes on while the store does not answer: as long as a database takes to be started anew.
const BEARABLE: Duration = Duration::from_secs(10);
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
}

impl Keeper {
    pub(super) fn new(store: &Store, run: &RunRow, interrupt: UnboundedSender<String>) -> Self {
        Keeper { store: store.clone(), run: run.id.clone(), epoch: run.epoch, interrupt }
    }

    /// Keeps all lines in their order until no more can come. Interrupts the run when it is not bearable any more that the
    /// store does not answer, or when it refuses; an error is what the store said last.
    pub(super) async fn lines(&self, mut lines: UnboundedReceiver<String>) -> Result<(), StoreError> {
        let mut next = 0;
        let mut batch = Vec::new();
        while lines.recv_many(&mut batch, TOGETHER).await > 0 {
            let mut patience = Patience::new(self);
            // What was kept though its answer was lost is found out by asking again: events have numbers.
            next = loop {
                match self.store.append_in(self.epoch, &self.run, next, &batch).await {
                    Ok(after) => break after,
                    Err(error) => patience.bears(error).await?,
                }
            };
            batch.clear();
        }
        Ok(())
    }

    /// Keeps what became of the run.
    pub(super) async fn state(&self, state: &str) -> Result<(), StoreError> {
        let mut patience = Patience::new(self);
        while let Err(error) = self.store.set_run_state(&self.run, state, self.epoch).await {
            patience.bears(error).await?;
        }
        Ok(())
    }
}

/// With a store that does not do what it is asked for.
struct Patience<'a> {
    keeper: &'a Keeper,
    since: Instant,
    told: bool,
}

impl<'a> Patience<'a> {
    fn new(keeper: &'a Keeper) -> Self {
        Patience { keeper, since: Instant::now(), told: false }
    }

    /// Waits a moment, after which it may be asked again; an error is the end of patience.
    async fn bears(&mut self, error: StoreError) -> Result<(), StoreError> {
        let run = &self.keeper.run;
        let lost = !error.is_of_the_database() || self.since.elapsed() >= LONGEST;
        // A disk that is full, or read-only, does not come back by itself as soon as a database does.
        let bearable = matches!(error, StoreError::Away(_)) && self.since.elapsed() < BEARABLE;
        if !self.told && (lost || !bearable) {
            self.told = true;
            tracing::error!(run, %error, "the events of a run cannot be kept: it ends");
            let _ = self.keeper.interrupt.send("its events cannot be kept".to_owned());
        }
        if lost {
            return Err(error);
        }
        sleep(AGAIN).await;
        Ok(())
    }
}
