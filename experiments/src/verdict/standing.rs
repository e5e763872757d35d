//! Whether a bound is kept again once the faults are over.

use super::blocks::Blocks;
use super::counts::Counts;
use super::interval::anytime_share;
use super::looks::FEWEST;
use super::outage::outage;
use super::process::Starts;
use super::rate::{Fast, Keeps};
use super::recovery::well_again;
use super::terms::Mode;

/// What holds for so long, or for [`HOLD_REQUESTS`], has come to stay.
const HOLD_MS: u64 = 10_000;
/// See [`HOLD_MS`].
const HOLD_REQUESTS: u64 = 300;
/// Fewer bad requests than this convict nobody.
const FEWEST_BAD: u64 = 5;

/// What is known of a bound after the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is shown to be kept by now, since about this time on the clock of the counts.
    Well(u64),
    /// What was seen shows neither.
    Open,
    /// It is shown that it is not kept to the end.
    Unwell,
}

/// A bound after the faults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct After {
    /// The share of bad requests that may be; 0 where none may.
    pub tolerated: f64,
    /// That of the baseline.
    pub usual: f64,
    /// What counts as one observation.
    pub mode: Mode,
    /// The chance to take what is exactly at the bound for well.
    pub alpha: f64,
    /// The chance to take what keeps the bound for unwell.
    pub alpha_unwell: f64,
}

/// The share that is tolerated of a tested group beside a control group, after the faults: so many times what the control
/// group's requests do not exclude, at every moment at once, with confidence 1 - `alpha`. `None` where it had no request.
///
/// What the control group went through first and not any more excuses nobody: the narrower of the whole time and its later
/// half counts.
pub fn beside_control(times: f64, control: &Counts, alpha: f64) -> Option<f64> {
    let (first, last) = (control.first_ms()?, control.last_ms()?);
    let late = control.since(first + (last - first) / 2);
    let most = |counts: &Counts| {
        let (all, bad) = counts.total();
        anytime_share(all, bad, alpha / 2.0).1
    };
    Some((times * most(control).min(most(&late))).min(0.9))
}

impl After {
    /// What the counts since everything was undone show; `over` says that no more of them come.
    ///
    /// *Well* is decided by evidence that the bound is kept, begun at every second since the first, so that it is valid however
    /// often one asks, and a relapse takes it back. *Unwell* is said only in the end, and needs both: the likeliest
    /// change from bad to good is none, or so late that it has not held; and the last half is bad by the evidence of the
    /// mode, or an outage. A bound of nothing at all is counted: well is who had no bad request for ten seconds or 300
    /// requests, unwell who had two of them in that stretch at the end.
    pub fn standing(&self, counts: &Counts, over: bool) -> Standing {
        let (all, _) = counts.total();
        let (Some(first), Some(last)) = (counts.first_ms(), counts.last_ms()) else { return Standing::Open };
        let half = first + (last - first) / 2;
        if self.tolerated <= 0.0 {
            return self.counted(counts, over.then_some(half));
        }
        let found = well_again(&counts.since(first), self.tolerated, self.usual, self.alpha);
        let mut keeps = Keeps::new(self.tolerated, Starts::Open);
        counts.grouped(1000).iter().for_each(|(_, all, bad)| _ = keeps.step(all, bad));
        match found {
            Some(found) if keeps.evidence() >= 1.0 / self.alpha => {
                return Standing::Well(first + found.after_ms);
            }
            _ if !over || all == 0 => return Standing::Open,
            _ => {}
        }
        let held = hold(counts).unwrap_or(first).max(half);
        let late = found.is_none_or(|found| first + found.after_ms > held);
        let last = counts.filter(|at| at >= half);
        if late && self.is_bad(&last) { Standing::Unwell } else { Standing::Open }
    }

