//! What is known so far about the rates of a hypothesis or guard, while the run goes on.

use super::pace::Pace;
use crate::run::Seen;
use crate::summary::{Silence, count, count_control, count_with};
use crate::verdict::{Bound, Counts, Course, Fast, Mode, Phase, Starts, Tally, Terms, outage};

/// A guard does not stop a run for fewer bad requests than this, unless it allows none.
const FEWEST_BAD: u64 = 5;
/// A guard asks for an outage only once so many milliseconds were seen: what is shorter is not over yet.
const OUTAGE_MS: u64 = 5_000;

/// The rates of one watch.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    alpha: f64,
    /// How many bounds share that error, of all that are watched for the same.
    among: usize,
    /// None where there is a budget alone.
    bounds: Vec<Watched>,
    /// Where errors are compared with those of a control group.
    groups: Option<Groups>,
    /// Whether the groups are as fast as each other, where that is claimed.
    pace: Option<Pace>,
    /// What says nothing counts as bad here.
    baseline: Tally,
    /// How many samples of the baseline say nothing.
    silent: u64,
}

/// The baseline of two groups.
#[derive(Clone, Debug)]
struct Groups {
    times: f64,
    tested: Counts,
    control: Counts,
}

/// One bound that needs no baseline.
#[derive(Clone, Debug)]
struct Watched {
    bound: Bound,
    tolerated: f64,
    baseline: Counts,
    /// Of a guard: everything since the baseline, in the order of its arrival.
    since: Counts,
    against: Fast,
}

impl Rates {
    pub(super) fn new(terms: &Terms) -> Self {
        let fixed = terms.bounds.iter().filter_map(|bound| Some((*bound, bound.tolerated()?)));
        let bounds = fixed.map(|(bound, tolerated)| Watched {
            bound,
            tolerated,
            baseline: Counts::default(),
            since: Counts::default(),
            against: Fast::new(tolerated.max(f64::MIN_POSITIVE), Starts::Open),
        });
        let groups = terms.bounds.iter().find_map(|bound| match bound {
            Bound::ErrorsOfControl(times) => {
                Some(Groups { times: *times, tested: Counts::default(), control: Counts::default() })
            }
            _ => None,
        });
        let (bounds, pace): (Vec<Watched>, _) = (bounds.collect(), Pace::of(terms));
        let among = bounds.len().max(1);
        Rates { alpha: terms.alpha(), among, bounds, groups, pace, baseline: Tally::default(), silent: 0 }
    }

    /// How many bounds are watched.
    pub(super) fn bounds(&self) -> usize {
        self.bounds.len()
    }

    /// So many bounds share the error.
    pub(super) fn beside(&mut self, bounds: usize) {
        self.among = bounds.max(1);
    }

    /// Counts a sample.
    pub(super) fn add(&mut self, seen: &Seen) {
        if seen.phase == Phase::Baseline && (seen.unclear || seen.is_whole()) {
            self.baseline.add(seen.good && !seen.unclear);
            self.silent += u64::from(seen.unclear);
        }
        if let Some(pace) = self.pace.as_mut().filter(|_| seen.phase == Phase::Baseline) {
            pace.add(seen);
        }
        if let Some(groups) = self.groups.as_mut().filter(|_| seen.phase == Phase::Baseline) {
            groups.add(seen);
        }
        for watched in &mut self.bounds {
            if seen.phase == Phase::Baseline {
                count_with(Silence::Bad, watched.bound, seen, &mut watched.baseline);
                continue;
            }
            let mut counts = Counts::default();
            count(watched.bound, seen, &mut counts);
            let (all, bad) = counts.total();
            watched.since.merge(&counts);
            if watched.tolerated > 0.0 {
                watched.against.step(all, bad);
            }
        }
    }

    /// Why the baseline is not met now that it is over, although nothing is sure to be broken: no sample of it says anything.
    pub(super) fn silent(&self) -> Option<String> {
        let all = self.baseline.total();
        (all > 0 && self.silent == all).then(|| format!("none of {all} samples says anything"))
    }

    /// Why the baseline is not met: it is sure that a bound is broken, if what says nothing were bad.
    /// Without a bound, that most of it was bad.
    pub(super) fn not_steady(&self) -> Option<String> {
        let silent = match self.silent {
            0 => String::new(),
            silent => format!(" ({silent} of them say nothing)"),
        };
        if let Some(differ) = self.groups.as_ref().and_then(|groups| groups.differ(self.alpha)) {
            return Some(differ);
        }
        if let Some(differ) = self.pace.as_ref().and_then(|pace| pace.differ(self.alpha)) {
            return Some(differ);
        }
        if self.bounds.is_empty() {
            // Of those that say something: there is no bound that the others could break, and where none says anything is asked elsewhere.
            let Tally { good, bad } = self.baseline;
            let bad = bad - self.silent;
            return (bad > good)
                .then(|| format!("{bad} of {} samples were bad{silent}", self.baseline.total()));
        }
        self.bounds.iter().find_map(|watched| {
            let (all, bad) = watched.baseline.total();
            let sure = match watched.tolerated > 0.0 {
                true => {
                    let mut against = Fast::new(watched.tolerated, Starts::Open);
                    let seconds = watched.baseline.grouped(1000);
                    seconds.iter().any(|(_, all, bad)| against.step(all, bad) >= 1.0 / self.alpha)
                }
                false => bad > 0,
            };
            sure.then(|| format!("{}: {bad} of {all} requests did not keep it{silent}", watched.bound))
        })
    }

