//! Whether one group's answers are slower than another's at the same time.

use super::process::{Process, Starts};
use super::shift::{Ranks, TOLERATED, Tick};

/// How much of the most that is allowed each bet stakes.
const BETS: [f64; 6] = [0.1, 0.2, 0.35, 0.5, 0.7, 0.95];
/// How much of the whole stake each of them gets.
const SHARES: [f64; 6] = [0.10, 0.15, 0.20, 0.20, 0.20, 0.15];

/// Evidence that requests to a tested group are slower than those to a control group which began in the same second.
///
/// Each second is one witness: how often a request to the tested group is slower than one to the control group, ties counted
/// half (the A of Vargha and Delaney, 2000), is a number between 0 and 1 whose expectation is one half where nothing
/// differs, whatever hits both alike. The bets are on its mean (Waudby-Smith and Ramdas, 2024), and need no correction for
/// what neighbouring seconds have in common.
#[derive(Clone, Debug)]
pub struct Paired {
    process: Process,
    /// The mirrored bets: that requests are *not* slower.
    mirrored: Process,
    sum: f64,
    seconds: u64,
}

impl Paired {
    /// How often a request may be slower: as often as with a baseline.
    pub const MOST: f64 = 0.5 + TOLERATED;

    /// Nothing is known yet.
    pub fn new(starts: Starts) -> Self {
        let mirrored = Process::new(&SHARES, Starts::AtOnce);
        Paired { process: Process::new(&SHARES, starts), mirrored, sum: 0.0, seconds: 0 }
    }

    /// The requests of a second, to both groups; the evidence after it. A second in which one of the groups was not asked says
    /// nothing.
    pub fn step(&mut self, tested: Tick<'_>, control: Tick<'_>) -> f64 {
        let Some(slower) = Ranks::new(&[control]).and_then(|ranks| ranks.effect(&[tested])) else {
            return self.process.wealth();
        };
        self.sum += slower;
        self.seconds += 1;
        self.mirrored.step(|bet| (BETS[bet] / (1.0 - Self::MOST) * (Self::MOST - slower)).ln_1p());
        self.process.step(|bet| (BETS[bet] / Self::MOST * (slower - Self::MOST)).ln_1p())
    }

    /// The evidence so far that requests are slower; 1 says nothing.
    pub fn evidence(&self) -> f64 {
        self.process.wealth()
    }

    /// The evidence so far that they are not.
    pub fn keeps(&self) -> f64 {
        self.mirrored.wealth()
    }

    /// How often a request was slower, in the mean of the seconds; `None` before the first.
    pub fn effect(&self) -> Option<f64> {
        (self.seconds > 0).then(|| self.sum / self.seconds as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::distribution::Distribution;

    fn second(ms: impl Iterator<Item = u64>) -> Distribution {
        let mut latency = Distribution::default();
        ms.for_each(|ms| latency.add(Duration::from_millis(ms)));
        latency
    }

    #[test]
    fn what_slows_both_alike_is_no_evidence_and_what_slows_one_is() {
        let (mut alike, mut slower) = (Paired::new(Starts::Open), Paired::new(Starts::Open));
        for at in 0..60u64 {
            let weather = 1 + at % 7;
            let latency = |times: u64| second((10..40).map(|ms| ms * weather * times));
            alike.step((&latency(1), 0), (&latency(1), 0));
            slower.step((&latency(2), 0), (&latency(1), 0));
        }
        assert!(alike.evidence() < 1.0 && alike.keeps() > 40.0, "{} {}", alike.evidence(), alike.keeps());
        assert!(slower.evidence() > 1000.0 && slower.keeps() < 0.1, "{}", slower.evidence());
        assert!((alike.effect().unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_request_that_failed_is_slower_than_any_and_silence_says_nothing() {
        let (answers, nothing) = (second(10..40), Distribution::default());
        let mut paired = Paired::new(Starts::AtOnce);
        paired.step((&answers, 0), (&nothing, 0));
        paired.step((&nothing, 0), (&answers, 0));
        assert!((paired.evidence() - 1.0).abs() < 1e-9 && paired.effect().is_none());
        assert!((0..20).any(|_| paired.step((&nothing, 30), (&answers, 0)) >= 40.0));
        assert_eq!(paired.effect(), Some(1.0));
    }
}
