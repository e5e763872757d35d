//! A group with the fault against one without.

use std::time::Duration;

use squall_experiments::distribution::Distribution;
use squall_experiments::verdict::{Counts, Course, Mode, Multiple, Tick};

use super::{Chance, SURE, Traffic, WATCHED, in_full, replicates, share};

/// What both groups get: usually, and in the first five seconds of every hundred.
struct Weather {
    usual: [Traffic; 2],
    storm: [Traffic; 2],
}

impl Weather {
    /// By the shares of bad ones of 50 requests a second, of the tested group and of the control group.
    fn new(usual: [f64; 2], storm: [f64; 2]) -> Self {
        let traffic = |shares: [f64; 2]| shares.map(|share| Traffic::new(50.0, share));
        Weather { usual: traffic(usual), storm: traffic(storm) }
    }

    /// When it is sure that the tested group is worse than so many times the control group.
    fn sure(&self, chance: &mut Chance, mode: Mode, times: f64) -> Option<u64> {
        let mut counts = [Counts::default(), Counts::default()];
        for second in 0..WATCHED {
            let weather = if second % 100 < 5 { &self.storm } else { &self.usual };
            for (counts, traffic) in counts.iter_mut().zip(weather) {
                let (all, bad) = traffic.draw(chance);
                counts.add(second * 1000, all, bad);
            }
        }
        let [tested, control] = counts;
        let course = Course::of_groups(&tested, &control, times, mode, Some(WATCHED * 1000), 0.05)?;
        let evidence = course
            .against
            .iter()
            .find(|(at, evidence)| *evidence >= SURE && course.enough_ms.is_some_and(|enough| enough <= *at));
        [evidence.map(|(at, _)| *at), course.outage_ms].into_iter().flatten().min()
    }
}

#[test]
fn what_hits_both_groups_alike_is_rarely_called_a_difference() {
    for (seed, times, mode) in
        [(60, 1.0, Mode::Fast), (61, 1.0, Mode::Robust), (62, 1.5, Mode::Fast), (63, 1.5, Mode::Robust)]
    {
        // A hundredth is bad, and in a storm a third: in both groups alike, times what is tolerated.
        let weather = Weather::new([times * 0.01, 0.01], [times * 0.3, 0.3]);
        let found = share(seed, |chance| weather.sure(chance, mode, times).is_some());
        println!("groups at {times}x, {mode:?}: {found:.4}");
        assert!(found <= if in_full() { 0.05 } else { 0.08 }, "{times}x {mode:?}: {found}");
    }
}

#[test]
fn a_group_that_fails_alone_is_found_in_time() {
    let weather = Weather::new([0.01, 0.002], [0.01, 0.002]);
    let mut delays: Vec<u64> = (0..replicates() as u64)
        .map(|replicate| {
            let mut chance = Chance::new(64_000_003 + replicate);
            weather.sure(&mut chance, Mode::Fast, 1.0).unwrap_or(u64::MAX)
        })
        .collect();
    delays.sort_unstable();
    let median = delays[delays.len() / 2] / 1000;
    println!("1 % instead of 0.2 % in the control group: sure after {median} s");
    assert!((16..=38).contains(&median), "{median} s, and 26 s are expected");
}

/// A second of so many latencies around 10 ms, with a long tail: log-normal by the sum of twelve draws. Those that come
/// while everything stands still wait for its end.
pub fn latencies(chance: &mut Chance, rate: u64, times: f64, stalled: f64) -> Distribution {
    let mut latency = Distribution::default();
    for at in 0..rate {
        let normal = (0..12).map(|_| chance.uniform()).sum::<f64>() - 6.0;
        let waits = (stalled - at as f64 / rate as f64).max(0.0);
        latency.add(Duration::from_secs_f64(0.01 * times * (0.5 * normal).exp() + waits));
    }
    latency
}

