//! Drives one run on this host: baseline, method, revert, recovery.
//!
//! The conductor decides when; the agent acts, the probers look, and the one state machine of the model says what may
//! happen next. One task carries out the steps, another one takes samples and listens, in one thread: a sample never
//! waits for the agent.
//!
//! The agent and the probers are reached over a socket and pipes only; how they are started is the caller's business
//! ([`Host`]).

mod baseline;
mod clock;
mod far_clock;
mod lines;
mod link;
mod listening;
mod log;
mod method;
mod pace;
mod prober;
mod recovery;
mod revert;
mod sampling;
pub mod signals;
mod spans;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use squall_experiments::exit::Exit;
use squall_experiments::experiment::Experiment;
use squall_experiments::mandate::Mandate;
use squall_experiments::plan::{Plan, PlanStep};
use squall_experiments::probe::ProberRequest;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::run::{Event, Origin, Started, State};
use squall_experiments::summary::Summary;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use clock::{boot_ns, date, date_of, run_id};
pub use log::{Redact, Sights, Tell, Watcher, into_file};

use crate::stream::Stream;
use clock::Clock;
use link::{Link, Notice};
use log::Log;
use prober::{Prober, Told};
use sampling::{Purpose, Sampling};

/// The lease of a run, unless its order says otherwise.
pub const LEASE: Duration = Duration::from_secs(5);

/// What is to be run.
#[derive(Debug)]
pub struct Order<'a> {
    /// The run's name.
    pub run: RunId,
    /// The document; its hypotheses and guards are looked at.
    pub experiment: &'a Experiment,
    /// What is done; made from the document.
    pub plan: &'a Plan,
    /// Which squall this is.
    pub version: String,
    /// How it was started, as far as that is known.
    pub origin: Option<Origin>,
    /// Without a renewal for this long the agent reverts by itself; it is renewed five times as often.
    pub lease: Duration,
    /// From when its times are counted, in nanoseconds on the boot clock: `None` is now. Runs on several hosts that belong
    /// together count from one moment.
    pub since_ns: Option<u64>,
    /// On whose word it is run. Shared by all hosts of a run: what an approval holds of the plan of this one is put in when it
    /// is told.
    pub mandate: Arc<Mandate>,
    /// A connection to the agent, or why there is none. Not looked at where the plan holds no change.
    pub agent: Option<Result<Stream, Refusal>>,
}

/// What a host answers, perhaps later. Cancel-safe: what was opened meanwhile is closed again.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>>>>;

/// The machine that a run takes place on, as far as a conductor must know it. Calls may block for some milliseconds; what
/// takes longer, because the machine is another one, is waited for without holding up other runs of the same thread.
pub trait Host {
    /// A prober that runs as a user; `None` is the default, an unprivileged one.
    fn prober(&self, user: Option<&str>) -> Answer<Probing>;
    /// A new connection to the agent that serves this host; `None` where there is none.
    fn resident(&mut self) -> Answer<Option<Stream>>;
    /// Undoes what a dead agent left behind; a line for each thing that was undone.
    fn recover(&mut self) -> Result<Vec<String>, Refusal>;
    /// Ready when it is known when the run goes on beyond a place of its method. Of a run on this host alone it goes on at
    /// once (`None`); runs that belong together all go on at one instant. It is dropped when the run is stopped.
    fn gate(&self, _gate: Gate) -> Pin<Box<dyn Future<Output = Option<Instant>>>> {
        Box::pin(std::future::ready(None))
    }
    /// Whether the run belongs together with those on other hosts.
    fn is_one_of_several(&self) -> bool {
        false
    }
}

/// Where a prober is.
#[derive(Debug)]
pub enum Probing {
    /// A program to be started here, which speaks on its standard input and output.
    Here(Command),
    /// One that runs already; when the stream is shut down for writing it ends, and so does the stream.
    Elsewhere(Stream),
}

/// A place of a method at which runs that belong together wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// The hypothesis holds, and nothing was begun yet.
    Method,
    /// Before a step, counted from 1; after the last one of the method once more.
    Step(usize),
}

/// Who is told what, while the run goes on.
pub struct Outlet<'a> {
    /// The event file; each line is written at once and whole.
    pub file: Option<File>,
    /// What proxies of the run's outages see of connections and requests; `None`: it is not wanted.
    pub sights: Option<Sights<'a>>,
    /// Takes secrets out of every text.
    pub redact: Option<Redact<'a>>,
    /// Sees every event.
    pub watcher: Watcher<'a>,
}

