//! The error rates and the delays of verdicts, simulated: what `docs/verdicts.md` states is measured here.
//!
//! With few replicates by default, so that it takes seconds; in full, and with the narrow bounds, with
//! `SQUALL_REPLICATES=4000 cargo test --release -p squall-experiments --test acceptance -- --nocapture`.

mod baselines;
mod groups;
mod record;
mod recoveries;
mod repeats;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use squall_experiments::verdict::{
    Asked, Bound, Counts, Course, Fast, Keeps, Mode, Outcome, Starts, e_holm, findings, well_again,
};

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

/// The second after which a fault of ten minutes is said to have deviated, as a run says it: by the evidence or by an outage.
/// `None` where it is not. `slots` are those of a tenth of a second.
fn alarm(mode: Mode, slots: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    let mut counts = Counts::default();
    (0..).step_by(100).zip(slots).for_each(|(at, (all, bad))| counts.add(at, all, bad));
    let (bound, alpha) = (Bound::Errors("1%".parse().expect("a share")), 1.0 / SURE);
    let course = Course::of(&counts, TOLERATED, mode, Some(WATCHED * 1000), alpha);
    let found = findings(&[Asked { bound, mode, alpha, from_ms: 0, course: Some(course) }]);
    let deviated = found[0].judgement.outcome == Outcome::Deviated;
    deviated.then(|| found[0].sure_after_ms.expect("a moment").div_ceil(1000))
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
        let traffic = Traffic::new(rate / 10.0, TOLERATED);
        for test in [Mode::Fast, Mode::Robust] {
            let found = share(10 + at as u64, |chance| {
                alarm(test, (0..WATCHED * 10).map(|_| traffic.draw(chance))).is_some()
            });
            println!("false alarms, {test:?}, {rate}/s: {found:.4}");
            assert!(found <= if in_full() { 0.03 } else { 0.05 }, "{test:?} {rate}/s: {found}");
        }
    }
}

