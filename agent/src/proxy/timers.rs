//! Deadlines of a shard: a heap of them, and one timer of the kernel for the earliest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Whom a deadline wakes: the shard knows what it means.
pub type Whom = u64;

/// Deadlines on the monotonic clock, in nanoseconds.
#[derive(Debug)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, Whom)>>,
    timer: OwnedFd,
    set: u64,
}

impl Timers {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Timers { heap: BinaryHeap::new(), timer, set: u64::MAX })
    }

    /// One more.
    pub fn add(&mut self, time: u64, whom: Whom) {
        self.heap.push(Reverse((time, whom)));
    }

    /// The earliest.
    pub fn first(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes one that is due.
    pub fn due(&mut self, now: u64) -> Option<(u64, Whom)> {
        if self.first()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// The kernel wakes the shard at this time, at no other; the far future stands for never.
    pub fn wake_at(&mut self, time: u64) -> io::Result<()> {
        if time == self.set {
            return Ok(());
        }
        self.set = time;
        // A time of zero would turn the timer off.
        let at = if time == u64::MAX { 0 } else { time.max(1) };
        let value = Timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// The timer has woken the shard: at which time it was to.
    pub fn woken(&mut self) -> u64 {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        std::mem::replace(&mut self.set, u64::MAX)
    }
}

impl AsFd for Timers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