    fn counted(&self, counts: &Counts, half: Option<u64>) -> Standing {
        let from = match (hold(counts), half) {
            (Some(from), half) => from.max(half.unwrap_or_default()),
            (None, Some(half)) => half,
            (None, None) => return Standing::Open,
        };
        let (all, bad) = counts.filter(|at| at >= from).total();
        match bad {
            0 if all >= FEWEST => {
                let last = counts.iter().filter(|(_, _, bad)| *bad > 0).map(|(at, ..)| at).last();
                let since = counts.iter().map(|(at, ..)| at).find(|at| last.is_none_or(|last| *at > last));
                Standing::Well(since.unwrap_or(from))
            }
            2.. if half.is_some() => Standing::Unwell,
            _ => Standing::Open,
        }
    }

    /// Whether it is sure that more are bad than may be.
    fn is_bad(&self, counts: &Counts) -> bool {
        let (_, bad) = counts.total();
        let length = self.mode.block_ms().unwrap_or(1000);
        let (mut fast, mut blocks) =
            (Fast::new(self.tolerated, Starts::AtOnce), Blocks::new(self.tolerated, Starts::AtOnce));
        for (_, all, bad) in counts.grouped(length).iter() {
            match self.mode {
                Mode::Fast => fast.step(all, bad),
                Mode::Robust | Mode::Strict => blocks.step(all, bad),
            };
        }
        let evidence = if self.mode == Mode::Fast { fast.evidence() } else { blocks.evidence() };
        let sure = bad >= FEWEST_BAD && evidence >= 1.0 / self.alpha_unwell;
        sure || outage(counts, self.tolerated, self.mode).is_some()
    }
}

