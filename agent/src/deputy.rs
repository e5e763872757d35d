//! The deputy: two threads of the worker that beat, and keep the rules matching, while the only hand is at work.
//!
//! The worker does everything itself, one thing after the other, and some of it waits for others: for the guardian's
//! disk, for the kernel's locks (a host that ends network namespaces holds them for seconds). That is no death. So the
//! deputy stands in, but for [`LONGEST`] at most: a hand that has not shown itself for so long hangs, and hang is death.
//! Whoever stops or freezes the process stops both.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
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

    fn hidden_for(&self) -> Duration {
        Duration::from_nanos(sys::boot_nanos().saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// Whoever has the worker's pulse. Duplicates are the same one.
#[derive(Clone, Debug)]
pub struct Deputy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pulse: Mutex<Pulse>,
    hand: Hand,
    live: Condvar,
}

impl Deputy {
    /// Takes the pulse, and begins to stand by. Idle, it sleeps.
    pub fn stand_by(pulse: Pulse, tables: Renewed, means: Means) -> io::Result<Self> {
        let shared = Shared { pulse: Mutex::new(pulse), hand: means.hand.clone(), live: Condvar::new() };
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

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.0.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread beats, and never asks the kernel for anything that it could wait for.
    fn beats(&self) {
        // It has little to do, and that in time.
        let _ = setpriority_process(None, FOREMOST);
        let mut pulse = self.pulse();
        loop {
            pulse = self.live(pulse);
            let overdue = pulse.last_beat().unwrap_or_default() + OVERDUE.as_nanos() as u64;
            let left = Duration::from_nanos(overdue.saturating_sub(sys::boot_nanos()));
            if !left.is_zero() {
                pulse = self.0.live.wait_timeout(pulse, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if self.0.hand.hidden_for() < LONGEST {
                pulse.beat_if_due();
            } else {
                // The pulse ends here: the guardian hears nothing more, and the timer is not put off.
                drop(pulse);
                thread::sleep(BEAT);
                pulse = self.pulse();
            }
        }
    }

    /// The other keeps the rules matching, and may have to wait for the kernel itself.
    fn renews(&self, tables: &Renewed, leases: &Leases) {
        let _ = setpriority_process(None, FOREMOST);
        loop {
            drop(self.live(self.pulse()));
            thread::sleep(BEAT);
            if (OVERDUE..LONGEST).contains(&self.0.hand.hidden_for()) {
                renew(tables);
                leases.renew();
            }
        }
    }

    /// Waits as long as nothing is live.
    fn live<'p>(&self, mut pulse: MutexGuard<'p, Pulse>) -> MutexGuard<'p, Pulse> {
        while pulse.last_beat().is_none() {
            pulse = self.0.live.wait(pulse).unwrap_or_else(PoisonError::into_inner);
        }
        pulse
    }
}

/// Keeps the rules of every table matching whose socket the hand is not using. Where it comes too late, the hand's next
/// beat finds out and undoes everything.
fn renew(tables: &Renewed) {
    let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
    for (_, lease) in tables.iter_mut() {
        let _ = lease.renew_unless_busy();
    }
}
