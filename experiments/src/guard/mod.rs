//! What stops a run while it goes on: guards, and budgets. The conductor and the agent ask the same of the same samples.

mod pace;
mod rates;
mod returning;
mod spending;

use serde::{Deserialize, Serialize};

use crate::probe::{Budget, Hypothesis};
use crate::quantity::Percent;
use crate::run::Seen;
use crate::verdict::{IN_A_ROW, Phase, Standing, Tally};

use rates::Rates;
use returning::Returning;
use spending::Spending;

pub use spending::failures;

/// Why a run must be stopped now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// A guard does not hold: what was seen.
    Tripped(String),
    /// So many requests or looks failed, and the budget is no larger.
    Spent {
        /// How many.
        failed: u64,
        /// How many may.
        budget: Budget,
    },
    /// A guard says nothing any more, and so guards nothing: what was seen instead.
    Blind(String),
}

/// A guard or a hypothesis while it is looked at: everything that its samples have said so far.
///
/// Which samples come in which order changes when it stops a run, and never by how much a budget was spent.
#[derive(Clone, Debug)]
pub struct Guarding {
    guard: bool,
    tolerate: Percent,
    /// All samples that say something.
    all: Tally,
    /// How many of the last samples said nothing, one after the other.
    unclear: u32,
    rates: Option<Rates>,
    /// Of a hypothesis: what it keeps again when everything is undone.
    returning: Option<Returning>,
    spending: Option<Spending>,
}

impl Guarding {
    /// Nothing was seen yet. Only a `guard` is stopped by what it claims; a budget stops a run wherever it stands.
    pub fn new(hypothesis: &Hypothesis, guard: bool) -> Self {
        Guarding {
            guard,
            tolerate: hypothesis.expect.tolerate,
            all: Tally::default(),
            unclear: 0,
            rates: hypothesis.terms().as_ref().map(Rates::new),
            returning: hypothesis.terms().as_ref().filter(|_| !guard).and_then(Returning::of),
            spending: hypothesis.budget.map(Spending::new),
        }
    }

    /// Continues what somebody else looked at before: single looks that are counted, with those of the baseline.
    pub fn having_seen(self, earlier: Tally) -> Self {
        Guarding { all: earlier, ..self }
    }

    /// How many bounds it has that are asked beside those of others.
    pub fn bounds(&self) -> usize {
        let returning = self.returning.as_ref().map(Returning::bounds);
        returning.or_else(|| self.rates.as_ref().map(Rates::bounds)).unwrap_or(0)
    }

    /// So many bounds are asked beside each other, of all that are watched for the same: they share the error.
    pub fn beside(&mut self, bounds: usize) {
        self.rates.iter_mut().for_each(|rates| rates.beside(bounds));
        self.returning.iter_mut().for_each(|returning| returning.beside(bounds));
    }

    /// Takes a sample; `begun_ns` is what [`Guarding::failing`] knows it by.
    pub fn add(&mut self, seen: &Seen, begun_ns: u64) {
        // A stretch that was cut off early counts in sums only.
        if !seen.load.as_ref().is_some_and(|load| load.short) {
            if seen.unclear {
                self.unclear += 1;
            } else {
                self.unclear = 0;
                self.all.add(seen.good);
            }
        }
        self.rates.iter_mut().for_each(|rates| rates.add(seen));
        self.returning.iter_mut().for_each(|returning| returning.add(seen));
        if spends(seen.phase) {
            self.spending.iter_mut().for_each(|spending| spending.settle(begun_ns, failures(seen)));
        }
    }

    /// So many requests failed by now of a sample of the method that is not complete yet.
    pub fn failing(&mut self, begun_ns: u64, failed: u64) {
        self.spending.iter_mut().for_each(|spending| spending.failing(begun_ns, failed));
    }

    /// Whether, and why, the run must be stopped; `last` is what was seen last.
    pub fn stop(&self, last: &str) -> Option<Stop> {
        if let Some(spending) = self.spending.as_ref().filter(|spending| spending.is_spent()) {
            return Some(Stop::Spent { failed: spending.failed(), budget: spending.budget });
        }
        if !self.guard {
            return None;
        }
        let tripped = match &self.rates {
            Some(rates) => rates.tripped().map(|why| format!("{why}; last seen: {last}")),
            None => (!self.all.within(self.tolerate)).then(|| last.to_owned()),
        };
        let blind = || (self.unclear >= IN_A_ROW).then(|| Stop::Blind(last.to_owned()));
        tripped.map(Stop::Tripped).or_else(blind)
    }

    /// Whether it is about a rate, or a budget alone, rather than about counted looks.
    pub fn is_of_rates(&self) -> bool {
        self.rates.is_some()
    }

