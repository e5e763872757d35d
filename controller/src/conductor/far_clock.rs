//! The boot clock of another machine, as far as it can be known from here: F. Cristian, "Probabilistic clock
//! synchronization", Distributed Computing 3 (1989).
//!
//! Whoever answers says its time; that was at some moment between question and answer, and is taken to be in the middle. So
//! the error is half of the round trip at most, whatever either clock shows, and the quickest answer is the best.

use std::time::Duration;

use tokio::time::Instant;

/// By how much two clocks may part, in millionths: a kernel bends its clock by 500 at most (`adjtimex(2)`).
const DRIFT: u32 = 500;

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FarClock {
    /// Its time at the moment `at`.
    time_ns: u64,
    at: Instant,
    within: Duration,
}

impl FarClock {
    /// From a question and its answer.
    pub(super) fn heard(asked: Instant, answered: Instant, time_ns: u64) -> Self {
        let within = answered.saturating_duration_since(asked) / 2;
        FarClock { time_ns, at: asked + within, within }
    }

    /// The better one of what was known and what was heard now; where they contradict each other, the clock was moved (its
    /// machine slept), and what was known is worth nothing any more.
    pub(super) fn or(self, new: Self) -> Self {
        let within = self.within(new.at);
        let contradicts = self.time(new.at).abs_diff(new.time_ns) > nanos(within + new.within);
        if contradicts || new.within <= within { new } else { self }
    }

    /// What it shows at a moment.
    pub(super) fn time(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.at) {
            Some(later) => self.time_ns.saturating_add(nanos(later)),
            None => self.time_ns.saturating_sub(nanos(self.at - at)),
        }
    }

    /// How wrong that may be.
    pub(super) fn within(&self, at: Instant) -> Duration {
        let apart = at.max(self.at) - at.min(self.at);
        self.within + apart * DRIFT / 1_000_000
    }

    /// How long before a moment it showed this, or how long after it will: `Err`.
    pub(super) fn before(&self, at: Instant, time_ns: u64) -> Result<Duration, Duration> {
        let now = self.time(at);
        match now.checked_sub(time_ns) {
            Some(ago) => Ok(Duration::from_nanos(ago)),
            None => Err(Duration::from_nanos(time_ns - now)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_never_further_off_than_it_says_whatever_the_ways_take() {
        let here = Instant::now();
        // It shows an hour more than ours; ways there and back that are as different as can be.
        for (there, back) in [(0, 40), (40, 0), (7, 3), (0, 0)] {
            let clock = FarClock::heard(here, here + ms(there + back), HOUR + there * 1_000_000);
            for later in [0, 5, 900] {
                let error = clock.time(here + ms(later)).abs_diff(HOUR + later * 1_000_000);
                assert!(error <= nanos(clock.within(here + ms(later))), "{there} {back} {later}: {error}");
            }
            assert!(clock.within(here) <= ms(there + back) / 2 + ms(1));
        }
    }

    #[test]
    fn the_quickest_answer_counts_until_it_is_old_or_contradicted() {
        let here = Instant::now();
        let quick = FarClock::heard(here, here + ms(2), HOUR + 1_000_000);
        let slow = FarClock::heard(here + ms(100), here + ms(200), HOUR + 110_000_000);
        assert_eq!(quick.or(slow).within, ms(1));
        assert_eq!(slow.or(quick).within, ms(1));
        // 500 s later the quick one may be off by a quarter of a second.
        let late = here + ms(500_000);
        let slow = FarClock::heard(late, late + ms(100), HOUR + 500_050_000_000);
        assert_eq!(quick.or(slow).within, ms(50));
        // The machine slept for 10 s.
        let after = FarClock::heard(here + ms(300), here + ms(400), HOUR + 10_350_000_000);
        assert_eq!(quick.or(after).within, ms(50));
        assert_eq!(quick.before(here + ms(11), HOUR + 1_000_000), Ok(ms(10)));
        assert_eq!(quick.before(here + ms(1), HOUR + 3_000_000), Err(ms(2)));
    }
}
