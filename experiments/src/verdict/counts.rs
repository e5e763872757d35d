//! Requests and the bad ones among them, by the time when they began.

use std::collections::BTreeMap;

/// Counts by time. Those of several probers or hosts add up, and neither the order in which they arrive nor how they are
/// divided changes what they add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<u64, (u64, u64)>);

impl Counts {
    /// So many requests more that began at a time, in milliseconds, and the bad ones among them.
    pub fn add(&mut self, at_ms: u64, all: u64, bad: u64) {
        let slot = self.0.entry(at_ms).or_default();
        slot.0 = slot.0.saturating_add(all);
        slot.1 = slot.1.saturating_add(bad.min(all));
    }

    /// Adds everything that another one counted.
    pub fn merge(&mut self, other: &Counts) {
        other.iter().for_each(|(at_ms, all, bad)| self.add(at_ms, all, bad));
    }

    /// Time, requests, bad ones; ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.0.iter().map(|(at_ms, (all, bad))| (*at_ms, *all, *bad))
    }

    /// All requests, and the bad ones.
    pub fn total(&self) -> (u64, u64) {
        self.0
            .values()
            .fold((0, 0), |(all, bad), slot| (all.saturating_add(slot.0), bad.saturating_add(slot.1)))
    }

    /// When the first request began.
    pub fn first_ms(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }

    /// When the last of those counted began, or its slot.
    pub fn last_ms(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    /// The same in longer stretches, counted from the first request; each is named by its begin. Those without a request
    /// are left out.
    pub fn grouped(&self, length_ms: u64) -> Counts {
        let mut grouped = Counts::default();
        let Some(first) = self.first_ms() else { return grouped };
        let length = length_ms.max(1);
        self.iter().for_each(|(at, all, bad)| grouped.add(first + (at - first) / length * length, all, bad));
        grouped
    }

    /// The same in stretches of a length that are counted from a time.
    pub(super) fn each(&self, from_ms: u64, length_ms: u64) -> Counts {
        let mut counts = Counts::default();
        let begin = |at: u64| from_ms + at.saturating_sub(from_ms) / length_ms * length_ms;
        self.iter().for_each(|(at, all, bad)| counts.add(begin(at), all, bad));
        counts
    }

    /// Those whose time is wanted.
    pub(super) fn filter(&self, wanted: impl Fn(u64) -> bool) -> Counts {
        Counts(self.0.iter().filter(|(at, _)| wanted(**at)).map(|(at, slot)| (*at, *slot)).collect())
    }

    /// Requests that began at exactly a time, and the bad ones.
    pub(super) fn at(&self, at_ms: u64) -> (u64, u64) {
        self.0.get(&at_ms).copied().unwrap_or_default()
    }

    /// Those that began at or after a time, by the time since then.
    pub fn since(&self, from_ms: u64) -> Counts {
        Counts(self.0.range(from_ms..).map(|(at, slot)| (at - from_ms, *slot)).collect())
    }

    /// The end of the first stretch of so long that is one, or of all of them where that is shorter. It is told whether
    /// the stretch is as long as asked for, its requests, and the bad ones.
    pub(super) fn first_stretch(&self, length_ms: u64, is: impl Fn(bool, u64, u64) -> bool) -> Option<u64> {
        let slots: Vec<(u64, u64, u64)> = self.iter().collect();
        let apart = usual_distance(&slots).clamp(100, length_ms / 4);
        let (mut from, mut all, mut bad) = (0, 0u64, 0u64);
        for (at, more, worse) in &slots {
            all = all.saturating_add(*more);
            bad = bad.saturating_add(*worse);
            while at - slots[from].0 >= length_ms {
                all -= slots[from].1.min(all);
                bad -= slots[from].2.min(bad);
                from += 1;
            }
            // The last request stands for the time until the next one, and both ends are where they happen to be.
            let spans = at - slots[from].0 + 2 * apart >= length_ms;
            let last = slots.last().is_some_and(|last| last.0 == *at) && from == 0;
            if (spans || last) && is(spans, all, bad) {
                return Some(*at);
            }
        }
        None
    }
}

/// The median of the times between one slot and the next; 0 where there is none.
fn usual_distance(slots: &[(u64, u64, u64)]) -> u64 {
    let mut apart: Vec<u64> = slots.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let middle = apart.len() / 2;
    if apart.is_empty() { 0 } else { *apart.select_nth_unstable(middle).1 }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::super::{Blocks, Fast, Starts};
    use super::*;

    #[test]
    fn neither_order_nor_division_changes_the_evidence() {
        for seed in 0..64 {
            let mut random = ChaCha12Rng::seed_from_u64(seed);
            let mut slots: Vec<(u64, u64, u64)> = (0..200)
                .map(|_| {
                    let all = u64::from(random.next_u32() % 8);
                    (u64::from(random.next_u32() % 300) * 100, all, u64::from(random.next_u32() % 3).min(all))
                })
                .collect();
            let mut whole = Counts::default();
            slots.iter().for_each(|(at, all, bad)| whole.add(*at, *all, *bad));
            // Shuffled, and divided among three hosts which are merged in another order.
            for at in (1..slots.len()).rev() {
                slots.swap(at, random.next_u32() as usize % (at + 1));
            }
            let mut hosts = vec![Counts::default(); 3];
            slots
                .iter()
                .for_each(|(at, all, bad)| hosts[random.next_u32() as usize % 3].add(*at, *all, *bad));
            let mut merged = Counts::default();
            hosts.iter().rev().for_each(|host| merged.merge(host));
            assert_eq!(merged, whole, "seed {seed}");
            let evidence = |counts: &Counts| {
                let (mut fast, mut blocks) = (Fast::new(0.05, Starts::Open), Blocks::new(0.05, Starts::Open));
                counts.grouped(1000).iter().for_each(|(_, all, bad)| _ = fast.step(all, bad));
                counts.grouped(5000).iter().for_each(|(_, all, bad)| _ = blocks.step(all, bad));
                (fast.evidence().to_bits(), blocks.evidence().to_bits())
            };
            assert_eq!(evidence(&merged), evidence(&whole), "seed {seed}");
        }
    }

    #[test]
    fn a_stretch_is_as_long_as_asked_for_or_all_there_is() {
        let of = |seconds: u64, bad: &dyn Fn(u64) -> u64| {
            let mut counts = Counts::default();
            (0..seconds * 10).for_each(|slot| counts.add(slot * 100, 5, bad(slot)));
            counts.first_stretch(5000, |_, all, bad| all >= 20 && 2 * bad >= all)
        };
        assert_eq!(of(30, &|slot| u64::from(slot >= 100) * 5), Some(12_400), "half of five seconds");
        assert_eq!(of(30, &|slot| u64::from(slot % 2 == 0) * 2), None);
        assert_eq!(of(3, &|_| 5), Some(2900), "all of a short fault");
        assert_eq!(of(30, &|slot| u64::from((100..120).contains(&slot)) * 5), None, "two of five seconds");
    }
}
