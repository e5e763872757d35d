//! `latency`: each chunk leaves so much later than it was read.

use super::values::{Attribute, Values};
use super::{Act, CENTURY, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `latency` and `jitter` in milliseconds: the delay is drawn in whole milliseconds from `latency` ± `jitter`.
pub const KIND: Kind = Kind {
    name: "latency",
    attributes: &[("latency", Attribute::Whole(0)), ("jitter", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(Latency::default())),
};

/// What one direction of a connection may hold, in bytes: 0.1 s of a line of 15 Gbit/s.
const MOST: usize = 192 << 20;

#[derive(Default)]
struct Latency {
    delay: u64,
    jitter: u64,
    /// When the chunk in front leaves.
    due: Option<u64>,
    hit: bool,
}

impl Latency {
    /// In nanoseconds. What is drawn below 0 is 0.
    fn draw(&self, dice: &mut Dice) -> u64 {
        let most = CENTURY / 1_000_000 / 4;
        let (delay, jitter) = (self.delay.min(most), self.jitter.min(most));
        (delay + dice.below(2 * jitter)).saturating_sub(jitter) * 1_000_000
    }
}

impl Act for Latency {
    fn set(&mut self, values: &Values) {
        (self.delay, self.jitter, self.due) = (values.count(0), values.count(1), None);
    }

    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, dice: &mut Dice) -> Step {
        while let Some(front) = input.front() {
            if let Item::Data(chunk) = front {
                let at = chunk.at;
                let due = match self.due {
                    Some(due) => due,
                    None => *self.due.insert(at.saturating_add(self.draw(dice))),
                };
                if due > now {
                    return Step::Until(due);
                }
                if !out.room() {
                    return Step::Wait;
                }
                self.hit |= due > at;
                self.due = None;
                if let Some(Item::Data(mut chunk)) = input.pop() {
                    // The time that it waited counts: what a later toxic adds comes on top.
                    chunk.at = due;
                    out.put(Item::Data(chunk));
                }
            } else if out.room()
                && let Some(end) = input.pop()
            {
                out.put(end);
            } else {
                return Step::Wait;
            }
        }
        Step::Wait
    }

    /// As much as arrives while the first byte is held, so that delay does not cost throughput; no more where the
    /// receiver is what holds it.
    fn takes(&self, now: u64, input: &Queue) -> bool {
        input.bytes() == 0 || (input.bytes() < MOST && self.due.is_some_and(|due| due > now))
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
