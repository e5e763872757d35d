//! The toxics: what can be done to the bytes of one direction of a connection.
//!
//! A toxic is one file with a [`Kind`] and an [`Act`], and one line in [`KINDS`]. It sees the items that wait before it
//! and puts out those that may go on; what it holds stays in its queue, so that nothing is lost when it is removed.

mod bandwidth;
mod break_off;
mod connect_delay;
mod connect_refuse;
mod corrupt;
mod http;
mod latency;
mod limit_data;
mod limit_time;
mod noop;
mod packet_loss;
mod reset_peer;
mod shared_bandwidth;
mod slicer;
mod slow_close;
mod timeout;
mod tls;
pub mod values;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::queue::{Item, Queue};
use values::{Attribute, Values};

/// Every kind of toxic, by name.
pub const KINDS: [&Kind; 25] = [
    &bandwidth::KIND,
    &connect_delay::KIND,
    &connect_refuse::KIND,
    &corrupt::KIND,
    &http::GRPC_STATUS,
    &http::HTTP_BODY,
    &http::HTTP_DELAY,
    &http::HTTP_HEADER,
    &http::HTTP_STATUS,
    &break_off::HANG,
    &latency::KIND,
    &limit_data::KIND,
    &limit_time::KIND,
    &noop::KIND,
    &packet_loss::KIND,
    &break_off::RESET,
    &reset_peer::KIND,
    &shared_bandwidth::KIND,
    &slicer::KIND,
    &slow_close::KIND,
    &timeout::KIND,
    &tls::TLS_CERTIFICATE,
    &tls::TLS_ISSUED,
    &tls::TLS_REFUSE,
    &tls::TLS_UNTRUSTED,
];

/// A kind of toxic.
#[derive(Debug)]
pub struct Kind {
    /// Its `type`.
    pub name: &'static str,
    /// Its attributes, with their defaults.
    pub attributes: &'static [(&'static str, Attribute)],
    /// Where it stands.
    pub work: Work,
}

/// Where a toxic stands, and what it does there.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// In one direction of a connection, on its bytes.
    Bytes(fn() -> Box<dyn Act>),
    /// Before the dependency is connected to; its direction means nothing.
    Connect,
    /// On requests and answers of HTTP.
    Message(Message),
    /// On the client's handshake of TLS.
    Handshake(Handshake),
}

/// What is done to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It ends with an alert.
    Refuse,
    /// Another certificate is shown.
    Certificate,
    /// One that an authority issues is shown, of the name that is asked for or another.
    Issued,
    /// A certificate is shown that nobody trusts, of the name that is asked for.
    Untrusted,
}

/// What is done to a request or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It is answered with a status.
    Status,
    /// It waits.
    Delay,
    /// A header is set or removed.
    Header,
    /// The body is replaced or cut.
    Body,
    /// A call of gRPC is answered with a status.
    GrpcStatus,
}

impl Kind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// One for one direction of one connection, where it works on bytes.
    pub fn act(&self) -> Option<Box<dyn Act>> {
        match self.work {
            Work::Bytes(make) => Some(make()),
            Work::Connect | Work::Message(_) | Work::Handshake(_) => None,
        }
    }
}

/// The random numbers of one toxic on one direction of one connection.
pub struct Dice(ChaCha12Rng);

impl Dice {
    /// Dice that always fall alike for the same names.
    pub fn new(seed: u64, names: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        for name in names {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        }
        Dice(ChaCha12Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// From 0 (included) to 1 (excluded).
    pub fn share(&mut self) -> f64 {
        rand::RngExt::random(&mut self.0)
    }

    /// From 0 (included) to a bound (excluded); 0 below a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { rand::RngExt::random_range(&mut self.0, 0..bound) }
    }
}

/// Where a toxic puts what may go on.
pub struct Outlet<'a> {
    queue: &'a mut Queue,
    room: bool,
    bound: usize,
    moved: bool,
}

impl<'a> Outlet<'a> {
    /// Into a queue that takes items as long as it holds fewer bytes than its bound, if it takes any now.
    pub fn new(queue: &'a mut Queue, room: bool, bound: usize) -> Self {
        Outlet { queue, room, bound, moved: false }
    }

    /// Whether one more item may be put in.
    pub fn room(&self) -> bool {
        self.room && self.queue.bytes() < self.bound
    }

    /// Puts it in.
    pub fn put(&mut self, item: Item) {
        self.moved = true;
        self.queue.push(item);
    }

    /// Whether anything was put in.
    pub fn moved(&self) -> bool {
        self.moved
    }
}

/// What a toxic waits for, or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More items, or room for those it has.
    Wait,
    /// This time, on the monotonic clock in nanoseconds.
    Until(u64),
    /// The connection is to be closed as soon as what came before is written.
    Close,
    /// The connection is to be reset now, both sides of it.
    Reset,
}

/// A toxic at work on one direction of one connection.
pub trait Act: Send {
    /// New attributes. What is held is judged by them anew.
    fn set(&mut self, values: &Values);

    /// What all connections of the proxy share of this toxic: told after each [`Act::set`].
    fn share(&mut self, _shared: &Arc<AtomicU64>) {}

    /// Puts out what may go on.
    fn step(&mut self, now: u64, input: &mut Queue, out: &mut Outlet<'_>, dice: &mut Dice) -> Step;

    /// Whether more may be put before it. By default a chunk at a time, so that a sender is held back as by a full line.
    fn takes(&self, _now: u64, input: &Queue) -> bool {
        input.bytes() == 0
    }

    /// Whether it has altered what flowed so that the connection cannot go on without it.
    fn ends_when_removed(&self) -> bool {
        false
    }

    /// Whether the step that was just taken did something to the traffic.
    fn hit(&mut self) -> bool;
}

/// Moves everything on that there is room for.
fn pass(input: &mut Queue, out: &mut Outlet<'_>) {
    while out.room()
        && let Some(item) = input.pop()
    {
        out.put(item);
    }
}

/// Milliseconds as nanoseconds, at most a century.
pub fn ms(milliseconds: u64) -> u64 {
    milliseconds.min(CENTURY / 1_000_000) * 1_000_000
}

/// A hundred years in nanoseconds: no connection lasts longer, and sums of such times do not overflow.
const CENTURY: u64 = 3_155_760_000_000_000_000;