    /// Why a guard stops the run. The error is divided among all bounds that are watched.
    pub(super) fn tripped(&self) -> Option<String> {
        self.bounds.iter().find_map(|watched| {
            let (all, bad) = watched.since.total();
            let sure = match watched.tolerated > 0.0 {
                true => bad >= FEWEST_BAD && watched.against.evidence() >= self.among as f64 / self.alpha,
                false => bad > 0,
            };
            let outage = || {
                let ends = watched.since.first_ms().zip(watched.since.last_ms());
                let spans = ends.is_some_and(|(from, to)| to - from >= OUTAGE_MS);
                spans && outage(&watched.since, watched.tolerated, Mode::Fast).is_some()
            };
            (sure || outage()).then(|| format!("{}: {bad} of {all} requests did not keep it", watched.bound))
        })
    }
}

impl Groups {
    fn add(&mut self, seen: &Seen) {
        count(Bound::ErrorsOfControl(self.times), seen, &mut self.tested);
        count_control(seen, &mut self.control);
    }

    /// Why the groups cannot be compared: they differ before anything is done.
    fn differ(&self, alpha: f64) -> Option<String> {
        let course = Course::of_groups(&self.tested, &self.control, self.times, Mode::Fast, None, alpha)?;
        let (all, bad) = self.tested.total();
        let (others, bad_others) = self.control.total();
        (course.most() >= 1.0 / alpha && bad >= FEWEST_BAD).then(|| {
            format!(
                "the groups differ already: {bad} of {all} requests failed, and {bad_others} of {others} in the control group"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::quantity::Percent;
    use crate::verdict::Multiple;

    use super::*;

    fn rates(most: &str) -> Rates {
        let bounds = vec![Bound::Errors(most.parse().unwrap())];
        Rates::new(&Terms { bounds, mode: Mode::Robust, confidence: Percent::USUALLY_SURE })
    }

    fn seen(phase: Phase, at_s: u64, all: u64, bad: u64) -> Seen {
        let load = serde_json::json!({
            "requests": all, "errors": [{ "seen": "503", "times": bad }], "latency": [], "late": [],
            "slots": [[all, bad]]
        });
        Seen {
            name: "a".to_owned(),
            guard: true,
            phase,
            good: bad == 0,
            unclear: false,
            begun_ms: at_s * 1000,
            took_us: 1,
            seen: String::new(),
            load: Some(serde_json::from_value(load).unwrap()),
        }
    }

    #[test]
    fn a_guard_waits_for_evidence_and_not_longer() {
        let mut rates = rates("1%");
        rates.add(&seen(Phase::Baseline, 0, 50, 50));
        assert_eq!(rates.tripped(), None, "the baseline is judged by itself");
        rates.add(&seen(Phase::During, 1, 50, 1));
        assert_eq!(rates.tripped(), None, "one of fifty is chance");
        rates.add(&seen(Phase::During, 2, 50, 10));
        assert_eq!(rates.tripped().unwrap(), "errors <= 1%: 11 of 100 requests did not keep it");
    }

    #[test]
    fn bounds_that_are_watched_together_share_the_error() {
        let tripped = |beside: Option<usize>| {
            let mut rates = rates("1%");
            beside.into_iter().for_each(|bounds| rates.beside(bounds));
            rates.add(&seen(Phase::During, 1, 100, 5));
            rates.add(&seen(Phase::During, 2, 100, 4));
            let evidence = rates.bounds[0].against.evidence();
            assert!((20.0..200.0).contains(&evidence), "{evidence}");
            rates.tripped().is_some()
        };
        assert!(tripped(None) && tripped(Some(1)));
        assert!(!tripped(Some(10)), "ten bounds have a tenth of it each");
    }

    #[test]
    fn a_guard_that_allows_nothing_trips_at_the_first_bad_request() {
        let mut rates = rates("0%");
        rates.add(&seen(Phase::During, 1, 50, 0));
        assert_eq!(rates.tripped(), None);
        rates.add(&seen(Phase::During, 2, 50, 1));
        assert!(rates.tripped().is_some());
    }

    #[test]
    fn a_baseline_is_not_steady_when_that_is_sure() {
        let mut lucky = rates("1%");
        (0..5).for_each(|second| lucky.add(&seen(Phase::Baseline, second, 50, u64::from(second == 3))));
        assert_eq!(lucky.not_steady(), None, "one of 250");
        let mut broken = rates("1%");
        broken.add(&seen(Phase::Baseline, 0, 50, 50));
        assert!(broken.not_steady().is_some());
        let mut slow = rates("0%");
        slow.add(&seen(Phase::Baseline, 0, 50, 1));
        assert!(slow.not_steady().is_some());
    }

    #[test]
    fn a_baseline_that_says_nothing_is_not_met() {
        let look =
            |good: bool, unclear: bool| Seen { good, unclear, load: None, ..seen(Phase::Baseline, 0, 1, 0) };
        for bounds in [vec![Bound::Errors("5%".parse().unwrap())], vec![Bound::ErrorsOfBaseline(1.5)], vec![]]
        {
            let terms = Terms { bounds, mode: Mode::Robust, confidence: Percent::USUALLY_SURE };
            let mut rates = Rates::new(&terms);
            assert_eq!(rates.silent(), None, "nothing was asked yet");
            (0..3).for_each(|_| rates.add(&look(false, true)));
            assert_eq!(rates.silent().unwrap(), "none of 3 samples says anything");
            rates.add(&look(true, false));
            assert_eq!(rates.silent(), None);
        }
        // Without a bound a look that says nothing is no bad one.
        let terms = Terms { bounds: Vec::new(), mode: Mode::Robust, confidence: Percent::USUALLY_SURE };
        let mut unbound = Rates::new(&terms);
        unbound.add(&look(false, true));
        assert_eq!(unbound.not_steady(), None);
        unbound.add(&look(false, false));
        assert_eq!(unbound.not_steady().unwrap(), "1 of 2 samples were bad (1 of them say nothing)");
        let mut rates = rates("5%");
        rates.add(&look(true, false));
        (0..14).for_each(|_| rates.add(&look(false, true)));
        let why = "errors <= 5%: 14 of 15 requests did not keep it (14 of them say nothing)";
        assert_eq!(rates.not_steady().unwrap(), why);
    }

    #[test]
    fn a_budget_alone_asks_for_a_baseline_that_is_mostly_good() {
        let alone = Terms { bounds: Vec::new(), mode: Mode::Robust, confidence: Percent::USUALLY_SURE };
        let mut rates = Rates::new(&alone);
        rates.add(&seen(Phase::Baseline, 0, 50, 0));
        rates.add(&seen(Phase::Baseline, 1, 50, 9));
        assert_eq!(rates.not_steady(), None);
        rates.add(&seen(Phase::Baseline, 2, 50, 9));
        assert_eq!(rates.not_steady().unwrap(), "2 of 3 samples were bad");
        rates.add(&seen(Phase::During, 3, 50, 50));
        assert_eq!(rates.tripped(), None, "it is the budget that stops a run");
    }

    #[test]
    fn groups_are_compared_with_each_other() {
        let bounds = vec![Bound::ErrorsOfControl(1.5)];
        let rates = || {
            let terms =
                Terms { bounds: bounds.clone(), mode: Mode::Robust, confidence: Percent::USUALLY_SURE };
            Rates::new(&terms)
        };
        let seen = |phase, at_s, bad, others| {
            let mut seen = seen(phase, at_s, 50, bad);
            let control = serde_json::json!({
                "requests": 50, "errors": [{ "seen": "503", "times": others }], "latency": [], "late": [],
                "slots": [[50, others]]
            });
            seen.good = true;
            seen.load.as_mut().unwrap().control = Some(serde_json::from_value(control).unwrap());
            seen
        };
        let mut alike = rates();
        (0..5).for_each(|second| alike.add(&seen(Phase::Baseline, second, 20, 20)));
        assert_eq!(alike.not_steady(), None, "what hits both is no difference");
        let mut differ = rates();
        (0..5).for_each(|second| differ.add(&seen(Phase::Baseline, second, 10, 1)));
        let why = differ.not_steady().unwrap();
        let said = "the groups differ already: 50 of 250 requests failed, and 5 of 250 in the control group";
        assert_eq!(why, said);
    }

    #[test]
    fn groups_of_different_pace_cannot_be_compared() {
        let not_steady = |bound: Bound, ms: u64| {
            let terms = Terms { bounds: vec![bound], mode: Mode::Robust, confidence: Percent::USUALLY_SURE };
            let mut rates = Rates::new(&terms);
            for second in 0..15 {
                let mut seen = seen(Phase::Baseline, second, 50, 0);
                let group = |ms: u64| {
                    let latency = [[ms * 1_000_000, 50]];
                    serde_json::json!({ "requests": 50, "latency": latency, "late": [], "slots": [[50]] })
                };
                let mut load = group(ms);
                load["control"] = group(10);
                seen.load = Some(serde_json::from_value(load).unwrap());
                rates.add(&seen);
            }
            rates.not_steady()
        };
        assert_eq!(not_steady(Bound::LatencyOfControl, 10), None);
        let why = not_steady(Bound::LatencyOfControl, 30).unwrap();
        assert_eq!(why, "the groups differ already: 100 % of requests are slower than the control group's");
        let p99 = Bound::QuantileOfControl(Multiple { thousandths: 990, times: 1.2 });
        assert_eq!(not_steady(p99, 12), None);
        let why = not_steady(p99, 30).unwrap();
        let said = "the groups differ already: p99 of 750 requests was 30.0 ms, 2.99 times the control group's 10.0 ms";
        assert!(why.starts_with(said), "{why}");
    }
}
