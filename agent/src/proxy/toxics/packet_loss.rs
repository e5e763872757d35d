//! `packet_loss`: chunks are dropped, in bursts where that is wanted. The stream loses bytes: this is not TCP's loss.

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `loss_rate` is the share of chunks that are dropped, `correlation` how much the fate of one is that of the one before;
/// both from 0 to 1.
pub const KIND: Kind = Kind {
    name: "packet_loss",
    attributes: &[("loss_rate", Attribute::Real(0.1)), ("correlation", Attribute::Real(0.0))],
    work: Work::Bytes(|| Box::new(PacketLoss::default())),
};

#[derive(Default)]
struct PacketLoss {
    rate: f64,
    correlation: f64,
    lost: bool,
    hit: bool,
}

impl Act for PacketLoss {
    fn set(&mut self, values: &Values) {
        (self.rate, self.correlation) = (values.share(0), values.share(1));
    }

    fn step(&mut self, _: u64, input: &mut Queue, out: &mut Outlet<'_>, dice: &mut Dice) -> Step {
        while out.room()
            && let Some(item) = input.pop()
        {
            if let Item::Data(_) = item {
                let before = if self.lost { 1.0 } else { 0.0 };
                // With a correlation c to the one before, the share of all is still the rate.
                let chance = self.correlation * before + (1.0 - self.correlation) * self.rate;
                self.lost = dice.share() < chance;
                if self.lost {
                    self.hit = true;
                    continue;
                }
            }
            out.put(item);
        }
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
