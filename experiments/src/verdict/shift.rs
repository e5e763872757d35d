//! Whether answers became slower than they were: the whole distribution, and its tail.

use std::time::Duration;

use super::interval::beta_quantile;
use super::process::{Process, Starts};
use crate::distribution::Distribution;

/// How much of the most that is allowed each bet stakes.
const BETS: [f64; 5] = [0.05, 0.1, 0.2, 0.35, 0.6];
const SHARES: [f64; 5] = [0.2; 5];
/// The shift of the effect size that is still "no worse": .06 (.56 is what Vargha and Delaney call small).
pub(super) const TOLERATED: f64 = 0.06;

/// What a baseline says of latencies: where each one ranks among them.
#[derive(Clone, Debug)]
pub struct Ranks {
    /// Upper ends of buckets in nanoseconds, and how many latencies lie below and in each.
    buckets: Vec<(u64, u64, u64)>,
    answered: u64,
    all: u64,
    /// How much less the requests say than independent ones would.
    spread: f64,
}

/// The latencies of one tick, and how many requests had none because they failed: they are slower than all others.
pub type Tick<'a> = (&'a Distribution, u64);

impl Ranks {
    /// Of the ticks of a baseline, in their order; `None` without a request.
    pub fn new(ticks: &[Tick<'_>]) -> Option<Ranks> {
        let mut whole = Distribution::default();
        let mut failed = 0;
        for (latency, never) in ticks {
            whole.merge(latency);
            failed += never;
        }
        let mut below = 0;
        let mut buckets = Vec::new();
        for (upper, count) in whole.iter() {
            buckets.push((upper, below, count));
            below += count;
        }
        let mut ranks = Ranks { buckets, answered: below, all: below + failed, spread: 1.0 };
        if ranks.all == 0 {
            return None;
        }
        let sums: Vec<f64> = ticks
            .iter()
            .map(|tick| ranks.of(*tick).map(|(rank, count)| (rank - 0.5) * count).sum())
            .collect();
        ranks.spread = (long_run(&sums) / (ranks.all as f64 / 12.0)).max(1.0);
        Some(ranks)
    }

    /// The ranks of a tick's requests, from 0 to 1, and how many have each.
    fn of<'t>(&'t self, (latency, failed): Tick<'t>) -> impl Iterator<Item = (f64, f64)> + 't {
        let all = self.all as f64;
        let answered = latency.iter().map(move |(upper, count)| {
            let at = self.buckets.partition_point(|(own, _, _)| *own < upper);
            let rank = match self.buckets.get(at) {
                Some((own, below, same)) if *own == upper => *below as f64 + *same as f64 / 2.0,
                Some((_, below, _)) => *below as f64,
                None => self.answered as f64,
            };
            (rank / all, count as f64)
        });
        // Among those that failed in the baseline, or beyond everything.
        let never = (self.answered as f64 + (self.all - self.answered) as f64 / 2.0) / all;
        answered.chain(std::iter::once((never, failed as f64))).filter(|(_, count)| *count > 0.0)
    }

    /// The effect size of a window: how often a request of it is slower than one of these, ties counted half (the A of
    /// Vargha and Delaney, 2000). `None` without a request.
    pub fn effect(&self, ticks: &[Tick<'_>]) -> Option<f64> {
        let ranks = ticks.iter().flat_map(|tick| self.of(*tick));
        let (sum, all) =
            ranks.fold((0.0, 0.0), |(sum, all), (rank, count)| (sum + rank * count, all + count));
        (all > 0.0).then(|| sum / all)
    }

    /// The latency that the baseline's p99 does not exceed with confidence 1 - `alpha`; `None` where it answered too few
    /// requests to bound it.
    pub fn tail(&self, alpha: f64) -> Option<Duration> {
        // The order statistic: the first rank that so many requests below p99 do not reach by chance.
        let reached = |rank: u64| {
            rank == 0 || rank > self.all || {
                let (a, b) = (rank as f64, (self.all - rank + 1) as f64);
                beta_quantile(alpha, a, b) >= 0.99
            }
        };
        let (mut low, mut high) = (0, self.all + 1);
        while high - low > 1 {
            let middle = u64::midpoint(low, high);
            if reached(middle) { high = middle } else { low = middle }
        }
        let bucket = self.buckets.iter().find(|(_, below, count)| below + count >= high)?;
        Some(Duration::from_nanos(bucket.0))
    }
}

/// Evidence that requests became slower: that one of now is slower than one of the baseline more often than the
/// baseline's own noise and .06 allow.
///
/// The increments are divided by how much more the baseline varied from second to second than independent requests
/// would: exact where that is 1, and a correction elsewhere.
#[derive(Clone, Debug)]
pub struct Shift {
    ranks: Ranks,
    tolerated: f64,
    process: Process,
    /// The mirrored bets: that requests are *not* slower.
    mirrored: Process,
}

impl Shift {
    /// `alpha` is the error that the baseline's own noise may take; the same again is that of the bets.
    pub fn new(ranks: Ranks, starts: Starts, alpha: f64) -> Self {
        let effective = ranks.all as f64 / ranks.spread;
        let tolerated = 0.5 + TOLERATED + ((1.0 / alpha).ln() / (2.0 * effective)).sqrt();
        Shift {
            ranks,
            tolerated: tolerated.min(0.99),
            process: Process::new(&SHARES, starts),
            mirrored: Process::new(&SHARES, Starts::AtOnce),
        }
    }

    /// The requests of the next tick; the evidence after it.
    pub fn step(&mut self, tick: Tick<'_>) -> f64 {
        let ranks: Vec<(f64, f64)> = self.ranks.of(tick).collect();
        let (tolerated, spread) = (self.tolerated, self.ranks.spread);
        let ln_factor = |bet: usize| {
            let bet = BETS[bet] / tolerated;
            let sum: f64 = ranks.iter().map(|(rank, count)| count * (bet * (rank - tolerated)).ln_1p()).sum();
            sum / spread
        };
        let ln_mirrored = |bet: usize| {
            let bet = BETS[bet] / (1.0 - tolerated);
            let sum: f64 = ranks.iter().map(|(rank, count)| count * (bet * (tolerated - rank)).ln_1p()).sum();
            sum / spread
        };
        self.mirrored.step(ln_mirrored);
        self.process.step(ln_factor)
    }

    /// The evidence so far that requests are not slower than is tolerated.
    pub fn keeps(&self) -> f64 {
        self.mirrored.wealth()
    }

    /// The effect size of a window against the baseline: see [`Ranks::effect`].
    pub fn effect(&self, ticks: &[Tick<'_>]) -> Option<f64> {
        self.ranks.effect(ticks)
    }

    /// The effect size that is still no worse.
    pub fn tolerated(&self) -> f64 {
        self.tolerated
    }
}

/// The variance of a sum over time, with what neighbours have in common (Newey and West, 1987).
fn long_run(sums: &[f64]) -> f64 {
    let mean = sums.iter().sum::<f64>() / sums.len().max(1) as f64;
    let covariance = |lag: usize| -> f64 {
        sums.iter().zip(sums.iter().skip(lag)).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let lags = (sums.len() as f64).cbrt().floor() as usize;
    let weighted = |lag: usize| 2.0 * (1.0 - lag as f64 / (lags + 1) as f64) * covariance(lag);
    covariance(0) + (1..=lags).map(weighted).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::*;

    /// Ticks of 50 latencies around 10 ms with a long tail, each `times` as slow.
    fn ticks(seed: u64, count: usize, times: f64) -> Vec<Distribution> {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let mut uniform = || (f64::from(random.next_u32()) + 0.5) / 4_294_967_296.0;
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let mut tick = || {
            let mut tick = Distribution::default();
            (0..50).for_each(|_| tick.add(Duration::from_secs_f64(0.01 * times * (0.5 * normal()).exp())));
            tick
        };
        (0..count).map(|_| tick()).collect()
    }

    fn evidence(seed: u64, times: f64, seconds: usize) -> Option<usize> {
        let before = ticks(seed, 60, 1.0);
        let before: Vec<Tick<'_>> = before.iter().map(|tick| (tick, 0)).collect();
        let mut shift = Shift::new(Ranks::new(&before).unwrap(), Starts::Planned(seconds as u64), 0.025);
        let during = ticks(seed + 1000, seconds, times);
        during.iter().position(|tick| shift.step((tick, 0)) >= 40.0)
    }

    #[test]
    fn a_shift_is_found_and_its_absence_is_none() {
        for seed in 0..12 {
            assert_eq!(evidence(seed, 1.0, 100), None, "seed {seed}");
            let (before, during) = (ticks(seed, 60, 1.0), ticks(seed + 500, 60, 1.0));
            let before: Vec<Tick<'_>> = before.iter().map(|tick| (tick, 0)).collect();
            let mut shift = Shift::new(Ranks::new(&before).unwrap(), Starts::Open, 0.025);
            during.iter().for_each(|tick| _ = shift.step((tick, 0)));
            assert!(shift.keeps() >= 40.0, "seed {seed}: no slower is shown too");
            // The reference: a median of 1 s for twice as slow, of 8 s for 28 % slower.
            assert!(evidence(seed, 2.0, 100).is_some_and(|second| second <= 3), "seed {seed}");
            assert!(evidence(seed, 1.28, 300).is_some_and(|second| second <= 40), "seed {seed}");
        }
    }

    #[test]
    fn failures_are_slower_than_anything() {
        let before = ticks(1, 60, 1.0);
        let before: Vec<Tick<'_>> = before.iter().map(|tick| (tick, 0)).collect();
        let ranks = Ranks::new(&before).unwrap();
        let mut shift = Shift::new(ranks, Starts::AtOnce, 0.025);
        let nothing = Distribution::default();
        assert!((0..10).any(|_| shift.step((&nothing, 50)) >= 40.0));
        assert_eq!(shift.effect(&[(&nothing, 50)]), Some(1.0));
        assert!((shift.effect(&before).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(shift.effect(&[]), None);
        assert!(Ranks::new(&[(&nothing, 0)]).is_none());
    }

    #[test]
    fn the_tail_of_a_baseline_is_an_order_statistic() {
        let mut latency = Distribution::default();
        (1..=1000).for_each(|ms| latency.add(Duration::from_millis(ms)));
        let ranks = Ranks::new(&[(&latency, 0)]).unwrap();
        let tail = ranks.tail(0.025).unwrap();
        // BinomInv(0.975; 1000, 0.99) + 1 = 997, within a bucket.
        assert!(tail >= Duration::from_millis(996) && tail <= Duration::from_millis(1006), "{tail:?}");
        let mut few = Distribution::default();
        (1..=50).for_each(|ms| few.add(Duration::from_millis(ms)));
        assert_eq!(Ranks::new(&[(&few, 0)]).unwrap().tail(0.025), None);
    }
}
