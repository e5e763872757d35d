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
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A request whose time is this.
    Request(Duration),
    /// The tick under way is over; the next one has begun, unless it was the last.
    TickEnded { at: Duration, last: bool },
    /// Nothing until then.
    Later(Duration),
}

impl Schedule {
    /// The first request and the first tick begin now.
    pub(super) fn new(rate: Rate, length: Duration, ticks: Option<u32>, now: Duration) -> Self {
        Schedule { rate, length, begun: now, sent: 0, from: now, left: ticks }
    }

    /// The next thing that is due, in the order of their times; it counts as done.
    pub(super) fn due(&mut self, now: Duration) -> Due {
        let request = self.begun + self.rate.offset(self.sent);
        let end = self.from + self.length;
        let next = request.min(end);
        if next > now {
            return Due::Later(next);
        }
        if request < end {
            self.sent += 1;
            return Due::Request(request);
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
        Schedule::new(rate.parse().unwrap(), ms(1000), ticks, ms(10))
    }

    #[test]
    fn requests_and_ticks_come_in_the_order_of_their_times() {
        let mut schedule = schedule("2/s", Some(2));
        assert_eq!(schedule.due(ms(10)), Due::Request(ms(10)));
        assert_eq!(schedule.due(ms(11)), Due::Later(ms(510)));
        // Whoever comes late finds everything, and what begins with a tick belongs to it.
        let late: Vec<Due> = (0..4).map(|_| schedule.due(ms(1600))).collect();
        assert_eq!(
            late,
            [
                Due::Request(ms(510)),
                Due::TickEnded { at: ms(1010), last: false },
                Due::Request(ms(1010)),
                Due::Request(ms(1510)),
            ]
        );
        assert_eq!(schedule.due(ms(1600)), Due::Later(ms(2010)));
        assert_eq!(schedule.due(ms(2010)), Due::TickEnded { at: ms(2010), last: true });
    }

    #[test]
    fn a_cut_begins_a_tick_and_moves_no_request() {
        let mut schedule = schedule("3/s", Some(1));
        assert_eq!(schedule.due(ms(10)), Due::Request(ms(10)));
        assert!(schedule.cut(ms(300)), "290 of 1000 ms");
        let third = ms(10) + Duration::from_nanos(333_333_333);
        assert_eq!(schedule.due(ms(400)), Due::Request(third));
        assert!(!schedule.cut(ms(900)), "600 of 1000 ms");
        let mut ends = 0;
        let mut requests = 0;
        loop {
            match schedule.due(ms(10_000)) {
                Due::TickEnded { last, .. } => {
                    assert!(!last);
                    ends += 1;
                }
                Due::Request(_) => requests += 1,
                Due::Later(_) => break,
            }
        }
        // The first two were due before; ticks end at 1900, 2900, and so on.
        assert_eq!((requests, ends), (28, 9));
    }
}
