//! One `squall run` as everybody would start it, and what the shop looked like meanwhile.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use squall_experiments::summary::Summary;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{interval, timeout};

use super::super::shop::{Health, Tally};
use super::services::Services;

/// How often the storefront is asked how busy it is: not in step with the customers, who come every 50 ms.
const LOOK: Duration = Duration::from_millis(130);
/// How long an interrupted run may take to undo its fault and report.
const REVERTING: Duration = Duration::from_secs(15);

/// A running experiment.
pub(super) struct Rehearsal {
    child: Child,
    output: ChildStdout,
    began: Instant,
}

/// What was seen of an experiment.
pub(super) struct Seen {
    /// The run's own report.
    pub(super) summary: Summary,
    /// What the shop's customers got from the first moment of the fault to the last.
    pub(super) customers: Tally,
    /// The busiest and the longest queue.
    pub(super) worst: Health,
    /// How many workers were busy in the median of all looks.
    pub(super) typically_busy: usize,
    /// How long after the injection all workers were busy and somebody queued, if that ever was so.
    pub(super) exhausted_after: Option<Duration>,
}

/// One look at the shop, so long after the run began.
struct Glance {
    at: Duration,
    health: Health,
    customers: Tally,
}

impl Rehearsal {
    /// Starts `squall run`, in this process's group: a Ctrl-C reaches both, and the run has its own way to take it.
    /// Should this process die, the run is told to end, and it reverts first.
    pub(super) fn start(file: &Path, state: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["shop", "leashed", "run", "--format", "json", "--state-dir"]).arg(state).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start `squall run`")?;
        let output = child.stdout.take().context("`squall run` has no output")?;
        Ok(Rehearsal { child, output, began: Instant::now() })
    }

    /// Waits for the end of the run and looks at the shop meanwhile.
    pub(super) async fn watch(&mut self, services: &Services) -> anyhow::Result<Seen> {
        let mut report = String::new();
        let mut glances = Vec::new();
        let mut looks = interval(LOOK);
        {
            let mut read = std::pin::pin!(self.output.read_to_string(&mut report));
            loop {
                tokio::select! {
                    done = &mut read => { done?; break; }
                    _ = looks.tick() => {
                        let at = self.began.elapsed();
                        if let Ok(health) = services.health().await {
                            glances.push(Glance { at, health, customers: services.tally() });
                        }
                    }
                }
            }
        }
        let status = self.child.wait().await?;
        let summary: Summary = serde_json::from_str(&report)
            .with_context(|| format!("`squall run` ended with {status} and without a report"))?;
        Ok(Seen::of(summary, &glances))
    }

    /// Ends a run that is not finished: it undoes its fault first. Returns its exit code; `None`
    /// where a signal ended it, ours too when it took too long.
    pub(super) async fn end(&mut self) -> Option<i32> {
        if let Some(pid) = self.child.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        // What it has to say goes nowhere, but a full pipe must not stop it.
        let mut nowhere = Vec::new();
        let ended = async { tokio::join!(self.output.read_to_end(&mut nowhere), self.child.wait()).1 };
        match timeout(REVERTING, ended).await {
            Ok(status) => status.ok()?.code(),
            Err(_) => {
                let _ = self.child.kill().await;
                None
            }
        }
    }
}

impl Seen {
    fn of(summary: Summary, glances: &[Glance]) -> Self {
        let part = summary.parts.first();
        let at = |ms: Option<u64>| ms.map(Duration::from_millis);
        let injected = at(part.and_then(|part| part.injected_at_ms)).unwrap_or_default();
        let lifted = at(part.and_then(|part| part.lifted_at_ms)).unwrap_or(Duration::MAX);
        let during = || glances.iter().filter(|glance| glance.at >= injected && glance.at <= lifted);
        let worst = during().fold(Health::default(), |worst, glance| Health {
            workers: glance.health.workers,
            busy: worst.busy.max(glance.health.busy),
            queued: worst.queued.max(glance.health.queued),
        });
        let mut busy: Vec<usize> = during().map(|glance| glance.health.busy).collect();
        busy.sort_unstable();
        let typically_busy = busy.get(busy.len() / 2).copied().unwrap_or_default();
        let full = |glance: &&Glance| glance.health.busy == glance.health.workers && glance.health.queued > 0;
        let exhausted_after = during().find(full).map(|glance| glance.at.saturating_sub(injected));
        let customers = match (during().next(), during().next_back()) {
            (Some(first), Some(last)) => last.customers.since(first.customers),
            _ => Tally::default(),
        };
        Seen { summary, customers, worst, typically_busy, exhausted_after }
    }
}
