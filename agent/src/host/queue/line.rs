//! A line with little bandwidth: how long each packet waits for its turn. Pure: knows no clock.
//!
//! Virtual scheduling, the form of the token bucket that keeps one time instead of a number of tokens (ITU-T I.371,
//! "generic cell rate algorithm"): exact to the nanosecond over any length of time.

use squall_experiments::impairment::Bottleneck;

/// See the module. Times are nanoseconds of one clock, whichever the caller reads.
#[derive(Clone, Debug)]
pub struct Line {
    bottleneck: Bottleneck,
    /// How long the line is busy with one burst.
    burst: u64,
    /// The longest wait.
    buffer: u64,
    /// When the line would have carried all that came, had there never been a burst.
    carried: u64,
}

impl Line {
    /// An idle line.
    pub fn new(bottleneck: Bottleneck) -> Self {
        Line {
            bottleneck,
            burst: nanos(bottleneck.rate.takes(bottleneck.burst.bytes())),
            buffer: nanos(bottleneck.buffer.get()),
            carried: 0,
        }
    }

    /// How long a packet of so many bytes waits that comes now; `None`: longer than the buffer allows, it is lost and takes
    /// nothing of the line. Later packets never leave before earlier ones.
    pub fn pass(&mut self, bytes: usize, now: u64) -> Option<u64> {
        let carried = self.carried.max(now) + nanos(self.bottleneck.rate.takes(bytes as u64));
        let wait = carried.saturating_sub(self.burst).saturating_sub(now);
        if wait > self.buffer {
            return None;
        }
        self.carried = carried;
        Some(wait)
    }
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// 8 Mbit/s: a byte a microsecond.
    fn line(burst: &str, buffer: &str) -> Line {
        let text = format!("{{\"rate\":\"8Mbit/s\",\"burst\":\"{burst}\",\"buffer\":\"{buffer}\"}}");
        Line::new(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_burst_passes_and_the_rest_waits_its_turn() {
        let mut line = line("3000B", "10ms");
        let now = 5_000 * MS;
        let waits: Vec<_> = (0..5).map(|_| line.pass(1000, now).unwrap()).collect();
        assert_eq!(waits, [0, 0, 0, MS, 2 * MS]);
        // After a pause there is room for one burst, and never for more.
        let later = now + 1_000 * MS;
        let waits: Vec<_> = (0..4).map(|_| line.pass(1000, later).unwrap()).collect();
        assert_eq!(waits, [0, 0, 0, MS]);
    }

    #[test]
    fn what_would_wait_longer_than_the_buffer_is_lost_and_takes_nothing() {
        let mut line = line("1500B", "5ms");
        let passed = (0..100).filter(|_| line.pass(1000, 0).is_some()).count();
        assert_eq!(passed, 6, "1.5 at once and 5 ms worth of waiting");
        assert!(line.pass(1000, 0).is_none());
        assert_eq!(line.pass(1000, MS), Some(5 * MS - MS / 2));
    }

    #[test]
    fn the_rate_is_kept_exactly_and_in_order_whatever_comes() {
        let mut line = line("16kB", "200ms");
        let (mut now, mut last, mut bytes) = (0, 0, 0);
        for n in 0..200_000u64 {
            now += (n * 7919) % 800_000;
            let length = 40 + (n * 104_729 % 1460) as usize;
            if let Some(wait) = line.pass(length, now) {
                bytes += length as u64;
                assert!(now + wait >= last, "packet {n} overtakes");
                last = now + wait;
            }
        }
        // Twice as much was offered as the line carries: all that it carries passed, and one burst.
        let carried = last / 1000 + 16_000;
        assert!(bytes <= carried && bytes + 2_000 > carried, "{bytes} of {carried}");
    }
}
