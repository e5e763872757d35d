//! Which value comes next.

use super::{Level, Ramp};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The hypothesis held, and everything was well again after it.
    Held,
    /// It did not hold; the system was well again after it.
    Deviated,
    /// It did not hold, and was not seen to hold again: nothing more is done to that system.
    Unwell,
    /// Nothing can be said of it.
    Nothing,
}

/// A search under way. It assumes what every search by steps must: what gives way at one value gives way at every harder one.
#[derive(Clone, Debug, PartialEq)]
pub struct Search<'a> {
    ramp: &'a Ramp,
    rungs: Vec<Level>,
    /// How many rungs held.
    climbed: usize,
    /// The hardest value that held.
    pub held: Option<Level>,
    /// The mildest value that did not.
    pub deviated: Option<Level>,
    over: bool,
}

impl<'a> Search<'a> {
    /// Nothing was tried yet.
    pub fn new(ramp: &'a Ramp) -> Self {
        Search { ramp, rungs: ramp.rungs(), climbed: 0, held: None, deviated: None, over: false }
    }

    /// The value to try next; `None` where the search is over.
    pub fn next(&self) -> Option<Level> {
        match (self.over, self.held, self.deviated) {
            (true, ..) => None,
            (_, _, None) => self.rungs.get(self.climbed).copied(),
            (_, Some(held), Some(deviated)) => between(self.ramp, held, deviated),
            (_, None, Some(_)) => None,
        }
    }

    /// What became of the value that [`Search::next`] named.
    pub fn tell(&mut self, level: Level, came: Came) {
        match came {
            Came::Held => {
                self.held = Some(level);
                self.climbed += 1;
            }
            Came::Deviated => self.deviated = Some(level),
            Came::Unwell => (self.deviated, self.over) = (Some(level), true),
            Came::Nothing => self.over = true,
        }
    }

    /// Whether the hardest value of all held.
    pub fn held_throughout(&self) -> bool {
        self.deviated.is_none() && self.climbed == self.rungs.len() && !self.rungs.is_empty()
    }
}

/// The value to try between one that held and one that did not; `None` where they are close enough.
pub(super) fn between(ramp: &Ramp, held: Level, deviated: Level) -> Option<Level> {
    held.middle(deviated, ramp.within?)
}
