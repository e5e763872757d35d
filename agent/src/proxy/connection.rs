//! A connection of a client, the one made for it to the dependency, and the two links between them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect, recv, send, shutdown,
    socket_with,
};

use super::dependency::Dependency;
use super::link::{Change, Link, Place};
use super::queue::{Chunk, Ending, Item};
use super::toxic::{Stream, Toxic};

/// The most that one read takes, in bytes.
pub const READ: usize = 64 << 10;
/// A chunk of at least this size keeps the buffer that it was read into.
const LARGE: usize = READ / 4;
/// What one direction may move before others have their turn, in bytes.
const TURN: usize = 1 << 20;

/// What a link may always hold, in bytes.
const MUCH: usize = 1 << 20;

/// Which of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to the proxy.
    Client = 0,
    /// Whom the proxy connected to.
    Server = 1,
}

/// One peer's socket, and what is known of it: nothing is asked twice (the poll is edge-triggered).
#[derive(Default)]
struct Peer {
    socket: Option<OwnedFd>,
    readable: bool,
    writable: bool,
    /// The kernel has announced an end: read until it is there.
    ending: bool,
    /// Nothing more comes.
    silent: bool,
    /// Nothing more can be sent.
    deaf: bool,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It ended.
    Closed,
    /// Both peers see a reset.
    Reset,
}

/// What is left to do for one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// Others have had to wait: go on soon.
    pub more: bool,
    /// Go on at this time.
    pub next: Option<u64>,
    /// The other direction has to be looked at.
    pub other: bool,
}

/// A proxied connection.
pub struct Connection {
    /// Whose it is.
    pub dependency: Arc<Dependency>,
    /// The earliest time for which each direction is in the shard's heap.
    pub armed: [u64; 2],
    /// Addresses of the dependency that were not tried yet, the next one last.
    pub untried: Vec<SocketAddr>,
    /// What of its bytes the shard has counted as held.
    pub counted: usize,
    number: u64,
    connected: bool,
    harmed: bool,
    peers: [Peer; 2],
    links: [Link; 2],
}

impl Connection {
    /// For a client that has just connected.
    pub fn new(dependency: Arc<Dependency>, client: OwnedFd, toxics: &[Arc<Toxic>]) -> Self {
        let number = dependency.number();
        dependency.counters.open.fetch_add(1, Ordering::Relaxed);
        // Answers of two writes would wait for each other's acknowledgement otherwise (RFC 896, RFC 1122 4.2.3.2).
        let _ = set_tcp_nodelay(&client, true);
        let links = [Stream::Upstream, Stream::Downstream]
            .map(|stream| Link::new(toxics.iter(), place(&dependency, number, stream)));
        Connection {
            dependency,
            armed: [u64::MAX; 2],
            untried: Vec::new(),
            counted: 0,
            number,
            connected: false,
            harmed: false,
            peers: [Peer { socket: Some(client), ..Peer::default() }, Peer::default()],
            links,
        }
    }

    /// The socket of a side, if there is one yet.
    pub fn socket(&self, side: Side) -> Option<&OwnedFd> {
        self.peers[side as usize].socket.as_ref()
    }

    /// Whether the dependency has answered the connection.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Begins a connection to the next address that was not tried; `None` where none is left.
    pub fn dial(&mut self) -> Option<io::Result<()>> {
        let address = self.untried.pop()?;
        Some(self.begin(address).map_err(Into::into))
    }

