//! `bandwidth`: a line that carries so much a second, per connection and direction.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `rate` in kilobytes (1000 bytes) a second. 0 lets nothing through until it is changed or removed.
pub const KIND: Kind = Kind {
    name: "bandwidth",
    attributes: &[("rate", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(Bandwidth { rate: 0, free: 0, idle: true, hit: false })),
};

/// The most that leaves at once, in milliseconds of the line.
const PIECE: u64 = 100;
/// By how much a late waking is made up for, in nanoseconds.
const LATE: u64 = 50_000_000;
/// What may wait for the line: this many milliseconds of it, within these bounds in bytes.
const AHEAD: u64 = 20;
const LEAST: u64 = 32 << 10;
const MOST: u64 = 4 << 20;

struct Bandwidth {
    /// Bytes a millisecond.
    rate: u64,
    /// When the line has carried everything so far.
    free: u64,
    /// Whether nothing waited for it.
    idle: bool,
    hit: bool,
}

impl Act for Bandwidth {
    fn set(&mut self, values: &Values) {
        (self.rate, self.free, self.idle) = (values.count(0), 0, true);
    }

    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        while let Some(front) = input.front() {
            let Item::Data(chunk) = front else {
                if !out.room() {
                    return Step::Wait;
                }
                if let Some(end) = input.pop() {
                    out.put(end);
                }
                continue;
            };
            if self.rate == 0 {
                self.hit = self.idle;
                self.idle = false;
                return Step::Wait;
            }
            if std::mem::take(&mut self.idle) {
                self.free = self.free.max(now);
            }
            let piece = (chunk.bytes.len() as u64).min(self.rate.saturating_mul(PIECE)) as usize;
            let due = self.free.saturating_add((piece as u64).saturating_mul(1_000_000) / self.rate);
            if due > now {
                return Step::Until(due);
            }
            if !out.room() {
                return Step::Wait;
            }
            self.free = due.max(now.saturating_sub(LATE));
            self.hit = true;
            if let Some(item) = input.pop_part(piece) {
                out.put(item);
            }
        }
        self.idle = true;
        Step::Wait
    }

    fn takes(&self, _now: u64, input: &Queue) -> bool {
        (input.bytes() as u64) < self.rate.saturating_mul(AHEAD).clamp(LEAST, MOST)
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
