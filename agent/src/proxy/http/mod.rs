//! Requests and answers, and TLS: what stands behind a proxy whose `protocol` is `http`, or that speaks TLS.
//!
//! A shard carries the client's connection as any other, through its toxics for bytes. At its other end stands one of
//! these threads instead of the dependency; it reads requests with hyper, does to them what toxics say, and passes them
//! on over the connection to the dependency that the shard has made: one for each of the client's, in the version of HTTP
//! that the client speaks. What a shard lets go of ends here at once.

mod body;
mod drain;
mod exchange;
mod far;
mod faults;
mod handshake;
mod notes;
mod prefixed;
mod serve;
mod spoken;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::caller::Asked;
use super::dependency::Dependency;

const RESET: io::ErrorKind = io::ErrorKind::ConnectionReset;
/// More threads than this only take memory.
const MOST_THREADS: usize = 4;

/// A connection that is handed over.
pub struct Handed {
    /// Whose it is.
    pub dependency: Arc<Dependency>,
    /// Its number there.
    pub number: u64,
    /// Who made it.
    pub client: SocketAddr,
    /// Which process that is.
    pub caller: Asked,
    /// What the client sends and is sent.
    pub near: UnixStream,
    /// The connection to the dependency.
    pub far: OwnedFd,
    /// What is to be told of it afterwards.
    pub seen: Seen,
    /// Closed when the connection is over.
    pub alive: watch::Receiver<()>,
}

/// What is to be told of a connection afterwards, beside what its shard has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    faults: Mutex<Vec<String>>,
    reset: AtomicBool,
    aborted: AtomicBool,
    foreign: AtomicBool,
}

impl Seen {
    fn fault(&self, name: &str) {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// The toxics that did something to it.
    pub fn faults(&self) -> Vec<String> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It does not speak HTTP. Must be said before anything that the dependency sends is passed on.
    fn foreign(&self) {
        self.0.foreign.store(true, Ordering::Release);
    }

    /// Whether it has turned out not to speak HTTP.
    pub fn is_foreign(&self) -> bool {
        self.0.foreign.load(Ordering::Acquire)
    }

    /// Why the dependency's side ended: what follows on the client's side is a reset where this was one.
    fn failed(&self, error: &(dyn Error + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == RESET) {
                self.0.reset.store(true, Ordering::Release);
                return;
            }
            cause = error.source();
        }
    }

    /// The connection is reset: the dependency is to see that, too.
    pub fn abort(&self) {
        self.0.aborted.store(true, Ordering::Release);
    }

    fn is_aborted(&self) -> bool {
        self.0.aborted.load(Ordering::Acquire)
    }

    /// Whether the dependency has reset its connection.
    pub fn is_reset(&self) -> bool {
        self.0.reset.load(Ordering::Acquire)
    }
}

/// The threads that read requests.
#[derive(Debug)]
pub struct Engine {
    threads: Vec<UnboundedSender<Handed>>,
    next: AtomicUsize,
}

impl Engine {
    /// Starts them; they end with this value.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let threads = (0..count).map(|_| {
            let (sender, mut handed) = unbounded_channel::<Handed>();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new().name("squall-http".into()).spawn(move || {
                runtime.block_on(async {
                    while let Some(handed) = handed.recv().await {
                        tokio::spawn(serve::serve(handed));
                    }
                });
            })?;
            Ok(sender)
        });
        Ok(Engine { threads: threads.collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// Hands a connection over.
    pub fn give(&self, handed: Handed) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        // The thread lives as long as this value; were it gone, the client would see its connection end.
        let _ = self.threads[at].send(handed);
    }
}

/// The connection to the dependency, as the runtime wants it.
fn stream(far: OwnedFd) -> io::Result<tokio::net::TcpStream> {
    let stream = TcpStream::from(far);
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests;
