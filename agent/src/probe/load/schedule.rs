//! When requests begin, and when ticks end: arithmetic on one clock.

use std::time::Duration;

use squall_experiments::quantity::Rate;

/// Requests at a steady rate, and the ticks that they fall into.
pub(super) struct Schedule {
    rate: Rate,
    /// How long a tick is.
    length: Duration,
    /// When the first request began.
    begun: Duration,
    /// How many requests were due so far.
    sent: u64,
    /// When the tick under way began.
    from: Duration,
    /// How many ticks are left with that under way; `None` is no end.
    left: Option<u32>,
    /// A request that is due for longer than this is not sent any more.
    patience: Duration,
    /// No request before this.
    spaced: Duration,
}

/// Whoever was held up catches up at most so many times as fast as the rate: a stall of the load generator must not
/// become a flood on the target.
const CATCH_UP: u32 = 4;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A request whose time is this.
    Request(Duration),
    /// A request that nobody would wait for any more.
    TooLate,
    /// The tick under way is over; the next one has begun, unless it was the last.
    TickEnded { at: Duration, last: bool },
    /// Nothing until then.
    Later(Duration),
}

impl Schedule {
    /// The first request and the first tick begin now.
    pub(super) fn new(
        rate: Rate,
        length: Duration,
        patience: Duration,
        ticks: Option<u32>,
        now: Duration,
    ) -> Self {
        Schedule { rate, length, begun: now, sent: 0, from: now, left: ticks, patience, spaced: now }
    }

    /// The next thing that is due, in the order of their times; it counts as done.
    pub(super) fn due(&mut self, now: Duration) -> Due {
        let request = self.begun + self.rate.offset(self.sent);
        let end = self.from + self.length;
        if request < end {
            if now >= request + self.patience {
                self.sent += 1;
                return Due::TooLate;
            }
            let at = request.max(self.spaced);
            if at > now {
                return Due::Later(at);
            }
            self.sent += 1;
            self.spaced = now + self.rate.offset(1) / CATCH_UP;
            return Due::Request(request);
        }
        if end > now {
            return Due::Later(end);
        }
        self.from = end;
        let left = self.left.map(|left| left.saturating_sub(1));
        self.left = left;
        Due::TickEnded { at: end, last: left == Some(0) }
    }

    /// One tick more than was asked for.
    pub(super) fn one_more(&mut self) {
        self.left = self.left.map(|left| left + 1);
    }

    /// Ends the tick under way now and goes on without end; requests keep their times. Gives whether that tick lasted
    /// less than half of its time.
    pub(super) fn cut(&mut self, now: Duration) -> bool {
        let short = (now - self.from) * 2 < self.length;
        self.from = now;
        self.left = None;
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn schedule(rate: &str, ticks: Option<u32>) -> Schedule {
        Schedule::new(rate.parse().unwrap(), ms(1000), ms(2000), ticks, ms(10))
    }

    #[test]
    fn requests_and_ticks_come_in_the_order_of_their_times() {
        let mut schedule = schedule("2/s", Some(2));
        assert_eq!(schedule.due(ms(10)), Due::Request(ms(10)));
        assert_eq!(schedule.due(ms(11)), Due::Later(ms(510)));
        assert_eq!(schedule.due(ms(511)), Due::Request(ms(510)));
        // What begins with a tick belongs to it.
        assert_eq!(schedule.due(ms(1010)), Due::TickEnded { at: ms(1010), last: false });
        assert_eq!(schedule.due(ms(1010)), Due::Request(ms(1010)));
        assert_eq!(schedule.due(ms(1600)), Due::Request(ms(1510)));
        assert_eq!(schedule.due(ms(1600)), Due::Later(ms(2010)));
        assert_eq!(schedule.due(ms(2010)), Due::TickEnded { at: ms(2010), last: true });
    }

    /// Everything that is due until a time, with the time when it came; whoever asks is always ready.
    fn until(schedule: &mut Schedule, mut now: Duration, end: Duration) -> Vec<(Duration, Due)> {
        let mut all = Vec::new();
        while now < end {
            match schedule.due(now) {
                Due::Later(at) => now = at,
                due => all.push((now, due)),
            }
        }
        all
    }

    #[test]
    fn a_cut_begins_a_tick_and_moves_no_request() {
        let mut schedule = schedule("3/s", Some(1));
        assert_eq!(schedule.due(ms(10)), Due::Request(ms(10)));
        assert!(schedule.cut(ms(300)), "290 of 1000 ms");
        let second = ms(10) + Duration::from_nanos(333_333_333);
        assert_eq!(schedule.due(ms(400)), Due::Request(second));
        assert!(!schedule.cut(ms(900)), "600 of 1000 ms");
        let all = until(&mut schedule, ms(900), ms(10_000));
        let ends = all.iter().filter(|(at, due)| *due == Due::TickEnded { at: *at, last: false }).count();
        // Two were due before; ticks end at 1900, 2900, and so on. The third was due while it was cut.
        assert_eq!((all.len() - ends, ends), (28, 9));
        let late = all.iter().filter(|(at, due)| matches!(due, Due::Request(due) if due != at));
        assert_eq!(late.count(), 1);
    }

    #[test]
    fn after_a_stall_it_catches_up_without_a_flood_and_leaves_out_what_nobody_waits_for() {
        let mut schedule = schedule("100/s", None);
        until(&mut schedule, ms(10), ms(1005));
        // Stood still from 1005 to 4005 ms: 300 requests were due, 100 of them for more than two seconds.
        let all = until(&mut schedule, ms(4005), ms(6010));
        let too_late = all.iter().filter(|(_, due)| *due == Due::TooLate).count();
        assert_eq!(too_late, 100, "due from 1010 to 2000 ms");
        let sent: Vec<(Duration, Duration)> = all
            .iter()
            .filter_map(|(at, due)| match due {
                Due::Request(due) => Some((*at, *due)),
                _ => None,
            })
            .collect();
        assert_eq!(sent.len(), 400, "due from 2010 to 6000 ms, each of them once");
        let closest = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).min();
        assert_eq!(closest, Some(Duration::from_micros(2500)), "four times as fast as the rate");
        assert_eq!(sent.last(), Some(&(ms(6000), ms(6000))), "and it has caught up");
    }
}
