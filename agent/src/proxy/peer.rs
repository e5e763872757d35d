//! One of the two sockets of a connection: reading and writing without waiting.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::set_tcp_congestion;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::dependency;
use super::pipe::{Moved, Pipes, Waiting};
use super::queue::{Chunk, Ending, Item};

/// The most that one read takes, in bytes.
const READ: usize = 64 << 10;
/// A chunk of at least this size keeps the buffer that it was read into.
const LARGE: usize = READ / 4;

/// What a shard has for bytes that are on their way.
pub struct Scratch {
    /// Nothing is in it between two reads.
    buffer: Vec<u8>,
    /// For those that are moved without being read.
    pub(super) pipes: Pipes,
}

impl Scratch {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Scratch { buffer: vec![0; READ], pipes: Pipes::new()? })
    }
}

/// What is left of what came.
pub(super) enum Rest {
    /// Nothing: it was written at once, or nothing came.
    None,
    /// This is to be offered to the link.
    Item(Item),
    /// This is to be moved on before anything else is.
    Waiting(Waiting),
}

/// One peer's socket, and what is known of it: nothing is asked twice (the poll is edge-triggered).
#[derive(Default)]
pub(super) struct Peer {
    pub(super) socket: Option<OwnedFd>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel has announced an end: read until it is there.
    pub(super) ending: bool,
    /// Nothing more comes.
    pub(super) silent: bool,
    /// Nothing more can be sent.
    pub(super) deaf: bool,
    /// It sends much: the last read was a full one, the last move a large one.
    pub(super) bulky: bool,
}

impl Peer {
    /// Writes what fits; what the socket no longer takes at all makes it deaf.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = &self.socket else { return 0 };
        match retry_on_intr(|| send(socket, bytes, SendFlags::NOSIGNAL)) {
            Ok(written) => {
                // The kernel tells of new room after a write that was cut short (`SOCK_NOSPACE`, net/ipv4/tcp.c).
                self.writable = written == bytes.len();
                written
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                0
            }
            Err(_) => {
                self.deafen();
                0
            }
        }
    }

    /// Moves on what waits for room in the socket, as much as it takes, and says how many bytes that were.
    pub(super) fn go_on(&mut self, waiting: &mut Waiting) -> usize {
        let Some(socket) = &self.socket else { return 0 };
        let before = waiting.left();
        match waiting.go_on(socket) {
            Ok(_) => self.writable = waiting.left() == 0,
            Err(_) => self.deafen(),
        }
        before - waiting.left()
    }

    /// Nothing more can be sent to it; what it sent before it went away can still be read.
    fn deafen(&mut self) {
        (self.deaf, self.readable, self.ending) = (true, true, true);
    }

    /// What taking from the socket came to: how many bytes, or the end that stands there instead; `None`: nothing now.
    fn came(&mut self, taken: Result<usize, Errno>) -> Result<usize, Option<Item>> {
        match taken {
            Ok(0) => {
                self.silent = true;
                Err(Some(Item::End(Ending::Finished)))
            }
            Ok(length) => Ok(length),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Err(None)
            }
            Err(_) => {
                (self.silent, self.deaf) = (true, true);
                Err(Some(Item::End(Ending::Reset)))
            }
        }
    }

    /// Moves what this one sends to another one without reading it, as much as that takes; only what is left of it comes
    /// back. Also says how many bytes came. Both are sockets of the kernel's TCP.
    pub(super) fn pass(
        &mut self,
        now: u64,
        scratch: &mut Scratch,
        sink: &mut Peer,
        counted: &dependency::Bytes,
    ) -> (Rest, usize) {
        let (Some(socket), Some(other)) = (&self.socket, &sink.socket) else { return (Rest::None, 0) };
        let (outcome, length, moved) = match scratch.pipes.pass(socket, other) {
            Ok(passed @ (_, 1.., _)) => passed,
            nothing => {
                // Whether little or much comes next is not known: that it was much is not forgotten.
                let ended = self.came(nothing.map(|_| 0)).err().flatten();
                return (ended.map_or(Rest::None, Rest::Item), 0);
            }
        };
        counted.received(length);
        counted.sent(moved);
        // Little came: a read would have been cheaper, and tells whether there is more.
        self.bulky = length >= LARGE;
        sink.writable = matches!(outcome, Moved::All);
        let rest = match outcome {
            Moved::All => Rest::None,
            Moved::Waits(waiting) => Rest::Waiting(waiting),
            Moved::Copied(bytes) => Rest::Item(Item::Data(Chunk { bytes, at: now })),
            Moved::Lost => {
                sink.deafen();
                Rest::None
            }
        };
        (rest, length)
    }

    /// Reads once. Where nothing stands between, what was read is written at once, and only what is left comes back.
    /// Also says how many bytes were read.
    pub(super) fn receive(
        &mut self,
        now: u64,
        scratch: &mut Scratch,
        sink: Option<&mut Peer>,
        counted: &dependency::Bytes,
    ) -> (Rest, usize) {
        let buffer = &mut scratch.buffer;
        let Some(socket) = &self.socket else { return (Rest::None, 0) };
        let length = retry_on_intr(|| recv(socket, buffer.as_mut_slice(), RecvFlags::empty()));
        let length = match self.came(length.map(|(length, _)| length)) {
            Ok(length) => length,
            Err(end) => return (end.map_or(Rest::None, Rest::Item), 0),
        };
        counted.received(length);
        // Less than was asked for: the socket is empty, and the kernel will tell of more.
        self.bulky = length == buffer.len();
        self.readable = self.bulky || self.ending;
        let written = match sink {
            Some(sink) if sink.writable => sink.send(&buffer[..length]),
            _ => 0,
        };
        counted.sent(written);
        if written == length {
            return (Rest::None, length);
        }
        let bytes = if written == 0 && length >= LARGE {
            let mut full = std::mem::replace(buffer, vec![0; READ]);
            full.truncate(length);
            Bytes::from(full)
        } else {
            Bytes::copy_from_slice(&buffer[written..length])
        };
        (Rest::Item(Item::Data(Chunk { bytes, at: now })), length)
    }
}

/// Where a peer is reached by loopback, there is no network to be careful of: a congestion control that paces what it sends
/// (`bbr`, where that is the host's choice) would only take time. Reno is in every kernel and everybody may ask for it.
pub fn unpace(socket: &OwnedFd, peer: IpAddr) {
    if peer.to_canonical().is_loopback() {
        let _ = set_tcp_congestion(socket, "reno");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use rustix::net::sockopt::tcp_congestion;
    use rustix::net::{AddressFamily, SocketType, socket};

    use super::unpace;

    #[test]
    fn what_a_listener_on_loopback_accepts_is_not_paced_and_other_peers_are_left_as_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let listener = OwnedFd::from(listener);
        unpace(&listener, address.ip());
        let _client = TcpStream::connect(address).expect("it listens");
        let accepted = rustix::net::accept(&listener).expect("somebody has connected");
        assert_eq!(tcp_congestion(&accepted).expect("it is of TCP"), "reno");

        let other = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        let before = tcp_congestion(&other).expect("it is of TCP");
        unpace(&other, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(tcp_congestion(&other).expect("it is of TCP"), before);
        unpace(&other, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        assert_eq!(tcp_congestion(&other).expect("it is of TCP"), "reno");
    }
}
