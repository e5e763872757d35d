//! The error rates and the delays of verdicts, simulated: what `docs/verdicts.md` states is measured here.
//!
//! With few replicates by default, so that it takes seconds; in full, and with the narrow bounds, with
//! `SQUALL_REPLICATES=4000 cargo test --release -p squall-experiments --test acceptance -- --nocapture`.

mod groups;
mod repeats;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use squall_experiments::verdict::{Blocks, Counts, Fast, Keeps, Starts, average, e_holm, well_again};

/// What is tolerated everywhere here.
const TOLERATED: f64 = 0.01;
/// How long is watched, in seconds.
const WATCHED: u64 = 600;
/// Requests a second.
const RATES: [f64; 3] = [10.0, 50.0, 200.0];
/// Evidence that decides at 5 %.
const SURE: f64 = 20.0;

fn replicates() -> usize {
    std::env::var("SQUALL_REPLICATES").ok().and_then(|text| text.parse().ok()).unwrap_or(160)
}

/// Whether the narrow bounds apply.
fn in_full() -> bool {
    replicates() >= 4000
}

/// Independent draws, the same on every machine.
struct Chance(ChaCha12Rng);

impl Chance {
    fn new(seed: u64) -> Self {
        Chance(ChaCha12Rng::seed_from_u64(seed))
    }

    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A Poisson distribution as a table.
struct Poisson(Vec<f64>);

impl Poisson {
    fn new(mean: f64) -> Self {
        let (mut term, mut sum, mut table) = ((-mean).exp(), 0.0, Vec::new());
        for k in 1.. {
            sum += term;
            table.push(sum);
            if sum > 1.0 - 1e-13 && f64::from(k) > mean {
                break;
            }
            term *= mean / f64::from(k);
        }
        Poisson(table)
    }

    fn draw(&self, chance: &mut Chance) -> u64 {
        let uniform = chance.uniform();
        self.0.partition_point(|sum| *sum <= uniform) as u64
    }
}

/// Requests of a stretch: all, and the bad ones.
struct Traffic {
    good: Poisson,
    bad: Poisson,
}

impl Traffic {
    fn new(rate: f64, share: f64) -> Self {
        Traffic { good: Poisson::new(rate * (1.0 - share)), bad: Poisson::new(rate * share) }
    }

