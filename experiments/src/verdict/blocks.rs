//! Evidence on a share of bad requests where errors come in bursts: bets on blocks of time.

use super::process::{Process, Starts};

/// How much of the most that is allowed each bet stakes.
const BETS: [f64; 6] = [0.02, 0.06, 0.15, 0.35, 0.60, 0.85];
/// How much of the whole stake each of them gets.
const SHARES: [f64; 6] = [0.10, 0.15, 0.20, 0.20, 0.20, 0.15];

/// Evidence against "the expected share of bad requests of each block is at most the tolerated one, whatever came
/// before": betting on means of bounded variables (Waudby-Smith and Ramdas, "Estimating means of bounded random
/// variables by betting", 2024).
///
/// A burst of errors inside a block is one observation, however many requests it takes with it.
#[derive(Clone, Debug)]
pub struct Blocks {
    tolerated: f64,
    process: Process,
}

impl Blocks {
    /// `tolerated` is between 0 and 1, both excluded.
    pub fn new(tolerated: f64, starts: Starts) -> Self {
        Blocks { tolerated, process: Process::new(&SHARES, starts) }
    }

    /// Requests that began in the next block and the bad ones among them; the evidence after it. An empty block says
    /// nothing.
    pub fn step(&mut self, all: u64, bad: u64) -> f64 {
        let share = if all == 0 { self.tolerated } else { bad.min(all) as f64 / all as f64 };
        let tolerated = self.tolerated;
        self.process.step(|bet| (BETS[bet] / tolerated * (share - tolerated)).ln_1p())
    }

    /// The evidence so far; 1 says nothing.
    pub fn evidence(&self) -> f64 {
        self.process.wealth()
    }
}

/// An upper bound of the mean share of bad requests over the blocks seen, right with the given confidence even where
/// errors come in bursts: the largest share that the bets against "the mean is this or more" do not exclude.
pub fn upper_mean(blocks: &[(u64, u64)], alpha: f64) -> f64 {
    let excluded = |mean: f64| {
        let mut process = Process::new(&SHARES, Starts::AtOnce);
        let mut highest: f64 = 1.0;
        for (all, bad) in blocks.iter().filter(|(all, _)| *all > 0) {
            let share = (*bad).min(*all) as f64 / *all as f64;
            // The mirrored bet: on the share of good requests, whose mean is at most 1 - `mean`.
            let factor =
                |bet: usize| (BETS[bet] / (1.0 - mean).max(1e-12) * (mean - share)).max(-1.0 + 1e-12);
            highest = highest.max(process.step(|bet| factor(bet).ln_1p()));
        }
        highest >= 1.0 / alpha
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if excluded(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_of_blocks() {
        let mut blocks = Blocks::new(0.01, Starts::Planned(120));
        for (bad, expected) in
            [(0, 0.82075), (0, 0.7449712), (5, 0.91987686), (8, 1.66196604), (10, 5.48878774)]
        {
            let found = blocks.step(100, bad);
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn an_empty_block_says_nothing() {
        let mut blocks = Blocks::new(0.01, Starts::Planned(120));
        let before = blocks.step(100, 3);
        assert!((blocks.step(0, 0) / before - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_mean_of_clean_blocks_is_bounded_the_better_the_more_there_are() {
        let few = upper_mean(&[(100, 0); 5], 0.05);
        let many = upper_mean(&[(100, 0); 100], 0.05);
        assert!(many < few && many > 0.0 && few < 1.0, "{many} {few}");
        assert!(upper_mean(&[(100, 50); 50], 0.05) > 0.5);
        assert_eq!(upper_mean(&[], 0.05), 1.0);
    }
}