/// One run under way.
struct Run<'a> {
    order: Order<'a>,
    clock: Clock,
    log: RefCell<Log<'a>>,
    host: RefCell<&'a mut dyn Host>,
    link: RefCell<Option<Link>>,
    /// A signal that came before the run's first event.
    early: RefCell<Option<String>>,
    /// Whether the agent was asked to open an injection and not yet to end it.
    begun: Cell<bool>,
    /// Whether the agent ended the run for a guard.
    guarded: Cell<bool>,
    renewal: RefCell<Option<AbortHandle>>,
    /// The instant at which the step begins, where it was agreed with other hosts.
    agreed: Cell<Option<Instant>>,
    notices: mpsc::UnboundedSender<Notice>,
    sampling: RefCell<Sampling>,
    probers: RefCell<Vec<Option<Prober>>>,
    told: mpsc::UnboundedSender<Told>,
    /// Woken by every event.
    changed: Notify,
    /// Woken when the times of samples were changed.
    rescheduled: Notify,
}

/// The run does not go on: the state says why.
#[derive(Debug)]
struct Stopped;

/// Runs an experiment and sums it up. Must be called inside a runtime of one thread.
///
/// `interruptions` brings the names of signals: the first one stops the run, and the revert is done before this
/// returns. Dropping the future closes the connection to the agent, which then reverts by itself; undos of actions
/// are not played then.
pub async fn conduct(
    mut order: Order<'_>,
    host: &mut dyn Host,
    interruptions: mpsc::UnboundedReceiver<String>,
    outlet: Outlet<'_>,
) -> Summary {
    let agent = order.agent.take();
    let (notices, noticed) = mpsc::unbounded_channel();
    let (told, answers) = mpsc::unbounded_channel();
    let clock = Clock::since(order.since_ns);
    let sampling = sampling_of(order.experiment, order.plan);
    let mut log = Log::new(clock, outlet.file, outlet.redact, outlet.watcher);
    log.sights = outlet.sights;
    let run = Run {
        clock,
        log: RefCell::new(log),
        host: RefCell::new(host),
        link: RefCell::new(None),
        early: RefCell::new(None),
        begun: Cell::new(false),
        guarded: Cell::new(false),
        renewal: RefCell::new(None),
        agreed: Cell::new(None),
        notices,
        sampling: RefCell::new(sampling),
        probers: RefCell::new(Vec::new()),
        told,
        changed: Notify::new(),
        rescheduled: Notify::new(),
        order,
    };
    tokio::select! {
        biased;
        () = run.listen(answers, noticed, interruptions) => {}
        () = run.carry_out(agent) => {}
    }
    for prober in run.probers.take().into_iter().flatten() {
        prober.end().await;
    }
    run.close()
}

fn sampling_of(experiment: &Experiment, plan: &Plan) -> Sampling {
    let mut sampling = Sampling::new(plan.has_faults());
    // Actions first: a program that is not there is reported before the first sample of a hypothesis arrives.
    for (step, planned) in numbered(&plan.steps) {
        if let PlanStep::Action { action, undo, .. } = planned {
            sampling.action(Purpose::Action(step.clone()), action);
            if let Some(undo) = undo {
                sampling.action(Purpose::Undo(step), undo);
            }
        }
    }
    experiment.stop_when.iter().for_each(|guard| sampling.watch(guard, true));
    experiment.hypothesis.iter().for_each(|hypothesis| sampling.watch(hypothesis, false));
    sampling.share_error();
    sampling
}

/// How long the method takes as planned.
fn planned_ms(plan: &Plan) -> u64 {
    plan.steps.iter().map(|step| step.takes().as_millis()).sum()
}

/// Every step that is not a group, with its place in the method: `1`, `2.1`, `2.2`, `3`.
fn numbered(steps: &[PlanStep]) -> Vec<(String, &PlanStep)> {
    let mut all = Vec::new();
    for (at, step) in (1..).zip(steps) {
        match step {
            PlanStep::Parallel(children) => {
                let children = (1..).zip(children);
                all.extend(children.map(|(child, step)| (format!("{at}.{child}"), step)));
            }
            single => all.push((at.to_string(), single)),
        }
    }
    all
}

