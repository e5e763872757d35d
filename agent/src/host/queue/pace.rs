//! The clock of the engines, and their manners: urgent, but never at the cost of the whole machine.
//!
//! A sleeping processor needs 30 to 150 us to wake up for a timer. Where that is so, the timer is set so much earlier and
//! the thread waits for the deadline awake: delays are as exact as the clock, for at most a quarter of a processor.

use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::super::sys;

/// How often an engine looks at how much of the processor it takes, in nanoseconds.
const WINDOW: u64 = 20_000_000;
/// More than this share of it, in percent, and it pauses.
const SHARE: u64 = 90;
/// For so long: everybody else's turn.
const PAUSE: Duration = Duration::from_millis(1);
/// Less than this share, in percent, and it may wait for a deadline awake.
const IDLE: u64 = 25;
/// For no longer than this, in nanoseconds.
const LONGEST_LEAD: u64 = 150_000;
/// By how much a late waking makes the next one earlier, and a timely one later, in nanoseconds: eight of nine are timely.
const STEPS: (u64, u64) = (8_000, 1_000);
/// More than this share, in percent, and it lets packets gather before it takes them in.
const BUSY: u64 = 40;
/// For so long, in nanoseconds.
const GATHER: i64 = 100_000;
/// How long an urgent thread may run without ever waiting before the kernel ends the process, in microseconds. What it
/// holds is then let go by the guardian.
const FRENZY_US: u64 = 1_000_000;

/// Nanoseconds of the clock by which packets are held.
pub fn now() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("these clocks exist on every Linux");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Makes the calling thread wake up on time. What could not be had, for a reader.
pub fn hurry() -> Vec<String> {
    let mut notes = Vec::new();
    // The default would allow the kernel to wake it 50 us late.
    let _ = nix::sys::prctl::set_timerslack(1);
    if let Err(error) = limit_frenzy().and_then(|()| sys::run_urgently()) {
        notes.push(format!(
            "the packet engine has no real-time priority here ({error}): on a busy host delays are a few milliseconds late"
        ));
    }
    notes
}

/// The kernel ends a process with a real-time thread that never waits (`RLIMIT_RTTIME`, Linux 2.6.25).
fn limit_frenzy() -> std::io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_RTTIME)?;
    let limit = FRENZY_US.min(hard);
    Ok(setrlimit(Resource::RLIMIT_RTTIME, limit, limit)?)
}

/// How well the calling thread sleeps: how late it is woken, and how much of a processor it takes.
#[derive(Debug)]
pub struct Pace {
    since: u64,
    used: u64,
    /// Whether it has taken little in the last window.
    idle: bool,
    /// Whether it has taken much in the last window.
    busy: bool,
    /// How much earlier than a deadline the timer is set.
    lead: u64,
}

impl Pace {
    /// From now on.
    pub fn new() -> Self {
        Pace { since: now(), used: read(ClockId::CLOCK_THREAD_CPUTIME_ID), idle: true, busy: false, lead: 0 }
    }

    /// When to be woken for a deadline: early enough to be awake by then.
    pub fn before(&self, deadline: u64) -> u64 {
        if self.idle { deadline - self.lead.min(deadline - 1) } else { deadline }
    }

    /// The timer that was set to this time has woken the thread.
    pub fn woken(&mut self, at: u64) {
        let late = now().saturating_sub(at).min(LONGEST_LEAD);
        let (more, less) = STEPS;
        self.lead = if late > self.lead { self.lead + more } else { self.lead.saturating_sub(less) };
    }

    /// Whether the thread was woken early for this deadline and is to wait for it awake.
    pub fn stays_awake(&self, deadline: u64, now: u64) -> bool {
        self.idle && deadline > now && deadline - now <= self.lead
    }

    /// For how long packets are left to gather before the thread looks for them; `None` where it wakes up for each.
    pub fn gathers(&self) -> Option<TimeSpec> {
        self.busy.then(|| TimeSpec::new(0, GATHER))
    }

    /// Lets others run, when they had no chance to for a while: for a thread that is urgent.
    pub fn breathe(&mut self) {
        if self.look() > SHARE {
            thread::sleep(PAUSE);
        }
    }

    /// Looks how much of the processor the thread takes, in percent; 0 where it was looked at just now.
    pub fn look(&mut self) -> u64 {
        let now = now();
        let passed = now.saturating_sub(self.since);
        if passed < WINDOW {
            return 0;
        }
        let used = read(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let share = used.saturating_sub(self.used) * 100 / passed;
        self.idle = share < IDLE;
        self.busy = share > BUSY;
        (self.since, self.used) = (now, used);
        share
    }
}
