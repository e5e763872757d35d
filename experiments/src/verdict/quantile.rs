//! Whether a quantile of latencies is more than so many times another one: the baseline's, or at the same time that of a
//! group without the fault.

use std::time::Duration;

use super::blocks::Blocks;
use super::counts::Counts;
use super::course::{Course, SHARED, in_both, late_share, sample_ms};
use super::interval::chance_of;
use super::outage::outage;
use super::process::Starts;
use super::rate::{Keeps, control_group};
use super::shift::Tick;
use super::terms::{Bound, Mode, Multiple, quantile_name};
use super::thousands;
use crate::distribution::Distribution;
use crate::summary::in_words;

/// Which latency bounds a quantile of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// None does: they are too few.
    Unknown,
    /// It lies among those that failed: no request is slower.
    Never,
    /// This one.
    At(Duration),
}

/// Requests, of which a quantile is asked.
#[derive(Clone, Debug, Default)]
struct Pool {
    latency: Distribution,
    failed: u64,
}

impl Multiple {
    fn quantile(self) -> f64 {
        self.thousandths as f64 / 1000.0
    }

    /// The share of requests that may be slower.
    fn tolerated(self) -> f64 {
        (1000 - self.thousandths.min(999)) as f64 / 1000.0
    }

    /// How many requests of a tick, and how many of them took longer than so many times a limit.
    fn slow(self, (latency, failed): Tick<'_>, limit: Limit) -> (u64, u64) {
        let slow = match limit {
            Limit::At(limit) => latency.beyond(limit.mul_f64(self.times)) + failed,
            Limit::Never | Limit::Unknown => 0,
        };
        (latency.total() + failed, slow)
    }

    fn counts<'t>(self, ticks: impl Iterator<Item = (u64, Tick<'t>)>, limit: Limit) -> Counts {
        let mut counts = Counts::default();
        ticks.for_each(|(at, tick)| {
            let (all, slow) = self.slow(tick, limit);
            counts.add(at, all, slow);
        });
        counts
    }
}

impl Pool {
    fn of<'t>(ticks: impl Iterator<Item = Tick<'t>>) -> Pool {
        let mut pool = Pool::default();
        ticks.for_each(|tick| pool.add(tick));
        pool
    }

    fn add(&mut self, (latency, failed): Tick<'_>) {
        self.latency.merge(latency);
        self.failed += failed;
    }

    fn all(&self) -> u64 {
        self.latency.total() + self.failed
    }

    fn at(&self, rank: u64) -> Limit {
        match self.latency.at_rank(rank) {
            _ if rank == 0 || rank > self.all() => Limit::Unknown,
            Some(limit) => Limit::At(limit),
            None => Limit::Never,
        }
    }

    /// What the quantile of these does not exceed with confidence 1 - `alpha`: the first order statistic that so many requests
    /// below the quantile do not reach by chance.
    fn upper(&self, quantile: f64, alpha: f64) -> Limit {
        let all = self.all();
        let (mut low, mut high) = (0, all + 1);
        while high - low > 1 {
            let middle = u64::midpoint(low, high);
            if chance_of(all, middle, quantile) <= alpha { high = middle } else { low = middle }
        }
        self.at(high)
    }

    /// What it reaches with that confidence.
    fn lower(&self, quantile: f64, alpha: f64) -> Limit {
        let all = self.all();
        let (mut low, mut high) = (0, all + 1);
        while high - low > 1 {
            let middle = u64::midpoint(low, high);
            if chance_of(all, middle, quantile) >= 1.0 - alpha { low = middle } else { high = middle }
        }
        self.at(low)
    }

    fn quantile(&self, thousandths: u64) -> Option<Duration> {
        self.latency.quantile(thousandths, self.failed)
    }
}

