//! A connection of a client, the one made for it to the dependency, and the two links between them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay, socket_error};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, connect, getsockname, shutdown, socket_with,
};
use tokio::sync::watch;

use super::dependency::Dependency;
use super::gate::Gate;
use super::http::{Handed, Seen};
use super::link::{Change, Link, Place};
use super::observations::Record;
use super::observed::Observed;
use super::peer::{Peer, Rest, Scratch, unpace};
use super::pipe::Waiting;
use super::queue::{Ending, Item};
use super::toxic::{Stream, Toxic};
use crate::host::queue::pace::now;

/// What one direction may move before others have their turn, in bytes.
const TURN: usize = 1 << 20;

/// What a link may always hold, in bytes.
const MUCH: usize = 1 << 20;

/// The kernel tells of an end.
pub const ENDING: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// Which of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to the proxy.
    Client = 0,
    /// Whom the proxy connected to.
    Server = 1,
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
    /// What is to be decided before the dependency is connected to.
    pub gate: Option<Box<Gate>>,
    /// What is noted of it.
    pub observed: Observed,
    number: u64,
    client: IpAddr,
    connected: bool,
    harmed: bool,
    peers: [Peer; 2],
    links: [Link; 2],
    /// What has passed each link and waits in a pipe for room in the socket it goes to.
    waiting: [Option<Waiting>; 2],
    /// Closed, it ends what was handed over.
    alive: Option<watch::Sender<()>>,
    /// What was seen there.
    seen: Seen,
}

impl Connection {
    /// For a client that has just connected.
    pub fn new(
        dependency: Arc<Dependency>,
        (client, from): (OwnedFd, SocketAddr),
        toxics: &[Arc<Toxic>],
        now: u64,
    ) -> Self {
        let number = dependency.number();
        let open = dependency.counters.open.fetch_add(1, Ordering::Relaxed) + 1;
        let address = from.ip();
        let mut observed = Observed::new(from, open, now);
        if let Some(callers) = dependency.observations.callers() {
            observed.caller = callers.ask(from, local(&client).unwrap_or(dependency.listen));
        }
        // Answers of two writes would wait for each other's acknowledgement otherwise (RFC 896, RFC 1122 4.2.3.2).
        let _ = set_tcp_nodelay(&client, true);
        // Where the listener has that address, too, its connections have it from there.
        if !dependency.listen.ip().is_loopback() {
            unpace(&client, address);
        }
        let place = |stream| Place {
            seed: dependency.seed,
            proxy: &dependency.name,
            number,
            stream,
            client: address,
            fresh: true,
        };
        let gate = Gate::new(toxics.iter(), place(Stream::Upstream), now);
        let links =
            [Stream::Upstream, Stream::Downstream].map(|stream| Link::new(toxics.iter(), place(stream)));
        Connection {
            dependency,
            armed: [u64::MAX; 2],
            untried: Vec::new(),
            counted: 0,
            gate,
            observed,
            number,
            client: address,
            connected: false,
            harmed: false,
            peers: [Peer { socket: Some(client), ..Peer::default() }, Peer::default()],
            links,
            waiting: [None, None],
            alive: None,
            seen: Seen::default(),
        }
    }

