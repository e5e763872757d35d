//! How the evidence on one bound went, second by second.

use std::time::Duration;

use super::blocks::Blocks;
use super::counts::Counts;
use super::interval::upper_share;
use super::looks::FEWEST;
use super::outage::outage;
use super::paired::Paired;
use super::process::Starts;
use super::rate::{Fast, Keeps, control_group};
use super::shift::{Ranks, Shift, Tick};
use super::terms::Mode;

/// Evidence that is beyond doubt: what a bound of nothing at all has after its second bad request.
const BEYOND_DOUBT: f64 = 1e200;
/// Fewer bad requests than this decide nothing, however unlikely they are.
const FEWEST_BAD: u64 = 5;
/// How many times as many slow answers as in the baseline are still no worse.
const TAIL_TIMES: f64 = 2.0;
/// Where so many of the control group's requests fail, it is not the fault alone that makes others fail.
pub(super) const SHARED: f64 = 0.1;

/// The evidence on one bound over a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// The share that was tolerated, from 0 to 1.
    pub tolerated: f64,
    /// Requests.
    pub all: u64,
    /// The bad ones.
    pub bad: u64,
    /// Evidence against the bound at the end of each step: milliseconds on the clock of the counts, and its value then.
    pub against: Vec<(u64, f64)>,
    /// When enough requests were bad for evidence to count.
    pub enough_ms: Option<u64>,
    /// When there was an outage ([`outage`]): no statistics are needed then.
    pub outage_ms: Option<u64>,
    /// Evidence for the bound at the end of the window.
    pub keeps: f64,
    /// Whether the last third of the requests, taken alone, keeps the bound.
    pub keeps_late: bool,
    /// Of latencies: how often a request is slower than one of the baseline, ties counted half, and how often it may be.
    pub effect: Option<(f64, f64)>,
    /// Of latencies: whether so much was known that the slowest, or the quantile that is asked for, could be compared.
    pub tail: bool,
    /// Requests to the control group at the same time, and the bad ones among them.
    pub control: Option<(u64, u64)>,
    /// Of a quantile that is compared with another one: both of them; `None` where too many requests have no answer.
    pub quantiles: Option<(Option<Duration>, Option<Duration>)>,
    /// About how many requests more would show that the bound is kept.
    pub missing: Option<u64>,
}

impl Course {
    /// The evidence on "at most the share `tolerated` is bad". `planned_ms` is how long the window was to be, as known
    /// before it began; `None` where it was not.
    pub fn of(counts: &Counts, tolerated: f64, mode: Mode, planned_ms: Option<u64>, alpha: f64) -> Course {
        let (all, bad) = counts.total();
        let mut course = Course { tolerated, all, bad, ..Course::default() };
        if tolerated <= 0.0 {
            course.nothing_allowed(counts);
            return course;
        }
        course.enough_ms = nth_bad(counts, FEWEST_BAD);
        course.outage_ms = outage(counts, tolerated, mode);
        let length = mode.block_ms().unwrap_or(1000);
        let starts = planned_ms.map_or(Starts::Open, |ms| Starts::Planned(ms.div_ceil(length).max(1)));
        let (mut fast, mut blocks) = (Fast::new(tolerated, starts), Blocks::new(tolerated, starts));
        for (at, all, bad) in counts.grouped(length).iter() {
            let evidence = match mode {
                Mode::Fast => fast.step(all, bad),
                Mode::Robust | Mode::Strict => blocks.step(all, bad),
            };
            course.against.push((at + length, evidence));
        }
        let mut keeps = Keeps::new(tolerated, Starts::AtOnce);
        keeps.step(all, bad);
        course.keeps = keeps.evidence();
        course.missing = keeps.missing(all, bad, alpha);
        course.keeps_late = late_share(counts) <= tolerated;
        course
    }

    /// A bound of nothing at all needs no statistics: a second bad request breaks it, and a single one says too little.
    fn nothing_allowed(&mut self, counts: &Counts) {
        self.enough_ms = nth_bad(counts, 2);
        self.against = self.enough_ms.map(|at| (at, BEYOND_DOUBT)).into_iter().collect();
        self.keeps = if self.bad == 0 && self.all >= FEWEST { BEYOND_DOUBT } else { 0.0 };
        self.keeps_late = self.bad == 0;
    }

