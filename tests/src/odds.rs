//! What chance allows: bounds for counts, so that a test fails when the fault is wrong and not when luck is bad.

use std::ops::RangeInclusive;

/// How many standard deviations chance exceeds less than once in a million times, to either side.
pub const ONE_IN_A_MILLION: f64 = 4.9;
/// The same for once in a thousand.
pub const ONE_IN_A_THOUSAND: f64 = 3.29;

/// How many of `many` may be hit when each is with the chance `share` (from 0 to 1) and independently: the binomial
/// distribution's mean and so many standard deviations, by its normal approximation with a correction for whole numbers.
pub fn binomial(many: u32, share: f64, deviations: f64) -> RangeInclusive<u32> {
    bounds(f64::from(many) * share, f64::from(many) * share * (1.0 - share), deviations)
}

/// [`binomial`] for bursts: where losses come in runs, each packet says less. `r` is the chance that a burst ends, `p`
/// that one begins; all are lost meanwhile.
///
/// The variance of a sum over a two-state Markov chain: that of independent draws times (1 + c) / (1 - c), with the
/// correlation c = 1 - p - r between neighbours.
pub fn bursty(many: u32, p: f64, r: f64, deviations: f64) -> RangeInclusive<u32> {
    let share = p / (p + r);
    let correlation = 1.0 - p - r;
    let variance = f64::from(many) * share * (1.0 - share) * (1.0 + correlation) / (1.0 - correlation);
    bounds(f64::from(many) * share, variance, deviations)
}

fn bounds(mean: f64, variance: f64, deviations: f64) -> RangeInclusive<u32> {
    let slack = deviations * variance.sqrt() + 0.5;
    ((mean - slack).max(0.0).ceil() as u32)..=((mean + slack).floor() as u32)
}

/// How far counts are from what was expected of them: Pearson's statistic, and the number above which chance alone goes
/// once in a thousand times (Wilson and Hilferty, "The distribution of chi-square", 1931).
pub fn chi_square(pairs: &[(f64, f64)]) -> (f64, f64) {
    let statistic = pairs.iter().map(|(seen, expected)| (seen - expected).powi(2) / expected).sum();
    let freedom = pairs.len().saturating_sub(1) as f64;
    let part = 2.0 / (9.0 * freedom);
    let critical = freedom * (1.0 - part + 3.090_232 * part.sqrt()).powi(3);
    (statistic, critical)
}
