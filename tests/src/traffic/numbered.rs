//! Datagrams with numbers, sent at a steady rate from one host and received on another.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::monotonic;
use crate::netns::Netns;

/// Large enough for every datagram that a test may have on its way: a receiver that is not scheduled must lose nothing.
const BUFFER: usize = 64 << 20;

/// The number of the datagrams that say that no more will come. They are sent until one arrives.
const LAST: u32 = u32::MAX;

/// How long the last datagram may take before the receiver gives up waiting for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Numbered {
    /// How many datagrams.
    pub count: u32,
    /// How many in a second.
    pub rate: u32,
    /// How many bytes each has, at least 12.
    pub size: usize,
    /// After the last has arrived, how long it must be quiet before nothing more is awaited: for those that are overtaken.
    pub quiet: Duration,
    /// Whether the receiver has real-time priority, where that is allowed: for figures that its own delays would spoil.
    pub urgent: bool,
}

impl Default for Numbered {
    fn default() -> Self {
        Numbered { count: 1000, rate: 2000, size: 64, quiet: Duration::from_millis(200), urgent: false }
    }
}

/// One datagram that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its number.
    pub number: u32,
    /// When it was received, since boot.
    pub at: Duration,
    /// How long it was on its way, from before it was sent until after it was read.
    pub took: Duration,
}

/// What became of them.
#[derive(Debug)]
pub struct Outcome {
    /// How many were sent.
    pub sent: u32,
    /// What the sender was told: an error of a call, or one that stood at the socket.
    pub errors: Vec<io::Error>,
    /// What arrived, in that order.
    pub arrivals: Vec<Arrival>,
}

impl Numbered {
    /// Sends them from one host to a port of another, and waits until all that will arrive has arrived.
    ///
    /// # Panics
    /// When a socket cannot be opened, or something arrives that was not sent.
    pub fn send(self, from: &Netns, to: &Netns, address: SocketAddr) -> Outcome {
        let receiver = to.inside(|| {
            let socket = UdpSocket::bind(address).expect("the port is free");
            setsockopt(&socket, RcvBufForce, &BUFFER).expect("root may have a large buffer");
            socket
        });
        let sender = from.inside(|| {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("some port is free");
            socket.connect(address).expect("there is a route");
            socket
        });
        let arrived = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| self.receive(&receiver, &arrived));
            let errors = self.speak(&sender, &arrived);
            let arrivals = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Outcome { sent: self.count, errors, arrivals }
        })
    }

    fn speak(&self, socket: &UdpSocket, arrived: &AtomicBool) -> Vec<io::Error> {
        let mut errors = Vec::new();
        let mut datagram = vec![0; self.size.max(12)];
        let begun = Instant::now();
        for number in 0..self.count {
            let due = Duration::from_secs(1) * number / self.rate;
            // Sleeping costs some 50 us; at higher rates those that are due meanwhile leave together.
            if let Some(early) = due.checked_sub(begun.elapsed()) {
                thread::sleep(early);
            }
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            datagram[4..12].copy_from_slice(&nanos(monotonic()).to_be_bytes());
            errors.extend(socket.send(&datagram).err());
        }
        let ended = Instant::now();
        while !arrived.load(Ordering::Relaxed) && ended.elapsed() < PATIENCE {
            datagram[..4].copy_from_slice(&LAST.to_be_bytes());
            errors.extend(socket.send(&datagram).err());
            thread::sleep(Duration::from_millis(10));
        }
        errors
    }

    fn receive(&self, socket: &UdpSocket, arrived: &AtomicBool) -> Vec<Arrival> {
        if self.urgent {
            hasten();
        }
        let mut arrivals = Vec::with_capacity(self.count as usize);
        let mut datagram = [0; 65536];
        let longest = PATIENCE + Duration::from_secs(1) * self.count / self.rate * 3;
        let begun = Instant::now();
        socket.set_read_timeout(Some(longest)).expect("a time-out can be set");
        let mut last = false;
        loop {
            let length = match socket.recv(&mut datagram) {
                Ok(length) => length,
                // A call with a time-out is not begun again by itself, such as after the machine was frozen.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let at = monotonic();
            assert_eq!(length, self.size.max(12), "a datagram changed its length");
            let number = u32::from_be_bytes(datagram[..4].try_into().expect("four bytes"));
            if number == LAST {
                if !last {
                    // The sender stops now, so what follows comes from the fault: late ones, and copies.
                    arrived.store(true, Ordering::Relaxed);
                    socket.set_read_timeout(Some(self.quiet)).expect("a time-out can be set");
                    last = true;
                }
            } else {
                let sent = u64::from_be_bytes(datagram[4..12].try_into().expect("eight bytes"));
                let took = at.saturating_sub(Duration::from_nanos(sent));
                arrivals.push(Arrival { number, at, took });
            }
            if begun.elapsed() > longest {
                break;
            }
        }
        arrived.store(true, Ordering::Relaxed);
        arrivals
    }
}

/// Gives the calling thread real-time priority; what it starts does not get it. Where it is forbidden, nothing happens.
fn hasten() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut command = Command::new("chrt");
    command
        .args(["--reset-on-fork", "--fifo", "--pid", "2", &thread])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Best effort: the control of a figure shows what the instrument itself adds.
    drop(command.status());
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Outcome {
    /// How often each number arrived.
    fn copies(&self) -> Vec<u32> {
        let mut copies = vec![0; self.sent as usize];
        for arrival in &self.arrivals {
            copies[arrival.number as usize] += 1;
        }
        copies
    }

    /// The numbers that never arrived.
    pub fn lost(&self) -> Vec<u32> {
        let copies = self.copies();
        (0..self.sent).filter(|number| copies[*number as usize] == 0).collect()
    }

    /// How many arrived more often than they were sent.
    pub fn doubled(&self) -> u32 {
        self.copies().into_iter().map(|copies| copies.saturating_sub(1)).sum()
    }

    /// How many arrived after one that was sent later.
    pub fn overtaken(&self) -> u32 {
        let mut highest = 0;
        let mut overtaken = 0;
        for arrival in &self.arrivals {
            overtaken += u32::from(arrival.number < highest);
            highest = highest.max(arrival.number);
        }
        overtaken
    }

    /// The lengths of the bursts in which they were lost.
    pub fn bursts(&self) -> Vec<u32> {
        let mut bursts: Vec<u32> = Vec::new();
        let mut before = None;
        for number in self.lost() {
            match bursts.last_mut() {
                Some(burst) if before == Some(number.wrapping_sub(1)) => *burst += 1,
                _ => bursts.push(1),
            }
            before = Some(number);
        }
        bursts
    }

    /// How long each was on its way.
    pub fn took(&self) -> Vec<Duration> {
        self.arrivals.iter().map(|arrival| arrival.took).collect()
    }
}