    /// The evidence on "at most `times` as many of the tested group's requests are bad as of the control group's, at the
    /// same time". `None` where there was no second in which both were asked.
    ///
    /// *Against* it, each bad request is a witness of which group it came from ([`control_group`]), so what hits both alike
    /// is no evidence. *For* it, the tested group must keep `times` the share that the control group does not exclude, and
    /// half of `alpha` is spent on that: without a single bad request nothing else could show it.
    pub fn of_groups(
        tested: &Counts,
        control: &Counts,
        times: f64,
        mode: Mode,
        planned_ms: Option<u64>,
        alpha: f64,
    ) -> Option<Course> {
        let from = tested.first_ms()?.min(control.first_ms()?);
        let (fine, begin) = (tested, |at: u64| from + (at - from) / 1000 * 1000);
        let (tested, control) = (tested.each(from, 1000), control.each(from, 1000));
        let both = |counts: &Counts, other: &Counts| counts.filter(|at| other.at(at).0 > 0);
        let (tested, control) = (both(&tested, &control), both(&control, &tested));
        let ((all, _), (others, bad_others)) = (tested.total(), control.total());
        if all == 0 || others == 0 {
            return None;
        }
        let mut witnesses = Counts::default();
        tested.iter().for_each(|(at, _, bad)| witnesses.add(at, bad + control.at(at).1, bad));
        let even = control_group(all as f64 / (all + others) as f64, times);
        let against = Course::of(&witnesses, even, mode, planned_ms, alpha);
        let tolerated = (times * upper_share(others, bad_others, alpha / 2.0)).min(0.9);
        let kept = Course::of(&tested, tolerated, mode, planned_ms, alpha / 2.0).halved();
        let alone = fine.filter(|at| {
            let (all, bad) = control.at(begin(at));
            all > 0 && (bad as f64) < SHARED * all as f64
        });
        Some(Course {
            against: against.against,
            enough_ms: against.enough_ms,
            outage_ms: outage(&alone, tolerated, mode),
            control: Some((others, bad_others)),
            ..kept
        })
    }

