//! Load: requests that begin at their times, whatever becomes of those before them.
//!
//! Each load has a thread of its own with its own runtime, so that it disturbs no other probe and none disturbs it. One
//! timer of the kernel paces it; a timer of the runtime would be up to a millisecond late. Nothing in it waits for
//! anything before a request begins: neither for an answer, nor for a free connection, nor for whoever reads the
//! samples.

mod clock;
mod pool;
mod schedule;
mod streams;
mod target;
mod tick;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use squall_experiments::probe::{Expect, Group, LoadProbe, ProberReply, Sample};
use squall_experiments::quantity::{Period, Rate};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout_at;

use super::expect::ExpectHttp;
use super::reach;
use super::tcp::{self, Stage, timed_out};
use clock::{Clock, Timer};
use schedule::{Due, Schedule};
use target::{Target, Turns};
use tick::{Tick, words};

/// Files that a prober needs besides the connections of its loads.
const OTHER_FILES: u64 = 128;
/// That requests fail is said so long after the first that was not said yet: a thousand of them are one word.
const SOON: Duration = Duration::from_millis(50);

/// A load, ready to be sent.
pub(super) struct Task {
    load: LoadProbe,
    rate: Rate,
    tick: Duration,
    timeout: Period,
    answer: ExpectHttp,
    expect: Expect,
}

/// What a running load is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// One more sample.
    Once,
    /// Samples without end, a new one from now on.
    Every,
    /// No more requests.
    Stop,
}

/// The thread that sends a load; it ends when this is dropped, and with it every connection.
pub(super) struct Generator {
    orders: UnboundedSender<Order>,
}

impl Task {
    /// Understands the request and loads what it trusts; an error says why not.
    pub(super) fn new(load: &LoadProbe, tick: Period, expect: &Expect) -> Result<Self, String> {
        // Connections belong to the thread that sends: there they are made anew.
        let groups = [Group::Tested, Group::Control].map(|group| Target::new(load, group));
        let all = groups.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().count() as u64;
        may_open(all * u64::from(load.connections))?;
        Ok(Task {
            load: load.clone(),
            rate: load.rate,
            tick: tick.get().max(load.rate.offset(1)),
            timeout: load.timeout,
            answer: ExpectHttp::new(expect)?,
            expect: expect.clone(),
        })
    }
}

/// Raises this process's limit of open files where the connections of all its loads need it.
fn may_open(connections: u64) -> Result<(), String> {
    static ALL: AtomicU64 = AtomicU64::new(OTHER_FILES);
    let needed = ALL.fetch_add(connections, Ordering::Relaxed) + connections;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| errno.to_string())?;
    if needed <= soft {
        return Ok(());
    }
    let refused =
        || format!("{connections} connections are more than a process may open here ({hard} files)");
    if needed > hard {
        return Err(refused());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|_| refused())
}

impl Generator {
    /// Starts the thread; nothing is sent before the first order.
    ///
    /// `promptly`: that requests fail is said before their sample is complete.
    pub(super) fn start(
        task: Task,
        probe: u32,
        promptly: bool,
        replies: Sender<ProberReply>,
    ) -> io::Result<Self> {
        // Looking up a name blocks a thread; a broken resolver must not gather hundreds of them.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
        let (orders, ordered) = unbounded_channel();
        let thread = std::thread::Builder::new().name("load".to_owned());
        thread.spawn(move || serve(runtime, task, (probe, promptly), replies, ordered))?;
        Ok(Generator { orders })
    }

