//! Runs of a controller that is gone: taken over by another one on the same store, and closed.
//!
//! Nothing is injected again. The hosts have reverted by their leases, or do so when they are reached: the agents are told
//! the new epoch, and refuse the older one from then on.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use squall_experiments::exit::Exit;
use squall_experiments::muster::{FleetEvent, Line, What};
use squall_experiments::protocol::RunId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Runs;
use crate::api::HALT;
use crate::store::{Halts, LIVE, RunRow, Store, StoreError};

/// How often a run is held anew, and how often somebody looks for those that nobody holds.
const BEAT: Duration = Duration::from_secs(2);
/// How often somebody looks for halts that another controller was asked for, where he has not heard of one before.
pub(super) const HALTS: Duration = Duration::from_millis(250);
/// How often somebody looks for hosts that another controller was told to revoke, where that is not heard.
const REVOCATIONS: Duration = Duration::from_millis(500);
/// How long the hosts of a run that was taken over are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds a run for as long as this is polled; where somebody else has it, or the store has not said for longer than is bearable
/// that nobody has, it is interrupted here.
pub(super) async fn hold(
    store: &Store,
    run: &RunRow,
    interrupt: mpsc::UnboundedSender<String>,
    bearable: Duration,
) -> Infallible {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut held, mut halted, mut alone) = (Instant::now(), false, false);
    loop {
        let mut asking = pin!(async {
            beat.tick().await;
            // The run is held for a while from when that was asked for, not from when the answer came.
            let asked = Instant::now();
            // The first is a halt that another controller was asked for.
            let (all, this) = tokio::join!(store.fact(HALT), store.hold_run(&run.id, run.epoch));
            (asked, all, this)
        });
        let (asked, all, this) = loop {
            tokio::select! {
                biased;
                answers = &mut asking => break answers,
                // Before somebody else may take it for abandoned; a store that hangs says nothing for longer than that.
                () = sleep_until(held + bearable), if !alone => {
                    alone = true;
                    tracing::error!(run = run.id, "nobody can say that a run is still carried on: it ends");
                    let _ = interrupt.send("nobody can say that it is still carried on".to_owned());
                }
            }
        };
        match this {
            Err(StoreError::Fenced { .. }) => {
                let _ = interrupt.send("another controller has taken the run over".to_owned());
            }
            Err(error) => tracing::warn!(run = run.id, %error, "a run cannot be held"),
            Ok(this) => {
                held = asked;
                if (this || matches!(all, Ok(Some(_)))) && !std::mem::replace(&mut halted, true) {
                    let _ = interrupt.send("halt".to_owned());
                }
            }
        }
    }
}

/// Writes the end of a run that was taken over, unless it stands there already: then only what became of it was not kept.
pub(super) async fn close(store: &Store, run: &RunRow) -> Result<(), StoreError> {
    let last = store.events(&run.id, run.events.saturating_sub(1), 1).await?;
    let last = last.first().and_then(|(_, text)| serde_json::from_str::<Value>(text).ok());
    let last = last.unwrap_or_default();
    let end = serde_json::from_value::<Line>(last.clone()).map(|line| line.what);
    if let Ok(What::Fleet { event: FleetEvent::Finished { exit, .. }, .. }) = end {
        return store.set_run_state(&run.id, exit.meaning(), run.epoch).await;
    }
    let at_ms = last["at_ms"].as_u64().unwrap_or_default();
    let by = "the controller ended in the middle of it; each host reverted by its lease";
    let sentence = format!("interrupted: {by}");
    // A log that is broken keeps no run open; whoever verifies it is told.
    let audit = match store.audit_head().await {
        Err(error) if error.is_of_the_database() => return Err(error),
        head => head
            .inspect_err(
                |error| tracing::error!(run = run.id, %error, "the report has no head of the audit log"),
            )
            .ok(),
    };
    let events = [
        FleetEvent::Interrupted { by: by.to_owned() },
        FleetEvent::Finished { exit: Exit::Interrupted, sentence, audit },
    ];
    let lines = (run.events..).zip(events).map(|(at, event)| {
        let line = Line { seq: at + 1, what: What::Fleet { at_ms, event } };
        serde_json::to_string(&line).unwrap_or_default()
    });
    let lines: Vec<String> = lines.collect();
    store.append(run.epoch, &run.id, run.events, &lines).await?;
    store.set_run_state(&run.id, Exit::Interrupted.meaning(), run.epoch).await
}