    /// The evidence on "answers are no slower than in the baseline": the mean of that on the whole distribution and that
    /// on its tail, for either may be all there is to see. `during` has the time of each tick. Half of `alpha` is for the
    /// noise of the baseline, and is paid for here. `None` where the baseline has no requests.
    pub fn of_latency(
        baseline: &[Tick<'_>],
        during: &[(u64, Tick<'_>)],
        mode: Mode,
        planned_ms: Option<u64>,
        alpha: f64,
    ) -> Option<Course> {
        let ranks = Ranks::new(baseline)?;
        let length = sample_ms(during.iter().map(|(at, _)| *at));
        let starts = planned_ms.map_or(Starts::Open, |ms| Starts::Planned(ms.div_ceil(length).max(1)));
        let limit = ranks.tail(alpha / 2.0);
        let mut counts = Counts::default();
        for (at, (latency, failed)) in during {
            let slow = limit.map_or(0, |limit| latency.beyond(limit) + failed);
            counts.add(*at, latency.total() + failed, slow);
        }
        let tail =
            Course::of(&counts, TAIL_TIMES * 0.01, mode, planned_ms, alpha / 2.0).of_samples(length, mode);
        let mut shift = Shift::new(ranks, starts, alpha / 2.0);
        // Without a tail to compare with there is one kind of evidence only. In general and tail must both be kept, so
        // the weaker evidence counts.
        let against = during.iter().map(|(at, tick)| {
            let in_general = shift.step(*tick);
            let end = at + length;
            let evidence = if limit.is_some() { f64::midpoint(in_general, tail.at(end)) } else { in_general };
            (end, evidence / 2.0)
        });
        let against = against.collect();
        let ticks: Vec<Tick<'_>> = during.iter().map(|(_, tick)| *tick).collect();
        Some(Course {
            against,
            enough_ms: counts.first_ms(),
            outage_ms: None,
            keeps: shift.keeps().min(if limit.is_some() { tail.keeps } else { BEYOND_DOUBT }) / 2.0,
            keeps_late: true,
            effect: shift.effect(&ticks).map(|effect| (effect, shift.tolerated())),
            tail: limit.is_some(),
            ..tail
        })
    }

    /// The evidence on "answers are no slower than the control group's at the same time": the mean of that on pairs of seconds
    /// and that on the tail, as with a baseline. Slow are answers beyond the p99 that the control group's does not exceed:
    /// *against* it, each is a witness of its group ([`Course::of_groups`]), for what stalls both is no difference; *for*
    /// it, they must keep their share. `None` where there was no second in which both were asked.
    pub fn of_latency_groups(
        pairs: &[(u64, Tick<'_>, Tick<'_>)],
        mode: Mode,
        planned_ms: Option<u64>,
        alpha: f64,
    ) -> Option<Course> {
        let both = || in_both(pairs);
        let control: Vec<Tick<'_>> = both().map(|(_, _, control)| *control).collect();
        let limit = Ranks::new(&control)?.tail(alpha / 2.0);
        let slow = |(latency, failed): &Tick<'_>| limit.map_or(0, |limit| latency.beyond(limit) + failed);
        let (mut counts, mut others) = (Counts::default(), Counts::default());
        for (at, tested, control) in both() {
            counts.add(*at, tested.0.total() + tested.1, slow(tested));
            others.add(*at, control.0.total() + control.1, slow(control));
        }
        let length = sample_ms(both().map(|(at, ..)| *at));
        let tail = Course::of(&counts, TAIL_TIMES * 0.01, mode, planned_ms, alpha / 2.0);
        let witnessed = Course::of_groups(&counts, &others, TAIL_TIMES, mode, planned_ms, alpha / 2.0)?
            .of_samples(length, mode);
        let starts = planned_ms.map_or(Starts::Open, |ms| Starts::Planned(ms.div_ceil(length).max(1)));
        let mut paired = Paired::new(starts);
        let against = both().map(|(at, tested, control)| {
            let in_general = paired.step(*tested, *control);
            let end = at + length;
            let in_tail = || f64::midpoint(in_general, witnessed.at(end));
            let evidence = if limit.is_some() { in_tail() } else { in_general };
            (end, evidence / 2.0)
        });
        let against = against.collect();
        let failed = control.iter().map(|(_, failed)| failed).sum();
        Some(Course {
            against,
            enough_ms: counts.first_ms(),
            outage_ms: None,
            keeps: paired.keeps().min(if limit.is_some() { tail.keeps } else { BEYOND_DOUBT }) / 2.0,
            keeps_late: true,
            effect: paired.effect().map(|effect| (effect, Paired::MOST)),
            tail: limit.is_some(),
            control: Some((control.iter().map(|(latency, failed)| latency.total() + failed).sum(), failed)),
            ..tail
        })
    }

    /// The same where half of the error was spent on what the bound was derived from.
    pub fn halved(mut self) -> Course {
        self.against.iter_mut().for_each(|(_, evidence)| *evidence /= 2.0);
        self.keeps /= 2.0;
        self
    }

    /// The same where each count is that of a whole sample, which ends so long after the time that it is counted at: nothing
    /// is known before.
    pub(super) fn of_samples(mut self, length_ms: u64, mode: Mode) -> Course {
        let later = length_ms.saturating_sub(mode.block_ms().unwrap_or(1000));
        self.against.iter_mut().for_each(|(at, _)| *at += later);
        self
    }

    /// The evidence against the bound at a time.
    pub(super) fn at(&self, ms: u64) -> f64 {
        let reached = self.against.partition_point(|(at, _)| *at <= ms);
        reached.checked_sub(1).and_then(|last| self.against.get(last)).map_or(1.0, |(_, evidence)| *evidence)
    }

    /// The largest evidence against the bound at any time.
    pub fn most(&self) -> f64 {
        self.against.iter().map(|(_, evidence)| *evidence).fold(1.0, f64::max)
    }
}

/// How long samples are that begin at those times, in milliseconds: the median of the distances, and a second where there
/// are none. The first and the last may be cut short.
pub(super) fn sample_ms(times: impl Iterator<Item = u64>) -> u64 {
    let times: Vec<u64> = times.collect();
    let mut apart: Vec<u64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    apart.sort_unstable();
    apart.get(apart.len() / 2).copied().unwrap_or(1000).max(1)
}

/// When so many requests were bad.
fn nth_bad(counts: &Counts, nth: u64) -> Option<u64> {
    let mut sum = 0u64;
    counts.iter().find_map(|(at, _, bad)| {
        sum = sum.saturating_add(bad);
        (sum >= nth).then_some(at)
    })
}

/// The share of bad requests in the last third of all.
pub(super) fn late_share(counts: &Counts) -> f64 {
    let (total, _) = counts.total();
    let (mut seen, mut all, mut failed) = (0u64, 0u64, 0u64);
    for (_, more, bad) in counts.iter() {
        seen = seen.saturating_add(more);
        if u128::from(seen) * 3 > u128::from(total) * 2 {
            all = all.saturating_add(more);
            failed = failed.saturating_add(bad);
        }
    }
    if all == 0 { 0.0 } else { failed as f64 / all as f64 }
}

/// The stretches in which both groups were asked.
pub(super) fn in_both<'p, 't>(
    pairs: &'p [(u64, Tick<'t>, Tick<'t>)],
) -> impl Iterator<Item = &'p (u64, Tick<'t>, Tick<'t>)> {
    let asked = |(latency, failed): &Tick<'_>| latency.total() + failed > 0;
    pairs.iter().filter(move |(_, tested, control)| asked(tested) && asked(control))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rate` requests a second for so long, and how many of each second are bad.
    fn counts(seconds: u64, rate: u64, bad: impl Fn(u64) -> u64) -> Counts {
        let mut counts = Counts::default();
        (0..seconds).for_each(|second| counts.add(second * 1000, rate, bad(second)));
        counts
    }

    #[test]
    fn a_bound_of_nothing_is_broken_by_the_second_bad_request() {
        let of = |bad: &dyn Fn(u64) -> u64| Course::of(&counts(10, 50, bad), 0.0, Mode::Robust, None, 0.05);
        let clean = of(&|_| 0);
        assert!(clean.keeps > 20.0 && clean.most() <= 1.0);
        let one = of(&|second| u64::from(second == 4));
        assert!(one.keeps < 20.0 && one.most() <= 1.0, "one says too little");
        let two = of(&|second| u64::from(second == 4 || second == 7));
        assert_eq!(two.against, [(7000, BEYOND_DOUBT)]);
    }

    #[test]
    fn a_late_regression_takes_back_what_was_shown() {
        let course = Course::of(
            &counts(60, 50, |second| 2 * u64::from(second >= 50)),
            0.01,
            Mode::Robust,
            Some(60_000),
            0.05,
        );
        assert!(!course.keeps_late, "the last third is 1.9 % bad");
    }

    #[test]
    fn an_outage_of_a_short_fault_needs_no_statistics() {
        let course = Course::of(&counts(3, 100, |_| 100), 0.01, Mode::Robust, Some(3000), 0.05);
        assert!(course.most() < 20.0, "one block alone proves nothing: {}", course.most());
        assert_eq!(course.outage_ms, Some(2000));
    }

    #[test]
    fn nothing_is_known_of_a_sample_before_it_ends() {
        use std::time::Duration;

        use crate::distribution::Distribution;

        let of = |ms: u64| {
            let mut latency = Distribution::default();
            (0..200).for_each(|at| latency.add(Duration::from_millis(ms + at % 7)));
            latency
        };
        let (usual, slow) = (of(10), of(90));
        let baseline: Vec<Tick<'_>> = (0..20).map(|_| (&usual, 0)).collect();
        for every in [200, 1000, 5000] {
            let during: Vec<(u64, Tick<'_>)> = (0..60).map(|at| (at * every, (&slow, 0))).collect();
            let pairs: Vec<(u64, Tick<'_>, Tick<'_>)> =
                (0..60).map(|at| (at * every, (&slow, 0), (&usual, 0))).collect();
            let planned = Some(60 * every);
            for course in [
                Course::of_latency(&baseline, &during, Mode::Fast, planned, 0.05),
                Course::of_latency_groups(&pairs, Mode::Fast, planned, 0.05),
            ] {
                assert_eq!(course.unwrap().against[0].0, every, "the first is known at its end");
            }
            let p99 = super::super::Multiple { thousandths: 990, times: 1.2 };
            for mode in [Mode::Fast, Mode::Robust] {
                for course in [
                    Course::of_quantile(p99, &baseline, &during, mode, planned, 0.05),
                    Course::of_quantile_groups(p99, &baseline, &pairs, mode, planned, 0.05),
                ] {
                    let block = mode.block_ms().unwrap_or(1000).max(every);
                    assert_eq!(course.unwrap().against[0].0, block, "{mode:?}, {every} ms");
                }
            }
        }
    }

    #[test]
    fn the_value_at_a_time_is_that_of_the_last_step() {
        let course = Course { against: vec![(10, 2.0), (20, 3.0)], ..Course::default() };
        assert_eq!([9, 10, 19, 20, 99].map(|ms| course.at(ms)), [1.0, 2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn a_stall_of_both_groups_is_no_difference_of_their_tails_and_one_of_the_tested_alone_is() {
        use std::time::Duration;

        use crate::distribution::Distribution;

        let second = |stalled: u64| {
            let mut latency = Distribution::default();
            (0..100u64).for_each(|request| {
                let ms = if request < stalled { 400 - 4 * request } else { 5 + request % 7 };
                latency.add(Duration::from_millis(ms));
            });
            latency
        };
        let (usual, stalled) = (second(0), second(40));
        let against = |stalls: [&dyn Fn(u64) -> bool; 2]| {
            let of = |group: usize, at: u64| if stalls[group](at) { &stalled } else { &usual };
            let pairs: Vec<(u64, Tick<'_>, Tick<'_>)> =
                (0..60).map(|at| (at * 1000, (of(0, at), 0), (of(1, at), 0))).collect();
            Course::of_latency_groups(&pairs, Mode::Fast, Some(60_000), 0.05).unwrap().most()
        };
        let once = |at| at == 30;
        let both = against([&once, &once]);
        assert!(both < 20.0, "{both}");
        let often = |at| at % 5 == 0;
        let alone = against([&often, &once]);
        assert!(alone >= 20.0, "{alone}");
    }

    #[test]
    fn groups_that_fail_alike_are_no_different_and_one_that_fails_alone_is() {
        let tenths = |bad: &dyn Fn(u64) -> u64| {
            let mut counts = Counts::default();
            (0..600).for_each(|slot| counts.add(slot * 100, 5, (bad(slot / 10) + slot % 10) / 10));
            counts
        };
        let judged = |tested: &dyn Fn(u64) -> u64, control: &dyn Fn(u64) -> u64, mode| {
            let (tested, control) = (tenths(tested), tenths(control));
            Course::of_groups(&tested, &control, 1.5, mode, Some(60_000), 0.05).unwrap()
        };
        let of =
            |tested: &dyn Fn(u64) -> u64, control: &dyn Fn(u64) -> u64| judged(tested, control, Mode::Robust);
        let storm = |second: u64| if (20..40).contains(&second) { 50 } else { 0 };
        let shared = of(&storm, &storm);
        assert_eq!((shared.outage_ms, shared.most() < 20.0), (None, true), "{}", shared.most());
        assert!(shared.keeps >= 20.0, "what hits both alike is no difference: {}", shared.keeps);
        let alone = of(&storm, &|_| 0);
        assert_eq!(alone.outage_ms, Some(28_900), "nearly all of ten seconds");
        let few =
            judged(&|second| u64::from(second > 9) * 3, &|second| u64::from(second % 10 == 0), Mode::Fast);
        assert!(few.most() >= 20.0 && few.outage_ms.is_none(), "{}", few.most());
        assert_eq!((few.all, few.bad, few.control), (3000, 150, Some((3000, 6))));
        let clean = of(&|_| 0, &|_| 0);
        assert!(clean.keeps >= 20.0, "{}", clean.keeps);
        // Seconds in which one of the groups was not asked say nothing.
        let late = Course::of_groups(
            &counts(60, 50, |_| 5),
            &counts(60, 50, |_| 5).since(30_000),
            1.5,
            Mode::Fast,
            None,
            0.05,
        );
        assert!(late.unwrap().all < 3000);
        assert_eq!(
            Course::of_groups(&counts(6, 5, |_| 0), &Counts::default(), 2.0, Mode::Fast, None, 0.05),
            None
        );
    }
}
