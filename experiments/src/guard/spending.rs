//! What has been spent of a budget: a count of its own for every stretch of requests, so that nothing is counted twice.

use std::collections::BTreeMap;

use crate::probe::Budget;
use crate::run::Seen;

/// A budget and what was spent of it.
#[derive(Clone, Debug)]
pub(super) struct Spending {
    pub(super) budget: Budget,
    /// Failures of samples that are complete.
    settled: u64,
    /// Failures so far of samples under way, by the time when they began.
    under_way: BTreeMap<u64, u64>,
}

impl Spending {
    pub(super) fn new(budget: Budget) -> Self {
        Spending { budget, settled: 0, under_way: BTreeMap::new() }
    }

    /// So many requests failed by now of a sample that is not complete yet.
    pub(super) fn failing(&mut self, begun_ns: u64, failed: u64) {
        self.under_way.insert(begun_ns, failed);
    }

    /// A sample is complete.
    pub(super) fn settle(&mut self, begun_ns: u64, failed: u64) {
        self.under_way.remove(&begun_ns);
        self.settled = self.settled.saturating_add(failed);
    }

    pub(super) fn failed(&self) -> u64 {
        self.under_way.values().fold(self.settled, |sum, failed| sum.saturating_add(*failed))
    }

    pub(super) fn is_spent(&self) -> bool {
        self.failed() >= self.budget.0
    }
}

/// How many failures a sample counts for: its requests without the expected answer, or itself. Slow answers are answers.
pub fn failures(seen: &Seen) -> u64 {
    match &seen.load {
        Some(load) => load.failed(),
        None => u64::from(!seen.good && !seen.unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_early_is_not_counted_again() {
        let mut spending = Spending::new(Budget(10));
        spending.failing(100, 3);
        spending.failing(200, 4);
        spending.failing(100, 5);
        assert_eq!((spending.failed(), spending.is_spent()), (9, false));
        spending.settle(100, 6);
        assert_eq!((spending.failed(), spending.is_spent()), (10, true));
        spending.settle(200, 4);
        assert_eq!(spending.failed(), 10);
        spending.settle(300, 0);
        assert_eq!(spending.failed(), 10);
    }
}
