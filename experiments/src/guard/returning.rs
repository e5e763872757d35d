//! Whether the rates of a claim are kept again since everything was undone.

use crate::run::Seen;
use crate::summary::{Silence, count, count_control, count_with, derived};
use crate::verdict::{After, Bound, Counts, Phase, Standing, Terms, beside_control};

/// Baseline and recovery of one claim about rates.
#[derive(Clone, Debug)]
pub(super) struct Returning {
    terms: Terms,
    /// How many bounds are asked beside each other, of all claims.
    among: usize,
    bounds: Vec<Back>,
    /// The requests of the control group since everything was undone.
    control: Counts,
}

/// One bound.
#[derive(Clone, Debug)]
struct Back {
    bound: Bound,
    baseline: Counts,
    after: Counts,
    /// The same if what says nothing were bad, and if it were good; `None` while everything says something.
    otherwise: Option<[Counts; 2]>,
}

impl Returning {
    /// `None` where no bound is one of a share, so that nothing could come back to it.
    pub(super) fn of(terms: &Terms) -> Option<Returning> {
        let shares = terms.bounds.iter().filter(|bound| !bound.compares_latencies());
        let back = |bound: &Bound| Back {
            bound: *bound,
            baseline: Counts::default(),
            after: Counts::default(),
            otherwise: None,
        };
        let bounds: Vec<Back> = shares.map(back).collect();
        let (terms, control) = (terms.clone(), Counts::default());
        let among = bounds.len();
        (!bounds.is_empty()).then_some(Returning { terms, among, bounds, control })
    }

    pub(super) fn bounds(&self) -> usize {
        self.bounds.len()
    }

    pub(super) fn beside(&mut self, bounds: usize) {
        self.among = bounds.max(self.bounds.len());
    }

    pub(super) fn add(&mut self, seen: &Seen) {
        match seen.phase {
            Phase::Baseline => {
                self.bounds.iter_mut().for_each(|back| count(back.bound, seen, &mut back.baseline));
            }
            Phase::Recovery => {
                self.bounds.iter_mut().for_each(|back| back.add(seen));
                count_control(seen, &mut self.control);
            }
            Phase::During | Phase::Between => {}
        }
    }

    /// What is known of all bounds: the worst of them, and of those that are well the last moment since when one is.
    pub(super) fn standing(&self, over: bool) -> Standing {
        self.bounds.iter().map(|back| self.of_bound(back, over)).max().unwrap_or(Standing::Open)
    }

    fn of_bound(&self, back: &Back, over: bool) -> Standing {
        let (all, bad) = back.baseline.total();
        let whole = self.terms.alpha();
        let (tolerated, alpha) = match (back.bound, back.bound.tolerated()) {
            (_, Some(tolerated)) => (tolerated, whole),
            // It is asked at every sample, so what the control group does not exclude must hold at all of them.
            (Bound::ErrorsOfControl(times), None) => {
                match beside_control(times, &self.control, whole / 2.0) {
                    Some(tolerated) => (tolerated, whole / 2.0),
                    None => return Standing::Open,
                }
            }
            (_, None) if all == 0 => return Standing::Open,
            (bound, None) => (derived(&self.terms, bound, &back.baseline), whole / 2.0),
        };
        let after = After {
            tolerated,
            usual: bad as f64 / all.max(1) as f64,
            mode: self.terms.mode,
            alpha,
            alpha_unwell: alpha / self.among.max(1) as f64,
        };
        let known = after.standing(&back.after, over);
        // What some looks do not say may make it unwell, or well.
        match (known, &back.otherwise) {
            (Standing::Well(_), Some([bad, _])) => match after.standing(bad, over) {
                well @ Standing::Well(_) => well,
                Standing::Open | Standing::Unwell => Standing::Open,
            },
            (Standing::Unwell, Some([_, good])) => match after.standing(good, over) {
                Standing::Unwell => Standing::Unwell,
                Standing::Open | Standing::Well(_) => Standing::Open,
            },
            (known, _) => known,
        }
    }
}

