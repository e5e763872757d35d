//! `corrupt`: a bit of some chunks is flipped. An extension: the reference has no such toxic.

use bytes::Bytes;

use super::values::{Attribute, Values};
use super::{Act, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Chunk, Item, Queue};

/// `probability` is the share of chunks of which one bit is flipped, from 0 to 1.
pub const KIND: Kind = Kind {
    name: "corrupt",
    attributes: &[("probability", Attribute::Real(0.1))],
    work: Work::Bytes(|| Box::new(Corrupt::default())),
};

#[derive(Default)]
struct Corrupt {
    probability: f64,
    hit: bool,
}

impl Act for Corrupt {
    fn set(&mut self, values: &Values) {
        self.probability = values.share(0);
    }

    fn step(&mut self, _: u64, input: &mut Queue, out: &mut Outlet<'_>, dice: &mut Dice) -> Step {
        while out.room()
            && let Some(item) = input.pop()
        {
            out.put(match item {
                Item::Data(chunk) if dice.share() < self.probability => {
                    self.hit = true;
                    let mut bytes = chunk.bytes.to_vec();
                    let bit = dice.below(8 * bytes.len() as u64);
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                    Item::Data(Chunk { bytes: Bytes::from(bytes), at: chunk.at })
                }
                item => item,
            });
        }
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
