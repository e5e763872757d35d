//! A thread that carries connections: it waits for the kernel alone, never for a peer, a name or a caller.
//!
//! Every shard listens on every socket; the kernel wakes one of them for each connection (`EPOLLEXCLUSIVE`), which then
//! carries both of its directions.

mod begin;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::connection::{Connection, ENDING, Over, Side};
use super::dependency::Dependency;
use super::http::Engine;
use super::link::Change;
use super::names::Names;
use super::peer::Scratch;
use super::routes::Routes;
use super::slab::{Key, Slab};
use super::timers::Timers;
use super::toxic::{Stream, Toxic};
use crate::host::queue::pace::{Pace, now};

/// What of a connection an event or a deadline is about.
const CLIENT: u64 = 0;
const SERVER: u64 = 1;
/// A listener, whose place counts in a slab of its own.
const LISTENER: u64 = 2;
/// The shard itself.
const OWN: u64 = 3;
/// Of a deadline: a connection that has not been let through its gate.
const GATE: u64 = OWN;
/// Its timer; anything else of its own is a word from outside.
const TIMER: u64 = OWN | 1 << 2;
/// How long a listener rests when the process has no descriptors left, in nanoseconds.
const REST: u64 = 50_000_000;
/// How long the addresses of a name are used, in nanoseconds.
const REMEMBERED: u64 = 1_000_000_000;
/// What all links of a shard may hold together before each holds little, in bytes.
const HELD: usize = 512 << 20;

/// What a shard is told.
pub enum Order {
    /// Carry connections of this dependency from now on.
    Open(Arc<Dependency>, Arc<OwnedFd>, Vec<Arc<Toxic>>),
    /// Close its listener and all its connections.
    Close(u64),
    /// Its toxics change, on connections that are open and on those to come.
    Change(u64, Change),
    /// The addresses of a connection's dependency.
    Resolved(Key, String, Option<Vec<SocketAddr>>),
    /// Reset all connections.
    Abort,
    /// End.
    Stop,
}

/// An order, and who is told that it has been carried out.
type Sent = (Order, Option<Sender<()>>);

/// How others speak to a shard.
#[derive(Clone)]
pub struct Handle {
    orders: Arc<Mutex<Vec<Sent>>>,
    wake: Arc<OwnedFd>,
}

impl Handle {
    /// Sends an order; `done` is told when it has been carried out.
    pub fn send(&self, order: Order, done: Option<Sender<()>>) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push((order, done));
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

struct Listener {
    dependency: Arc<Dependency>,
    socket: Arc<OwnedFd>,
    toxics: Vec<Arc<Toxic>>,
}

/// The state of one shard.
pub struct Shard {
    poll: OwnedFd,
    handle: Handle,
    timers: Timers,
    pace: Pace,
    listeners: Slab<Listener>,
    connections: Slab<Connection>,
    names: Names,
    known: HashMap<String, (u64, Vec<SocketAddr>)>,
    routes: Routes,
    http: Arc<OnceLock<Engine>>,
    /// Directions that have had their turn and have more to do.
    waiting: Vec<(Key, Stream)>,
    /// What all connections hold together, in bytes.
    held: usize,
    scratch: Scratch,
    ends: bool,
}

impl Shard {
    /// Starts a shard.
    pub fn start(
        names: Names,
        routes: Routes,
        http: Arc<OnceLock<Engine>>,
    ) -> io::Result<(Handle, JoinHandle<()>)> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let timers = Timers::new()?;
        let scratch = Scratch::new()?;
        epoll::add(&poll, &wake, EventData::new_u64(OWN), EventFlags::IN | EventFlags::ET)?;
        epoll::add(&poll, &timers, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;
        let handle = Handle { orders: Arc::default(), wake };
        let given = handle.clone();
        let run = move || {
            // The kernel would be allowed to wake it 50 us late otherwise.
            let _ = nix::sys::prctl::set_timerslack(1);
            let shard = Shard {
                poll,
                handle: given,
                timers,
                pace: Pace::new(),
                listeners: Slab::default(),
                connections: Slab::default(),
                names,
                known: HashMap::new(),
                routes,
                http,
                waiting: Vec::new(),
                held: 0,
                scratch,
                ends: false,
            };
            if let Err(error) = shard.run() {
                tracing::error!("a shard of the proxy ended: {error}");
            }
        };
        let thread = thread::Builder::new().name("squall-proxy".into()).stack_size(256 << 10).spawn(run)?;
        Ok((handle, thread))
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        while !self.ends {
            let first = self.timers.first();
            let at_once = !self.waiting.is_empty()
                || first.is_some_and(|first| {
                    let now = now();
                    first <= now || self.pace.stays_awake(first, now)
                });
            let timeout = at_once.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
            if !at_once {
                self.timers.wake_at(first.map_or(u64::MAX, |first| self.pace.before(first)))?;
            }
            events.clear();
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for (key, stream) in std::mem::take(&mut self.waiting) {
                self.pump(key, stream, now());
            }
            for event in &events {
                self.event(*event);
            }
            let now = now();
            while let Some((time, mark)) = self.timers.due(now) {
                self.due(time, mark, now);
            }
            self.pace.look();
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        let mark = event.data.u64();
        let (key, what) = Key::unmark(mark);
        match what {
            LISTENER => self.accept(key),
            OWN if mark == TIMER => {
                let at = self.timers.woken();
                self.pace.woken(at);
            }
            OWN => {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.handle.wake, &mut count);
                let orders =
                    std::mem::take(&mut *self.handle.orders.lock().unwrap_or_else(PoisonError::into_inner));
                for (order, done) in orders {
                    self.obey(order);
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
            }
            side => {
                let flags = event.flags;
                let ending = flags.intersects(ENDING);
                let (readable, writable) = (flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT));
                let Some(connection) = self.connections.get(key) else { return };
                let side = if side == CLIENT { Side::Client } else { Side::Server };
                let now = now();
                let room = match connection.event(side, flags, now) {
                    Ok(room) => room,
                    Err(error) => return self.dial(key, Some(error)),
                };
                if connection.to_hand_over() {
                    return self.hand_over(key);
                }
                // What came is read first; room that was made lets the other direction go on.
                let (first, second) = match side {
                    Side::Client => (Stream::Upstream, Stream::Downstream),
                    Side::Server => (Stream::Downstream, Stream::Upstream),
                };
                if readable || ending || (side == Side::Server && writable) {
                    self.pump(key, first, now);
                }
                if room || ending {
                    self.pump(key, second, now);
                }
            }
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.held -= connection.counted;
        }
    }

