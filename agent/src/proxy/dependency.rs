//! What the shards share about one proxied dependency.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use serde::Serialize;
use tokio::sync::watch;

use super::observations::Observations;
use super::tls::Origin;
use super::toxic::{Stream, Toxic};

/// Traffic of one direction, counted as it passes: by each thread in a place of its own. Two that wrote to the same one
/// would wait for each other's caches with every read and write of theirs.
#[derive(Debug)]
pub struct Bytes(Box<[Counted]>);

/// What was counted in one place: it shares a pair of cache lines with nobody, since the processor fetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counted {
    received: AtomicU64,
    sent: AtomicU64,
}

/// The most places: more threads share them.
const MOST_PLACES: usize = 8;

thread_local! {
    /// The place of this thread.
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

impl Default for Bytes {
    fn default() -> Self {
        static PLACES: OnceLock<usize> = OnceLock::new();
        let places = *PLACES
            .get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from).min(MOST_PLACES));
        Bytes((0..places).map(|_| Counted::default()).collect())
    }
}

impl Bytes {
    fn here(&self) -> &Counted {
        &self.0[PLACE.with(|place| *place) % self.0.len()]
    }

    /// So many were read from the sender.
    pub fn received(&self, bytes: usize) {
        self.here().received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many were written to the receiver.
    pub fn sent(&self, bytes: usize) {
        self.here().sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many were read from the sender, and how many were written to the receiver.
    pub fn both(&self) -> (u64, u64) {
        let sum = |count: fn(&Counted) -> &AtomicU64| {
            self.0.iter().map(|place| count(place).load(Ordering::Relaxed)).sum()
        };
        (sum(|place| &place.received), sum(|place| &place.sent))
    }
}

/// What one dependency has seen so far. Kept while it is turned off and on, and when its addresses change.
#[derive(Debug, Default)]
pub struct Counters {
    /// From clients to the dependency.
    pub upstream: Bytes,
    /// From the dependency to clients.
    pub downstream: Bytes,
    /// Connections that clients made.
    pub accepted: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
    /// Connections that were closed because the dependency could not be reached, or shook no hands.
    pub unreached: AtomicU64,
    /// Connections that were refused because they would have led back to the proxy.
    pub looped: AtomicU64,
    /// Connections that a toxic reset.
    pub reset: AtomicU64,
    /// Connections that a toxic refused before the dependency was connected to.
    pub refused: AtomicU64,
    /// Requests, where they are understood.
    pub requests: AtomicU64,
    /// Requests that are under way.
    pub requests_open: Arc<AtomicU64>,
    /// Requests to which a toxic did something.
    pub requests_harmed: AtomicU64,
    /// Connections that spoke something else than HTTP or TLS where that is to be understood; carried as they are.
    pub foreign: AtomicU64,
    /// Handshakes that clients completed although they were shown a certificate that is wrong.
    pub believed: AtomicU64,
    /// Connections to whose bytes or handshake a toxic did something.
    pub harmed: AtomicU64,
}

impl Counters {
    /// One direction's.
    pub fn of(&self, stream: Stream) -> &Bytes {
        match stream {
            Stream::Upstream => &self.upstream,
            Stream::Downstream => &self.downstream,
        }
    }
}

/// What the proxy understands of what flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// Requests and answers of HTTP/1.1 and HTTP/2.
    Http,
}

impl Protocol {
    /// Whether it is nothing but bytes.
    pub fn is_tcp(&self) -> bool {
        *self == Protocol::Tcp
    }
}

/// A dependency for as long as its addresses are what they are.
#[derive(Debug)]
pub struct Dependency {
    /// Unique for as long as the process runs.
    pub id: u64,
    /// What its owner calls it.
    pub name: String,
    /// Where it is, `host:port`, as it was typed.
    pub upstream: String,
    /// Where its clients connect.
    pub listen: SocketAddr,
    /// What is spoken there, as far as it is understood.
    pub protocol: Protocol,
    /// How TLS is spoken with clients, where it is.
    pub tls: Option<Arc<ServerConfig>>,
    /// How TLS is spoken with it, where it is.
    pub origin: Option<Arc<Origin>>,
    /// TLS between client and dependency passes on as it is, but for handshakes that toxics concern.
    pub handshakes: bool,
    /// What every choice depends on.
    pub seed: u64,
    /// What it has seen.
    pub counters: Arc<Counters>,
    /// Its toxics as they are now.
    pub toxics: watch::Sender<Vec<Arc<Toxic>>>,
    /// Where it is noted what its connections did.
    pub observations: Arc<Observations>,
}

impl Dependency {
    /// Whether more than bytes is to be understood.
    pub fn is_understood(&self) -> bool {
        !self.protocol.is_tcp() || self.tls.is_some() || self.origin.is_some() || self.handshakes
    }

    /// The number of the next connection, from 1.
    pub fn number(&self) -> u64 {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed) + 1
    }
}
