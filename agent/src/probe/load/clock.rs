//! The time of a load, and the timer that paces it.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clocks, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Counts from its start, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    /// The same moment as the kernel counts it.
    kernel: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock { start: Instant::now(), kernel: read(Clocks::CLOCK_MONOTONIC) }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A moment for timers of the runtime.
    pub(super) fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.start + at).into()
    }

    /// A moment of the past on the boot clock, in nanoseconds.
    pub(super) fn boot_ns(&self, at: Duration) -> u64 {
        let ago = self.now().saturating_sub(at);
        let then = read(Clocks::CLOCK_BOOTTIME).saturating_sub(ago);
        u64::try_from(then.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Both clocks exist on every kernel that this runs on.
fn read(clock: Clocks) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// A timer of the kernel, which has no slack: those of the runtime are up to a millisecond late.
pub(super) struct Timer {
    clock: Clock,
    timer: TimerFd,
    /// The same timer, for the runtime to wait on.
    watched: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Must be called inside a runtime.
    pub(super) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let twin = timer.as_fd().try_clone_to_owned()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that may lend a different fd each time; an OwnedFd cannot"
        )]
        let watched = AsyncFd::with_interest(twin, Interest::READABLE)?;
        Ok(Timer { clock, timer, watched })
    }

    /// Returns at that time, or soon after where it has passed; never without one. Can be dropped and asked again.
    pub(super) async fn at(&self, at: Option<Duration>) {
        let Some(at) = at else { return pending().await };
        let time = Expiration::OneShot(TimeSpec::from_duration(self.clock.kernel + at));
        if self.timer.set(time, TimerSetTimeFlags::TFD_TIMER_ABSTIME).is_err() {
            // Fails for a time that cannot be written down, centuries ahead.
            return pending().await;
        }
        // It need not be read: setting it anew clears it, and the runtime is told of each expiry once. What is left of an
        // earlier one only makes the caller look at the clock once more.
        if let Ok(mut ready) = self.watched.readable().await {
            ready.clear_ready();
        }
    }
}