    fn pump(&mut self, key: Key, stream: Stream, now: u64) {
        let mut next = Some(stream);
        let mut looked = false;
        while let Some(stream) = next.take() {
            let Some(connection) = self.connections.get(key) else { return };
            if !connection.is_connected() {
                return;
            }
            let pumped = connection.pump(stream, now, &mut self.scratch, self.held > HELD);
            let held = connection.held();
            self.held = self.held + held - std::mem::replace(&mut connection.counted, held);
            match pumped {
                Ok(left) => {
                    if left.more {
                        self.waiting.push((key, stream));
                    }
                    if let Some(time) = left.next
                        && time < connection.armed[stream as usize]
                    {
                        connection.armed[stream as usize] = time;
                        self.timers.add(time, key.mark(stream as u64));
                    }
                    if left.other && !std::mem::replace(&mut looked, true) {
                        next = Some(match stream {
                            Stream::Upstream => Stream::Downstream,
                            Stream::Downstream => Stream::Upstream,
                        });
                    }
                }
                Err(over) => {
                    if over == Over::Reset {
                        connection.abort();
                    }
                    self.forget(key);
                }
            }
        }
    }

    fn due(&mut self, time: u64, mark: u64, now: u64) {
        let (key, what) = Key::unmark(mark);
        if what == LISTENER {
            self.listen(key);
            return;
        }
        if what == GATE {
            return self.admit_waiting(key, now);
        }
        let Some(connection) = self.connections.get(key) else { return };
        let stream = if what == CLIENT { Stream::Upstream } else { Stream::Downstream };
        // An earlier deadline was set meanwhile: this one is taken care of.
        if connection.armed[stream as usize] == time {
            connection.armed[stream as usize] = u64::MAX;
            self.pump(key, stream, now);
        }
    }

    fn listen(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get(key) {
            let data = EventData::new_u64(key.mark(LISTENER));
            let added =
                epoll::add(&self.poll, &listener.socket, data, EventFlags::IN | EventFlags::EXCLUSIVE);
            if added.is_err() {
                self.timers.add(now() + REST, key.mark(LISTENER));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open(dependency, socket, toxics) => {
                let key = self.listeners.insert(Listener { dependency, socket, toxics });
                self.listen(key);
            }
            Order::Close(id) => {
                for key in self.listeners.keys(|listener| listener.dependency.id == id) {
                    if let Some(listener) = self.listeners.remove(key) {
                        // Others hold the socket too: the kernel would go on waking this shard for it.
                        let _ = epoll::delete(&self.poll, &listener.socket);
                    }
                }
                for key in self.connections.keys(|connection| connection.dependency.id == id) {
                    self.forget(key);
                }
            }
            Order::Change(id, change) => self.change(id, &change),
            Order::Resolved(key, upstream, addresses) => {
                let addresses = addresses.unwrap_or_default();
                if !addresses.is_empty() {
                    let now = now();
                    self.known.retain(|_, (until, _)| *until > now);
                    self.known.insert(upstream, (now + REMEMBERED, addresses.clone()));
                }
                self.try_addresses(key, addresses);
            }
            Order::Abort => {
                for key in self.connections.keys(|_| true) {
                    if let Some(connection) = self.connections.get(key) {
                        connection.abort();
                    }
                    self.forget(key);
                }
            }
            Order::Stop => self.ends = true,
        }
    }

    fn change(&mut self, id: u64, change: &Change) {
        for key in self.listeners.keys(|listener| listener.dependency.id == id) {
            let Some(listener) = self.listeners.get(key) else { continue };
            match change {
                Change::Add(toxic) => listener.toxics.push(toxic.clone()),
                Change::Update(toxic) => {
                    let old = listener.toxics.iter_mut().find(|old| old.name == toxic.name);
                    if let Some(old) = old {
                        old.clone_from(toxic);
                    }
                }
                Change::Remove(name) => listener.toxics.retain(|toxic| toxic.name != *name),
            }
        }
        let now = now();
        for key in self.connections.keys(|connection| connection.dependency.id == id) {
            let Some(connection) = self.connections.get(key) else { continue };
            connection.change(change);
            self.admit_waiting(key, now);
            self.pump(key, Stream::Upstream, now);
            self.pump(key, Stream::Downstream, now);
        }
    }
}
