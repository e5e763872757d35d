//! How long packets were held, and how much later than intended they left.

use hdrhistogram::Histogram;
use squall_experiments::evidence::Spread;

/// The longest that is told apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Two distributions, and what is about to be added to them.
#[derive(Debug)]
pub struct Times {
    held: Histogram<u32>,
    late: Histogram<u32>,
    /// Arrival and deadline of what is leaving now.
    leaving: Vec<(u64, u64)>,
}

impl Times {
    /// Nothing yet.
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_max(LONGEST, 3).expect("three digits up to an hour are allowed");
        Times { held: histogram(), late: histogram(), leaving: Vec::with_capacity(4096) }
    }

    /// Something is leaving.
    pub fn leave(&mut self, arrived: u64, deadline: u64) {
        self.leaving.push((arrived, deadline));
    }

    /// Everything that was leaving has left at this time. What had to leave before its deadline, at the end, was not late.
    pub fn left(&mut self, now: u64) {
        for (arrived, deadline) in self.leaving.drain(..) {
            self.held.saturating_record(now.saturating_sub(arrived) / 1000);
            self.late.saturating_record(now.saturating_sub(deadline) / 1000);
        }
    }

    /// Both distributions: how long packets were held, and how late they left. None where nothing was held.
    pub fn spreads(&self) -> (Option<Spread>, Option<Spread>) {
        let spread = |histogram: &Histogram<u32>| {
            (!histogram.is_empty()).then(|| Spread {
                p50_us: histogram.value_at_quantile(0.5),
                p99_us: histogram.value_at_quantile(0.99),
                max_us: histogram.max(),
            })
        };
        (spread(&self.held), spread(&self.late))
    }
}