/// From where the last ten seconds or 300 requests begin, whichever is shorter; `None` where there are not so many yet.
fn hold(counts: &Counts) -> Option<u64> {
    let (first, last) = (counts.first_ms()?, counts.last_ms()?);
    let slots: Vec<(u64, u64)> = counts.iter().map(|(at, all, _)| (at, all)).collect();
    let mut sum = 0u64;
    let many = slots.iter().rev().find_map(|(at, all)| {
        sum = sum.saturating_add(*all);
        (sum >= HOLD_REQUESTS).then_some(*at)
    });
    // The last slot has a length too, which is at most this.
    let long = (last + 200).checked_sub(HOLD_MS).filter(|from| *from >= first);
    many.max(long)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::*;

    const ROBUST: After =
        After { tolerated: 0.01, usual: 0.0, mode: Mode::Robust, alpha: 0.05, alpha_unwell: 0.05 };
    const NONE: After = After { tolerated: 0.0, ..ROBUST };

    /// Slots of 100 ms with 5 requests, of which each is bad with the chance that holds in its slot.
    fn drawn(seed: u64, slots: u64, share: impl Fn(u64) -> f64) -> Counts {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let mut counts = Counts::default();
        for slot in 0..slots {
            let mut bad = || f64::from(random.next_u32()) / 4_294_967_296.0 < share(slot);
            counts.add(7000 + slot * 100, 5, (0..5).map(|_| u64::from(bad())).sum());
        }
        counts
    }

    /// The standing with which a watch of 30 s ends that is looked at every second, and when.
    fn watched(after: After, counts: &Counts) -> (Standing, u64) {
        for second in 1..30 {
            let so_far = counts.filter(|at| at < 7000 + second * 1000);
            if let well @ Standing::Well(_) = after.standing(&so_far, false) {
                return (well, second);
            }
        }
        (after.standing(counts, true), 30)
    }

    #[test]
    fn what_still_fails_is_not_said_to_be_well_again() {
        // Three blocks of 5 s say less than 750 requests: robust is then often sure of neither.
        for (share, mode, least) in [
            (0.04, Mode::Fast, 90),
            (0.06, Mode::Fast, 90),
            (0.04, Mode::Robust, 5),
            (0.06, Mode::Robust, 50),
            (0.2, Mode::Robust, 100),
        ] {
            let after = After { mode, ..ROBUST };
            let ends: Vec<Standing> =
                (0..100).map(|seed| watched(after, &drawn(seed, 300, |_| share)).0).collect();
            let of = |wanted: fn(&Standing) -> bool| ends.iter().filter(|one| wanted(one)).count();
            let well = of(|one| matches!(one, Standing::Well(_)));
            let unwell = of(|one| *one == Standing::Unwell);
            println!("{share} {mode:?}: {well} well, {unwell} unwell of 100");
            assert!(well <= 1, "{share} {mode:?}: {well}");
            assert!(unwell >= least, "{share} {mode:?}: {unwell}");
        }
    }

    #[test]
    fn at_the_bound_neither_is_said_more_often_than_allowed() {
        for mode in [Mode::Fast, Mode::Robust] {
            let after = After { mode, ..ROBUST };
            let ends: Vec<Standing> =
                (0..200).map(|seed| watched(after, &drawn(seed, 300, |_| 0.01)).0).collect();
            let well = ends.iter().filter(|one| matches!(one, Standing::Well(_))).count();
            let unwell = ends.iter().filter(|one| **one == Standing::Unwell).count();
            println!("at the bound, {mode:?}: {well} well, {unwell} unwell of 200");
            assert!(well <= 14 && unwell <= 14, "{mode:?}: {well} {unwell}");
        }
    }

    #[test]
    fn what_is_clean_is_well_as_soon_as_its_requests_show_it() {
        let (standing, second) = watched(ROBUST, &drawn(1, 300, |_| 0.0));
        assert!(matches!(standing, Standing::Well(7000)), "{standing:?}");
        assert!(second <= 11, "{second}");
        let fails_first = |slot: u64| if slot < 60 { 0.5 } else { 0.0 };
        let (standing, second) = watched(ROBUST, &drawn(1, 300, fails_first));
        assert!(matches!(standing, Standing::Well(12_500..13_500)), "{standing:?}");
        assert!(second > 6 && second <= 22, "{second}");
    }

    #[test]
    fn thin_traffic_and_a_late_change_show_neither() {
        let mut thin = Counts::default();
        (0..30).for_each(|second| thin.add(second * 1000, 2, 0));
        assert_eq!(ROBUST.standing(&thin, true), Standing::Open);
        assert_eq!(ROBUST.standing(&Counts::default(), true), Standing::Open);
        let mut late = 0;
        for seed in 0..20 {
            let counts = drawn(seed, 300, |slot| if slot < 230 { 0.5 } else { 0.0 });
            late += usize::from(ROBUST.standing(&counts, true) == Standing::Unwell);
        }
        assert_eq!(late, 0, "seven good seconds at the end are no conviction");
        let broken = drawn(3, 20, |_| 1.0);
        assert_eq!(ROBUST.standing(&broken, false), Standing::Open);
        assert_eq!(ROBUST.standing(&broken, true), Standing::Unwell, "all of two seconds");
    }

    #[test]
    fn a_bound_of_nothing_is_counted() {
        let bad_at = |places: &[u64]| {
            let mut counts = Counts::default();
            (0..100).for_each(|slot| counts.add(slot * 100, 5, u64::from(places.contains(&slot))));
            counts
        };
        assert_eq!(NONE.standing(&bad_at(&[20]), false), Standing::Well(2100));
        assert_eq!(NONE.standing(&bad_at(&[60]), false), Standing::Open, "200 requests, or four seconds");
        assert_eq!(NONE.standing(&bad_at(&[60]), true), Standing::Open, "one says too little");
        assert_eq!(NONE.standing(&bad_at(&[60, 80]), true), Standing::Unwell);
        let mut looks = Counts::default();
        (0..3).for_each(|second| looks.add(second * 1000, 1, 0));
        assert_eq!(NONE.standing(&looks, false), Standing::Open);
        assert_eq!(NONE.standing(&looks, true), Standing::Open, "one look of the last half says too little");
        (3..6).for_each(|second| looks.add(second * 1000, 1, 0));
        assert_eq!(NONE.standing(&looks, true), Standing::Well(0));
    }
}
