//! How often a system gives way.

use serde::Serialize;

use crate::exit::Exit;

/// The time between deviations, over the runs of an experiment or of all.
///
/// MTBF here is the time over which runs were looked at, from the beginning of the first to now, divided by the number of those
/// that deviated: the point estimate of a constant failure rate, total time over failures (NIST/SEMATECH e-Handbook of
/// Statistical Methods, 8.4.5.1, <https://www.itl.nist.gov/div898/handbook/apr/section4/apr451.htm>). The time is that of the calendar,
/// not operating time, as in *mean operating time between failures* (IEC 60050-192, 192-05-13): nobody says here when a system
/// operated. A run that says nothing (inconclusive, refused,
/// interrupted) is no look. The failures are provoked, so it says how often *practice* shows a weakness, not how often
/// users meet one; with few deviations it is a rough figure, and with none there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Between {
    /// How many runs held or deviated.
    pub runs: u64,
    /// How many of them deviated.
    pub deviated: u64,
    /// From the beginning of the first to now, in milliseconds.
    pub observed_ms: u64,
    /// MTBF, in milliseconds; `None` where none deviated.
    pub mean_ms: Option<u64>,
    /// How long ago the last began that deviated, in milliseconds.
    pub since_ms: Option<u64>,
}

impl Between {
    /// Over runs, each with its beginning (milliseconds since 1970) and its exit code, in any order.
    pub fn of(runs: impl IntoIterator<Item = (u64, Exit)>, now: u64) -> Self {
        let mut between = Between::default();
        let (mut first, mut last) = (None::<u64>, None::<u64>);
        for (at, exit) in runs {
            if !matches!(exit, Exit::Held | Exit::Deviated) {
                continue;
            }
            between.runs += 1;
            first = Some(first.map_or(at, |known| known.min(at)));
            if exit == Exit::Deviated {
                between.deviated += 1;
                last = Some(last.map_or(at, |known| known.max(at)));
            }
        }
        between.observed_ms = first.map_or(0, |first| now.saturating_sub(first));
        between.mean_ms = between.observed_ms.checked_div(between.deviated);
        between.since_ms = last.map(|last| now.saturating_sub(last));
        between
    }
}
