//! One direction of a connection: what was read, through the toxics in their order, to what may be written.
//!
//! Pure: it is told the time, and neither reads nor writes. What it holds stands in the queue before the toxic that holds
//! it, so that toxics come, change and go while bytes flow, and none is lost or overtaken.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::queue::{Chunk, Ending, Item, Queue};
use super::toxic::{Stream, Toxic};
use super::toxics::{Act, Dice, Outlet, Step};

/// What waits to be written at the end of a link with toxics, in bytes: so much that the socket never waits for them.
const READY: usize = 256 << 10;

/// Which connection a link belongs to: what its dice depend on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The seed of the whole proxy.
    pub seed: u64,
    /// The name of the proxied dependency.
    pub proxy: &'a str,
    /// Which of its connections, from 1.
    pub number: u64,
    /// Which of its directions.
    pub stream: Stream,
}

/// A toxic at work here.
struct Stage {
    toxic: Arc<Toxic>,
    act: Box<dyn Act>,
    dice: Dice,
    /// Whether the draw against its toxicity chose this direction of this connection.
    active: bool,
    /// It has closed the connection: what comes is dropped.
    done: bool,
    /// It has done something to the traffic.
    worked: bool,
    input: Queue,
}

impl Stage {
    fn new(toxic: Arc<Toxic>, place: Place<'_>) -> Self {
        let mut dice = Dice::new(
            place.seed,
            &[
                place.proxy.as_bytes(),
                &place.number.to_le_bytes(),
                place.stream.name().as_bytes(),
                toxic.name.as_bytes(),
                &toxic.version.to_le_bytes(),
            ],
        );
        let active = dice.share() < f64::from(toxic.toxicity);
        let mut act = toxic.kind.act();
        act.set(&toxic.values);
        Stage { toxic, act, dice, active, done: false, worked: false, input: Queue::default() }
    }

    fn takes(&self, now: u64) -> bool {
        self.done || if self.active { self.act.takes(now, &self.input) } else { self.input.bytes() == 0 }
    }

    fn step(&mut self, now: u64, out: &mut Outlet<'_>) -> Step {
        if self.done {
            self.input.clear();
            return Step::Wait;
        }
        if !self.active {
            while out.room()
                && let Some(item) = self.input.pop()
            {
                out.put(item);
            }
            return Step::Wait;
        }
        let step = self.act.step(now, &mut self.input, out, &mut self.dice);
        if self.act.hit() {
            self.worked = true;
            self.toxic.hits.fetch_add(1, Ordering::Relaxed);
        }
        step
    }
}

/// What a link wants after it was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To be run again at this time, on the monotonic clock in nanoseconds.
    pub next: Option<u64>,
    /// The connection is to be reset.
    pub reset: bool,
}

/// What changes about the toxics of a link.
#[derive(Clone, Debug)]
pub enum Change {
    /// One more, behind the others.
    Add(Arc<Toxic>),
    /// The one with the same name is now so.
    Update(Arc<Toxic>),
    /// The one with this name is gone.
    Remove(String),
}

/// One direction of a connection.
#[derive(Default)]
pub struct Link {
    stages: Vec<Stage>,
    out: Queue,
}

impl Link {
    /// With the toxics that concern its direction.
    pub fn new<'a>(toxics: impl Iterator<Item = &'a Arc<Toxic>>, place: Place<'_>) -> Self {
        let stages = toxics
            .filter(|toxic| toxic.stream == place.stream)
            .map(|toxic| Stage::new(toxic.clone(), place))
            .collect();
        Link { stages, out: Queue::default() }
    }

    /// Whether what is read may be written at once.
    pub fn is_bare(&self) -> bool {
        self.stages.is_empty() && self.out.is_empty()
    }

    /// Whether nothing is in it, not even an end.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty() && self.stages.iter().all(|stage| stage.input.is_empty())
    }

    /// Whether a toxic that is here has done something to the traffic.
    pub fn worked(&self) -> bool {
        self.stages.iter().any(|stage| stage.worked)
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.out.bytes() + self.stages.iter().map(|stage| stage.input.bytes()).sum::<usize>()
    }

    /// Whether more should be read.
    pub fn takes(&self, now: u64) -> bool {
        self.stages.first().map_or(self.out.is_empty(), |stage| stage.takes(now))
    }

    /// What was read, or that nothing follows.
    pub fn offer(&mut self, item: Item) {
        match self.stages.first_mut() {
            Some(stage) => stage.input.push(item),
            None => self.out.push(item),
        }
    }

    /// Moves everything as far as it may go now.
    pub fn run(&mut self, now: u64) -> Outcome {
        loop {
            let mut outcome = Outcome::default();
            let mut moved = false;
            for at in 0..self.stages.len() {
                let (before, behind) = self.stages.split_at_mut(at + 1);
                let stage = &mut before[at];
                let (queue, room, bound) = match behind.first_mut() {
                    Some(next) => {
                        let room = next.takes(now);
                        (&mut next.input, room, usize::MAX)
                    }
                    None => (&mut self.out, true, READY),
                };
                let mut out = Outlet::new(queue, room, bound);
                match stage.step(now, &mut out) {
                    Step::Wait => {}
                    Step::Until(time) => {
                        outcome.next = Some(outcome.next.map_or(time, |other: u64| other.min(time)));
                    }
                    Step::Close => {
                        out.put(Item::End(Ending::Closed));
                        stage.done = true;
                        stage.input.clear();
                    }
                    Step::Reset => return Outcome { next: None, reset: true },
                }
                moved |= out.moved() && at + 1 < self.stages.len();
            }
            if !moved {
                return outcome;
            }
        }
    }

    /// Applies a change; bytes that were held stay in their order.
    pub fn change(&mut self, change: &Change, place: Place<'_>) {
        match change {
            Change::Add(toxic) => {
                if toxic.stream == place.stream {
                    self.stages.push(Stage::new(toxic.clone(), place));
                }
            }
            Change::Update(toxic) => {
                let Some(stage) = self.stages.iter_mut().find(|stage| stage.toxic.name == toxic.name) else {
                    return;
                };
                let fresh = Stage::new(toxic.clone(), place);
                stage.act.set(&toxic.values);
                (stage.toxic, stage.dice, stage.active) = (fresh.toxic, fresh.dice, fresh.active);
            }
            Change::Remove(name) => {
                let Some(at) = self.stages.iter().position(|stage| stage.toxic.name == *name) else { return };
                let mut stage = self.stages.remove(at);
                let next = self.stages.get_mut(at).map_or(&mut self.out, |next| &mut next.input);
                next.append(&mut stage.input);
                if stage.active && !stage.done && stage.act.ends_when_removed() {
                    next.push(Item::End(Ending::Closed));
                }
            }
        }
    }

    /// What is to be written next.
    pub fn ready(&self) -> Option<&Item> {
        self.out.front()
    }

    /// So many bytes of it were written.
    pub fn written(&mut self, bytes: usize) {
        self.out.pop_part(bytes);
    }

    /// The end that is next was carried out.
    pub fn ended(&mut self) {
        self.out.pop();
    }

    /// What is left of a chunk that was to be written at once.
    pub fn keep(&mut self, chunk: Chunk) {
        self.out.push(Item::Data(chunk));
    }

    /// Nobody will read what is here.
    pub fn discard(&mut self) {
        self.out.clear();
        for stage in &mut self.stages {
            stage.input.clear();
        }
    }
}

#[cfg(test)]
mod tests;
