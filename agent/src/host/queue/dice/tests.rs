use std::time::Duration;

use squall_experiments::impairment::Reorder;
use squall_experiments::quantity::Percent;

use super::*;

/// The 99.9 % points of the normal distribution (both sides) and of chi-square (one side) with 9 and 19 degrees of
/// freedom.
const NORMAL: f64 = 3.29;
const CHI_SQUARE_9: f64 = 27.88;
const CHI_SQUARE_19: f64 = 43.82;

const PACKETS: usize = 100_000;

fn percent(value: f64) -> Percent {
    format!("{value}%").parse().unwrap()
}

fn chance(share: f64, correlation: f64) -> Chance {
    Chance { percent: percent(share), correlation: percent(correlation) }
}

fn fates(impairment: &Impairment, seed: u8) -> Vec<Fate> {
    first(PACKETS, impairment, seed)
}

fn first(packets: usize, impairment: &Impairment, seed: u8) -> Vec<Fate> {
    let mut dice = Dice::new(impairment, [seed; 32]);
    (0..packets).map(|_| dice.next()).collect()
}

fn losing(loss: LossModel) -> Impairment {
    Impairment { loss: Some(loss), ..Impairment::default() }
}

fn delaying(delay_ms: u64, jitter_ms: u64, distribution: Distribution, correlation: f64) -> Impairment {
    let delay = Delay {
        delay: Duration::from_millis(delay_ms).into(),
        jitter: Duration::from_millis(jitter_ms).into(),
        distribution,
        correlation: percent(correlation),
        reordering: false,
    };
    Impairment { delay: Some(delay), ..Impairment::default() }
}

/// Asserts that a share is what was asked for, as exactly as so many packets can tell: packets that resemble each other
/// (lag-1 autocorrelation) tell less.
#[track_caller]
fn assert_share(hits: usize, share: f64, correlation: f64) {
    let packets = PACKETS as f64 * (1.0 - correlation) / (1.0 + correlation);
    let error = NORMAL * (share * (1.0 - share) / packets).sqrt();
    let seen = hits as f64 / PACKETS as f64;
    assert!((seen - share).abs() <= error, "{seen} is not {share} ± {error}");
}

fn autocorrelation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let together: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    together / variance
}

fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    (mean, variance.sqrt())
}

