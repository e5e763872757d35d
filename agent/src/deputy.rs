//! The deputy: two threads of the worker that beat, and keep the rules matching, while the only hand is at work.
//!
//! The worker does everything itself, one thing after the other, and some of it waits for others: for the guardian's
//! disk, for the kernel's locks (a host that ends network namespaces holds them for seconds). That is no death. So the
//! deputy stands in, but for [`LONGEST`] at most: a hand that has not shown itself for so long hangs, and hang is death.
//! Time in which the kernel kept it, and no signal would have reached it, does not count.
//! Whoever stops or freezes the process stops both.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;

use crate::host::machine::Renewed;
use crate::host::means::Means;
use crate::host::redirect::lease::Leases;
use crate::host::sys;
use crate::pulse::{BEAT, FOREMOST, Other, Pulse};

/// So long the hand may be at one thing.
pub const LONGEST: Duration = Duration::from_secs(3);
/// So long the kernel may keep it: nobody could end it meanwhile. Whoever asked waits longer.
const KEPT: Duration = Duration::from_secs(12);
/// A beat is overdue, and the deputy's, when it is so late.
const OVERDUE: Duration = Duration::from_millis(400);

/// The worker's only hand: its main thread, which shows itself whenever it begins something new, or waits. A clone is the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Hand(Arc<AtomicU64>);

impl Hand {
    /// Whatever comes now may take [`LONGEST`].
    pub fn shows(&self) {
        self.0.store(sys::boot_nanos(), Ordering::Relaxed);
    }

    fn shown(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn hidden_for(&self) -> Duration {
        Duration::from_nanos(sys::boot_nanos().saturating_sub(self.shown()))
    }
}

/// What keeps a hand that does not show itself: looked at again and again, from soon after it was last seen.
#[derive(Debug, Default)]
struct Excuse {
    /// When the hand was seen last.
    since: u64,
    /// When it was looked at last.
    looked: u64,
    /// How long the kernel had it, in nanoseconds.
    had: u64,
}

impl Excuse {
    /// How long the hand has hidden by its own doing: by when it showed itself last, what time it is, and whether the
    /// kernel has it now.
    fn hidden(&mut self, shown: u64, now: u64, kept: bool) -> Duration {
        if self.since != shown {
            *self = Excuse { since: shown, looked: shown, had: 0 };
        }
        if kept {
            self.had += now.saturating_sub(self.looked);
        }
        self.looked = now;
        let had = Duration::from_nanos(self.had).min(KEPT.saturating_sub(LONGEST));
        Duration::from_nanos(now.saturating_sub(shown)).saturating_sub(had)
    }
}

/// Whether the main thread waits for the kernel where no signal reaches it: state `D` of proc_pid_stat(5).
fn is_kept() -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id()));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D')))
}

/// Whoever has the worker's pulse. Duplicates are the same one.
#[derive(Clone, Debug)]
pub struct Deputy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pulse: Mutex<Pulse>,
    hand: Hand,
    /// Whether the hand is at one thing, and may be.
    stands_in: AtomicBool,
    /// Whether nobody hears the beats any more.
    alone: AtomicBool,
    live: Condvar,
}

impl Deputy {
    /// Takes the pulse, and begins to stand by. Idle, it sleeps.
    pub fn stand_by(pulse: Pulse, tables: Renewed, means: Means) -> io::Result<Self> {
        let shared = Shared {
            pulse: Mutex::new(pulse),
            hand: means.hand.clone(),
            stands_in: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            live: Condvar::new(),
        };
        let deputy = Deputy(Arc::new(shared));
        let (beating, renewing, leases) = (deputy.clone(), deputy.clone(), means.leases);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("squall-deputy").spawn(move || beating.beats())?;
        named("squall-renewer").spawn(move || renewing.renews(&tables, &leases))?;
        Ok(deputy)
    }

    /// The hand's own beat, if it is time, and when the next is due on the boot clock: `None` while nothing is live.
    pub fn beat_if_due(&self, live: bool) -> Option<u64> {
        self.0.hand.shows();
        let mut pulse = self.pulse();
        let before = pulse.beat_if_due();
        pulse.set_live(live);
        if live && before.is_none() {
            self.0.live.notify_all();
        }
        pulse.beat_if_due()
    }

    /// See [`Pulse::listen`].
    pub fn listen(&self) -> Other {
        self.pulse().listen()
    }

