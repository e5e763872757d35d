//! `limit_time`: the connection is closed after a time, whatever flows.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work, ms, pass};
use crate::proxy::queue::Queue;

/// `time` in milliseconds, from when the connection or the toxic began, whichever was later; counted over updates.
pub const KIND: Kind = Kind {
    name: "limit_time",
    attributes: &[("time", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(LimitTime::default())),
};

#[derive(Default)]
struct LimitTime {
    time: u64,
    began: Option<u64>,
    hit: bool,
}

impl Act for LimitTime {
    fn set(&mut self, values: &Values) {
        self.time = ms(values.count(0));
    }

    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        let due = self.began.get_or_insert(now).saturating_add(self.time);
        if due > now {
            pass(input, out);
            return Step::Until(due);
        }
        self.hit = true;
        Step::Close
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