    /// Gives an order. A thread that is gone has said why.
    pub(super) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

fn serve(
    runtime: Runtime,
    task: Task,
    (probe, promptly): (u32, bool),
    replies: Sender<ProberReply>,
    orders: UnboundedReceiver<Order>,
) {
    let local = LocalSet::new();
    let failed = local.block_on(&runtime, async {
        let clock = Clock::start();
        let timer = Timer::new(clock)?;
        let target = |group| Target::new(&task.load, group).map_err(io::Error::other);
        let sending = Rc::new(Sending {
            tested: target(Group::Tested)?,
            control: target(Group::Control)?,
            turns: Turns::new(&task.load),
            clock,
            current: RefCell::new(None),
            probe,
            promptly,
            replies: replies.clone(),
            unreported: Cell::new(0),
            rests: Cell::new(0),
            task,
        });
        sending.run(&timer, orders).await;
        io::Result::Ok(())
    });
    if let Err(error) = failed {
        let why = format!("a load cannot be paced: {}", tcp::words(&error));
        let _ = replies.blocking_send(ProberReply::Unusable { probe, why });
    }
    drop(local);
    // A name that is being looked up cannot be called back: do not wait for it.
    runtime.shutdown_background();
}

/// A load while its thread lives.
struct Sending {
    task: Task,
    tested: Option<Target>,
    control: Option<Target>,
    turns: Turns,
    clock: Clock,
    /// `None` while nothing is to be sent.
    current: RefCell<Option<Current>>,
    probe: u32,
    promptly: bool,
    replies: Sender<ProberReply>,
    /// Samples that were begun and are not yet reported.
    unreported: Cell<usize>,
    /// How many orders to stop were not yet answered.
    rests: Cell<u32>,
}

/// What is being sent.
struct Current {
    schedule: Schedule,
    tick: Rc<Tick>,
}

impl Sending {
    /// Until nobody gives orders any more.
    async fn run(self: Rc<Self>, timer: &Timer, mut orders: UnboundedReceiver<Order>) {
        loop {
            let next = self.send_what_is_due();
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = timer.at(next) => {}
            }
        }
    }

    fn obey(self: &Rc<Self>, order: Order) {
        let now = self.clock.now();
        let mut current = self.current.borrow_mut();
        match (order, current.as_mut()) {
            (Order::Once, Some(current)) => current.schedule.one_more(),
            (Order::Once, None) => *current = Some(self.begin(now, Some(1))),
            (Order::Every, Some(current)) => {
                let short = current.schedule.cut(now);
                let cut = std::mem::replace(&mut current.tick, self.tick(now));
                self.close(&cut, short);
            }
            (Order::Every, None) => *current = Some(self.begin(now, None)),
            (Order::Stop, _) => {
                self.rests.set(self.rests.get() + 1);
                match current.take() {
                    Some(mut current) => self.close(&current.tick, current.schedule.cut(now)),
                    None => drop(spawn_local(self.clone().rested())),
                }
            }
        }
    }

    fn begin(&self, now: Duration, ticks: Option<u32>) -> Current {
        let Task { rate, tick, timeout, .. } = &self.task;
        Current { schedule: Schedule::new(*rate, *tick, timeout.get(), ticks, now), tick: self.tick(now) }
    }

    fn tick(&self, begun: Duration) -> Rc<Tick> {
        self.unreported.set(self.unreported.get() + 1);
        Rc::new(Tick::new(begun))
    }

    /// Sends every request whose time has come, and ends ticks; gives the time when to look again.
    fn send_what_is_due(self: &Rc<Self>) -> Option<Duration> {
        let mut place = self.current.borrow_mut();
        loop {
            let current = place.as_mut()?;
            let now = self.clock.now();
            match current.schedule.due(now) {
                Due::Later(at) => return Some(at),
                // An answer would come too late in any case, and say nothing of the target.
                Due::TooLate => {
                    self.turns.next();
                    self.groups(0).for_each(|group| current.tick.not_sent(group));
                }
                Due::Request(at) => {
                    let turn = self.turns.next();
                    for group in self.groups(turn.1) {
                        current.tick.begins(at, group);
                        spawn_local(self.clone().request(current.tick.clone(), at, group, turn));
                    }
                }
                Due::TickEnded { at, last } => {
                    let ended = if last {
                        place.take().map(|current| current.tick)
                    } else {
                        Some(std::mem::replace(&mut current.tick, self.tick(at)))
                    };
                    ended.iter().for_each(|tick| self.close(tick, false));
                }
            }
        }
    }

    /// Who is asked, each first at every other request.
    fn groups(&self, number: u64) -> impl Iterator<Item = Group> + use<> {
        let (first, second) = match number % 2 {
            0 => (Group::Tested, Group::Control),
            _ => (Group::Control, Group::Tested),
        };
        let control = self.control.is_some();
        [first, second].into_iter().filter(move |group| control || *group == Group::Tested)
    }

