//! The thread that reads a queue: receives packets, asks the dice, holds, and gives verdicts.
//!
//! It waits in one `ppoll` for packets, for the earliest deadline (one timer, set anew only when that changes) and for
//! questions. A packet that is held by the kernel costs no allocation here.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recvmmsg, sendto};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use squall_experiments::evidence::Engine as Counts;

use super::super::nft::Hook;
use super::Orders;
use super::dice::Dice;
use super::pace::{Pace, now};
use super::packet::{HEAD, Headers};
use super::raw::{Outgoing, Raw, Sent};
use super::schedule::{Due, Held, Schedule};
use super::times::Times;
use super::wire::{self, Event, Packet, Verdicts};

/// Messages of one receive call.
const BATCH: usize = 64;
/// Receive calls between two looks at the clock by everything else.
const ROUNDS: usize = 8;
/// Verdicts are sent when they are so many bytes, at the latest.
const FULL: usize = 64 * 1024;
/// How soon what could not be sent is tried again, in nanoseconds.
const AGAIN: u64 = 200_000;
/// How long a device may take for what is left at the end, in tries of [`AGAIN`].
const LAST_TRIES: u32 = 1000;

/// A question to the thread.
pub enum Ask {
    /// How much has been done, after everything that has come.
    Counts(Sender<Counts>),
    /// Whether it lives: it repeats the number.
    Ping(u64),
    /// Let everything go, answer and end.
    Stop(Sender<Counts>),
}

/// What the thread and its queue share.
pub struct Ends {
    /// The queue's socket.
    pub socket: OwnedFd,
    /// The queue's number.
    pub number: u16,
    /// Questions.
    pub asked: Receiver<Ask>,
    /// Wakes the thread for a question.
    pub bell: Arc<EventFd>,
    /// The last number of a ping that was answered.
    pub answered: Arc<AtomicU64>,
}

/// Bytes that were taken out of the kernel.
#[derive(Debug)]
pub struct Bytes {
    bytes: Box<[u8]>,
    mark: u32,
    device: u32,
}

/// How much of a packet an engine needs, and whether it may come larger than any link would carry it.
pub fn needs(orders: &Orders) -> (u32, u32) {
    let impairment = &orders.impairment;
    let whole = impairment.duplicate.is_some()
        || impairment.corrupt.is_some()
        || (impairment.holds() && orders.hook == Hook::Output);
    let copied = if whole { u32::from(u16::MAX) } else { HEAD as u32 };
    let gso = impairment.only_delays() && orders.hook == Hook::Input;
    (copied, wire::FAIL_OPEN | if gso { wire::GSO } else { 0 })
}

/// What the thread is made of.
pub struct Engine {
    ends: Ends,
    timer: TimerFd,
    armed: Option<u64>,
    buffers: Vec<Box<[u8]>>,
    work: Work,
    pace: Pace,
}

/// What is done to packets, and what came of it.
struct Work {
    orders: Orders,
    dice: Dice,
    /// Whether packets of one connection may not overtake each other although their delays differ.
    ordered: bool,
    schedule: Schedule<Bytes>,
    verdicts: Verdicts,
    raw: Option<Raw>,
    counts: Counts,
    times: Times,
    scratch: Vec<u8>,
    /// Whether something is due that could not be let go.
    again: bool,
}

impl Engine {
    /// Makes everything that may fail, in the network namespace of the calling thread.
    pub fn new(ends: Ends, orders: Orders) -> Result<Self, Errno> {
        let impairment = &orders.impairment;
        let sends = impairment.duplicate.is_some() || (impairment.holds() && orders.hook == Hook::Output);
        let raw = if sends { Some(Raw::open(orders.hook)?) } else { None };
        let (copied, _) = needs(&orders);
        let work = Work {
            dice: Dice::new(impairment, orders.seed),
            ordered: impairment.delay.is_some_and(|delay| !delay.jitter.is_zero() && !delay.reordering),
            schedule: Schedule::new(orders.limit as usize),
            verdicts: Verdicts::new(ends.number),
            raw,
            counts: Counts { name: "queue".to_owned(), ..Counts::default() },
            times: Times::new(),
            scratch: Vec::new(),
            again: false,
            orders,
        };
        Ok(Engine {
            ends,
            timer: TimerFd::new(
                ClockId::CLOCK_MONOTONIC,
                TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
            )?,
            armed: None,
            buffers: (0..BATCH).map(|_| vec![0; copied as usize + wire::AROUND].into_boxed_slice()).collect(),
            work,
            pace: Pace::new(),
        })
    }