    /// The guardian is dead, and the hand undoes everything: it may take as long as it goes on. See [`Pulse::alone`].
    pub fn alone(&self) {
        self.0.hand.shows();
        self.0.alone.store(true, Ordering::Relaxed);
        self.pulse().alone();
        self.0.live.notify_all();
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.0.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread beats, and never asks the kernel for anything that it could wait for.
    fn beats(&self) {
        hurry();
        let mut excuse = Excuse::default();
        let mut pulse = self.pulse();
        while !self.is_alone() {
            pulse = self.live(pulse);
            let overdue = pulse.last_beat().unwrap_or_default() + OVERDUE.as_nanos() as u64;
            let left = Duration::from_nanos(overdue.saturating_sub(sys::boot_nanos()));
            let busy = self.0.hand.hidden_for() >= OVERDUE;
            let hangs = busy && excuse.hidden(self.0.hand.shown(), sys::boot_nanos(), is_kept()) >= LONGEST;
            self.0.stands_in.store(busy && !hangs, Ordering::Relaxed);
            if !left.is_zero() {
                pulse = self.0.live.wait_timeout(pulse, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if !hangs {
                pulse.beat_if_due();
            } else {
                // The pulse ends here: the guardian hears nothing more, and the timer is not put off.
                drop(pulse);
                thread::sleep(BEAT);
                pulse = self.pulse();
            }
        }
        let mut shown = 0;
        loop {
            // The timer that ends this process is put off as long as the hand goes on.
            if std::mem::replace(&mut shown, self.0.hand.shown()) != shown {
                pulse.alone();
            }
            pulse = self.0.live.wait_timeout(pulse, BEAT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_alone(&self) -> bool {
        self.0.alone.load(Ordering::Relaxed)
    }

    /// The other keeps the rules matching, and may have to wait for the kernel itself.
    fn renews(&self, tables: &Renewed, leases: &Leases) {
        hurry();
        while !self.is_alone() {
            drop(self.live(self.pulse()));
            thread::sleep(BEAT);
            if self.0.stands_in.load(Ordering::Relaxed) && self.0.hand.hidden_for() >= OVERDUE {
                renew(tables);
                leases.renew();
            }
        }
    }

    /// Waits as long as nothing is live, and nobody is alone.
    fn live<'p>(&self, mut pulse: MutexGuard<'p, Pulse>) -> MutexGuard<'p, Pulse> {
        while pulse.last_beat().is_none() && !self.is_alone() {
            pulse = self.0.live.wait(pulse).unwrap_or_else(PoisonError::into_inner);
        }
        pulse
    }
}

/// The calling thread has little to do, and that in time: where it is allowed, it goes before all others.
fn hurry() {
    let _ = setpriority_process(None, FOREMOST);
    let _ = sys::run_urgently();
}

/// Keeps the rules of every table matching whose socket the hand is not using. Where it comes too late, the hand's next
/// beat finds out and undoes everything.
fn renew(tables: &Renewed) {
    let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, lease) in tables.iter_mut() {
        let _ = lease.renew_unless_busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// How long a hand has hidden that was seen at 100 s and is looked at each second, `D` being in the kernel's hands.
    fn hidden(looks: &str) -> Vec<u64> {
        let mut excuse = Excuse::default();
        let looked = (101..).zip(looks.chars());
        looked.map(|(now, state)| excuse.hidden(100 * S, now * S, state == 'D').as_secs()).collect()
    }

    #[test]
    fn only_time_that_the_kernel_took_does_not_count() {
        assert_eq!(hidden("SSRS"), [1, 2, 3, 4]);
        assert_eq!(hidden("DDSSD"), [0, 0, 1, 2, 2]);
    }

    #[test]
    fn no_excuse_lasts_longer_than_whoever_asked_waits() {
        let ends = hidden("DDDDDDDDDDDDD");
        assert_eq!((ends[8], ends[11], ends[12]), (0, 3, 4));
    }

    #[test]
    fn a_hand_that_shows_itself_needs_no_excuse() {
        let mut excuse = Excuse::default();
        assert_eq!(excuse.hidden(S, 9 * S, true), Duration::ZERO);
        assert_eq!(excuse.hidden(10 * S, 11 * S, false), Duration::from_secs(1));
    }

    #[test]
    fn a_thread_that_sleeps_is_not_kept() {
        // The main thread of tests waits for them on a lock of its own.
        assert!(!is_kept());
    }
}
