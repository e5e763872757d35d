//! One run over several hosts: a conductor for each, all in step, one log and one verdict.
//!
//! Hosts are reached through [`Machines`] only. The conductor of any run drives each, as a task of one of a few threads; what
//! happens there comes back as lines of one log. At every [`Gate`] all wait for each other:
//! nobody injects before the hypothesis held on every host, and a step begins on all of them at one agreed instant of this
//! machine's clock.
//!
//! [`Gate`]: crate::conductor::Gate

mod barrier;
mod crew;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use squall_experiments::document::Redactor;
use squall_experiments::experiment::Experiment;
use squall_experiments::mandate::{Approved, Mandate};
use squall_experiments::muster::{Began, FleetEvent, Line, Muster, What};
use squall_experiments::protocol::RunId;
use squall_experiments::run::Origin;
use squall_experiments::targets::{FleetPlan, OnPartial, Targets, shares};
use tokio::sync::mpsc;

use crate::conductor::{Answer, boot_ns, date};
use crate::sights::Sights;
use crate::store::now_ms;
use crate::stream::Stream;

use crew::{Crew, Heard, Threads};

/// How many files a runtime has open: its poll, its waker, its signals.
const OF_A_RUNTIME: usize = 4;

/// The hosts of a controller, as far as a run must know them. What they answer must not need the runtime that asks, and must not
/// block: conductors of many hosts share a thread.
pub trait Machines: Send + Sync + 'static {
    /// A new connection to the agent of a host. When it breaks, the agent reverts.
    fn agent(&self, host: &str) -> Answer<Stream>;
    /// A new prober on a host, which runs as a user; `None` is the default, an unprivileged one. It ends when its stream is shut
    /// down for writing, with everything that it started, and then shuts down the other way.
    fn prober(&self, host: &str, user: Option<&str>) -> Answer<Stream>;
}

/// What is to be run.
#[derive(Debug)]
pub struct Order {
    /// The run's name, the same on all hosts.
    pub run: RunId,
    /// The document.
    pub experiment: Experiment,
    /// Its hosts, as they were chosen, shown and approved.
    pub targets: Targets,
    /// The seed by which they were.
    pub seed: u64,
    /// Which squall this is.
    pub version: String,
    /// How it was started, as far as that is known.
    pub origin: Option<Origin>,
    /// The lease on each host: see [`crate::conductor::Order::lease`].
    pub lease: Duration,
    /// What is taken out of every text.
    pub redactor: Redactor,
    /// Where it is kept what proxies of outages see, where somebody wants to know.
    pub sights: Option<Sights>,
    /// How often the run was taken over.
    pub epoch: u64,
    /// Who submitted its plan and who approved it, where somebody has.
    pub approved: Option<(String, String)>,
}

impl Order {
    /// On whose word its hosts are told to begin. What is said of each host's own plan is the conductor's to add.
    fn mandate(&self, plan: &FleetPlan) -> Mandate {
        let approved = self.approved.as_ref();
        let approved = approved.map(|(submitted_by, by)| Approved::of_fleet(plan, submitted_by, by));
        Mandate { epoch: self.epoch, approved }
    }
}

/// How many files a run has open at most: each thread of conductors has its runtime. Streams to hosts are none.
pub fn open_files(plan: &FleetPlan) -> usize {
    OF_A_RUNTIME * crew::THREADS.min(plan.hosts.len())
}

/// Is told every line, in order, before the next one is made. May take a moment, in which the hosts go on.
pub type Outlet<'a> = Box<dyn FnMut(&Line) + Send + 'a>;

/// Runs an experiment on its hosts and sums it up.
///
/// `interruptions` brings the names of signals, or of whoever halts: all hosts revert before this returns. Dropping the future
/// interrupts all hosts; their threads revert by themselves then, and nobody hears how.
pub async fn run(
    order: Order,
    machines: Arc<dyn Machines>,
    outlet: Outlet<'_>,
    interruptions: mpsc::UnboundedReceiver<String>,
) -> Muster {
    run_in(Threads::Own, order, machines, outlet, interruptions).await
}