/// When the verdict is sure that the tested group is slower.
fn sure_of(pairs: &[[Distribution; 2]], mode: Mode) -> Option<u64> {
    let ticks: Vec<_> =
        (0..).zip(pairs).map(|(at, [tested, control])| (at * 1000, (tested, 0), (control, 0))).collect();
    let course = Course::of_latency_groups(&ticks, mode, Some(pairs.len() as u64 * 1000), 0.05)?;
    course.against.iter().find(|(_, evidence)| *evidence >= SURE).map(|(at, _)| at / 1000)
}

/// When it is sure that the tested group is slower, of so many seconds in each of which both are slowed alike by chance.
fn slower(chance: &mut Chance, seconds: u64, times: f64) -> Option<u64> {
    let pairs: Vec<_> = (0..seconds)
        .map(|_| {
            let weather = 0.5 + 2.0 * chance.uniform();
            [times * weather, weather].map(|times| latencies(chance, 50, times, 0.0))
        })
        .collect();
    sure_of(&pairs, Mode::Robust)
}

#[test]
fn a_group_that_is_slower_is_found_and_what_slows_both_is_not() {
    // 28 % slower is an effect of .64, twice as slow one of .84; 11.5 % is one of .56, the most that is allowed.
    for (seed, times, most) in [(70, 1.0, 0.0), (71, 1.115, 0.05)] {
        // A quarter of the replicates: ranks cost more than counts.
        let many = replicates() / 4;
        let called = |replicate| slower(&mut Chance::new(seed * 1_000_003 + replicate), 60, times).is_some();
        let found = (0..many as u64).filter(|replicate| called(*replicate)).count() as f64 / many as f64;
        println!("{times} times as slow as the control group, 60 s: {found:.4} called slower");
        assert!(found <= if in_full() { most } else { most + 0.05 }, "{times}: {found}");
    }
    for (times, seconds, most) in [(1.28, 200, 120), (2.0, 60, 24)] {
        let mut delays: Vec<u64> = (0..replicates() as u64 / 16)
            .map(|replicate| {
                slower(&mut Chance::new(72_000_003 + replicate), seconds, times).unwrap_or(u64::MAX)
            })
            .collect();
        delays.sort_unstable();
        let median = delays[delays.len() / 2];
        println!("{times} times as slow as the control group: sure after {median} s");
        assert!(median <= most, "{times}: {median} s");
    }
}

#[test]
fn what_stalls_both_groups_is_rarely_called_a_difference_of_their_tails() {
    for (seed, mode) in [(75, Mode::Fast), (76, Mode::Robust)] {
        let many = replicates() / 16;
        let called = |replicate: u64| {
            let chance = &mut Chance::new(seed * 1_000_003 + replicate);
            let pairs: Vec<_> = (0..60)
                .map(|_| {
                    // About one second in thirty, for up to half of it.
                    let stalled = if chance.uniform() < 1.0 / 30.0 { 0.5 * chance.uniform() } else { 0.0 };
                    [stalled; 2].map(|stalled| latencies(chance, 100, 1.0, stalled))
                })
                .collect();
            sure_of(&pairs, mode).is_some()
        };
        let found = (0..many as u64).filter(|replicate| called(*replicate)).count() as f64 / many as f64;
        println!("both stall alike, {mode:?}: {found:.4} called slower");
        assert!(found <= if in_full() { 0.05 } else { 0.08 }, "{mode:?}: {found}");
    }
}

/// What is asked of the p99 of a group: at most 1.2 times that of the other one.
const P99: Multiple = Multiple { thousandths: 990, times: 1.2 };

/// With what a p99 is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// A minute before.
    Baseline,
    /// A control group at the same time.
    Group,
    /// One that five seconds of every hundred slow as the tested group.
    StormyGroup,
}

