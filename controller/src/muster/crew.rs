//! The conductors of a run: a task for each host, in a few threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use squall_experiments::mandate::Mandate;
use squall_experiments::muster::own_stop;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::run::{Event, Record, State};
use squall_experiments::targets::{OnPartial, Share};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::barrier::{Barrier, in_words};
use super::remote::Remote;
use super::{Machines, Order};
use crate::aside::aside;
use crate::conductor::{self, Outlet, Redact, Tell, conduct};

/// What the conductors say.
pub(super) enum Heard {
    /// Something happened on a host.
    Record(String, Box<Record>),
    /// All went on.
    Passed { gate: String, hosts: u32 },
    /// A host stopped by itself; whether that stops all in any case.
    Stopped { host: String, why: String, always: bool },
    /// The conductor of a host has ended, whatever became of it.
    Ended(String),
}

/// How many threads conductors share at most: as many as have something to do at once on a usual machine. A conductor waits
/// for its host nearly all the time.
pub(super) const THREADS: usize = 4;

/// In which threads conductors work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// In a few of their own: what else the caller has to do does not hold them up.
    Own,
    /// In that of the caller, where time may be another one.
    OfTheCaller,
}

impl Threads {
    /// What work gives that grows with the hosts.
    pub(super) async fn aside<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Threads::Own => aside(work).await,
            Threads::OfTheCaller => work(),
        }
    }
}

/// One host of a run, before its conductor begins.
struct Place {
    watch: Watch,
    share: Share,
    remote: Remote,
    interruptions: UnboundedReceiver<String>,
}

/// All conductors. Dropped, it interrupts those that are under way.
pub(super) struct Crew {
    under_way: BTreeMap<String, UnboundedSender<String>>,
    barrier: Arc<Barrier>,
    /// Whether all were told to stop: what stops then is no reason of its own.
    stopped: Arc<AtomicBool>,
}

impl Crew {
    /// Starts a conductor for each share.
    pub(super) fn start(
        threads: Threads,
        order: Order,
        mandate: Arc<Mandate>,
        shares: Vec<Share>,
        machines: Arc<dyn Machines>,
        since_ns: u64,
    ) -> (Crew, UnboundedReceiver<Heard>) {
        let (say, heard) = unbounded_channel();
        let stages: Vec<usize> = order.targets.stages.iter().map(std::collections::BTreeSet::len).collect();
        let steps = if stages.is_empty() { order.experiment.method.len() } else { stages.len() };
        let telling = Mutex::new(say.clone());
        let told = move |gate, hosts: usize| {
            let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
            let telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = telling.send(Heard::Passed { gate: in_words(gate, steps, &stages), hosts });
        };
        let names = shares.iter().map(|share| share.host.clone());
        let barrier = Arc::new(Barrier::new(names, Box::new(told)));
        let stopped = Arc::new(AtomicBool::new(false));
        let order = Arc::new(order);
        let mut under_way = BTreeMap::new();
        let many = if threads == Threads::Own { THREADS.min(shares.len()).max(1) } else { 1 };
        let mut places: Vec<Vec<Place>> = (0..many).map(|_| Vec::new()).collect();
        for (at, share) in shares.into_iter().enumerate() {
            let (interrupt, interruptions) = unbounded_channel();
            under_way.insert(share.host.clone(), interrupt);
            let watch = Watch {
                host: share.host.clone(),
                say: say.clone(),
                barrier: Arc::clone(&barrier),
                stopped: Arc::clone(&stopped),
                revert: order.experiment.on_partial == OnPartial::Revert,
                going: true,
            };
            let remote = Remote {
                name: share.host.clone(),
                machines: Arc::clone(&machines),
                barrier: Arc::clone(&barrier),
            };
            places[at % many].push(Place { watch, share, remote, interruptions });
        }
        for places in places {
            let (order, mandate) = (Arc::clone(&order), Arc::clone(&mandate));
            if threads == Threads::OfTheCaller {
                let driven = |place| drive(Arc::clone(&order), Arc::clone(&mandate), place, since_ns);
                places.into_iter().for_each(|place| drop(spawn_local(driven(place))));
                continue;
            }
            let spawned = thread::Builder::new()
                .name("conductors".to_owned())
                .spawn(move || drive_all(&order, &mandate, places, since_ns));
            if let Err(error) = spawned {
                // The watches went with the closure and have said that they ended.
                tracing::error!(%error, "no thread for hosts of a run");
            }
        }
        (Crew { under_way, barrier, stopped }, heard)
    }

