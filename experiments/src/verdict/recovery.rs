//! When a system was well again: a change point with an interval, and a certificate.

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::interval::chance_of;
use super::process::Starts;
use super::rate::Keeps;

/// When a share of bad requests came back to what is tolerated, in milliseconds since the fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WellAgain {
    /// The most likely moment of the last change from bad to good; 0 where nothing measurable was bad.
    pub after_ms: u64,
    /// The moments that are nearly as likely: from here.
    pub from_ms: u64,
    /// To here. Both hold for a change in one step; a gradual recovery has no single moment.
    pub to_ms: u64,
    /// When it was shown, whatever the shape, that the tolerance is kept; `None` where the watch ended too early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_ms: Option<u64>,
}

/// Less likelihood than this says that nothing measurable was bad: a factor of 100, as a logarithm.
const MEASURABLE: f64 = 4.6;
/// Moments whose likelihood is within this of the best one are in the interval, as a logarithm.
const NEARLY: f64 = 3.0;
/// Errors between two moments that come up by chance at least this often, at the usual share, are no part of the outage.
const STRAY: f64 = 0.05;
/// More errors than this are never taken for strays.
const MOST_STRAY: u64 = 8;

/// Finds it. `counts` are those after the fault, by milliseconds since it ended; `tolerated` is between 0 and 1, both
/// excluded; `usual` is the share of bad requests in the baseline; `alpha` is the error of the certificate. `None` where
/// there are no requests, or the best moment is the end: it did not recover.
///
/// The suffix with the largest likelihood ratio of good against bad begins at the last change, so relapses are seen (the
/// CUSUM of Page, 1954, run backwards). The bad share is chosen so that the tolerance itself favours neither; a usual error soon
/// after the end then looks like a part of the outage, which is taken back where chance explains it.
pub fn well_again(counts: &Counts, tolerated: f64, usual: f64, alpha: f64) -> Option<WellAgain> {
    let good = usual.clamp(tolerated / 20.0, tolerated / 2.0);
    let bad = indifferent(good, tolerated);
    let (ln_bad, ln_good) = ((good / bad).ln(), ((1.0 - good) / (1.0 - bad)).ln());
    let slots: Vec<(u64, u64, u64)> = counts.iter().collect();
    let first = slots.first()?.0;
    // What each suffix is worth, from the last backwards; the last entry is that of no suffix at all.
    let mut worth = vec![0.0; slots.len() + 1];
    for (at, (_, all, failed)) in slots.iter().enumerate().rev() {
        worth[at] = worth[at + 1] + *failed as f64 * ln_bad + (all - failed) as f64 * ln_good;
    }
    let best = worth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let time = |at: usize| slots.get(at).map(|slot| slot.0);
    let place = worth.iter().position(|worth| *worth >= best)?;
    time(place)?;
    let place = without_strays(&slots, place, good);
    let after_ms = time(place)?;
    let shown_ms = shown(counts, tolerated, alpha);
    if best - worth[0] < MEASURABLE {
        return Some(WellAgain { after_ms: 0, from_ms: 0, to_ms: 0, shown_ms });
    }
    let near = |at: &usize| worth[*at] >= best - NEARLY;
    let from = (0..slots.len()).find(near)?.min(place);
    let to = (0..slots.len()).rfind(near)?;
    // The first moment stands for everything before it.
    let from_ms = if time(from)? == first { 0 } else { time(from)? };
    Some(WellAgain { after_ms, from_ms, to_ms: time(to)?, shown_ms })
}

/// The earliest moment right after an error from which on, up to this place, there were no more errors than the usual share
/// explains.
fn without_strays(slots: &[(u64, u64, u64)], place: usize, usual: f64) -> usize {
    let (mut all, mut bad, mut earliest) = (0, 0, place);
    for at in (1..place).rev() {
        all += slots[at].1;
        bad += slots[at].2;
        if bad > MOST_STRAY {
            break;
        }
        let begins = slots[at].2 == 0 && slots[at - 1].2 > 0;
        if begins && bad > 0 && chance_of(all, bad, usual) > STRAY {
            earliest = at;
        }
    }
    earliest
}