    /// Where requests are to be understood and the dependency has just answered: puts who understands them in its place,
    /// and gives what that one needs. The dependency's socket must no longer be watched.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn hand_over(&mut self) -> io::Result<Option<Handed>> {
        let (ours, near) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let server = Peer { socket: Some(ours.into()), ..Peer::default() };
        let far = std::mem::replace(&mut self.peers[Side::Server as usize], server);
        let Some(far) = far.socket else { return Ok(None) };
        let (sender, alive) = watch::channel(());
        self.alive = Some(sender);
        Ok(Some(Handed {
            dependency: self.dependency.clone(),
            number: self.number,
            client: self.observed.client(),
            caller: self.observed.caller.clone(),
            near,
            far,
            seen: self.seen.clone(),
            alive,
        }))
    }

    /// Whether it waits to be handed over.
    pub fn to_hand_over(&self) -> bool {
        self.dependency.is_understood() && self.connected && self.alive.is_none()
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
        unpace(&socket, address.ip());
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.peers[Side::Server as usize] = Peer { socket: Some(socket), ..Peer::default() };
        Ok(())
    }

    /// What the kernel says of a socket; whether there is room in it now that was not there before. An error means that the
    /// dependency did not answer the connection.
    pub fn event(&mut self, side: Side, flags: EventFlags, now: u64) -> io::Result<bool> {
        let ending = flags.intersects(ENDING);
        let (readable, writable) = (flags.contains(EventFlags::IN), flags.contains(EventFlags::OUT));
        let peer = &mut self.peers[side as usize];
        peer.readable |= readable || ending;
        let room = writable && !peer.writable;
        peer.writable |= writable;
        peer.ending |= ending;
        if side == Side::Server
            && !self.connected
            && (writable || ending)
            && let Some(socket) = &peer.socket
        {
            socket_error(socket)??;
            self.connected = true;
            self.observed.connected(now);
        }
        if ending {
            self.observed.ended(side, now, flags.contains(EventFlags::ERR));
        }
        Ok(room)
    }

    /// Applies a change of toxics to both directions.
    pub fn change(&mut self, change: &Change) {
        let place = |stream| Place {
            seed: self.dependency.seed,
            proxy: &self.dependency.name,
            number: self.number,
            stream,
            client: self.client,
            fresh: false,
        };
        for (link, stream) in self.links.iter_mut().zip([Stream::Upstream, Stream::Downstream]) {
            link.change(change, place(stream));
        }
        if let Some(gate) = &mut self.gate {
            gate.change(change, place(Stream::Upstream));
        }
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        let waiting = self.waiting.iter().flatten().map(Waiting::left).sum::<usize>();
        self.links.iter().map(Link::held).sum::<usize>() + waiting
    }

    /// Moves bytes of one direction as far as they may go now. Where memory is tight, a link that holds much takes no
    /// more.
    ///
    /// # Errors
    /// The connection is over.
    pub fn pump(
        &mut self,
        stream: Stream,
        now: u64,
        scratch: &mut Scratch,
        tight: bool,
    ) -> Result<Left, Over> {
        let [client, server] = &mut self.peers;
        let (source, sink) = match stream {
            Stream::Upstream => (client, server),
            Stream::Downstream => (server, client),
        };
        let link = &mut self.links[stream as usize];
        let waiting = &mut self.waiting[stream as usize];
        if self.alive.is_some() && self.seen.is_foreign() {
            link.turn_foreign();
        }
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
                self.observed.ended_by_proxy("fault");
                return Err(Over::Reset);
            }
            left.next = outcome.next;
            let mut moved = 0;
            // What is ready to be written.
            if sink.writable
                && !sink.deaf
                && let Some(mut rest) = waiting.take()
            {
                let went = sink.go_on(&mut rest);
                counted.sent(went);
                moved += went;
                if rest.left() > 0 {
                    *waiting = Some(rest);
                } else {
                    scratch.pipes.give_back(rest);
                }
            }
            while !sink.deaf
                && sink.writable
                && waiting.is_none()
                && let Some(item) = link.ready()
            {
                match item {
                    Item::Data(chunk) => {
                        let length = chunk.bytes.len();
                        let written = sink.send(&chunk.bytes);
                        counted.sent(written);
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
                    Item::End(Ending::Closed) => {
                        self.observed.ended_by_proxy("fault");
                        return Err(Over::Closed);
                    }
                    Item::End(Ending::Reset) => return Err(Over::Reset),
                }
            }
            // What can be read, if there is a place for it.
            let bare = link.is_bare();
            // What stands between reads and writes itself; another's bytes need not be seen, nor taken before there is room.
            let unseen = bare && source.bulky && self.alive.is_none();
            let takes = link.takes(now) && !(tight && link.held() > MUCH);
            let takes = takes && !(bare && waiting.is_some()) && (!unseen || sink.writable);
            if self.connected && source.readable && !source.silent && !sink.deaf && takes {
                let (rest, length) = if unseen {
                    source.pass(now, scratch, sink, counted)
                } else {
                    source.receive(now, scratch, bare.then_some(&mut *sink), counted)
                };
                moved += length;
                if length > 0 {
                    self.observed.data(stream, now, length);
                }
                if let Rest::Waiting(rest) = rest {
                    *waiting = Some(rest);
                } else if let Rest::Item(mut item) = rest {
                    moved += 1;
                    // Who reads requests can only end its side; why, it says beside that.
                    let by_dependency = stream == Stream::Downstream && item == Item::End(Ending::Finished);
                    if by_dependency && self.seen.is_reset() {
                        item = Item::End(Ending::Reset);
                        self.observed.ended(Side::Server, now, true);
                    }
                    link.offer(item);
                }
            }
            if sink.deaf {
                link.discard();
                *waiting = None;
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
        let waits = left.next.is_some()
            || self.armed != [u64::MAX; 2]
            || !self.links.iter().all(Link::is_empty)
            || self.waiting.iter().any(Option::is_some);
        if (client.deaf && server.deaf) || (client.silent && server.silent && !waits) {
            return Err(Over::Closed);
        }
        Ok(left)
    }

    /// Lets both peers see a reset when the sockets are closed.
    pub fn abort(&self) {
        // Where somebody stands between, the dependency's socket is there.
        self.seen.abort();
        for socket in self.peers.iter().filter_map(|peer| peer.socket.as_ref()) {
            let _ = set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.dependency.observations.on() {
            let worked = self.links.iter().flat_map(Link::worked_names).map(str::to_owned);
            self.observed.faults(worked);
            self.observed.faults(self.seen.faults());
            let record = self.observed.record(&self.dependency.name, self.number, now());
            let caller = std::mem::take(&mut self.observed.caller);
            self.dependency.observations.push(Record::Connection(record), caller);
        }
        // Where none is open, all have been noted.
        self.dependency.counters.open.fetch_sub(1, Ordering::Release);
    }
}

/// The address of this host that a client has connected to.
fn local(socket: &OwnedFd) -> Option<SocketAddr> {
    getsockname(socket).ok().and_then(|address| SocketAddr::try_from(address).ok())
}
