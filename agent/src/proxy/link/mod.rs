//! One direction of a connection: what was read, through the toxics in their order, to what may be written.
//!
//! Pure: it is told the time, and neither reads nor writes. What it holds stands in the queue before the toxic that holds
//! it, so that toxics come, change and go while bytes flow, and none is lost or overtaken.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::queue::{Chunk, Ending, Item, Queue};
use super::toxic::{Stream, Toxic};
use super::toxics::{Act, Dice, Outlet, Step};

/// What waits to be written at the end of a link with toxics, in bytes: so much that the socket never waits for them.
const READY: usize = 256 << 10;

/// How many toxics that are gone a link remembers.
const MOST_PAST: usize = 16;

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
    /// Who made it.
    pub client: IpAddr,
    /// Whether it begins just now, rather than the toxic.
    pub fresh: bool,
}

impl Place<'_> {
    /// A connection of a proxy without a name, from loopback, that begins just now; its downstream direction.
    pub fn at(number: u64) -> Self {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Place { seed: 0, proxy: "", number, stream: Stream::Downstream, client, fresh: true }
    }
}

/// A toxic at work here.
struct Stage {
    toxic: Arc<Toxic>,
    act: Box<dyn Act>,
    dice: Dice,
    /// Whether its matcher means this connection.
    meant: bool,
    /// Whether the draw against its toxicity chose this direction.
    chosen: bool,
    /// It acts: both of them, and what is spoken is what it concerns.
    active: bool,
    /// It has closed the connection: what comes is dropped.
    done: bool,
    /// It has done something here.
    worked: bool,
    input: Queue,
}

impl Stage {
    /// `None` where the toxic does not work on the bytes of this direction.
    fn new(toxic: &Arc<Toxic>, place: Place<'_>) -> Option<Self> {
        if toxic.stream != place.stream {
            return None;
        }
        let mut act = toxic.kind.act()?;
        act.set(&toxic.values);
        act.share(&toxic.shared);
        let mut dice = toxic.dice(place);
        let chosen = toxic.draw(&mut dice);
        let meant = toxic.means(place);
        let active = meant && chosen && !toxic.foreign;
        let (toxic, input) = (toxic.clone(), Queue::default());
        Some(Stage { toxic, act, dice, meant, chosen, active, done: false, worked: false, input })
    }

    /// The connection does not speak HTTP, where that is understood.
    fn turn_foreign(&mut self) {
        self.active = self.meant && self.chosen;
    }

    /// The toxic is now so: it draws anew, and judges what it holds anew.
    fn update(&mut self, toxic: &Arc<Toxic>, place: Place<'_>, foreign: bool) {
        self.act.set(&toxic.values);
        self.act.share(&toxic.shared);
        self.dice = toxic.dice(place);
        self.chosen = toxic.draw(&mut self.dice);
        // What was found out about the connection holds on.
        self.active = self.chosen && self.meant && (!toxic.foreign || foreign);
        self.toxic = toxic.clone();
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
    /// The names of toxics that did something here and are gone.
    past: Vec<String>,
    /// What flows here has turned out not to be HTTP.
    foreign: bool,
}

impl Link {
    /// With the toxics that concern its direction.
    pub fn new<'a>(toxics: impl Iterator<Item = &'a Arc<Toxic>>, place: Place<'_>) -> Self {
        let stages = toxics.filter_map(|toxic| Stage::new(toxic, place)).collect();
        Link { stages, ..Link::default() }
    }

    /// What flows here has turned out not to be HTTP: toxics that concern only that act from now on.
    pub fn turn_foreign(&mut self) {
        if !std::mem::replace(&mut self.foreign, true) {
            self.stages.iter_mut().for_each(Stage::turn_foreign);
        }
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
                let mut stage = Stage::new(toxic, place);
                if self.foreign {
                    stage.iter_mut().for_each(Stage::turn_foreign);
                }
                self.stages.extend(stage);
            }
            Change::Update(toxic) => {
                let found = self.stages.iter_mut().find(|stage| stage.toxic.name == toxic.name);
                if let Some(stage) = found {
                    stage.update(toxic, place, self.foreign);
                }
            }
            Change::Remove(name) => {
                let Some(at) = self.stages.iter().position(|stage| stage.toxic.name == *name) else { return };
                let mut stage = self.stages.remove(at);
                if stage.worked && self.past.len() < MOST_PAST {
                    self.past.push(stage.toxic.name.clone());
                }
                let next = self.stages.get_mut(at).map_or(&mut self.out, |next| &mut next.input);
                next.append(&mut stage.input);
                if stage.active && !stage.done && stage.act.ends_when_removed() {
                    next.push(Item::End(Ending::Closed));
                }
            }
        }
    }

    /// The names of the toxics that did something here.
    pub fn worked_names(&self) -> impl Iterator<Item = &str> {
        let present = self.stages.iter().filter(|stage| stage.worked);
        self.past.iter().map(String::as_str).chain(present.map(|stage| stage.toxic.name.as_str()))
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
mod arbitrary;
#[cfg(test)]
mod tests;