impl Runs {
    /// Closes the logs of runs that a controller before this one did not end. Gives how many there were. Only where no other
    /// controller shares the store.
    pub async fn close_interrupted(&self) -> Result<usize, StoreError> {
        let left = self.0.store.runs_in(&LIVE).await?;
        for run in &left {
            let epoch = self.0.store.take_run(&run.id).await?;
            close(&self.0.store, &RunRow { epoch, ..run.clone() }).await?;
        }
        Ok(left.len())
    }

    /// Does what others on the same store were asked to halt, for as long as this is polled: everything on the hosts that are
    /// connected here, one run, or one host.
    pub async fn hear_halts(&self) -> Infallible {
        let (mut known, mut told, mut asked) = (None, BTreeSet::new(), BTreeSet::new());
        let mut orders = self.0.store.orders();
        loop {
            let _ = timeout(HALTS, orders.changed()).await;
            let live: Vec<String> = self.live().keys().cloned().collect();
            told.retain(|run| live.contains(run));
            // Where the store does not say, whoever holds the runs does what is bearable.
            let Ok(Halts { all, runs, hosts }) = self.0.store.halts(HALT, live).await else { continue };
            if all.is_some() && all != known {
                tracing::warn!("a halt of everything is done here, too");
                self.interrupt_all("halt");
                let hub = self.0.hub.clone();
                tokio::spawn(async move {
                    for (host, did) in hub.halt(None).await {
                        match did {
                            Ok(lifted) if lifted.stuck.is_empty() => {}
                            Ok(lifted) => {
                                tracing::error!(host, stuck = ?lifted.stuck, "a host is still modified after a halt")
                            }
                            Err(refusal) => {
                                tracing::warn!(host, %refusal, "a halt did not reach a host: it reverts by its lease")
                            }
                        }
                    }
                });
            }
            known = all;
            for run in runs {
                if let Some(live) = self.live().get(&run)
                    && told.insert(run.clone())
                {
                    tracing::warn!(run, "a run is halted, as another controller was asked to");
                    let _ = live.send("halt".to_owned());
                }
            }
            self.halt_for_others(hosts, &mut asked);
        }
    }

    /// Cuts off hosts that are connected here and that another one on the same store was told to revoke, for as long as this is
    /// polled. Where the store does not say, they stay until it does; nobody is let in meanwhile.
    pub async fn hear_revocations(&self) -> Infallible {
        let mut orders = self.0.store.orders();
        loop {
            let _ = timeout(REVOCATIONS, orders.changed()).await;
            let Ok(revoked) = self.0.store.revoked_hosts().await else { continue };
            for host in revoked.iter().filter(|host| self.0.hub.has(host)) {
                tracing::warn!(host, "a host is cut off, as another controller was told to revoke it");
                self.0.hub.cut_off(host);
            }
        }
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
                match close(&self.0.store, &run).await {
                    Ok(()) => drop(tokio::spawn(self.clone().fence(run))),
                    Err(error) => tracing::error!(run = run.id, %error, "it is tried again later"),
                }
            }
        }
    }

    /// Tells the hosts of a run its epoch, as soon as they are reached.
    async fn fence(self, run: RunRow) {
        let until = Instant::now() + PATIENCE;
        let first = loop {
            match self.0.store.events(&run.id, 0, 1).await {
                Ok(first) => break first,
                Err(error) if Instant::now() < until => {
                    tracing::warn!(run = run.id, %error, "the hosts of a run that was taken over are not known yet");
                    sleep(BEAT).await;
                }
                Err(error) => {
                    tracing::error!(run = run.id, %error, "the hosts of a run that was taken over are not told");
                    return;
                }
            }
        };
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
