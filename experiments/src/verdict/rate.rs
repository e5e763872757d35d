//! Evidence on a share of bad requests, from counts: the fast mode, and what shows that a claim held.

use super::process::{Process, Starts};

/// The alternatives, as multiples of the tolerated odds.
const ODDS: [f64; 8] = [1.5, 2.2, 3.5, 6.0, 12.0, 30.0, 100.0, 1000.0];
/// How much of the stake each of them gets.
const SHARES: [f64; 8] = [0.20, 0.20, 0.16, 0.13, 0.11, 0.09, 0.07, 0.04];

/// What a bad and a good request multiply a bet on each alternative by, as logarithms.
#[derive(Clone, Debug)]
struct Odds {
    ln_bad: [f64; 8],
    ln_good: [f64; 8],
}

impl Odds {
    fn new(tolerated: f64, alternative: impl Fn(f64) -> f64) -> Self {
        let odds = tolerated / (1.0 - tolerated);
        let shares = ODDS.map(|times| {
            let odds = odds * alternative(times);
            odds / (1.0 + odds)
        });
        Odds {
            ln_bad: shares.map(|share| (share / tolerated).ln()),
            ln_good: shares.map(|share| ((1.0 - share) / (1.0 - tolerated)).ln()),
        }
    }

    fn ln_factor(&self, alternative: usize, all: u64, bad: u64) -> f64 {
        bad as f64 * self.ln_bad[alternative] + all.saturating_sub(bad) as f64 * self.ln_good[alternative]
    }
}

/// Evidence against "at each request the chance to be bad is at most the tolerated one, whatever came before": a
/// mixture of likelihood ratios (Wald, 1945; Robbins, 1970) over alternatives and over starts.
///
/// It takes every request as a witness of its own. Errors that come in bursts are not, and then it alarms at a stretch
/// of them even where the mean is tolerated: right for a guard that must stop at once, too quick for a verdict
/// ([`super::Blocks`]).
#[derive(Clone, Debug)]
pub struct Fast {
    odds: Odds,
    process: Process,
}

impl Fast {
    /// `tolerated` is between 0 and 1, both excluded.
    pub fn new(tolerated: f64, starts: Starts) -> Self {
        Fast { odds: Odds::new(tolerated, |times| times), process: Process::new(&SHARES, starts) }
    }

    /// Requests that began in the next second or in any other step, and the bad ones among them; the evidence after it.
    pub fn step(&mut self, all: u64, bad: u64) -> f64 {
        let odds = &self.odds;
        self.process.step(|alternative| odds.ln_factor(alternative, all, bad))
    }

    /// The evidence so far; 1 says nothing.
    pub fn evidence(&self) -> f64 {
        self.process.wealth()
    }
}

/// Evidence against "the chance to be bad is the tolerated one or more": that the claim held.
///
/// What counts is the evidence at the end of the window, not its highest point: a late regression takes it back.
#[derive(Clone, Debug)]
pub struct Keeps {
    tolerated: f64,
    odds: Odds,
    process: Process,
}

impl Keeps {
    /// `tolerated` is between 0 and 1, both excluded. With `starts` other than [`Starts::AtOnce`] it says that the claim
    /// holds *by now*, which is what a recovery asks.
    pub fn new(tolerated: f64, starts: Starts) -> Self {
        let odds = Odds::new(tolerated, |times| 1.0 / times);
        Keeps { tolerated, odds, process: Process::new(&SHARES, starts) }
    }

    /// Requests of the next step and the bad ones among them; the evidence after it.
    pub fn step(&mut self, all: u64, bad: u64) -> f64 {
        let odds = &self.odds;
        self.process.step(|alternative| odds.ln_factor(alternative, all, bad))
    }

    /// The evidence so far; 1 says nothing.
    pub fn evidence(&self) -> f64 {
        self.process.wealth()
    }

