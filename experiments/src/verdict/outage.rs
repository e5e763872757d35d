//! What is so bad for so long that it needs no statistics.

use super::counts::Counts;
use super::interval::chance_of;
use super::terms::Mode;

/// An outage: so long, in milliseconds.
const OUTAGE_MS: u64 = 5_000;
/// An outage: so many requests at least.
const OUTAGE_REQUESTS: u64 = 20;
/// An outage: chance explains it less often than this.
const OUTAGE_CHANCE: f64 = 1e-9;
/// Where bursts are expected, this share is bad of an outage in the middle of a longer fault.
const NEARLY_ALL: f64 = 0.9;

/// When there was an outage, which needs no statistics: half of the requests of five seconds, or of all of a shorter fault,
/// were bad, by far more than tolerated and by more than chance explains. Where bursts are expected a stretch is as long as two
/// blocks, and nearly all of it must be bad: a burst of some seconds in a longer fault is what the blocks are there for.
pub fn outage(counts: &Counts, tolerated: f64, mode: Mode) -> Option<u64> {
    let (length, long) = match mode.block_ms() {
        None => (OUTAGE_MS, 0.5),
        Some(block) => (2 * block, NEARLY_ALL),
    };
    let far = (20.0 * tolerated).clamp(0.5, 1.0);
    counts.first_stretch(length, |spans, all, bad| {
        let share = if spans { far.max(long) } else { far };
        all >= OUTAGE_REQUESTS
            && bad as f64 >= share * all as f64
            && chance_of(all, bad, tolerated) < OUTAGE_CHANCE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_more_than_chance_explains_and_than_a_burst() {
        let of = |seconds: std::ops::Range<u64>, bad: u64, tolerated, mode| {
            let mut counts = Counts::default();
            (0..600).for_each(|slot| {
                counts.add(slot * 100, 5, if seconds.contains(&(slot / 10)) { bad } else { 0 })
            });
            outage(&counts, tolerated, mode)
        };
        assert_eq!(of(20..25, 5, 0.01, Mode::Fast), Some(22_400));
        // 250 requests in five seconds, all of them bad: beyond chance where 80 % may be, not where 95 % may.
        assert_eq!(of(20..25, 5, 0.8, Mode::Fast), Some(24_900));
        assert_eq!(of(20..25, 5, 0.95, Mode::Fast), None);
        for (mode, long) in [(Mode::Robust, 10), (Mode::Strict, 30)] {
            assert_eq!(of(10..10 + long / 2, 5, 0.01, mode), None, "{mode:?}: one block");
            assert_eq!(of(10..10 + long, 3, 0.01, mode), None, "{mode:?}: that is for the blocks");
            assert!(of(10..10 + long, 5, 0.01, mode).is_some(), "{mode:?}");
        }
        // Looks every quarter of a second are twenty in five seconds, and forty in ten.
        for (mode, places, every) in
            [(Mode::Fast, 80..100, 250), (Mode::Robust, 80..120, 250), (Mode::Robust, 40..60, 500)]
        {
            let mut looks = Counts::default();
            (0..200).for_each(|at| looks.add(at * every + at % 3, 1, u64::from(places.contains(&at))));
            assert!(outage(&looks, 0.01, mode).is_some(), "{mode:?} {every}");
        }
        // Few requests: all 25 of five seconds are bad in one of 265 such stretches where 80 % may be.
        let mut few = Counts::default();
        (0..300).for_each(|at| few.add(at * 200, 1, u64::from((100..125).contains(&at) || at % 5 == 0)));
        assert_eq!(outage(&few, 0.8, Mode::Fast), None);
        assert!(outage(&few, 0.01, Mode::Fast).is_some());
    }
}
