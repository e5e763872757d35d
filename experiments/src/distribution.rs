//! Many times, counted in buckets: small to keep, and merged without loss.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How often which times were seen, in nanoseconds: a histogram of high dynamic range (HDR). Each power of two is
/// divided into 2^`BITS` buckets; with the usual 7, they are exact below 256 ns and at most 0.8 % wide above.
///
/// Whatever is read out of it is the upper end of a bucket: never less than what was seen, and at most a bucket more.
/// Distributions of parts add up to that of the whole, in any order.
///
/// As JSON it is a list of `[upper end in nanoseconds, count]`, ascending, without empty buckets.
///
/// ```
/// # use squall_experiments::distribution::Distribution;
/// # use std::time::Duration;
/// let mut seen = <Distribution>::default();
/// (1..=100).for_each(|ms| seen.add(Duration::from_millis(ms)));
/// let p99 = seen.quantile(990, 0).unwrap();
/// assert!(p99 >= Duration::from_millis(99) && p99 < Duration::from_micros(99_800));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution<const BITS: u32 = 7> {
    /// By the number of the bucket.
    counts: BTreeMap<u16, u64>,
}

impl<const BITS: u32> Distribution<BITS> {
    /// Counts a time; what is longer than 584 years counts as that.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        *self.counts.entry(bucket::<BITS>(nanos)).or_default() += 1;
    }

    /// Counts everything that another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
    }

    /// The upper end of each bucket that is not empty, in nanoseconds, and how many times lie in it; ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(bucket, count)| (upper::<BITS>(*bucket), *count))
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of them were longer than a bound; those in the bucket of the bound count as within.
    pub fn beyond(&self, bound: Duration) -> u64 {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        self.counts.range(bucket::<BITS>(nanos) + 1..).map(|(_, count)| count).sum()
    }

    /// Whether a time counts as longer than a bound, as [`Distribution::beyond`] counts.
    pub fn is_beyond(time: Duration, bound: Duration) -> bool {
        let bucket = |time: Duration| bucket::<BITS>(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        bucket(time) > bucket(bound)
    }

    /// The time within which so many thousandths of all cases came to their end (nearest rank): 990 is p99. `never` is
    /// how many cases have no time because they did not end; they are slower than all others. `None` where the
    /// quantile is one of them, or nothing was counted.
    pub fn quantile(&self, thousandths: u64, never: u64) -> Option<Duration> {
        let all = u128::from(self.total() + never);
        let rank = (all * u128::from(thousandths)).div_ceil(1000).max(1);
        self.at_rank(u64::try_from(rank).unwrap_or(u64::MAX))
    }

    /// The time of a rank, counted from 1 for the shortest; `None` where fewer were counted.
    pub fn at_rank(&self, rank: u64) -> Option<Duration> {
        let mut below = 0u64;
        for (bucket, count) in &self.counts {
            below = below.saturating_add(*count);
            if below >= rank {
                return Some(Duration::from_nanos(upper::<BITS>(*bucket)));
            }
        }
        None
    }

    /// The longest of them; `None` where nothing was counted.
    pub fn longest(&self) -> Option<Duration> {
        self.counts.keys().last().map(|bucket| Duration::from_nanos(upper::<BITS>(*bucket)))
    }
}

/// The bucket of a value. Below 2^`BITS` it is the value itself; above, the position of the highest bit and so many bits
/// behind it.
fn bucket<const BITS: u32>(nanos: u64) -> u16 {
    let octave = nanos.checked_ilog2().unwrap_or(0).saturating_sub(BITS);
    // With 7 bits: at most 57 octaves of 128 buckets, and the 128 below them.
    u16::try_from((u64::from(octave) << BITS) + (nanos >> octave)).unwrap_or(u16::MAX)
}

/// The largest value of a bucket.
fn upper<const BITS: u32>(bucket: u16) -> u64 {
    let octave = u32::from(bucket >> BITS).saturating_sub(1);
    let first = u64::from(bucket) - (u64::from(octave) << BITS);
    (first << octave) + ((1 << octave) - 1)
}

impl<const BITS: u32> Serialize for Distribution<BITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.counts.iter().map(|(bucket, count)| (upper::<BITS>(*bucket), count)))
    }
}