/// The median delay of an alarm, in seconds after the change.
fn delay(seed: u64, test: Mode, rate: f64, times: f64, late: bool) -> f64 {
    let before = Traffic::new(rate / 10.0, 0.001);
    let after = Traffic::new(rate / 10.0, TOLERATED * times);
    let from = if late { 120 } else { 0 };
    let mut delays: Vec<f64> = (0..replicates() as u64)
        .map(|replicate| {
            let mut chance = Chance::new(seed * 7_000_003 + replicate);
            let slots = 0..WATCHED * 10;
            let slots = slots.map(|at| if at < from * 10 { &before } else { &after }.draw(&mut chance));
            alarm(test, slots).map_or(f64::INFINITY, |at| at as f64 - from as f64)
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    delays[delays.len() / 2]
}

#[test]
fn a_break_is_found_in_time() {
    // Times the tolerance, whether it begins late, and the seconds at 10, 50 and 200 requests a second.
    let table = [
        (Mode::Fast, 2.0, false, [101.0, 22.0, 6.0]),
        (Mode::Fast, 5.0, false, [12.0, 3.0, 1.0]),
        (Mode::Fast, 20.0, false, [3.0, 1.0, 1.0]),
        (Mode::Fast, 2.0, true, [160.0, 42.0, 13.0]),
        (Mode::Fast, 5.0, true, [22.0, 6.0, 2.0]),
        (Mode::Fast, 20.0, true, [3.0, 1.0, 1.0]),
        (Mode::Robust, 2.0, false, [110.0, 50.0, 45.0]),
        (Mode::Robust, 5.0, false, [20.0, 20.0, 20.0]),
        (Mode::Robust, 20.0, false, [10.0, 10.0, 10.0]),
        (Mode::Robust, 2.0, true, [180.0, 90.0, 80.0]),
        (Mode::Robust, 5.0, true, [40.0, 35.0, 35.0]),
        (Mode::Robust, 20.0, true, [20.0, 20.0, 20.0]),
    ];
    for (row, (test, times, late, expected)) in table.into_iter().enumerate() {
        let tick = if test == Mode::Fast { 1.0 } else { 5.0 };
        let slack = if in_full() { 0.25 } else { 0.4 };
        for (rate, expected) in RATES.into_iter().zip(expected) {
            let found = delay(100 + row as u64, test, rate, times, late);
            println!("delay, {test:?}, {times}x, late {late}, {rate}/s: {found} s ({expected})");
            let off = (found - expected).abs();
            assert!(off <= (slack * expected).max(tick), "{test:?} {times}x late {late} {rate}/s: {found}");
        }
    }
}

/// Bursts in which so many of 50 requests a second are bad, of such a length on average.
#[derive(Clone, Copy, Debug)]
struct Bursts {
    bad: f64,
    seconds: f64,
    /// Whether they begin and end with a second, or with a tenth of one.
    whole: bool,
    /// What share of all requests is bad in the long run.
    share: f64,
}

impl Bursts {
    /// Tenths of seconds.
    fn draw(self, chance: &mut Chance) -> Vec<(u64, u64)> {
        let (calm, burst) = (Traffic::new(5.0, 0.0), Traffic::new(5.0, self.bad));
        let inside = self.share / self.bad;
        let end = if self.whole { 1.0 } else { 0.1 } / self.seconds;
        let begin = inside / (1.0 - inside) * end;
        let mut bad = chance.uniform() < inside;
        let mut slot = |at: u64| {
            if !self.whole || at.is_multiple_of(10) {
                bad = if bad { chance.uniform() >= end } else { chance.uniform() < begin };
            }
            if bad { &burst } else { &calm }.draw(chance)
        };
        (0..WATCHED * 10).map(&mut slot).collect()
    }
}

#[test]
fn bursts_within_the_tolerance_alarm_the_fast_mode_and_not_the_others() {
    let half = 0.5 * TOLERATED;
    // What bursts, and how often the modes may take them for more than is tolerated.
    for (bursts, robust, strict) in [
        (Bursts { bad: 0.5, seconds: 2.0, whole: true, share: half }, 0.03, 0.02),
        (Bursts { bad: 0.5, seconds: 2.0, whole: false, share: half }, 0.07, 0.02),
        (Bursts { bad: 1.0, seconds: 2.0, whole: false, share: half }, 0.07, 0.03),
        (Bursts { bad: 0.5, seconds: 5.0, whole: false, share: half }, 0.25, 0.05),
    ] {
        let alarms = |mode| share(7, |chance| alarm(mode, bursts.draw(chance).into_iter()).is_some());
        let [fast, in_robust, in_strict] = [Mode::Fast, Mode::Robust, Mode::Strict].map(alarms);
        println!(
            "{bursts:?}, half of the tolerance: fast {fast:.4}, robust {in_robust:.4}, strict {in_strict:.4}"
        );
        assert!(fast > 0.5, "why the robust mode is the default: {fast}");
        let slack = if in_full() { 1.0 } else { 2.0 };
        assert!(in_robust <= slack * robust && in_strict <= slack * strict, "{in_robust} {in_strict}");
    }
}

#[test]
fn bursts_that_did_not_come_in_a_short_fault_are_not_seen() {
    // Once in a hundred seconds for two of them, so that 1 % is bad in the long run: exactly what is tolerated.
    for seconds in [30, 60, 120] {
        let bursts = Bursts { bad: 0.5, seconds: 2.0, whole: false, share: TOLERATED };
        let found = share(8, |chance| {
            let mut counts = Counts::default();
            let slots = bursts.draw(chance).into_iter().take(seconds as usize * 10);
            (0..).step_by(100).zip(slots).for_each(|(at, (all, bad))| counts.add(at, all, bad));
            let course = Course::of(&counts, TOLERATED, Mode::Robust, Some(seconds * 1000), 1.0 / SURE);
            course.keeps >= SURE && course.keeps_late
        });
        println!("held with bursts that are exactly at the tolerance, {seconds} s: {found:.4}");
        // The chance that none comes is e^(-seconds / 100), and of a short one little is seen.
        let none = (-(seconds as f64) / 100.0).exp();
        assert!((-0.15..0.3).contains(&(found - none)), "{seconds} s: {found}");
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
    let mut by_holm = 0;
    let many = replicates() / 4;
    for replicate in 0..many as u64 {
        let mut chance = Chance::new(5_000_000 + replicate);
        let mut claims = vec![Fast::new(TOLERATED, Starts::Planned(WATCHED)); 10];
        let mut holm = false;
        for _ in 0..WATCHED {
            let evidence: Vec<f64> = claims
                .iter_mut()
                .map(|claim| {
                    let (all, bad) = traffic.draw(&mut chance);
                    claim.step(all, bad)
                })
                .collect();
            holm |=
                evidence.iter().any(|one| *one >= SURE) && e_holm(&evidence).iter().any(|one| *one >= SURE);
        }
        by_holm += usize::from(holm);
    }
    println!("ten claims at the tolerance: {by_holm} of {many}");
    assert!(by_holm * 20 <= many, "{by_holm} of {many}");
}
