//! The thread that reads a queue: receives packets, asks the dice, holds, and gives verdicts.
//!
//! It waits in one `ppoll` for packets, for the earliest deadline (one timer, set anew only when that changes) and for
//! questions. A packet that is held by the kernel costs no allocation here.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recvmmsg};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use squall_experiments::evidence::Engine as Counts;

use super::Orders;
use super::pace::{self, Pace, now};
use super::wire::{self, Event};
use super::work::{self, Work};

/// Messages of one receive call.
const BATCH: usize = 64;
/// Receive calls between two looks at the clock by everything else.
const ROUNDS: usize = 8;
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

/// What the thread is made of.
pub struct Engine {
    ends: Ends,
    timer: TimerFd,
    armed: Option<u64>,
    buffers: Vec<Box<[u8]>>,
    work: Work,
    pace: Pace,
}

impl Engine {
    /// Makes everything that may fail, in the network namespace of the calling thread.
    pub fn new(ends: Ends, orders: Orders) -> Result<Self, Errno> {
        let (copied, _) = work::needs(&orders);
        let work = Work::new(ends.number, orders)?;
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
                // What is due does not wait for the rest of a burst.
                self.work.release(now(), &self.ends.socket);
                rounds += 1;
            }
            self.release(&mut headers);
            if self.answer(&mut headers) {
                return;
            }
        }
    }

    /// Waits for anything. Whether there is any sense in going on.
    ///
    /// In a stream of packets, whoever wakes up for each of them has little time for anything else: they gather for a
    /// moment then.
    fn wait(&mut self) -> bool {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds =
            [watch(self.timer.as_fd()), watch(self.ends.bell.as_fd()), watch(self.ends.socket.as_fd())];
        let gathered = self.pace.gathers();
        let watched = if gathered.is_some() { &mut fds[..2] } else { &mut fds[..] };
        match ppoll(watched, gathered, None) {
            Ok(_) => {
                if fds[0].any().unwrap_or(true) {
                    // Arming it anew takes back what it says, so that it need not be read.
                    if let Some(at) = self.armed.replace(0) {
                        self.pace.woken(at);
                    }
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    /// Sets the timer to the earliest deadline.
    fn arm(&mut self) {
        let mut next = self.work.next().map(|deadline| self.pace.before(deadline));
        if self.work.again() {
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
                    Event::Packet(packet) => self.work.packet(&packet, now, &self.ends.socket),
                    Event::Answer(_, packets) => self.work.vanished(packets),
                }
            }
        }
        self.work.give(&self.ends.socket);
        count == BATCH
    }

    /// Lets go what is due, or will be at once.
    fn release(&mut self, headers: &mut MultiHeaders<NetlinkAddr>) {
        let mut now = now();
        while self.work.next().is_some_and(|next| self.pace.stays_awake(next, now)) {
            self.receive(headers);
            now = pace::now();
        }
        self.work.release(now, &self.ends.socket);
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
                    let _ = answer.send(self.work.counts());
                }
                Ask::Stop(answer) => {
                    self.catch_up(headers);
                    self.release_all();
                    let _ = answer.send(self.work.counts());
                    return true;
                }
            }
        }
        false
    }

    /// Lets everything go that is held, in order.
    fn release_all(&mut self) {
        for _ in 0..LAST_TRIES {
            self.work.release(u64::MAX, &self.ends.socket);
            if self.work.is_done() {
                return;
            }
            thread::sleep(Duration::from_nanos(AGAIN));
        }
        self.work.abandon();
    }

    /// Takes in everything that had come when it was called, and little more.
    fn catch_up(&mut self, headers: &mut MultiHeaders<NetlinkAddr>) {
        const ENOUGH: usize = 1024;
        let mut rounds = 0;
        while self.receive(headers) && rounds < ENOUGH {
            rounds += 1;
            self.release(headers);
        }
    }
}