impl<'de, const BITS: u32> Deserialize<'de> for Distribution<BITS> {
    /// The upper end of a bucket lies in its bucket, so what is read is what was written.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut all = 0u64;
        let mut counts = BTreeMap::new();
        for (nanos, count) in pairs {
            all = all.checked_add(count).ok_or_else(|| D::Error::custom("more than 2^64 counts"))?;
            *counts.entry(bucket::<BITS>(nanos)).or_default() += count;
        }
        Ok(Distribution { counts })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::*;

    fn of(nanos: impl IntoIterator<Item = u64>) -> Distribution {
        let mut seen = <Distribution>::default();
        nanos.into_iter().for_each(|nanos| seen.add(Duration::from_nanos(nanos)));
        seen
    }

    fn tiled<const BITS: u32>() {
        let mut next = 0;
        for number in 0..=bucket::<BITS>(u64::MAX) {
            assert_eq!(bucket::<BITS>(next), number, "{next} begins bucket {number}");
            let last = upper::<BITS>(number);
            assert_eq!(bucket::<BITS>(last), number);
            let width = next as f64 / f64::from(1 << BITS);
            assert!((last - next) as f64 <= width, "bucket {number}: {next} to {last}");
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the largest number");
    }

    #[test]
    fn every_bucket_ends_where_the_next_begins_and_is_narrow() {
        tiled::<7>();
        tiled::<4>();
    }

    #[test]
    fn quantiles_are_within_a_hundredth_of_those_of_the_sorted_values() {
        let mut random = ChaCha12Rng::seed_from_u64(3);
        // From nanoseconds to minutes, all magnitudes alike.
        let mut values: Vec<u64> =
            (0..20_000).map(|_| random.next_u64() >> (28 + random.next_u32() % 30)).collect();
        let seen = of(values.iter().copied());
        values.sort_unstable();
        for thousandths in [1, 100, 500, 900, 990, 999, 1000] {
            let exact = values[(values.len() * thousandths).div_ceil(1000) - 1];
            let found = seen.quantile(thousandths as u64, 0).unwrap().as_nanos() as u64;
            assert!(found >= exact && found as f64 <= exact as f64 * 1.01, "{thousandths}: {exact} {found}");
        }
        assert_eq!(seen.longest(), seen.quantile(1000, 0));
        assert_eq!(seen.total(), 20_000);
    }

    #[test]
    fn parts_add_up_to_the_whole_in_any_order() {
        let values: Vec<u64> = (0..3000).map(|number: u64| number * number * 977).collect();
        let whole = of(values.iter().copied());
        let parts: Vec<Distribution> = values.chunks(701).map(|part| of(part.iter().copied())).collect();
        for order in [vec![0, 1, 2, 3, 4], vec![4, 2, 0, 3, 1]] {
            let mut merged = <Distribution>::default();
            order.into_iter().for_each(|part| merged.merge(&parts[part]));
            assert_eq!(merged, whole);
        }
    }

    #[test]
    fn json_is_sparse_and_reads_back() {
        let seen = of([5, 5, 300, 1_000_000, u64::MAX]);
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(text, "[[5,2],[301,1],[1003519,1],[18446744073709551615,1]]");
        assert_eq!(serde_json::from_str::<Distribution>(&text).unwrap(), seen);
        assert!(serde_json::from_str::<Distribution>("[[1,18446744073709551615],[2,1]]").is_err());
    }

    #[test]
    fn what_never_ended_is_slower_than_everything() {
        let seen = of(std::iter::repeat_n(1_000_000, 99));
        assert_eq!(seen.quantile(990, 1), seen.longest(), "99 of 100 is p99");
        assert_eq!(seen.quantile(991, 1), None);
        assert_eq!(seen.quantile(500, 100), None);
        assert_eq!(<Distribution>::default().quantile(500, 0), None);
    }

    #[test]
    fn a_bound_counts_what_is_longer() {
        let seen = of([1_000_000, 2_000_000, 300_000_000, 310_000_000]);
        assert_eq!(seen.beyond(Duration::from_millis(300)), 1);
        assert_eq!(seen.beyond(Duration::from_micros(500)), 4);
        assert_eq!(seen.beyond(Duration::MAX), 0);
    }
}