impl Course {
    /// The evidence on "a quantile of the answers is at most so many times that of the baseline". Half of `alpha` is spent on
    /// what the baseline's does not exclude: above its upper bound for the evidence against, below its lower one for that
    /// the bound is kept. `None` where the baseline has no requests.
    pub fn of_quantile(
        multiple: Multiple,
        baseline: &[Tick<'_>],
        during: &[(u64, Tick<'_>)],
        mode: Mode,
        planned_ms: Option<u64>,
        alpha: f64,
    ) -> Option<Course> {
        let pool = Pool::of(baseline.iter().copied());
        if pool.all() == 0 {
            return None;
        }
        let limit = pool.upper(multiple.quantile(), alpha / 2.0);
        let slow = multiple.counts(during.iter().copied(), limit);
        let length = sample_ms(during.iter().map(|(at, _)| *at));
        let against = Course::of(&slow, multiple.tolerated(), mode, planned_ms, alpha / 2.0)
            .halved()
            .of_samples(length, mode);
        Some(kept(multiple, &pool, during, alpha, Course { tail: limit != Limit::Unknown, ..against }))
    }

    /// The evidence on "a quantile of the answers is at most so many times that of the control group at the same time". `None`
    /// where there was no stretch in which both were asked; `before` is what the control group answered before the first.
    ///
    /// In each stretch a request is slow that took longer than the control group's quantile does not exceed by what was seen
    /// *until then* (of the tested group: so many times that). *Against* the bound is the smaller one of two kinds of
    /// evidence: that more of the tested group's requests are slow than may be, and that of all slow ones more are the tested
    /// group's than its share. What hits both alike is no evidence by the second, whatever it does to the first; and a tail
    /// that is thinner than asked for in the control group is none by the first.
    pub fn of_quantile_groups(
        multiple: Multiple,
        before: &[Tick<'_>],
        pairs: &[(u64, Tick<'_>, Tick<'_>)],
        mode: Mode,
        planned_ms: Option<u64>,
        alpha: f64,
    ) -> Option<Course> {
        let both = || in_both(pairs);
        let during: Vec<(u64, Tick<'_>)> = both().map(|(at, tested, _)| (*at, *tested)).collect();
        let control = Pool::of(both().map(|(_, _, control)| *control));
        if control.all() == 0 {
            return None;
        }
        let mut known = Pool::of(before.iter().copied());
        let (mut slow, mut witnesses, mut alone) = (Counts::default(), Counts::default(), Counts::default());
        let even = Multiple { times: 1.0, ..multiple };
        let mut tail = false;
        for (at, tested, control) in both() {
            let limit = known.upper(multiple.quantile(), alpha / 2.0);
            tail |= limit != Limit::Unknown;
            let ((all, own), (others, theirs)) = (multiple.slow(*tested, limit), even.slow(*control, limit));
            slow.add(*at, all, own);
            witnesses.add(*at, own + theirs, own);
            if (theirs as f64) < SHARED * others as f64 {
                alone.add(*at, all, own);
            }
            known.add(*control);
        }
        let (tested, _) = slow.total();
        let share = control_group(tested as f64 / (tested + control.all()) as f64, 1.0);
        let length = sample_ms(during.iter().map(|(at, _)| *at));
        let of = |counts: &Counts, share| {
            Course::of(counts, share, mode, planned_ms, alpha / 2.0).halved().of_samples(length, mode)
        };
        let many = of(&slow, multiple.tolerated());
        let theirs = match mode {
            Mode::Fast => of(&witnesses, share),
            Mode::Robust => whose(&witnesses, share, planned_ms, length),
            Mode::Strict => {
                let length = length.max(5000);
                whose(&witnesses.grouped(length), share, planned_ms, length)
            }
        };
        let against = many.against.iter().map(|(at, evidence)| (*at, evidence.min(theirs.at(*at)))).collect();
        let outage_ms = outage(&alone, multiple.tolerated(), mode);
        let own = control.quantile(multiple.thousandths).map_or(Limit::Never, Limit::At);
        let slowest = even.slow((&control.latency, control.failed), own);
        let against = Course { against, outage_ms, tail, ..many };
        Some(Course { control: Some(slowest), ..kept(multiple, &control, &during, alpha, against) })
    }
}

/// The evidence that of the slow requests more are the tested group's than its share, where bursts are expected: each stretch
/// is one witness. Both groups are asked in it, so it need not be longer than a burst as the blocks of a single share must.
fn whose(witnesses: &Counts, share: f64, planned_ms: Option<u64>, length_ms: u64) -> Course {
    let starts = planned_ms.map_or(Starts::Open, |ms| Starts::Planned(ms.div_ceil(length_ms).max(1)));
    let mut blocks = Blocks::new(share, starts);
    let against = witnesses.iter().map(|(at, slow, own)| (at + length_ms, blocks.step(slow, own))).collect();
    Course { against, ..Course::default() }.halved()
}

/// The same with the evidence that the bound is kept, and with the figures of both: at most the share that is asked for took
/// longer than so many times what the quantile of the others reaches.
fn kept(
    multiple: Multiple,
    others: &Pool,
    during: &[(u64, Tick<'_>)],
    alpha: f64,
    against: Course,
) -> Course {
    let count = |limit| multiple.counts(during.iter().copied(), limit);
    let slow = count(others.lower(multiple.quantile(), alpha / 2.0));
    let (all, bad) = slow.total();
    let mut keeps = Keeps::new(multiple.tolerated(), Starts::AtOnce);
    keeps.step(all, bad);
    let own = Pool::of(during.iter().map(|(_, tick)| *tick));
    let (own_p, others_p) = (own.quantile(multiple.thousandths), others.quantile(multiple.thousandths));
    let seen = count(others_p.map_or(Limit::Never, Limit::At));
    Course {
        all: seen.total().0,
        bad: seen.total().1,
        keeps: keeps.evidence() / 2.0,
        keeps_late: late_share(&slow) <= multiple.tolerated(),
        missing: keeps.missing(all, bad, alpha / 2.0),
        quantiles: Some((own_p, others_p)),
        ..against
    }
}

impl Course {
    /// `p99 of 3,000 requests was 310 ms, 1.55 times the control group's 200 ms at the same time, at most 1.2 times allowed`.
    /// `None` of a bound that compares no quantiles.
    pub fn figures(&self, bound: Bound) -> Option<String> {
        let (multiple, whose, when) = match bound {
            Bound::QuantileOfBaseline(multiple) => (multiple, "the baseline's", ""),
            Bound::QuantileOfControl(multiple) => (multiple, "the control group's", " at the same time"),
            _ => return None,
        };
        let (own, others) = self.quantiles?;
        let ratio = own.zip(others).filter(|(_, others)| !others.is_zero()).map(|(own, others)| {
            let ratio = format!("{:.2}", own.as_secs_f64() / others.as_secs_f64());
            format!("{} times ", ratio.trim_end_matches('0').trim_end_matches('.'))
        });
        Some(format!(
            "{} of {} requests was {}, {}{whose} {}{when}, at most {} times allowed",
            quantile_name(multiple.thousandths),
            thousands(self.all),
            word(own),
            ratio.unwrap_or_else(|| "and ".to_owned()),
            word(others),
            multiple.times,
        ))
    }
}

fn word(time: Option<Duration>) -> String {
    let micros = |time: Duration| u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
    time.map_or_else(|| "beyond every answer".to_owned(), |time| in_words(micros(time)))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::*;

    const P99: Multiple = Multiple { thousandths: 990, times: 1.2 };

    /// Seconds of 50 latencies around 10 ms with a long tail, each as slow as `times` says of it.
    fn seconds(seed: u64, count: u64, times: impl Fn(u64) -> f64) -> Vec<Distribution> {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let mut uniform = || (f64::from(random.next_u32()) + 0.5) / 4_294_967_296.0;
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let mut second = |at: u64| {
            let mut latency = Distribution::default();
            (0..50).for_each(|_| {
                latency.add(Duration::from_secs_f64(0.01 * times(at) * (0.5 * normal()).exp()))
            });
            latency
        };
        (0..count).map(&mut second).collect()
    }

    fn groups(tested: &[Distribution], control: &[Distribution], mode: Mode) -> Course {
        let (before, control) = control.split_at(20);
        let before: Vec<Tick<'_>> = before.iter().map(|latency| (latency, 0)).collect();
        let pairs: Vec<(u64, Tick<'_>, Tick<'_>)> = (0..)
            .zip(tested.iter().zip(control))
            .map(|(at, (own, other))| (at * 1000, (own, 0), (other, 0)))
            .collect();
        let planned = Some(1000 * pairs.len() as u64);
        Course::of_quantile_groups(P99, &before, &pairs, mode, planned, 0.05).unwrap()
    }

    fn sure(course: &Course) -> Option<u64> {
        course.against.iter().find(|(_, evidence)| *evidence >= 20.0).map(|(at, _)| at / 1000)
    }

    #[test]
    fn a_group_that_is_slower_is_found_and_what_slows_both_is_not() {
        for seed in 0..6 {
            let storm = |at: u64| if (30..50).contains(&at) { 5.0 } else { 1.0 };
            let of = |times: f64, mode| {
                let control = seconds(seed, 140, |at| storm(at.saturating_sub(20)));
                groups(&seconds(seed + 100, 120, |at| times * storm(at)), &control, mode)
            };
            for mode in [Mode::Fast, Mode::Robust] {
                let alike = of(1.0, mode);
                assert_eq!((sure(&alike), alike.outage_ms), (None, None), "seed {seed}, {mode:?}");
            }
            let twice = of(2.0, Mode::Fast);
            assert!(sure(&twice).is_some_and(|second| second <= 15), "seed {seed}: {:?}", sure(&twice));
        }
        let same = groups(&seconds(7, 120, |_| 1.0), &seconds(8, 140, |_| 1.0), Mode::Robust);
        assert!(same.keeps >= 20.0 && same.keeps_late, "no slower is shown too: {}", same.keeps);
    }

    #[test]
    fn a_few_stragglers_beside_a_thin_tail_are_within_a_p99() {
        let (mut tested, mut control) = (Vec::new(), Vec::new());
        for at in 0..140u64 {
            let mut second = Distribution::default();
            (0..50).for_each(|_| second.add(Duration::from_millis(10)));
            control.push(second.clone());
            if at % 4 == 0 {
                second.add(Duration::from_millis(900));
            }
            tested.push(second);
        }
        let course = groups(&tested[..120], &control, Mode::Fast);
        assert_eq!(sure(&course), None, "half a hundredth: {:?}", course.quantiles);
        assert!(course.keeps >= 20.0, "{}", course.keeps);
    }

    #[test]
    fn too_few_to_compare_with_decide_nothing() {
        let (tested, few) = (seconds(1, 5, |_| 9.0), seconds(2, 25, |_| 1.0));
        let pairs: Vec<(u64, Tick<'_>, Tick<'_>)> =
            (0..).zip(tested.iter().zip(&few)).map(|(at, (own, other))| (at, (own, 0), (other, 0))).collect();
        let course = Course::of_quantile_groups(P99, &[], &pairs, Mode::Fast, None, 0.05).unwrap();
        assert!(course.most() <= 1.0 && course.keeps < 20.0 && !course.tail, "{course:?}");
        assert_eq!(Course::of_quantile_groups(P99, &[], &[], Mode::Fast, None, 0.05), None);
        assert_eq!(Course::of_quantile(P99, &[], &[], Mode::Fast, None, 0.05), None);
    }

    #[test]
    fn a_baseline_is_compared_with_likewise() {
        let of = |seed, times: f64| {
            let (before, during) = (seconds(seed, 60, |_| 1.0), seconds(seed + 1, 120, |_| times));
            let before: Vec<Tick<'_>> = before.iter().map(|latency| (latency, 0)).collect();
            let during: Vec<(u64, Tick<'_>)> =
                (0..).zip(&during).map(|(at, latency)| (at * 1000, (latency, 0))).collect();
            Course::of_quantile(P99, &before, &during, Mode::Fast, Some(120_000), 0.05).unwrap()
        };
        for seed in [10, 20, 30] {
            assert_eq!(sure(&of(seed, 1.0)), None, "seed {seed}");
            let twice = of(seed, 2.0);
            assert!(sure(&twice).is_some_and(|second| second <= 20), "seed {seed}: {:?}", sure(&twice));
            let words = twice.figures(Bound::QuantileOfBaseline(P99)).unwrap();
            assert!(words.starts_with("p99 of 6,000 requests was "), "{words}");
            assert!(
                words.ends_with(" ms, at most 1.2 times allowed") && words.contains(" times the baseline's ")
            );
        }
        assert!(of(40, 1.0).keeps >= 20.0);
    }

    #[test]
    fn who_failed_is_slower_than_any_answer() {
        let (answers, nothing) = (seconds(1, 40, |_| 1.0), Distribution::default());
        let before: Vec<Tick<'_>> = answers.iter().map(|latency| (latency, 0)).collect();
        let failed: Vec<(u64, Tick<'_>)> = (0..20).map(|at| (at * 1000, (&nothing, 50))).collect();
        let course = Course::of_quantile(P99, &before, &failed, Mode::Fast, None, 0.05).unwrap();
        assert!(course.most() >= 20.0 && course.bad == 1000, "{course:?}");
        let words = course.figures(Bound::QuantileOfBaseline(P99)).unwrap();
        assert!(
            words.starts_with("p99 of 1,000 requests was beyond every answer, and the baseline's "),
            "{words}"
        );
        // Where the others fail no less, nothing is slower than they are.
        let both: Vec<(u64, Tick<'_>, Tick<'_>)> =
            (0..20).map(|at| (at * 1000, (&nothing, 50), (&nothing, 50))).collect();
        let course = Course::of_quantile_groups(P99, &[], &both, Mode::Fast, None, 0.05).unwrap();
        assert!(course.most() < 20.0 && course.keeps >= 20.0, "{course:?}");
    }
}
