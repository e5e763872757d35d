//! One TCP connection that sends as fast as it can.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::client::connect;
use crate::netns::Netns;
use crate::wait;

/// What the connection may take to grow its window before it counts.
const GROWING: Duration = Duration::from_millis(500);
/// How much is sent and read at once.
const BLOCK: usize = 1 << 18;

/// A connection that is busy until it is dropped.
#[derive(Debug)]
pub struct Stream {
    ends: [TcpStream; 2],
    arrived: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Opens it from one host to an address of another, and lets it grow.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn between(from: &Netns, to: &Netns, address: SocketAddr) -> Self {
        Self::on([None; 2], from, to, address)
    }

    /// The same with the sender on the first processor and the receiver on the second: what the scheduler would do
    /// otherwise moves the rate more than most of what one wants to see.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn pinned(from: &Netns, to: &Netns, address: SocketAddr) -> Self {
        Self::on([Some(0), Some(1)], from, to, address)
    }

    fn on([sends, receives]: [Option<usize>; 2], from: &Netns, to: &Netns, address: SocketAddr) -> Self {
        let listener = to.inside(|| TcpListener::bind(address).expect("the port is free"));
        listener.set_nonblocking(true).expect("it is a socket");
        let near = connect(from, address, Duration::from_secs(10)).expect("the port is reached");
        let (far, _) = wait::until("the connection", wait::PATIENCE, || listener.accept().ok());
        far.set_nonblocking(false).expect("it is a socket");
        let clone = |end: &TcpStream| end.try_clone().expect("there are descriptors");
        let arrived = Arc::new(AtomicU64::new(0));
        let (sender, receiver, count) = (clone(&near), clone(&far), arrived.clone());
        let sending = thread::spawn(move || {
            pin(sends);
            send(sender);
        });
        let receiving = thread::spawn(move || {
            pin(receives);
            receive(receiver, &count);
        });
        let threads = vec![sending, receiving];
        thread::sleep(GROWING);
        Stream { ends: [near, far], arrived, threads }
    }

    /// Bits a second that arrive, measured for so long.
    ///
    /// # Panics
    /// When nothing arrives any more.
    pub fn rate(&self, during: Duration) -> f64 {
        let (begun, before) = (Instant::now(), self.arrived.load(Ordering::Relaxed));
        thread::sleep(during);
        let bytes = self.arrived.load(Ordering::Relaxed) - before;
        let rate = bytes as f64 * 8.0 / begun.elapsed().as_secs_f64();
        assert!(bytes > 0 || during < Duration::from_secs(1), "the stream stands still");
        rate
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Keeps the calling thread on one processor, where the machine has it.
fn pin(processor: Option<usize>) {
    let mut set = CpuSet::new();
    if processor.is_some_and(|processor| set.set(processor).is_ok()) {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

fn send(mut stream: TcpStream) {
    let bytes = vec![0; BLOCK];
    while stream.write_all(&bytes).is_ok() {}
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) {
    let mut bytes = vec![0; BLOCK];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                arrived.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Bits a second that arrive from one host on a port of another, measured for so long after the start has settled.
///
/// # Panics
/// When there is no connection, or it stands still.
pub fn bits_per_second(from: &Netns, to: &Netns, address: SocketAddr, during: Duration) -> f64 {
    Stream::between(from, to, address).rate(during)
}