/// Whether and after how many seconds of 50 requests to each group it is sure that the p99 of the tested group, which is
/// `times` as slow, is more than 1.2 times that of the other; and whether it is sure that it is kept.
fn p99(chance: &mut Chance, mode: Mode, seconds: u64, times: f64, other: Other) -> (Option<u64>, bool) {
    let alone = other == Other::Baseline;
    let mut draw = |many: u64, times: f64| -> Vec<Distribution> {
        let storm =
            |at: u64| if other == Other::StormyGroup && (60..65).contains(&(at % 100)) { 4.0 } else { 1.0 };
        (0..many).map(|at| latencies(chance, 50, times * storm(at), 0.0)).collect()
    };
    let before = draw(if alone { 60 } else { 20 }, 1.0);
    let (tested, control) = (draw(seconds, times), draw(if alone { 0 } else { seconds }, 1.0));
    let before: Vec<Tick<'_>> = before.iter().map(|latency| (latency, 0)).collect();
    let planned = Some(seconds * 1000);
    let during: Vec<(u64, Tick<'_>)> = (0..).zip(&tested).map(|(at, own)| (at * 1000, (own, 0))).collect();
    let pairs: Vec<(u64, Tick<'_>, Tick<'_>)> =
        during.iter().zip(&control).map(|((at, own), other)| (*at, *own, (other, 0))).collect();
    let course = match alone {
        true => Course::of_quantile(P99, &before, &during, mode, planned, 0.05),
        false => Course::of_quantile_groups(P99, &before, &pairs, mode, planned, 0.05),
    };
    let course = course.expect("both were asked");
    let sure = course.against.iter().find(|(_, evidence)| *evidence >= SURE).map(|(at, _)| at / 1000);
    let sure = [sure, course.outage_ms.map(|at| at / 1000)].into_iter().flatten().min();
    (sure, course.keeps >= SURE && course.keeps_late)
}

#[test]
fn a_p99_at_its_multiple_is_rarely_called_more_or_less() {
    let many = replicates() as u64 / 8;
    for (seed, mode, other) in [
        (80, Mode::Fast, Other::StormyGroup),
        (81, Mode::Robust, Other::StormyGroup),
        (82, Mode::Fast, Other::Baseline),
        (83, Mode::Robust, Other::Baseline),
        (84, Mode::Fast, Other::Group),
        (85, Mode::Robust, Other::Group),
    ] {
        for times in [1.0, 1.2] {
            let found: Vec<(Option<u64>, bool)> = (0..many)
                .map(|replicate| p99(&mut Chance::new(seed * 1_000_003 + replicate), mode, 120, times, other))
                .collect();
            let share = |wanted: fn(&(Option<u64>, bool)) -> bool| {
                found.iter().filter(|one| wanted(one)).count() as f64 / many as f64
            };
            let (more, kept) =
                (share(|(sure, _)| sure.is_some()), share(|(sure, kept)| sure.is_none() && *kept));
            println!(
                "p99 {times} times that of {other:?}, {mode:?}, 120 s: {more:.4} more than 1.2, {kept:.4} kept"
            );
            let most = if in_full() { 0.05 } else { 0.1 };
            assert!(more <= most, "{times} {mode:?} {other:?}: {more}");
            assert!(times < 1.2 || kept <= most, "{mode:?} {other:?}: {kept}");
            // A storm in two minutes is most of what is known of the tail: then nobody is sure of either.
            assert!(times > 1.0 || other == Other::StormyGroup || kept >= 0.5, "{mode:?} {other:?}: {kept}");
        }
    }
}

#[test]
fn a_p99_beyond_its_multiple_is_found_in_time() {
    for (seed, mode, times, other, most) in [
        (90, Mode::Fast, 2.0, Other::StormyGroup, 30),
        (91, Mode::Robust, 2.0, Other::StormyGroup, 90),
        (92, Mode::Fast, 2.0, Other::Baseline, 20),
        (93, Mode::Robust, 2.0, Other::Baseline, 60),
    ] {
        let mut delays: Vec<u64> = (0..replicates() as u64 / 8)
            .map(|replicate| {
                let mut chance = Chance::new(seed * 1_000_003 + replicate);
                p99(&mut chance, mode, 120, times, other).0.unwrap_or(u64::MAX)
            })
            .collect();
        delays.sort_unstable();
        let median = delays[delays.len() / 2];
        println!("p99 {times} times that of {other:?}, {mode:?}: sure after {median} s");
        assert!(median <= most, "{mode:?} {times} {other:?}: {median} s");
    }
}
