//! Runs of a controller that is gone: taken over by another one on the same store, and closed.
//!
//! Nothing is injected again. The hosts have reverted by their leases, or do so when they are reached: the agents are told
//! the new epoch, and refuse the older one from then on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use squall_experiments::exit::Exit;
use squall_experiments::muster::{FleetEvent, Line, What};
use squall_experiments::protocol::RunId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Runs;
use crate::api::HALT;
use crate::store::{LEASE_MS, LIVE, RunRow, Store, StoreError};

/// How often a run is held anew, and how often somebody looks for those that nobody holds.
const BEAT: Duration = Duration::from_secs(2);
/// How long the hosts of a run that was taken over are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds a run for as long as this is polled; where somebody else has it, it is interrupted here.
pub(super) async fn hold(
    store: Store,
    run: String,
    epoch: u64,
    interrupt: mpsc::UnboundedSender<String>,
) -> Infallible {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut held, mut halted) = (Instant::now(), false);
    loop {
        beat.tick().await;
        // A halt that another controller was asked for.
        let all = matches!(store.fact(HALT).await, Ok(Some(_)));
        match store.hold_run(&run, epoch).await {
            Err(StoreError::Fenced { .. }) => {
                let _ = interrupt.send("another controller has taken the run over".to_owned());
            }
            Err(error) => {
                tracing::warn!(run, %error, "a run cannot be held");
                // Before somebody else may take it for abandoned.
                if held.elapsed() > Duration::from_millis(LEASE_MS) * 3 / 4 {
                    let _ = interrupt.send("nobody can say that it is still carried on".to_owned());
                }
            }
            Ok(this) => {
                held = Instant::now();
                if (this || all) && !std::mem::replace(&mut halted, true) {
                    let _ = interrupt.send("halt".to_owned());
                }
            }
        }
    }
}

impl Runs {
    /// Closes the logs of runs that a controller before this one did not end. Gives how many there were. Only where no other
    /// controller shares the store.
    pub async fn close_interrupted(&self) -> Result<usize, StoreError> {
        let left = self.0.store.runs_in(&LIVE).await?;
        for run in &left {
            let epoch = self.0.store.take_run(&run.id).await?;
            self.close_taken(&RunRow { epoch, ..run.clone() }).await?;
        }
        Ok(left.len())
    }

    /// Takes over what nobody holds any more, for as long as this is polled: where controllers share a store.
    pub async fn take_over(&self) -> Infallible {
        loop {
            sleep(BEAT).await;
            loop {
                let run = match self.0.store.take_abandoned().await {
                    Ok(Some(run)) => run,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "nobody can say which runs are carried on");
                        break;
                    }
                };
                tracing::warn!(
                    run = run.id,
                    epoch = run.epoch,
                    "a run of a controller that is gone is closed"
                );
                match self.close_taken(&run).await {
                    Ok(()) => drop(tokio::spawn(self.clone().fence(run))),
                    Err(error) => tracing::error!(run = run.id, %error, "it is tried again later"),
                }
            }
        }
    }

    /// Writes the end of a run that was taken over.
    async fn close_taken(&self, run: &RunRow) -> Result<(), StoreError> {
        let last = self.0.store.events(&run.id, run.events.saturating_sub(1), 1).await?;
        let at_ms = last.first().and_then(|(_, text)| serde_json::from_str::<serde_json::Value>(text).ok());
        let at_ms = at_ms.and_then(|event| event["at_ms"].as_u64()).unwrap_or_default();
        let by = "the controller ended in the middle of it; each host reverted by its lease";
        let sentence = format!("interrupted: {by}");
        let events = [
            FleetEvent::Interrupted { by: by.to_owned() },
            FleetEvent::Finished { exit: Exit::Interrupted, sentence },
        ];
        let lines = (run.events..).zip(events).map(|(at, event)| {
            let line = Line { seq: at + 1, what: What::Fleet { at_ms, event } };
            serde_json::to_string(&line).unwrap_or_default()
        });
        let lines: Vec<String> = lines.collect();
        self.0.store.append_in(run.epoch, &run.id, run.events, &lines).await?;
        self.0.store.set_run_state(&run.id, Exit::Interrupted.meaning(), run.epoch).await
    }

    /// Tells the hosts of a run its epoch, as soon as they are reached.
    async fn fence(self, run: RunRow) {
        let first = self.0.store.events(&run.id, 0, 1).await.unwrap_or_default();
        let began = first.first().and_then(|(_, text)| serde_json::from_str::<Line>(text).ok());
        let Some(What::Fleet { event: FleetEvent::Began(began), .. }) = began.map(|line| line.what) else {
            // It had not begun.
            return;
        };
        let id = RunId(run.id);
        let (mut left, until): (BTreeSet<String>, _) = (began.hosts, Instant::now() + PATIENCE);
        while !left.is_empty() && Instant::now() < until {
            for host in left.clone() {
                if let Ok(lifted) = self.0.hub.fence(&host, &id, run.epoch).await {
                    tracing::info!(host, run = %id, undone = ?lifted.undone, stuck = ?lifted.stuck, "a host knows that its run is over");
                    left.remove(&host);
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        if !left.is_empty() {
            tracing::warn!(run = %id, hosts = ?left, "hosts of a run that was taken over were not reached");
        }
    }
}
