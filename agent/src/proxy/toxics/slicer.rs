//! `slicer`: chunks become small pieces, each written by itself, with pauses between them.

use super::values::{Attribute, Values};
use super::{Act, CENTURY, Dice, Kind, Outlet, Step, Work};
use crate::proxy::queue::{Item, Queue};

/// `average_size` and `size_variation` in bytes, `delay` in microseconds after each piece. An average of 0 cuts nothing;
/// a variation above the average counts as the average.
pub const KIND: Kind = Kind {
    name: "slicer",
    attributes: &[
        ("average_size", Attribute::Whole(0)),
        ("size_variation", Attribute::Whole(0)),
        ("delay", Attribute::Whole(0)),
    ],
    work: Work::Bytes(|| Box::new(Slicer::default())),
};

#[derive(Default)]
struct Slicer {
    average: u64,
    variation: u64,
    delay: u64,
    /// The sizes of the pieces of the chunk in front, the next one last.
    pieces: Vec<usize>,
    /// Nothing leaves before.
    free: u64,
    hit: bool,
}

impl Slicer {
    /// Halves, not quite in the middle, until no piece is larger than average and variation together.
    fn cut(&mut self, length: usize, dice: &mut Dice) {
        let mut open = vec![length as u64];
        while let Some(length) = open.pop() {
            if self.average == 0 || length < 2 || length <= self.average.saturating_add(self.variation) {
                // The first piece is found last when the left half is looked at last.
                self.pieces.push(length as usize);
                continue;
            }
            let shift = dice.below(self.variation.saturating_mul(2).saturating_add(1));
            let middle = (length / 2).saturating_add(shift).saturating_sub(self.variation);
            let middle = middle.clamp(1, length - 1);
            open.push(middle);
            open.push(length - middle);
        }
    }
}

impl Act for Slicer {
    fn set(&mut self, values: &Values) {
        self.average = values.count(0);
        self.variation = values.count(1).min(self.average);
        self.delay = values.count(2).min(CENTURY / 1000) * 1000;
        self.pieces.clear();
        self.free = 0;
    }

    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, dice: &mut Dice) -> Step {
        while out.room()
            && let Some(front) = input.front()
        {
            if self.free > now {
                return Step::Until(self.free);
            }
            let Item::Data(chunk) = front else {
                if let Some(end) = input.pop() {
                    out.put(end);
                }
                continue;
            };
            if self.pieces.is_empty() {
                let length = chunk.bytes.len();
                self.cut(length, dice);
            }
            let piece = self.pieces.pop().unwrap_or(usize::MAX);
            if let Some(item) = input.pop_part(piece) {
                out.put(item);
            }
            self.free = now.saturating_add(self.delay);
            self.hit = true;
        }
        Step::Wait
    }

    fn hit(&mut self) -> bool {
        std::mem::take(&mut self.hit)
    }
}
