//! `shared_bandwidth`: one line that carries so much a second, for all connections of the proxy in one direction.
//!
//! Each connection books the time of its next piece on the line, and the line is booked in the order in which they ask:
//! with many busy connections each gets its share, with one it gets all (a virtual clock, L. Zhang, SIGCOMM 1990).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `rate` in kilobytes (1000 bytes) a second. 0 lets nothing through until it is changed or removed.
pub const KIND: Kind = Kind {
    name: "shared_bandwidth",
    attributes: &[("rate", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(SharedBandwidth::default())),
};

/// The most that one connection books at once: this many milliseconds of the line, within these bounds in bytes.
const PIECE: u64 = 10;
const LEAST: u64 = 256;
const MOST: u64 = 64 << 10;
/// By how much a late waking is made up for, in nanoseconds.
const LATE: u64 = 50_000_000;
/// What may wait before the line in one connection, in bytes.
const AHEAD: usize = 128 << 10;

#[derive(Default)]
struct SharedBandwidth {
    /// Bytes a millisecond.
    rate: u64,
    /// When the line has carried everything that is booked.
    line: Arc<AtomicU64>,
    /// When the line has carried the piece in front, and how long that is.
    booked: Option<(u64, usize)>,
    hit: bool,
}

impl SharedBandwidth {
    fn book(&mut self, length: usize, at: u64, now: u64) -> (u64, usize) {
        let most = self.rate.saturating_mul(PIECE).clamp(LEAST, MOST);
        let piece = (length as u64).min(most);
        let cost = (piece * 1_000_000).div_ceil(self.rate);
        // Not before it was there, and where its connection woke late, not before it should have been asked for.
        let earliest = at.min(now).max(now.saturating_sub(LATE));
        let after = |free: u64| free.max(earliest).saturating_add(cost);
        let before = self.line.update(Ordering::Relaxed, Ordering::Relaxed, after);
        (after(before), piece as usize)
    }
}

impl Act for SharedBandwidth {
    fn set(&mut self, values: &Values) {
        (self.rate, self.booked) = (values.count(0), None);
    }

    fn share(&mut self, shared: &Arc<AtomicU64>) {
        self.line = shared.clone();
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
                self.hit = self.booked.is_none();
                self.booked = Some((u64::MAX, 0));
                return Step::Wait;
            }
            let (length, at) = (chunk.bytes.len(), chunk.at);
            let (due, piece) = match self.booked {
                Some(booked) => booked,
                None => {
                    let booked = self.book(length, at, now);
                    *self.booked.insert(booked)
                }
            };
            if due > now {
                return Step::Until(due);
            }
            if !out.room() {
                return Step::Wait;
            }
            self.booked = None;
            self.hit = true;
            if let Some(item) = input.pop_part(piece) {
                out.put(item);
            }
        }
        Step::Wait
    }

    fn takes(&self, _now: u64, input: &Queue) -> bool {
        input.bytes() < AHEAD
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