    /// Works until it is told to stop, or its socket fails for good.
    pub fn run(mut self) {
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        loop {
            self.arm();
            self.pace.breathe();
            if !self.wait() {
                return;
            }
            let mut rounds = 0;
            while self.receive(&mut headers) && rounds < ROUNDS {
                rounds += 1;
            }
            self.release();
            if self.answer(&mut headers) {
                return;
            }
        }
    }

    /// Waits for anything. Whether there is any sense in going on.
    fn wait(&mut self) -> bool {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds =
            [watch(self.ends.socket.as_fd()), watch(self.timer.as_fd()), watch(self.ends.bell.as_fd())];
        match ppoll(&mut fds, None, None) {
            Ok(_) => {
                if fds[1].any().unwrap_or(true) {
                    // Arming it anew takes back what it says, so that it need not be read.
                    self.armed = Some(0);
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    /// Sets the timer to the earliest deadline.
    fn arm(&mut self) {
        let mut next = self.work.schedule.next();
        if self.work.again {
            next = Some(now() + AGAIN);
        }
        if next == self.armed {
            return;
        }
        let set = match next {
            None => self.timer.unset(),
            Some(at) => {
                let at =
                    TimeSpec::new((at / 1_000_000_000).cast_signed(), (at % 1_000_000_000).cast_signed());
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        };
        self.armed = if set.is_ok() { next } else { Some(0) };
    }

    /// Takes in what has come, once. Whether there may be more.
    fn receive(&mut self, headers: &mut MultiHeaders<NetlinkAddr>) -> bool {
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = {
            let mut buffers = self.buffers.iter_mut();
            std::array::from_fn(|_| [IoSliceMut::new(buffers.next().expect("as many as messages"))])
        };
        let received =
            recvmmsg(self.ends.socket.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        let Ok(messages) = received else {
            // Nothing there, interrupted, or packets that passed because the socket was full.
            return false;
        };
        let now = now();
        let mut count = 0;
        for message in messages {
            count += 1;
            for event in message.iovs().flat_map(wire::events) {
                match event {
                    Event::Packet(packet) => self.work.packet(&packet, now),
                    Event::Refused(_, packets) => self.work.counts.mislaid += u64::from(packets),
                }
            }
            if self.work.verdicts.len() >= FULL {
                self.work.give(&self.ends.socket);
            }
        }
        self.work.give(&self.ends.socket);
        count == BATCH
    }

    fn release(&mut self) {
        self.work.release(now(), &self.ends.socket);
    }

    /// Answers questions. Whether that was the last.
    fn answer(&mut self, headers: &mut MultiHeaders<NetlinkAddr>) -> bool {
        // An error says that nobody has rung.
        let _ = self.ends.bell.read();
        while let Ok(ask) = self.ends.asked.try_recv() {
            match ask {
                Ask::Ping(number) => self.ends.answered.store(number, Ordering::Release),
                Ask::Counts(answer) => {
                    self.catch_up(headers);
                    let _ = answer.send(self.work.counted());
                }
                Ask::Stop(answer) => {
                    self.catch_up(headers);
                    self.work.release_all(&self.ends.socket);
                    let _ = answer.send(self.work.counted());
                    return true;
                }
            }
        }
        false
    }

    /// Takes in everything that had come when it was called, and little more.
    fn catch_up(&mut self, headers: &mut MultiHeaders<NetlinkAddr>) {
        const ENOUGH: usize = 1024;
        let mut rounds = 0;
        while self.receive(headers) && rounds < ENOUGH {
            rounds += 1;
            self.release();
        }
    }
}

impl Work {
    /// Decides about one packet.
    fn packet(&mut self, packet: &Packet<'_>, now: u64) {
        self.counts.seen += 1;
        let fate = self.dice.next();
        if fate.lost {
            self.counts.lost += 1;
            self.verdicts.lose(packet.id);
            return;
        }
        let length = packet.length as usize;
        let whole = length == packet.payload.len();
        let needs_headers = fate.duplicated || fate.corrupted.is_some() || self.ordered;
        let headers = if needs_headers { Headers::of(packet.payload) } else { None };
        let corrupted =
            fate.corrupted.filter(|_| whole).zip(headers).is_some_and(|(choice, headers)| {
                flip(packet.payload, headers.end, choice, &mut self.scratch)
            });
        let doubled = fate.duplicated
            && whole
            && headers.zip(self.raw.as_mut()).is_some_and(|(headers, raw)| raw.can_copy(&headers));
        self.counts.corrupted += u64::from(corrupted);

        let connection = headers.filter(|_| self.ordered && !fate.late).map(|headers| headers.connection());
        let hold = fate.delay > 0 || connection.is_some();
        let steal = self.orders.hook == Hook::Output;
        if hold && !(self.schedule.has_room(length) && (whole || !steal)) {
            self.counts.overflowed += 1;
        } else if hold {
            self.counts.delayed += 1;
            self.counts.reordered += u64::from(fate.late);
            let altered = corrupted.then(|| self.bytes(packet, &self.scratch));
            let held = if steal {
                self.verdicts.lose(packet.id);
                Held::Taken(altered.unwrap_or_else(|| self.bytes(packet, packet.payload)))
            } else {
                Held::Queued(packet.id, altered)
            };
            self.schedule.hold(held, length, now, fate.delay, connection);
            if doubled && self.schedule.has_room(length) {
                self.counts.duplicated += 1;
                let copy = Held::Taken(self.bytes(packet, packet.payload));
                self.schedule.hold(copy, length, now, fate.delay, connection);
            }
            return;
        }
        if doubled {
            let copy = Outgoing { bytes: packet.payload, mark: self.mark(packet), device: device(packet) };
            let sent = self.raw.as_mut().map(|raw| raw.send(copy));
            self.counts.duplicated += u64::from(sent == Some(Sent::Yes));
        }
        if corrupted {
            self.verdicts.altered(packet.id, &self.scratch);
        } else if self.schedule.is_empty() {
            self.verdicts.oldest(packet.id);
        } else {
            self.verdicts.accept(packet.id);
        }
    }

    fn mark(&self, packet: &Packet<'_>) -> u32 {
        let (value, mask) = self.orders.mark;
        (packet.mark & !mask) | (value & mask)
    }

    fn bytes(&self, packet: &Packet<'_>, bytes: &[u8]) -> Bytes {
        Bytes { bytes: bytes.into(), mark: self.mark(packet), device: device(packet) }
    }

    /// Lets go what is due.
    fn release(&mut self, now: u64, socket: &OwnedFd) {
        let mut waits = false;
        loop {
            let Work { schedule, verdicts, raw, counts, times, .. } = self;
            let all = schedule.release(now, |Due { held, oldest, arrived, deadline }| {
                if verdicts.len() >= FULL {
                    return false;
                }
                match held {
                    Held::Queued(id, None) if oldest => verdicts.oldest(*id),
                    Held::Queued(id, None) => verdicts.accept(*id),
                    Held::Queued(id, Some(altered)) => verdicts.altered(*id, &altered.bytes),
                    Held::Taken(Bytes { bytes, mark, device }) => {
                        let packet = Outgoing { bytes, mark: *mark, device: *device };
                        match raw.as_mut().map_or(Sent::No(Errno::EBADF), |raw| raw.send(packet)) {
                            Sent::Yes => {}
                            Sent::Later => {
                                waits = true;
                                return false;
                            }
                            Sent::No(_) => counts.mislaid += 1,
                        }
                    }
                }
                times.leave(arrived, deadline);
                true
            });
            self.give(socket);
            if all || waits || !self.verdicts.is_empty() {
                break;
            }
        }
        self.again = waits || !self.verdicts.is_empty();
    }

    /// Lets everything go that is held, in order.
    fn release_all(&mut self, socket: &OwnedFd) {
        for _ in 0..LAST_TRIES {
            self.release(u64::MAX, socket);
            if self.schedule.is_empty() && self.verdicts.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_nanos(AGAIN));
        }
        self.counts.mislaid += self.schedule.len() as u64;
    }

    /// Hands the verdicts to the kernel; keeps them for another try where it has no memory for them now.
    fn give(&mut self, socket: &OwnedFd) {
        if !self.verdicts.is_empty() {
            let to = NetlinkAddr::new(0, 0);
            if sendto(socket.as_raw_fd(), self.verdicts.pending(), &to, MsgFlags::MSG_DONTWAIT).is_err() {
                return;
            }
            self.verdicts.sent();
        }
        self.times.left(now());
    }

    fn counted(&self) -> Counts {
        let (held, late) = self.times.spreads();
        Counts { held, late, ..self.counts.clone() }
    }
}

/// The interface that a packet belongs to.
fn device(packet: &Packet<'_>) -> u32 {
    if packet.outdev != 0 { packet.outdev } else { packet.indev }
}

/// Puts the packet with one bit flipped behind its headers into `altered`; no where nothing stands there.
fn flip(packet: &[u8], from: usize, choice: u64, altered: &mut Vec<u8>) -> bool {
    let bits = packet.len().saturating_sub(from) as u64 * 8;
    if bits == 0 {
        return false;
    }
    let bit = choice % bits;
    altered.clear();
    altered.extend_from_slice(packet);
    altered[from + (bit / 8) as usize] ^= 1 << (bit % 8);
    true
}
