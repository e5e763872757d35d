//! Time: the boot clock for everything that is measured, the wall clock for two labels.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use squall_experiments::protocol::RunId;

/// When a run began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began_ns: u64,
}

impl Clock {
    /// `None` is now.
    pub(super) fn since(began_ns: Option<u64>) -> Self {
        Clock { began_ns: began_ns.unwrap_or_else(boot_ns) }
    }

    /// Milliseconds since the run began.
    pub(super) fn now_ms(self) -> u64 {
        self.ms_of(boot_ns())
    }

    /// Microseconds since the run began.
    pub(super) fn now_us(self) -> u64 {
        boot_ns().saturating_sub(self.began_ns) / 1000
    }

    /// The same in milliseconds, for a moment on the boot clock; zero for one before the run.
    pub(super) fn ms_of(self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.began_ns) / 1_000_000
    }
}

/// Nanoseconds on the boot clock, which counts through suspends and is never set.
pub fn boot_ns() -> u64 {
    // It cannot fail for a clock that every kernel since 2.6.39 has.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Now, as RFC 3339 in UTC: `2026-11-21T10:51:12Z`.
pub fn date() -> String {
    Moment::now().date()
}

/// A time in milliseconds since 1970, as RFC 3339 in UTC.
pub fn date_of(ms: u64) -> String {
    Moment::of(Duration::from_millis(ms)).date()
}

/// A new name for a run: sortable by time, unique by 24 random bits within a millisecond.
pub fn run_id() -> RunId {
    let Moment { day, time, ms } = Moment::now();
    let tail: u32 = rand::random::<u32>() & 0xff_ffff;
    RunId(format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}{ms:03}-{tail:06x}",
        day.0, day.1, day.2, time.0, time.1, time.2
    ))
}

struct Moment {
    day: (i64, u32, u32),
    time: (u64, u64, u64),
    ms: u32,
}

impl Moment {
    fn now() -> Self {
        Moment::of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn date(&self) -> String {
        let Moment { day, time, .. } = self;
        format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", day.0, day.1, day.2, time.0, time.1, time.2)
    }

    fn of(since: Duration) -> Self {
        let seconds = since.as_secs();
        Moment {
            day: civil(i64::try_from(seconds / 86_400).unwrap_or(0)),
            time: (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60),
            ms: since.subsec_millis(),
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_778, (2026, 11, 21)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }

    #[test]
    fn run_ids_sort_by_time_and_are_safe_as_file_names() {
        let first = run_id();
        std::thread::sleep(Duration::from_millis(2));
        let second = run_id();
        assert!(first < second, "{first} {second}");
        assert!(first.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        assert_eq!(first.0.len(), "20261121-105112000-0a1b2c".len());
    }
}