impl Back {
    /// Counts a sample of the recovery.
    fn add(&mut self, seen: &Seen) {
        if seen.unclear && self.otherwise.is_none() {
            self.otherwise = Some([self.after.clone(), self.after.clone()]);
        }
        count(self.bound, seen, &mut self.after);
        for (silence, counts) in
            [Silence::Bad, Silence::Good].into_iter().zip(self.otherwise.iter_mut().flatten())
        {
            count_with(silence, self.bound, seen, counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::quantity::Percent;
    use crate::verdict::Mode;

    /// A second of 50 requests to the tested group and 50 to the control group.
    fn second(phase: Phase, at_s: u64, bad: u64, others: u64) -> Seen {
        let load = |bad: u64| {
            json!({
                "requests": 50, "errors": [{ "seen": "503", "times": bad }], "latency": [], "late": [],
                "slots": [[50, bad]]
            })
        };
        let mut whole = load(bad);
        whole["control"] = load(others);
        Seen {
            name: "a".to_owned(),
            guard: false,
            phase,
            good: true,
            unclear: false,
            begun_ms: at_s * 1000,
            took_us: 1,
            seen: String::new(),
            load: Some(serde_json::from_value(whole).unwrap()),
        }
    }

    /// 30 s of a baseline in which so many of 50 requests are bad every tenth second, and as long a recovery.
    fn after(bound: Bound, usual: u64, bad: impl Fn(u64) -> u64, others: u64) -> Standing {
        after_both(bound, usual, bad, |_| others)
    }

    fn after_both(
        bound: Bound,
        usual: u64,
        bad: impl Fn(u64) -> u64,
        others: impl Fn(u64) -> u64,
    ) -> Standing {
        let terms = Terms { bounds: vec![bound], mode: Mode::Fast, confidence: Percent::USUALLY_SURE };
        let mut returning = Returning::of(&terms).unwrap();
        (0..30).for_each(|at| {
            let bad = if at % 10 == 0 { usual } else { 0 };
            returning.add(&second(Phase::Baseline, at, bad, 0));
        });
        (100..130).for_each(|at| {
            assert_ne!(returning.standing(false), Standing::Unwell, "that is for the end");
            returning.add(&second(Phase::Recovery, at, bad(at), others(at)));
        });
        returning.standing(true)
    }

    #[test]
    fn what_is_half_bad_is_not_well_by_any_bound_of_a_share() {
        for bound in [
            Bound::Errors("1%".parse().unwrap()),
            Bound::ErrorsOfBaseline(1.5),
            Bound::Throughput("90%".parse().unwrap()),
            Bound::ErrorsOfControl(1.5),
        ] {
            assert_eq!(after(bound, 1, |_| 25, 0), Standing::Unwell, "{bound}");
            assert!(matches!(after(bound, 1, |_| 0, 0), Standing::Well(100_000)), "{bound}");
        }
    }

    #[test]
    fn what_says_nothing_shows_neither() {
        let terms = Terms {
            bounds: vec![Bound::Errors("5%".parse().unwrap())],
            mode: Mode::Fast,
            confidence: Percent::USUALLY_SURE,
        };
        let standing = |good: fn(u64) -> bool, unclear: fn(u64) -> bool| {
            let mut returning = Returning::of(&terms).unwrap();
            (0..300).for_each(|at| {
                let (good, unclear) = (good(at) && !unclear(at), unclear(at));
                let whole = second(Phase::Recovery, 0, 0, 0);
                returning.add(&Seen { good, unclear, begun_ms: at * 100, load: None, ..whole });
            });
            returning.standing(true)
        };
        assert!(matches!(standing(|_| true, |_| false), Standing::Well(_)));
        assert_eq!(standing(|_| true, |at| at % 2 == 0), Standing::Open);
        assert!(matches!(standing(|_| true, |at| at == 7), Standing::Well(_)));
        assert_eq!(standing(|_| false, |_| false), Standing::Unwell);
        assert_eq!(standing(|at| at % 20 > 0, |at| at % 20 > 0), Standing::Open);
    }

    #[test]
    fn what_hits_both_groups_alike_is_no_difference() {
        let bound = Bound::ErrorsOfControl(1.5);
        assert!(matches!(after(bound, 0, |_| 20, 20), Standing::Well(_)));
        assert_eq!(after(bound, 0, |_| 20, 2), Standing::Unwell);
    }

    #[test]
    fn what_both_groups_went_through_first_excuses_nobody_later() {
        let both = |at: u64, later: u64| if at < 105 { 50 } else { later };
        let bound = Bound::ErrorsOfControl(1.5);
        let still_bad = after_both(bound, 0, |at| both(at, 10), |at| both(at, 0));
        assert!(!matches!(still_bad, Standing::Well(_)), "{still_bad:?}");
        let well = after_both(bound, 0, |at| both(at, 0), |at| both(at, 0));
        assert!(matches!(well, Standing::Well(_)), "{well:?}");
    }

    #[test]
    fn latencies_beside_others_have_no_share_to_come_back_to() {
        let terms = |bounds| Terms { bounds, mode: Mode::Fast, confidence: Percent::USUALLY_SURE };
        assert!(Returning::of(&terms(vec![Bound::Latency])).is_none());
        assert!(Returning::of(&terms(Vec::new())).is_none());
    }
}
