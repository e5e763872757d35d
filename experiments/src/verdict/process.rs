//! The one primitive of every sequential verdict: a mixture of bets whose wealth is the evidence.

/// When what is looked for may have begun: how the stake is spread over the steps of a window.
///
/// A bet that begins at the onset of a fault finds a later degradation only after it has won back what it lost before;
/// spreading the stake finds it in time and costs a tenth where it begins at once. The weights add up to one at most,
/// so that the error rate holds for the whole window (after the e-detectors of Shin, Ramdas and Rinaldo, 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    /// With the first step: what is claimed is about the whole window.
    AtOnce,
    /// Half with the first step, the rest spread evenly over a window of so many steps.
    Planned(u64),
    /// Half with the first step, the rest spread over a window whose length is not known.
    Open,
}

impl Starts {
    /// The share of the stake that begins with a step, counted from 1.
    fn weight(self, step: u64) -> f64 {
        match (self, step) {
            (Starts::AtOnce, 1) => 1.0,
            (_, 0) | (Starts::AtOnce, _) => 0.0,
            (_, 1) => 0.5,
            (Starts::Planned(steps), step) if step <= steps => 0.5 / (steps - 1) as f64,
            (Starts::Planned(_), _) => 0.0,
            (Starts::Open, step) => 0.5 / (step as f64 * (step - 1) as f64),
        }
    }
}

/// Wealth beyond this is all the same, and stays writable as a number.
const LARGEST_LN: f64 = 460.0;

/// Bets against a hypothesis: one for each alternative, and each of them from each start on.
///
/// While the hypothesis is true no strategy wins: the chance that the wealth *ever* reaches 1/α is at most α, whenever
/// one looks and however often (Ville, 1939; Howard, Ramdas, McAuliffe and Sekhon, 2021).
#[derive(Clone, Debug)]
pub struct Process {
    shares: &'static [f64],
    starts: Starts,
    /// The logarithm of what each alternative's bets are worth.
    ln_wealth: Vec<f64>,
    step: u64,
    used: f64,
}

impl Process {
    /// Nothing is bet yet. `shares` are those of the stake that go to each alternative, and add up to one.
    pub fn new(shares: &'static [f64], starts: Starts) -> Self {
        Process { shares, starts, ln_wealth: vec![f64::NEG_INFINITY; shares.len()], step: 0, used: 0.0 }
    }

    /// The next step: `ln_factor` is the logarithm of what a bet on an alternative is multiplied by, whose expectation
    /// must be at most one under the hypothesis. Returns the wealth after it.
    pub fn step(&mut self, ln_factor: impl Fn(usize) -> f64) -> f64 {
        self.step += 1;
        let weight = self.starts.weight(self.step);
        self.used += weight;
        for (alternative, share) in self.shares.iter().enumerate() {
            let begun = ln_add(self.ln_wealth[alternative], (share * weight).ln());
            self.ln_wealth[alternative] = (begun + ln_factor(alternative)).min(LARGEST_LN);
        }
        self.wealth()
    }

    /// What all bets are worth, with what is not bet yet; 1 before the first step.
    pub fn wealth(&self) -> f64 {
        let bet: f64 = self.ln_wealth.iter().map(|ln| ln.exp()).sum();
        bet + (1.0 - self.used).max(0.0)
    }
}

/// ln(e^a + e^b).
fn ln_add(a: f64, b: f64) -> f64 {
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_whole_stake_is_spread() {
        for (starts, steps) in [(Starts::AtOnce, 9), (Starts::Planned(600), 700), (Starts::Open, 100_000)] {
            let sum: f64 = (1..=steps).map(|step| starts.weight(step)).sum();
            assert!(sum <= 1.0 + 1e-9 && sum > 0.99, "{starts:?}: {sum}");
        }
        assert_eq!(Starts::Planned(1).weight(1), 0.5);
        assert_eq!(Starts::Planned(1).weight(2), 0.0);
    }

    #[test]
    fn nothing_overflows_and_a_lost_bet_can_come_back() {
        let mut process = Process::new(&[0.5, 0.5], Starts::Open);
        process.step(|_| -1e6);
        assert!((process.wealth() - 0.5).abs() < 1e-12, "half is not bet yet");
        for _ in 0..10 {
            process.step(|_| 1e9);
        }
        assert!(process.wealth().is_finite() && process.wealth() > 1e199);
    }
}