impl Run<'_> {
    /// The whole run, from its first event to the last but one.
    async fn carry_out(&self, agent: Option<Result<Stream, Refusal>>) {
        let connected = self.connect(agent).await;
        let words = connected.as_ref().ok().cloned().flatten();
        self.record(Event::Started(Started {
            run: self.order.run.clone(),
            title: self.order.experiment.title.clone(),
            date: clock::date(),
            seed: self.order.plan.seed,
            plan: self.order.plan.hash(),
            faults: u32::try_from(self.order.plan.faults().count()).unwrap_or(u32::MAX),
            elsewhere: self.order.plan.begins_elsewhere(),
            version: self.order.version.clone(),
            agent: words,
            planned_ms: Some(planned_ms(self.order.plan)),
            origin: self.order.origin.clone(),
            hypotheses: self.order.experiment.hypothesis.iter().map(Into::into).collect(),
            guards: self.order.experiment.stop_when.iter().map(Into::into).collect(),
        }));
        let early = self.early.take();
        match connected {
            Ok(_) => {
                if let Some(by) = early {
                    self.record(Event::Interrupted { by });
                } else if self.baseline().await.is_ok() {
                    // How it ended is in the log; the revert is the same for all ways.
                    let _ = self.method().await;
                }
            }
            Err(refusal) => self.record(Event::Refused { part: None, refusal }),
        }
        self.revert().await;
        self.recovery().await;
    }

    /// Greets the agent, where one is needed.
    async fn connect(&self, agent: Option<Result<Stream, Refusal>>) -> Result<Option<String>, Refusal> {
        if !self.order.plan.has_changes() {
            return Ok(None);
        }
        let stream = agent.unwrap_or_else(|| Err(Refusal::bare("there is no agent")))?;
        let link = Link::open(stream, self.notices.clone())
            .map_err(|error| Refusal::bare(format!("the agent's socket cannot be used: {error}")))?;
        let greeting = link.hello().await?;
        *self.link.borrow_mut() = Some(link);
        Ok(Some(greeting.words))
    }

    /// The last event, and the summary of all.
    fn close(self) -> Summary {
        let mut log = self.log.into_inner();
        let Some(summary) = Summary::of(log.records()) else {
            // Only a run whose very first event was impossible has no summary.
            unreachable!("a run begins with its first event");
        };
        let sentence = summary.sentence.clone();
        log.record(match summary.exit {
            Exit::Modified => Event::Stuck { left: summary.stuck.clone(), sentence },
            exit => Event::Finished { exit, sentence },
        });
        let mut summary = Summary::of(log.records()).unwrap_or(summary);
        if let Some(illegal) = log.illegal() {
            summary.exit = summary.exit.worse(Exit::Bug);
            summary.sentence = format!("bug in squall: {illegal}; {}", summary.sentence);
            summary.verdict = summary.exit.meaning().to_owned();
        }
        summary
    }

    /// Appends an event and wakes whoever waits for one.
    fn record(&self, event: Event) {
        self.log.borrow_mut().record(event);
        self.changed.notify_waiters();
    }

    fn state(&self) -> State {
        self.log.borrow().state().clone()
    }

    /// Whether nothing new may begin any more.
    fn is_stopped(&self) -> bool {
        !matches!(self.log.borrow().state(), State::New | State::Baseline | State::Method(_))
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.is_stopped() { Err(Stopped) } else { Ok(()) }
    }

    /// Waits until a condition holds; it is looked at after every event.
    async fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that nothing between the two is missed.
            changed.as_mut().enable();
            if let Some(found) = condition() {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until nothing new may begin any more.
    async fn stopped(&self) {
        self.until(|| self.is_stopped().then_some(())).await;
    }

    /// Asks a prober for samples.
    fn ask(&self, probes: &[u32]) {
        probes.iter().for_each(|probe| self.tell(*probe, &ProberRequest::Once { probe: *probe }));
    }

    /// Changes when samples are taken.
    fn schedule(&self, change: impl FnOnce(&mut Sampling)) {
        let orders = {
            let mut sampling = self.sampling.borrow_mut();
            change(&mut sampling);
            sampling.orders()
        };
        for order in orders {
            if let ProberRequest::Every { probe, .. } | ProberRequest::Stop { probe } = &order {
                self.tell(*probe, &order);
            }
        }
        self.rescheduled.notify_one();
    }

    /// Tells the prober of a probe something.
    fn tell(&self, probe: u32, request: &ProberRequest) {
        let place = self.sampling.borrow().loaded[probe as usize].place;
        if let Some(Some(prober)) = self.probers.borrow().get(place) {
            prober.tell(request);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