/// The same with all conductors as tasks of this thread, which must be in a local set: their time is that of its runtime,
/// also where that is simulated. Dropped with the local set, the conductors end with it.
pub async fn run_here(
    order: Order,
    machines: Arc<dyn Machines>,
    outlet: Outlet<'_>,
    interruptions: mpsc::UnboundedReceiver<String>,
) -> Muster {
    run_in(Threads::OfTheCaller, order, machines, outlet, interruptions).await
}

async fn run_in(
    threads: Threads,
    order: Order,
    machines: Arc<dyn Machines>,
    outlet: Outlet<'_>,
    mut interruptions: mpsc::UnboundedReceiver<String>,
) -> Muster {
    let since_ns = boot_ns();
    let mut log = Log { since_ns, lines: Vec::new(), outlet };
    let on_partial = order.experiment.on_partial;
    // Once: with many hosts it is work, and no thread that keeps leases must do it.
    let planned = move || {
        let plan = FleetPlan::on(&order.experiment, &order.targets, order.seed);
        let mandate = Arc::new(order.mandate(&plan));
        let parts = shares(&order.experiment, &order.targets, order.seed);
        (order, plan.hash, mandate, parts)
    };
    let (order, plan, mandate, parts) = threads.aside(planned).await;
    log.fleet(FleetEvent::Began(Began {
        run: order.run.clone(),
        title: order.redactor.redact(&order.experiment.title).into_owned(),
        date: date(),
        at: Some(now_ms()),
        seed: order.seed,
        plan,
        version: order.version.clone(),
        on_partial,
        hosts: order.targets.hosts.clone(),
        unconnected: order.targets.unconnected.clone(),
        stages: order.targets.stages.clone(),
    }));
    let (mut crew, mut heard) = Crew::start(threads, order, mandate, parts, machines, since_ns);
    while crew.is_under_way() {
        // An interruption goes before everything.
        tokio::select! {
            biased;
            Some(by) = interruptions.recv() => {
                log.fleet(FleetEvent::Interrupted { by: by.clone() });
                crew.interrupt(&by);
            }
            Some(heard) = heard.recv() => match heard {
                Heard::Record(host, record) => log.add(What::OnHost { host, record: *record }),
                Heard::Passed { gate, hosts } => log.fleet(FleetEvent::Passed { gate, hosts }),
                Heard::Stopped { host, why, always } if always || on_partial == OnPartial::Revert => {
                    let why = format!("called off: `{host}`: {why}");
                    // Of two that stop at once the first one is the reason.
                    if crew.call_off(&host, &why) {
                        log.fleet(FleetEvent::CalledOff { host, why });
                    }
                }
                Heard::Stopped { host, why, .. } => log.fleet(FleetEvent::LeftOut { host, why }),
                Heard::Ended(host) => crew.ended(&host),
            },
        }
    }
    let muster = log.sum(threads).await;
    // Whoever keeps the log adds the end of the audit log.
    log.fleet(FleetEvent::Finished { exit: muster.exit, sentence: muster.sentence, audit: None });
    log.sum(threads).await
}

/// The log of all hosts.
struct Log<'a> {
    since_ns: u64,
    lines: Vec<Line>,
    outlet: Outlet<'a>,
}

impl Log<'_> {
    fn fleet(&mut self, event: FleetEvent) {
        let at_ms = boot_ns().saturating_sub(self.since_ns) / 1_000_000;
        self.add(What::Fleet { at_ms, event });
    }

    fn add(&mut self, what: What) {
        let line = Line { seq: self.lines.len() as u64 + 1, what };
        (self.outlet)(&line);
        self.lines.push(line);
    }

    /// What came of the run so far, which has begun.
    async fn sum(&mut self, threads: Threads) -> Muster {
        let lines = std::mem::take(&mut self.lines);
        let summed = move || (Muster::of(&lines), lines);
        let (muster, lines) = threads.aside(summed).await;
        self.lines = lines;
        muster.unwrap_or_else(|| unreachable!("the log has its first line"))
    }
}

#[cfg(test)]
mod tests;
