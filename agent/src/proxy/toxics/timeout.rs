//! `timeout`: all data is dropped, and the connection is closed when none has come for a time.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work, ms};
use crate::proxy::queue::Queue;

/// `timeout` in milliseconds without new data; 0 never closes. Removing it closes the connection: data was lost.
pub const KIND: Kind = Kind {
    name: "timeout",
    attributes: &[("timeout", Attribute::Whole(0))],
    work: Work::Bytes(|| Box::new(Timeout::default())),
};

#[derive(Default)]
struct Timeout {
    timeout: u64,
    due: Option<u64>,
    hit: bool,
}

impl Act for Timeout {
    fn set(&mut self, values: &Values) {
        (self.timeout, self.due) = (ms(values.count(0)), None);
    }

    fn step(&mut self, now: u64, input: &mut Queue, _: &mut Outlet<'_>, _: &mut Dice) -> Step {
        if !input.is_empty() {
            input.clear();
            self.due = None;
            self.hit = true;
        }
        if self.timeout == 0 {
            return Step::Wait;
        }
        let due = *self.due.get_or_insert(now.saturating_add(self.timeout));
        if due > now { Step::Until(due) } else { Step::Close }
    }

    fn takes(&self, _: u64, _: &Queue) -> bool {
        true
    }

    fn ends_when_removed(&self) -> bool {
        true
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