    /// Whether a conductor has not ended yet.
    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    pub(super) fn ended(&mut self, host: &str) {
        self.under_way.remove(host);
    }

    /// Stops all; also those that revert already are told.
    pub(super) fn interrupt(&self, by: &str) {
        self.tell(by, None);
    }

    /// Stops all others for one of them, unless they were stopped already; whether this did.
    pub(super) fn call_off(&self, host: &str, why: &str) -> bool {
        let first = !self.stopped.load(Ordering::SeqCst);
        if first {
            self.tell(why, Some(host));
        }
        first
    }

    fn tell(&self, by: &str, but: Option<&str>) {
        self.barrier.close();
        self.stopped.store(true, Ordering::SeqCst);
        let others = self.under_way.iter().filter(|(host, _)| Some(host.as_str()) != but);
        others.for_each(|(_, interrupt)| drop(interrupt.send(by.to_owned())));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if self.is_under_way() {
            self.interrupt("the controller dropped the run");
        }
    }
}

/// Drives hosts to the end of their runs. One whose conductor fails is no reason for the others to end here.
fn drive_all(order: &Arc<Order>, mandate: &Arc<Mandate>, places: Vec<Place>, since_ns: u64) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for hosts of a run"),
    };
    let together = LocalSet::new();
    for place in places {
        together.spawn_local(drive(Arc::clone(order), Arc::clone(mandate), place, since_ns));
    }
    runtime.block_on(together);
    runtime.shutdown_background();
}

/// Drives one host to the end of its run. The watch goes last: when it says that this ended, nothing is done any more.
async fn drive(order: Arc<Order>, mandate: Arc<Mandate>, place: Place, since_ns: u64) {
    let Place { mut watch, share, mut remote, interruptions } = place;
    let agent: Option<Result<_, Refusal>> = match share.plan.has_changes() {
        true => Some(remote.machines.agent(&remote.name).await),
        false => None,
    };
    let run: RunId = order.run.clone();
    let part = conductor::Order {
        mandate,
        run,
        experiment: &share.experiment,
        plan: &share.plan,
        version: order.version.clone(),
        origin: order.origin.clone(),
        lease: order.lease,
        since_ns: Some(since_ns),
        agent,
    };
    let redactor = &order.redactor;
    let redact: Option<Redact<'_>> = (!redactor.is_empty())
        .then(|| Box::new(|text: &str| redactor.redact(text).into_owned()) as Redact<'_>);
    let sights = order.sights.clone().map(|sights| {
        let host = share.host.clone();
        let run = order.run.0.clone();
        let keep = move |seen| {
            sights.add(&run, &host, seen);
            Ok(())
        };
        Box::new(keep) as conductor::Sights<'_>
    });
    let outlet = Outlet {
        file: None,
        sights,
        redact,
        watcher: Box::new(|tell| match tell {
            Tell::Event(record, state) => watch.event(record, state),
            Tell::Note(text) => tracing::info!(host = share.host, "{text}"),
        }),
    };
    conduct(part, &mut remote, interruptions, outlet).await;
}

/// Sees every event of one host. Dropped, it says that its conductor has ended.
struct Watch {
    host: String,
    say: UnboundedSender<Heard>,
    barrier: Arc<Barrier>,
    stopped: Arc<AtomicBool>,
    /// Whether a host that stops stops all.
    revert: bool,
    /// Before the method has ended or was stopped.
    going: bool,
}

impl Watch {
    fn event(&mut self, record: &Record, state: &State) {
        let _ = self.say.send(Heard::Record(self.host.clone(), Box::new(record.clone())));
        if !self.going || matches!(state, State::New | State::Baseline | State::Method(_)) {
            return;
        }
        self.going = false;
        let told = self.stopped.load(Ordering::SeqCst) && matches!(record.event, Event::Interrupted { .. });
        let Some((why, always)) = own_stop(&record.event).filter(|_| !told) else {
            return self.barrier.leave(&self.host);
        };
        // Here and now, before the others can come to a gate at which this one would no longer be missed.
        if self.revert || always {
            self.barrier.close();
        } else {
            self.barrier.leave(&self.host);
        }
        let _ = self.say.send(Heard::Stopped { host: self.host.clone(), why, always });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A conductor that ended before its run did: a bug, or no thread for it. The others must not wait for it for ever.
        if self.going {
            let why = "its run could not be driven".to_owned();
            self.barrier.close();
            let _ = self.say.send(Heard::Stopped { host: self.host.clone(), why, always: true });
        }
        let _ = self.say.send(Heard::Ended(self.host.clone()));
    }
}
