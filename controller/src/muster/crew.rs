//! The conductors of a run: one thread for each host.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use squall_experiments::mandate::{Approved, Mandate};
use squall_experiments::muster::own_stop;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::run::{Event, Record, State};
use squall_experiments::targets::{FleetPlan, OnPartial, Share};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::barrier::{Barrier, in_words};
use super::remote::Remote;
use super::{Machines, Order};
use crate::conductor::{self, Outlet, Redact, Tell, conduct};

/// What the threads say.
pub(super) enum Heard {
    /// Something happened on a host.
    Record(String, Box<Record>),
    /// All went on.
    Passed { gate: String, hosts: u32 },
    /// A host stopped by itself; whether that stops all in any case.
    Stopped { host: String, why: String, always: bool },
    /// The thread of a host has ended, whatever became of it.
    Ended(String),
}

/// All conductors. Dropped, it interrupts those that are under way.
pub(super) struct Crew {
    under_way: BTreeMap<String, UnboundedSender<String>>,
    barrier: Arc<Barrier>,
    /// Whether all were told to stop: what stops then is no reason of its own.
    stopped: Arc<AtomicBool>,
}

impl Crew {
    /// Starts a thread for each share.
    pub(super) fn start(
        order: Order,
        shares: Vec<Share>,
        machines: Arc<dyn Machines>,
        since_ns: u64,
    ) -> (Crew, UnboundedReceiver<Heard>) {
        let (say, heard) = unbounded_channel();
        let steps = order.experiment.method.len();
        let telling = Mutex::new(say.clone());
        let told = move |gate, hosts: usize| {
            let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
            let telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = telling.send(Heard::Passed { gate: in_words(gate, steps), hosts });
        };
        let names = shares.iter().map(|share| share.host.clone());
        let barrier = Arc::new(Barrier::new(names, Box::new(told)));
        let stopped = Arc::new(AtomicBool::new(false));
        let order = Arc::new(order);
        let mut under_way = BTreeMap::new();
        for share in shares {
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
            let order = Arc::clone(&order);
            let host = share.host.clone();
            let spawned = thread::Builder::new()
                .name(format!("on {host}"))
                .spawn(move || drive(watch, &order, &share, remote, interruptions, since_ns));
            if let Err(error) = spawned {
                // The watch went with the closure and has said that it ended.
                tracing::error!(host, %error, "no thread for a host of a run");
            }
        }
        (Crew { under_way, barrier, stopped }, heard)
    }

    /// Whether a thread has not ended yet.
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

/// Drives one host to the end of its run. The watch goes last: when it says that this ended, nothing is held any more.
fn drive(
    mut watch: Watch,
    order: &Order,
    share: &Share,
    mut remote: Remote,
    interruptions: UnboundedReceiver<String>,
    since_ns: u64,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return tracing::error!(host = share.host, %error, "no runtime for a host of a run");
        }
    };
    let agent: Option<Result<_, Refusal>> =
        share.plan.has_changes().then(|| remote.machines.agent(&remote.name));
    let run: RunId = order.run.clone();
    let approved = order.approved.as_ref().map(|(submitted_by, by)| {
        let fleet = FleetPlan::on(&order.experiment, &order.targets, order.seed);
        Approved::of(&fleet, &share.plan, submitted_by, by)
    });
    let part = conductor::Order {
        mandate: Mandate { epoch: order.epoch, approved },
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
    let outlet = Outlet {
        file: None,
        redact,
        watcher: Box::new(|tell| match tell {
            Tell::Event(record, state) => watch.event(record, state),
            Tell::Note(text) => tracing::info!(host = share.host, "{text}"),
        }),
    };
    runtime.block_on(conduct(part, &mut remote, interruptions, outlet));
    runtime.shutdown_background();
}

/// Sees every event of one host, in its thread. Dropped, it says that the thread has ended.
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
        // A thread that ended before its run did: a bug, or no room for it. The others must not wait for it for ever.
        if self.going {
            let why = "its run could not be driven".to_owned();
            self.barrier.close();
            let _ = self.say.send(Heard::Stopped { host: self.host.clone(), why, always: true });
        }
        let _ = self.say.send(Heard::Ended(self.host.clone()));
    }
}
