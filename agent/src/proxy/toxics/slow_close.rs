//! `slow_close`: the end of a direction is held back.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work, ms};
use crate::proxy::queue::{Item, Queue};

/// `delay` in milliseconds. A new delay counts from when it is set; removed, the end goes on at once.
pub const KIND: Kind = Kind {
    name: "slow_close",
    attributes: &[("delay", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(SlowClose::default())),
};

#[derive(Default)]
struct SlowClose {
    delay: u64,
    due: Option<u64>,
    hit: bool,
}

impl Act for SlowClose {
    fn set(&mut self, values: &Values) {
        (self.delay, self.due) = (ms(values.count(0)), None);
    }

    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        while out.room()
            && let Some(front) = input.front()
        {
            if let Item::End(_) = front {
                let due = *self.due.get_or_insert(now.saturating_add(self.delay));
                if due > now {
                    return Step::Until(due);
                }
                self.hit = true;
            }
            if let Some(item) = input.pop() {
                out.put(item);
            }
        }
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