/// The first moment at which it is shown that the tolerance is kept, at steps of a second.
fn shown(counts: &Counts, tolerated: f64, alpha: f64) -> Option<u64> {
    let mut keeps = Keeps::new(tolerated, Starts::Open);
    counts.grouped(1000).iter().find_map(|(at, all, bad)| {
        let evidence = keeps.step(all, bad);
        (evidence >= 1.0 / alpha).then_some(at + 1000)
    })
}

/// The bad share at which the likelihood ratio against `good` favours neither when the true share is `tolerated`.
fn indifferent(good: f64, tolerated: f64) -> f64 {
    let between = |bad: f64| {
        let odds = bad * (1.0 - good) / (good * (1.0 - bad));
        ((1.0 - good) / (1.0 - bad)).ln() / odds.ln()
    };
    let (mut low, mut high) = (tolerated, 1.0 - 1e-12);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if between(middle) < tolerated { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 requests each 100 ms; `bad` says how many fail in a slot.
    fn counts(slots: u64, bad: impl Fn(u64) -> u64) -> Counts {
        let mut counts = Counts::default();
        (0..slots).for_each(|slot| counts.add(slot * 100, 5, bad(slot)));
        counts
    }

    #[test]
    fn the_bad_share_that_the_tolerance_does_not_tell_from_the_good_one() {
        assert!((indifferent(0.001, 0.01) - 0.0367).abs() < 5e-5, "{}", indifferent(0.001, 0.01));
    }

    #[test]
    fn a_step_is_found_with_its_interval_and_shown_later() {
        let found = well_again(&counts(300, |slot| u64::from(slot < 42) * 3), 0.01, 0.0, 0.05).unwrap();
        assert_eq!(found.after_ms, 4200);
        assert!(
            found.from_ms <= 4200 && found.to_ms >= 4200 && found.to_ms - found.from_ms <= 2000,
            "{found:?}"
        );
        assert!(found.shown_ms.is_some_and(|shown| shown > 4200 && shown < 30_000), "{found:?}");
    }

    #[test]
    fn the_last_of_several_outages_counts() {
        let bad = |slot: u64| u64::from(slot < 20 || (120..150).contains(&slot)) * 4;
        let found = well_again(&counts(400, bad), 0.01, 0.0, 0.05).unwrap();
        assert_eq!(found.after_ms, 15_000);
    }

    #[test]
    fn a_usual_error_after_the_end_is_no_part_of_the_outage() {
        let bad = |stray: u64| move |slot: u64| if slot == stray { 1 } else { u64::from(slot < 30) * 3 };
        let found = |stray| well_again(&counts(300, bad(stray)), 0.01, 0.001, 0.05).unwrap().after_ms;
        // 5 requests a slot: one error of 60 comes up in 6 % of all cases, one of 10 in 1 %.
        assert_eq!((found(42), found(32)), (3000, 3300));
        let twice = |slot: u64| if slot == 42 { 2 } else { u64::from(slot < 30) * 3 };
        assert_eq!(well_again(&counts(300, twice), 0.01, 0.001, 0.05).unwrap().after_ms, 4300);
    }

    #[test]
    fn no_outage_is_none_and_no_end_is_no_recovery() {
        let clean = well_again(&counts(100, |_| 0), 0.01, 0.0, 0.05).unwrap();
        assert_eq!((clean.after_ms, clean.from_ms, clean.to_ms), (0, 0, 0));
        assert!(clean.shown_ms.is_some());
        assert_eq!(well_again(&counts(100, |_| 5), 0.01, 0.0, 0.05), None);
        assert_eq!(well_again(&Counts::default(), 0.01, 0.0, 0.05), None);
        // A second of a hundred good requests does not show that one in a hundred is kept.
        assert_eq!(well_again(&counts(20, |_| 0), 0.01, 0.0, 0.05).unwrap().shown_ms, None);
    }
}
