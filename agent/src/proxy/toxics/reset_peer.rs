//! `reset_peer`: a time after the first data or end, both peers see a reset.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work, ms};
use crate::proxy::queue::Queue;

/// `timeout` in milliseconds. An idle connection is not reset. Removed before the time is over, what was held goes on.
pub const KIND: Kind = Kind {
    name: "reset_peer",
    attributes: &[("timeout", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(ResetPeer::default())),
};

#[derive(Default)]
struct ResetPeer {
    timeout: u64,
    due: Option<u64>,
    hit: bool,
}

impl Act for ResetPeer {
    fn set(&mut self, values: &Values) {
        (self.timeout, self.due) = (ms(values.count(0)), None);
    }

    fn step(&mut self, now: u64, input: &mut Queue, _: &mut Outlet<'_>, _: &mut Dice) -> Step {
        if input.is_empty() {
            return Step::Wait;
        }
        let due = *self.due.get_or_insert(now.saturating_add(self.timeout));
        if due > now {
            return Step::Until(due);
        }
        self.hit = true;
        Step::Reset
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