    /// One request, from its time to its last byte, its time-out, or whatever goes wrong.
    async fn request(
        self: Rc<Self>,
        tick: Rc<Tick>,
        at: Duration,
        group: Group,
        (place, number): (usize, u64),
    ) {
        tick.sent(self.clock.now().saturating_sub(at), group);
        let target = match group {
            Group::Tested => &self.tested,
            Group::Control => &self.control,
        };
        let Some(target) = target else { return };
        let asked = target.asked(place);
        let stage = Stage::new(tcp::RESOLVING);
        let deadline = self.clock.instant(at + self.task.timeout.get());
        let exchange = target.exchange(asked, number, &stage, self.task.answer.wants_body());
        let (result, refused) = reach::watched(timeout_at(deadline, exchange)).await;
        let took = self.clock.now().saturating_sub(at);
        let failed = |why: &str| tick.failed(at, &asked.failure(why), group);
        let used = match result {
            Err(_) => {
                failed(&timed_out(self.task.timeout, &stage));
                None
            }
            // Of what may not be asked nothing is known: it is not a failure, and its tick is no sample.
            Ok(Err(why)) if refused => return self.give_up(&tick, why).await,
            Ok(Err(why)) => {
                failed(&why);
                None
            }
            Ok(Ok((answer, used))) => {
                match self.task.answer.objection(&answer) {
                    Some(objection) => failed(&objection.text()),
                    None => tick.answered(at, took, &self.task.expect, group),
                }
                Some(used)
            }
        };
        if tick.is_settled() {
            self.report(tick);
        } else if self.promptly {
            self.forewarn(tick);
        }
        if let Some(used) = used {
            target.give_back(used).await;
        }
    }

    /// Sends no more, and says why. What was begun is not reported.
    async fn give_up(self: Rc<Self>, tick: &Tick, why: String) {
        let current = self.current.borrow_mut().take();
        let mut begun = vec![tick];
        begun.extend(current.as_ref().map(|current| &*current.tick));
        let left = begun.into_iter().filter(|tick| tick.abandon()).count();
        self.unreported.set(self.unreported.get() - left);
        if current.is_some() {
            let _ = self.replies.send(ProberReply::Unusable { probe: self.probe, why }).await;
        }
        self.rested().await;
    }

    /// Nothing begins in this tick any more.
    fn close(self: &Rc<Self>, tick: &Rc<Tick>, short: bool) {
        tick.close(short);
        if tick.is_settled() {
            self.report(tick.clone());
        }
    }

    /// Says what became of a tick in which everything is answered. Never waits: requests must not wait for readers.
    fn report(self: &Rc<Self>, tick: Rc<Tick>) {
        let mut load = tick.take();
        let sending = self.clone();
        let took = self.clock.now().saturating_sub(tick.begun);
        let begun_ns = tick.begun_ns(&self.clock);
        spawn_local(async move {
            if load.requests + load.unsent > 0 {
                load.judge(&sending.task.expect);
                let sample = Sample {
                    probe: sending.probe,
                    begun_ns,
                    took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
                    good: load.missed.is_empty(),
                    unclear: false,
                    seen: words(&load, &sending.task.expect),
                    load: Some(load),
                };
                let _ = sending.replies.send(ProberReply::Sample(sample)).await;
            }
            sending.unreported.set(sending.unreported.get() - 1);
            sending.rested().await;
        });
    }

    /// Says soon how many requests of a tick have failed, unless that is known or will be said anyway: so the last of a
    /// budget is spent when it is spent, and not when the slowest request of its second is answered.
    fn forewarn(self: &Rc<Self>, tick: Rc<Tick>) {
        if !tick.is_to_be_told() {
            return;
        }
        let sending = self.clone();
        spawn_local(async move {
            tokio::time::sleep(SOON).await;
            let begun_ns = tick.begun_ns(&sending.clock);
            if let Some(failed) = tick.told() {
                let reply = ProberReply::Failing { probe: sending.probe, begun_ns, failed };
                let _ = sending.replies.send(reply).await;
            }
        });
    }

    /// Answers the orders to stop, once there is nothing more to report.
    async fn rested(self: Rc<Self>) {
        if self.unreported.get() > 0 {
            return;
        }
        for _ in 0..self.rests.take() {
            let _ = self.replies.send(ProberReply::Rested { probe: self.probe }).await;
        }
    }
}