    fn draw(&self, chance: &mut Chance) -> (u64, u64) {
        let bad = self.bad.draw(chance);
        (self.good.draw(chance) + bad, bad)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Fast,
    Robust,
}

/// The second after which it alarmed; `None` within the whole watch.
fn alarm(test: Test, seconds: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    let mut fast = Fast::new(TOLERATED, Starts::Planned(WATCHED));
    let mut blocks = Blocks::new(TOLERATED, Starts::Planned(WATCHED / 5));
    let (mut sum, mut block) = (0, (0, 0));
    for (second, (all, bad)) in (1..).zip(seconds) {
        sum += bad;
        block = (block.0 + all, block.1 + bad);
        let evidence = match test {
            Test::Fast => fast.step(all, bad),
            Test::Robust if second % 5 == 0 => blocks.step(block.0, std::mem::take(&mut block).1),
            Test::Robust => continue,
        };
        if evidence >= SURE && sum >= 5 {
            return Some(second);
        }
    }
    None
}

/// The share of replicates that are so.
fn share(seed: u64, one: impl Fn(&mut Chance) -> bool) -> f64 {
    let many = replicates();
    let hit =
        (0..many).filter(|replicate| one(&mut Chance::new(seed * 1_000_003 + *replicate as u64))).count();
    hit as f64 / many as f64
}

#[test]
fn false_alarms_at_the_tolerance_are_rare() {
    for (at, rate) in RATES.into_iter().enumerate() {
        let traffic = Traffic::new(rate, TOLERATED);
        for test in [Test::Fast, Test::Robust] {
            let found = share(10 + at as u64, |chance| {
                alarm(test, (0..WATCHED).map(|_| traffic.draw(chance))).is_some()
            });
            println!("false alarms, {test:?}, {rate}/s: {found:.4}");
            assert!(found <= if in_full() { 0.03 } else { 0.05 }, "{test:?} {rate}/s: {found}");
        }
    }
}

/// The median delay of an alarm, in seconds after the change.
fn delay(seed: u64, test: Test, rate: f64, times: f64, late: bool) -> f64 {
    let before = Traffic::new(rate, 0.001);
    let after = Traffic::new(rate, TOLERATED * times);
    let from = if late { 120 } else { 0 };
    let mut delays: Vec<f64> = (0..replicates() as u64)
        .map(|replicate| {
            let mut chance = Chance::new(seed * 7_000_003 + replicate);
            let seconds = (0..WATCHED).map(|at| if at < from { &before } else { &after }.draw(&mut chance));
            alarm(test, seconds).map_or(f64::INFINITY, |at| at as f64 - from as f64)
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    delays[delays.len() / 2]
}

#[test]
fn a_break_is_found_in_time() {
    // Times the tolerance, whether it begins late, and the seconds at 10, 50 and 200 requests a second.
    let table = [
        (Test::Fast, 2.0, false, [101.0, 22.0, 6.0]),
        (Test::Fast, 5.0, false, [12.0, 3.0, 1.0]),
        (Test::Fast, 20.0, false, [3.0, 1.0, 1.0]),
        (Test::Fast, 2.0, true, [160.0, 42.0, 13.0]),
        (Test::Fast, 5.0, true, [22.0, 6.0, 2.0]),
        (Test::Fast, 20.0, true, [3.0, 1.0, 1.0]),
        (Test::Robust, 2.0, false, [110.0, 50.0, 45.0]),
        (Test::Robust, 5.0, false, [20.0, 20.0, 20.0]),
        (Test::Robust, 20.0, false, [10.0, 10.0, 10.0]),
        (Test::Robust, 2.0, true, [180.0, 90.0, 80.0]),
        (Test::Robust, 5.0, true, [40.0, 35.0, 35.0]),
        (Test::Robust, 20.0, true, [20.0, 20.0, 20.0]),
    ];
    for (row, (test, times, late, expected)) in table.into_iter().enumerate() {
        let tick = if test == Test::Fast { 1.0 } else { 5.0 };
        let slack = if in_full() { 0.25 } else { 0.4 };
        for (rate, expected) in RATES.into_iter().zip(expected) {
            let found = delay(100 + row as u64, test, rate, times, late);
            println!("delay, {test:?}, {times}x, late {late}, {rate}/s: {found} s ({expected})");
            let off = (found - expected).abs();
            assert!(off <= (slack * expected).max(tick), "{test:?} {times}x late {late} {rate}/s: {found}");
        }
    }
}

/// 50 requests a second, half of them bad in bursts of 2 s on average, so that in the long run half of the tolerance is.
/// Bursts begin and end with one of so many parts of a second.
fn bursts(parts: u32, chance: &mut Chance) -> Vec<(u64, u64)> {
    let calm = Traffic::new(50.0 / f64::from(parts), 0.0);
    let burst = Traffic::new(50.0 / f64::from(parts), 0.5);
    let inside = 0.5 * TOLERATED / 0.5;
    let end = 1.0 / f64::from(parts) / 2.0;
    let begin = inside / (1.0 - inside) * end;
    let mut bad = chance.uniform() < inside;
    let mut second = || {
        (0..parts).fold((0, 0), |sum, _| {
            bad = if bad { chance.uniform() >= end } else { chance.uniform() < begin };
            let drawn = if bad { &burst } else { &calm }.draw(chance);
            (sum.0 + drawn.0, sum.1 + drawn.1)
        })
    };
    (0..WATCHED).map(|_| second()).collect()
}

#[test]
fn bursts_within_the_tolerance_alarm_the_fast_mode_and_not_the_robust_one() {
    for (parts, bound) in [(1, 0.03), (10, 0.05)] {
        let alarms = |test| share(7, |chance| alarm(test, bursts(parts, chance).into_iter()).is_some());
        let (fast, robust) = (alarms(Test::Fast), alarms(Test::Robust));
        println!(
            "bursts at half of the tolerance, in steps of 1/{parts} s: fast {fast:.4}, robust {robust:.4}"
        );
        assert!(fast > 0.5, "why the robust mode is the default: {fast}");
        assert!(robust <= if in_full() { bound } else { 2.0 * bound }, "{parts}: {robust}");
    }
}

#[test]
fn what_is_at_the_tolerance_is_rarely_said_to_keep_it() {
    for (at, rate) in RATES.into_iter().enumerate() {
        let traffic = Traffic::new(rate, TOLERATED);
        let found = share(20 + at as u64, |chance| {
            let mut keeps = Keeps::new(TOLERATED, Starts::AtOnce);
            (0..1800).any(|_| {
                let (all, bad) = traffic.draw(chance);
                keeps.step(all, bad) >= SURE
            })
        });
        println!("said to be kept at the tolerance, {rate}/s: {found:.4}");
        assert!(found <= if in_full() { 0.06 } else { 0.1 }, "{rate}/s: {found}");
    }
}

#[test]
fn the_end_of_an_outage_is_found() {
    // Half of all requests fail for ten seconds; after it none do, or one of a thousand.
    let bounds = [4.0, 1.2, 0.4];
    for usual in [0.0, 0.001] {
        for ((at, rate), bound) in (0u64..).zip(RATES).zip(bounds) {
            let (broken, well) = (Traffic::new(rate / 10.0, 0.5), Traffic::new(rate / 10.0, usual));
            let mut errors: Vec<f64> = (0..replicates() as u64)
                .map(|replicate| {
                    let mut chance = Chance::new(at * 900_001 + replicate);
                    let mut counts = Counts::default();
                    for slot in 0..600u64 {
                        let (all, bad) = if slot < 100 { &broken } else { &well }.draw(&mut chance);
                        counts.add(slot * 100, all, bad);
                    }
                    let found = well_again(&counts, TOLERATED, usual, 0.05).expect("it recovered");
                    (found.after_ms as f64 / 1000.0 - 10.0).abs()
                })
                .collect();
            errors.sort_by(f64::total_cmp);
            let (median, most) = (errors[errors.len() / 2], errors[errors.len() * 95 / 100]);
            println!(
                "end of an outage, {usual} usual, {rate}/s: off by {median:.2} s, 95 % within {most:.2} s"
            );
            assert!(most <= bound, "{usual} usual, {rate}/s: {most}");
        }
    }
}

#[test]
fn ten_claims_together_alarm_no_more_often_than_one() {
    let traffic = Traffic::new(50.0, TOLERATED);
    let (mut by_mean, mut by_holm) = (0, 0);
    let many = replicates() / 4;
    for replicate in 0..many as u64 {
        let mut chance = Chance::new(5_000_000 + replicate);
        let mut claims = vec![Fast::new(TOLERATED, Starts::Planned(WATCHED)); 10];
        let (mut mean, mut holm) = (false, false);
        for _ in 0..WATCHED {
            let evidence: Vec<f64> = claims
                .iter_mut()
                .map(|claim| {
                    let (all, bad) = traffic.draw(&mut chance);
                    claim.step(all, bad)
                })
                .collect();
            mean |= average(&evidence) >= SURE;
            // It costs more, and cannot be reached before the mean is near.
            holm |=
                evidence.iter().any(|one| *one >= SURE) && e_holm(&evidence).iter().any(|one| *one >= SURE);
        }
        by_mean += usize::from(mean);
        by_holm += usize::from(holm);
    }
    println!("ten claims at the tolerance: mean {by_mean}, each {by_holm} of {many}");
    assert!(by_mean * 20 <= many && by_holm * 20 <= many, "{by_mean} {by_holm} of {many}");
}