    /// About how many requests more would show that the claim held, at the share that was seen so far; `None` where no
    /// number of them would. The evidence grows by the Kullback-Leibler divergence of a request.
    pub fn missing(&self, all: u64, bad: u64, alpha: f64) -> Option<u64> {
        let seen = bad as f64 / all.max(1) as f64;
        let divergence = divergence(seen, self.tolerated);
        if all == 0 || seen >= self.tolerated || divergence <= 0.0 {
            return None;
        }
        let best = SHARES[0].recip().ln();
        let needed = ((1.0 / alpha).ln() + best - self.evidence().ln()) / divergence;
        Some(needed.clamp(1.0, 1e15).ceil() as u64)
    }
}

/// The Kullback-Leibler divergence of two chances, in nats.
fn divergence(seen: f64, from: f64) -> f64 {
    let term = |share: f64, other: f64| if share > 0.0 { share * (share / other).ln() } else { 0.0 };
    term(seen, from) + term(1.0 - seen, 1.0 - from)
}

/// The chance that a bad request belongs to the group with the fault while the fault makes it at most `times` as
/// likely: the tolerated share for [`Fast`] and [`super::Blocks`] when all requests are the bad ones of both groups,
/// and the bad ones are those of the faulted group. `share` is that of the traffic on the faulted group.
///
/// What hits both groups alike cancels out (Lindon and Malek, "Anytime-valid inference for multinomial count data",
/// 2022).
pub fn control_group(share: f64, times: f64) -> f64 {
    times * share / (times * share + 1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal to a millionth of itself.
    #[track_caller]
    fn same(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn evidence_of_a_single_step() {
        for (bad, all, against, for_it) in [
            (0, 100, 0.19666341, 2.06521709),
            (1, 1, 12.46196149, 0.30610701),
            (2, 2, 576.97582396, 0.14907040),
            (3, 50, 7.18055513, 0.10107795),
            (5, 100, 19.65317511, 0.04414678),
            (10, 500, 2.50919570, 0.01959521),
            (20, 1000, 14.07765759, 0.00170213),
            (10, 1000, 0.08218927, 0.11639889),
        ] {
            same(Fast::new(0.01, Starts::AtOnce).step(all, bad), against);
            let keeps = Keeps::new(0.01, Starts::AtOnce).step(all, bad);
            assert!((keeps - for_it).abs() < 1e-6 * for_it.max(0.01), "{keeps} {for_it}");
        }
    }

    #[test]
    fn evidence_with_a_spread_start() {
        let mut fast = Fast::new(0.01, Starts::Planned(600));
        for (bad, expected) in [
            (0, 0.66224788),
            (0, 0.59776785),
            (1, 0.61413421),
            (3, 1.0028155),
            (4, 9.0275124),
            (2, 26.31507402),
        ] {
            same(fast.step(50, bad), expected);
        }
    }

    #[test]
    fn so_many_clean_requests_show_that_a_claim_held() {
        for (tolerated, needed) in [(0.001, 3815), (0.01, 380), (0.05, 75)] {
            let shows = |all| Keeps::new(tolerated, Starts::AtOnce).step(all, 0) >= 20.0;
            assert!(shows(needed) && !shows(needed - 1), "{tolerated}");
        }
    }

    #[test]
    fn a_second_without_requests_changes_nothing() {
        let mut with = Fast::new(0.01, Starts::AtOnce);
        let mut without = with.clone();
        for (all, bad) in [(50, 1), (0, 0), (50, 3), (0, 0)] {
            with.step(all, bad);
            if all > 0 {
                without.step(all, bad);
            }
        }
        same(with.evidence(), without.evidence());
        let mut spread = Fast::new(0.01, Starts::Planned(60));
        let before = spread.step(50, 2);
        same(spread.step(0, 0), before);
    }

    #[test]
    fn what_is_missing_is_about_what_it_takes() {
        let mut keeps = Keeps::new(0.01, Starts::AtOnce);
        keeps.step(200, 0);
        let missing = keeps.missing(200, 0, 0.05).unwrap();
        assert!((150..450).contains(&missing), "{missing}");
        assert_eq!(keeps.missing(200, 2, 0.05), None, "as many as tolerated are not below it");
        assert_eq!(keeps.missing(0, 0, 0.05), None);
    }

    #[test]
    fn a_control_group_of_equal_size_and_no_tolerance_is_a_coin() {
        same(control_group(0.5, 1.0), 0.5);
        same(control_group(0.1, 1.5), 0.15 / 1.05);
    }
}
