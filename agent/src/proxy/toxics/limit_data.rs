//! `limit_data`: so many bytes pass, then the connection is closed.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `bytes` that pass, counted over updates; 0 closes at the first data.
pub const KIND: Kind = Kind {
    name: "limit_data",
    attributes: &[("bytes", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(LimitData::default())),
};

#[derive(Default)]
struct LimitData {
    bytes: u64,
    passed: u64,
    hit: bool,
}

impl Act for LimitData {
    fn set(&mut self, values: &Values) {
        self.bytes = values.count(0);
    }

    fn step(&mut self, _: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        while out.room()
            && let Some(front) = input.front()
        {
            if let Item::Data(chunk) = front {
                let left = self.bytes.saturating_sub(self.passed);
                let piece = (chunk.bytes.len() as u64).min(left);
                if piece > 0
                    && let Some(item) = input.pop_part(piece as usize)
                {
                    out.put(item);
                }
                self.passed += piece;
                if self.passed >= self.bytes {
                    self.hit = true;
                    return Step::Close;
                }
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
