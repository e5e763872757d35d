//! `hang_data` and `reset_data`: so many bytes pass, then the connection hangs, or both peers see a reset.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `bytes` that pass, counted over updates; what comes after them is held until the toxic is removed.
pub const HANG: Kind = Kind {
    name: "hang_data",
    attributes: &[("bytes", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(BreakOff { end: Step::Wait, ..BreakOff::RESET })),
};

/// `bytes` that pass, counted over updates; the first one after them resets the connection.
pub const RESET: Kind = Kind {
    name: "reset_data",
    attributes: &[("bytes", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(BreakOff::RESET)),
};

struct BreakOff {
    /// What is wanted once all bytes have passed and more is there.
    end: Step,
    bytes: u64,
    passed: u64,
    /// More than passes has come.
    over: bool,
    hit: bool,
}

impl BreakOff {
    const RESET: BreakOff = BreakOff { end: Step::Reset, bytes: 0, passed: 0, over: false, hit: false };
}

impl Act for BreakOff {
    fn set(&mut self, values: &Values) {
        self.bytes = values.count(0);
        self.over = false;
    }

    fn step(&mut self, _: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        while out.room()
            && let Some(front) = input.front()
        {
            if let Item::Data(chunk) = front {
                let left = self.bytes.saturating_sub(self.passed);
                let piece = (chunk.bytes.len() as u64).min(left);
                if piece == 0 {
                    self.hit |= !std::mem::replace(&mut self.over, true);
                    return self.end;
                }
                if let Some(item) = input.pop_part(piece as usize) {
                    out.put(item);
                }
                self.passed += piece;
            } else if let Some(end) = input.pop() {
                out.put(end);
            }
        }
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