fn chi_square(seen: &[usize], expected: &[f64]) -> f64 {
    seen.iter().zip(expected).map(|(seen, expected)| (*seen as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn shares_are_what_was_asked_for_with_correlation_too() {
    for (share, correlation) in
        [(0.1, 0.0), (0.1, 80.0), (1.0, 25.0), (10.0, 0.0), (10.0, 80.0), (30.0, 25.0), (100.0, 50.0)]
    {
        let hits: Vec<f64> = fates(&losing(LossModel::Random(chance(share, correlation))), 1)
            .iter()
            .map(|fate| f64::from(u8::from(fate.lost)))
            .collect();
        assert_share(hits.iter().sum::<f64>() as usize, share / 100.0, correlation / 100.0);
        if (10.0..=30.0).contains(&share) {
            let seen = autocorrelation(&hits);
            assert!((seen - correlation / 100.0).abs() < 0.02, "correlation {seen}, not {correlation} %");
        }
    }
}

#[test]
fn each_part_of_an_impairment_has_its_own_share() {
    let impairment = Impairment {
        loss: Some(LossModel::Random(chance(5.0, 0.0))),
        duplicate: Some(chance(10.0, 0.0)),
        corrupt: Some(chance(20.0, 0.0)),
        reorder: Some(Reorder { chance: chance(40.0, 0.0), late: Duration::from_millis(7).into() }),
        ..delaying(3, 0, Distribution::Uniform, 0.0)
    };
    let fates = fates(&impairment, 2);
    let count = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count();
    assert_share(count(|fate| fate.lost), 0.05, 0.0);
    assert_share(count(|fate| fate.duplicated), 0.1, 0.0);
    assert_share(count(|fate| fate.corrupted.is_some()), 0.2, 0.0);
    assert_share(count(|fate| fate.late), 0.4, 0.0);
    // Independent of each other.
    assert_share(count(|fate| fate.duplicated && fate.corrupted.is_some()), 0.02, 0.0);
    assert!(fates.iter().all(|fate| fate.delay == if fate.late { 10_000_000 } else { 3_000_000 }));
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_the_model_says() {
    let (p, r) = (0.01, 0.2);
    let model = GilbertElliott {
        p: percent(p * 100.0),
        r: percent(r * 100.0),
        bad_loss: Percent::ALL,
        good_loss: percent(0.0),
    };
    let fates = fates(&losing(LossModel::GilbertElliott(model)), 3);
    let share = LossModel::GilbertElliott(model).share();
    assert!((share - p / (p + r)).abs() < 1e-12);
    assert_share(fates.iter().filter(|fate| fate.lost).count(), share, 1.0 - p - r);

    let mut lengths = Vec::new();
    let mut length = 0;
    for fate in &fates {
        if fate.lost {
            length += 1;
        } else if length > 0 {
            lengths.push(length);
            length = 0;
        }
    }
    // Lengths 1 to 9, and everything beyond: geometric, as a channel without memory of its age is.
    let mut seen = [0usize; 10];
    for length in &lengths {
        seen[(*length as usize - 1).min(9)] += 1;
    }
    let bursts = lengths.len() as f64;
    let expected: Vec<f64> =
        (0..10).map(|index| bursts * (1.0 - r).powi(index) * if index == 9 { 1.0 } else { r }).collect();
    let distance = chi_square(&seen, &expected);
    assert!(distance < CHI_SQUARE_9, "chi-square {distance}: {seen:?}, not {expected:?}");
}

#[test]
fn a_channel_may_lose_in_both_states() {
    let model = GilbertElliott {
        p: percent(5.0),
        r: percent(45.0),
        bad_loss: percent(50.0),
        good_loss: percent(2.0),
    };
    let lost = fates(&losing(LossModel::GilbertElliott(model)), 4).iter().filter(|fate| fate.lost).count();
    // Less correlated than the channel itself, so that this is the wider interval.
    assert_share(lost, 0.1 * 0.5 + 0.9 * 0.02, 0.5);
    let never = GilbertElliott { p: percent(0.0), r: percent(0.0), ..model };
    assert_share(
        fates(&losing(LossModel::GilbertElliott(never)), 4).iter().filter(|fate| fate.lost).count(),
        0.02,
        0.0,
    );
}

#[test]
fn every_distribution_has_the_mean_and_the_spread_that_it_promises() {
    for (distribution, deviation, tolerance, correlations) in [
        (Distribution::Uniform, 1.0 / 3.0f64.sqrt(), 0.02, &[0.0][..]),
        (Distribution::Normal, 1.0, 0.02, &[0.0, 50.0]),
        (Distribution::Pareto, 1.0, 0.06, &[0.0]),
        (Distribution::ParetoNormal, 1.0, 0.06, &[0.0, 50.0]),
    ] {
        for &correlation in correlations {
            let delays: Vec<f64> = fates(&delaying(100, 5, distribution, correlation), 5)
                .iter()
                .map(|fate| (fate.delay as f64 / 1e6 - 100.0) / 5.0)
                .collect();
            let (mean, spread) = moments(&delays);
            let resemblance = (1.0 + correlation / 100.0) / (1.0 - correlation / 100.0);
            let error = NORMAL * deviation * (resemblance / PACKETS as f64).sqrt();
            assert!(mean.abs() < error, "{distribution}: mean {mean}, not within {error}");
            assert!((spread / deviation - 1.0).abs() < tolerance, "{distribution}: spread {spread}");
            let seen = autocorrelation(&delays);
            assert!((seen - correlation / 100.0).abs() < 0.03, "{distribution}: correlation {seen}");
        }
    }
}

#[test]
fn uniform_is_uniform_and_keeps_its_bounds() {
    for correlation in [0.0, 60.0] {
        let mut seen = [0usize; 20];
        let mut last = None;
        let mut drawn = 0;
        for fate in fates(&delaying(20, 10, Distribution::Uniform, correlation), 6) {
            assert!((10_000_000..30_000_000).contains(&fate.delay));
            if last.replace(fate.delay) != Some(fate.delay) {
                seen[(fate.delay - 10_000_000) as usize / 1_000_000] += 1;
                drawn += 1;
            }
        }
        assert_share(PACKETS - drawn, correlation / 100.0, 0.0);
        let distance = chi_square(&seen, &[drawn as f64 / 20.0; 20]);
        assert!(distance < CHI_SQUARE_19, "chi-square {distance}: {seen:?}");
    }
}

#[test]
fn a_heavy_tail_is_heavy_and_ends() {
    let mut delays: Vec<u64> =
        fates(&delaying(100, 1, Distribution::Pareto, 0.0), 7).iter().map(|fate| fate.delay).collect();
    delays.sort_unstable();
    let at = |share: f64| delays[(PACKETS as f64 * share) as usize] as f64 / 1e6 - 100.0;
    assert!(at(0.0) >= -0.66, "earliest {}", at(0.0));
    assert!(at(0.5) < -0.2, "median {}", at(0.5));
    // One in a hundred is later than 4 spreads: of a bell curve it is one in thirty thousand.
    assert!((3.8..4.6).contains(&at(0.99)), "p99 {}", at(0.99));
    assert!(at(0.9999) < 11.4, "latest {}", at(0.9999));
}

#[test]
fn less_than_no_delay_is_none() {
    let fates = fates(&delaying(1, 10, Distribution::Normal, 0.0), 8);
    let none = fates.iter().filter(|fate| fate.delay == 0).count();
    // What is more than a tenth of a standard deviation below the mean.
    assert_share(none, 0.460_17, 0.0);
    assert!(fates.iter().all(|fate| fate.delay < 100_000_000));
}

#[test]
fn the_same_seed_brings_the_same_fates_and_another_others() {
    let impairment = Impairment {
        loss: Some(LossModel::Random(chance(10.0, 30.0))),
        corrupt: Some(chance(10.0, 0.0)),
        ..delaying(10, 5, Distribution::ParetoNormal, 20.0)
    };
    let one = first(1000, &impairment, 9);
    assert_eq!(one, first(1000, &impairment, 9));
    let other = first(1000, &impairment, 10);
    let differ = one.iter().zip(&other).filter(|(one, other)| one.delay != other.delay).count();
    assert!(differ > 990, "{differ} of 1000");
}

#[test]
fn what_befalls_a_packet_does_not_shift_the_next() {
    let delay = delaying(10, 5, Distribution::Normal, 0.0);
    let lossy = Impairment { loss: Some(LossModel::Random(chance(50.0, 0.0))), ..delay.clone() };
    let delays = |impairment| first(1000, &impairment, 11).iter().map(|fate| fate.delay).collect::<Vec<_>>();
    assert_eq!(delays(delay), delays(lossy));
}