    /// All samples that said something.
    pub fn all(&self) -> Tally {
        self.all
    }

    /// Why the baseline of a rate is not met; `None` where it is, and of counted looks.
    pub fn not_steady(&self) -> Option<String> {
        self.rates.as_ref().and_then(Rates::not_steady)
    }

    /// Why the baseline of a rate is not met although nothing is sure to be broken, once it is over: nothing of it says anything.
    pub fn silent(&self) -> Option<String> {
        self.rates.as_ref().and_then(Rates::silent)
    }

    /// What is known of it since everything was undone; `over` says that no more samples come. `None` where no share of requests
    /// is claimed to be kept: then the samples are counted.
    pub fn standing(&self, over: bool) -> Option<Standing> {
        self.returning.as_ref().map(|returning| returning.standing(over))
    }
}

/// Whether failures of a phase count for a budget: from the beginning of the method until everything is undone.
pub fn spends(phase: Phase) -> bool {
    matches!(phase, Phase::During | Phase::Between)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guarding(more: serde_json::Value, guard: bool) -> Guarding {
        let mut whole = json!({ "name": "a", "tcp": { "address": "127.0.0.1:1" } });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Guarding::new(&serde_json::from_value(whole).unwrap(), guard)
    }

    fn look(phase: Phase, good: bool, unclear: bool) -> Seen {
        let seen = if good { "connected" } else { "refused" }.to_owned();
        Seen {
            name: "a".to_owned(),
            guard: true,
            phase,
            good,
            unclear,
            begun_ms: 1,
            took_us: 1,
            seen,
            load: None,
        }
    }

    fn after(guarding: &mut Guarding, seen: &Seen) -> Option<Stop> {
        guarding.add(seen, 0);
        guarding.stop(&seen.seen)
    }

    #[test]
    fn a_guard_of_looks_stops_at_the_first_bad_one_and_a_hypothesis_does_not() {
        let bad = look(Phase::During, false, false);
        let mut guard = guarding(json!({}), true);
        assert_eq!(after(&mut guard, &look(Phase::During, true, false)), None);
        assert_eq!(after(&mut guard, &bad), Some(Stop::Tripped("refused".to_owned())));
        assert_eq!(after(&mut guarding(json!({}), false), &bad), None);
    }

    #[test]
    fn what_is_tolerated_is_counted_with_the_baseline() {
        let tolerant = || guarding(json!({ "expect": { "tolerate": "10%" } }), true);
        let bad = look(Phase::During, false, false);
        assert!(after(&mut tolerant(), &bad).is_some());
        assert_eq!(after(&mut tolerant().having_seen(Tally { good: 9, bad: 0 }), &bad), None);
    }

    #[test]
    fn a_guard_that_says_nothing_three_times_in_a_row_is_blind() {
        let mut guard = guarding(json!({}), true);
        let nothing = look(Phase::During, false, true);
        for seen in [&nothing, &nothing, &look(Phase::During, true, false), &nothing, &nothing] {
            assert_eq!(after(&mut guard, seen), None);
        }
        assert_eq!(after(&mut guard, &nothing), Some(Stop::Blind("refused".to_owned())));
    }

    #[test]
    fn a_budget_of_looks_is_spent_by_failures_of_the_method_and_nothing_else_decides() {
        for guard in [true, false] {
            let mut budget = guarding(json!({ "budget": "3 failed" }), guard);
            let bad = look(Phase::During, false, false);
            for seen in [
                look(Phase::Baseline, false, false),
                bad.clone(),
                look(Phase::During, false, true),
                look(Phase::Between, false, false),
                look(Phase::Recovery, false, false),
            ] {
                assert_eq!(after(&mut budget, &seen), None, "{seen:?}");
            }
            assert_eq!(after(&mut budget, &bad), Some(Stop::Spent { failed: 3, budget: Budget(3) }));
        }
    }

    #[test]
    fn a_budget_beside_a_claim_leaves_the_claim_as_it_is() {
        let claimed = json!({ "budget": "100 failed", "expect": { "tolerate": "1%" } });
        let bad = look(Phase::During, false, false);
        assert!(matches!(after(&mut guarding(claimed, true), &bad), Some(Stop::Tripped(_))));
    }

    #[test]
    fn requests_that_fail_are_counted_before_their_sample_is_complete() {
        let load = json!({ "tcp": null, "load": { "url": "http://127.0.0.1/", "rate": "50/s" }, "budget": "5 failed" });
        let mut budget = guarding(load, false);
        budget.failing(7, 4);
        assert_eq!(budget.stop(""), None);
        budget.failing(9, 1);
        assert_eq!(budget.stop(""), Some(Stop::Spent { failed: 5, budget: Budget(5) }));
    }
}
