//! `noop`: nothing is done.

use super::values::Values;
use super::{Act, Dice, Kind, Outlet, Step, Work, pass};
use crate::proxy::queue::Queue;

/// Takes no attributes.
pub const KIND: Kind = Kind { name: "noop", attributes: &[], work: Work::Bytes(|| Box::new(Noop)) };

struct Noop;

impl Act for Noop {
    fn set(&mut self, _: &Values) {}

    fn step(&mut self, _: u64, input: &mut Queue, out: &mut Outlet<'_>, _: &mut Dice) -> Step {
        pass(input, out);
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        false
    }
}