    fn begin(&mut self, address: SocketAddr) -> Result<(), Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        let _ = set_tcp_nodelay(&socket, true);
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.peers[Side::Server as usize] = Peer { socket: Some(socket), ..Peer::default() };
        Ok(())
    }

    /// What the kernel says of a socket. An error means that the dependency did not answer the connection.
    pub fn event(&mut self, side: Side, readable: bool, writable: bool, ending: bool) -> io::Result<()> {
        let peer = &mut self.peers[side as usize];
        peer.readable |= readable || ending;
        peer.writable |= writable;
        peer.ending |= ending;
        if side == Side::Server
            && !self.connected
            && (writable || ending)
            && let Some(socket) = &peer.socket
        {
            socket_error(socket)??;
            self.connected = true;
        }
        Ok(())
    }

    /// Applies a change of toxics to both directions.
    pub fn change(&mut self, change: &Change) {
        for (link, stream) in self.links.iter_mut().zip([Stream::Upstream, Stream::Downstream]) {
            link.change(change, place(&self.dependency, self.number, stream));
        }
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.links.iter().map(Link::held).sum()
    }

    /// Moves bytes of one direction as far as they may go now. `buffer` is [`READ`] long, before and after; where memory
    /// is tight, a link that holds much takes no more.
    ///
    /// # Errors
    /// The connection is over.
    pub fn pump(
        &mut self,
        stream: Stream,
        now: u64,
        buffer: &mut Vec<u8>,
        tight: bool,
    ) -> Result<Left, Over> {
        let [client, server] = &mut self.peers;
        let (source, sink) = match stream {
            Stream::Upstream => (client, server),
            Stream::Downstream => (server, client),
        };
        let link = &mut self.links[stream as usize];
        let counted = self.dependency.counters.of(stream);
        let mut left = Left::default();
        let mut turn = 0;
        loop {
            let outcome = if link.is_bare() { Default::default() } else { link.run(now) };
            if link.worked() && !std::mem::replace(&mut self.harmed, true) {
                self.dependency.counters.harmed.fetch_add(1, Ordering::Relaxed);
            }
            if outcome.reset {
                self.dependency.counters.reset.fetch_add(1, Ordering::Relaxed);
                return Err(Over::Reset);
            }
            left.next = outcome.next;
            let mut moved = 0;
            // What is ready to be written.
            while !sink.deaf
                && sink.writable
                && let Some(item) = link.ready()
            {
                match item {
                    Item::Data(chunk) => {
                        let length = chunk.bytes.len();
                        let written = sink.send(&chunk.bytes);
                        counted.sent.fetch_add(written as u64, Ordering::Relaxed);
                        if written > 0 {
                            link.written(written);
                        }
                        moved += written;
                        if written < length {
                            break;
                        }
                    }
                    Item::End(Ending::Finished) => {
                        if let Some(socket) = &sink.socket {
                            let _ = shutdown(socket, Shutdown::Write);
                        }
                        sink.deaf = true;
                        link.ended();
                    }
                    Item::End(Ending::Closed) => return Err(Over::Closed),
                    Item::End(Ending::Reset) => return Err(Over::Reset),
                }
            }
            // What can be read, if there is a place for it.
            let takes = link.takes(now) && !(tight && link.held() > MUCH);
            if self.connected && source.readable && !source.silent && !sink.deaf && takes {
                let (item, length) =
                    source.receive(now, buffer, link.is_bare().then_some(&mut *sink), counted);
                moved += length;
                if let Some(item) = item {
                    moved += 1;
                    link.offer(item);
                }
            }
            if sink.deaf {
                link.discard();
                left.other = true;
            }
            turn += moved;
            if moved == 0 {
                break;
            }
            if turn >= TURN {
                left.more = true;
                break;
            }
        }
        let [client, server] = &self.peers;
        // What a toxic still waits for is part of the connection, also when it has no bytes.
        let waits =
            left.next.is_some() || self.armed != [u64::MAX; 2] || !self.links.iter().all(Link::is_empty);
        if (client.deaf && server.deaf) || (client.silent && server.silent && !waits) {
            return Err(Over::Closed);
        }
        Ok(left)
    }

    /// Lets both peers see a reset when the sockets are closed.
    pub fn abort(&self) {
        for socket in self.peers.iter().filter_map(|peer| peer.socket.as_ref()) {
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dependency.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn place(dependency: &Dependency, number: u64, stream: Stream) -> Place<'_> {
    Place { seed: dependency.seed, proxy: &dependency.name, number, stream }
}

impl Peer {
    /// Writes what fits; what the socket no longer takes at all makes it deaf.
    fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = &self.socket else { return 0 };
        loop {
            match send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(written) => {
                    // The kernel tells of new room after a write that was cut short (`SOCK_NOSPACE`, net/ipv4/tcp.c).
                    self.writable = written == bytes.len();
                    return written;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return 0;
                }
                Err(_) => {
                    // What it sent before it went away can still be read.
                    (self.deaf, self.readable, self.ending) = (true, true, true);
                    return 0;
                }
            }
        }
    }

    /// Reads once. Where nothing stands between, what was read is written at once, and only what is left comes back.
    /// Also says how many bytes were read.
    fn receive(
        &mut self,
        now: u64,
        buffer: &mut Vec<u8>,
        sink: Option<&mut Peer>,
        counted: &super::dependency::Bytes,
    ) -> (Option<Item>, usize) {
        let Some(socket) = &self.socket else { return (None, 0) };
        let length = loop {
            match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return (None, 0);
                }
                Err(_) => {
                    (self.silent, self.deaf) = (true, true);
                    return (Some(Item::End(Ending::Reset)), 0);
                }
            }
        };
        if length == 0 {
            self.silent = true;
            return (Some(Item::End(Ending::Finished)), 0);
        }
        counted.received.fetch_add(length as u64, Ordering::Relaxed);
        // Less than was asked for: the socket is empty, and the kernel will tell of more.
        self.readable = length == buffer.len() || self.ending;
        let written = match sink {
            Some(sink) if sink.writable => sink.send(&buffer[..length]),
            _ => 0,
        };
        counted.sent.fetch_add(written as u64, Ordering::Relaxed);
        if written == length {
            return (None, length);
        }
        let bytes = if written == 0 && length >= LARGE {
            let mut full = std::mem::replace(buffer, vec![0; READ]);
            full.truncate(length);
            Bytes::from(full)
        } else {
            Bytes::copy_from_slice(&buffer[written..length])
        };
        (Some(Item::Data(Chunk { bytes, at: now })), length)
    }
}
