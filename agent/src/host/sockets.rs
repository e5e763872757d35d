//! The sockets of this network namespace, as the kernel lists them, and their end.
//!
//! Source: `include/uapi/linux/inet_diag.h`, `net/ipv4/inet_diag.c`. Destroying needs `CONFIG_INET_DIAG_DESTROY`.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Message, NetlinkError, Socket, find, u32_at};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// The states in which a connection has two ends: all but time-wait, closed, listening and new-syn-recv.
const CONNECTED: u32 = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11);

/// What else the kernel may tell of a socket: `INET_DIAG_INFO`, as a bit.
const TCP_INFO: u8 = 1 << 1;
/// Where `struct tcp_info` holds the smoothed round-trip time and the count of segments that were sent again.
const RTT_AT: usize = 68;
const SENT_AGAIN_AT: usize = 100;

/// A transport that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// TCP or UDP.
    pub transport: Transport,
    /// `AF_INET` or `AF_INET6`, as the kernel numbers them.
    pub family: u8,
    /// The TCP state, as the kernel numbers them.
    pub state: u8,
    /// The local end; IPv4-mapped addresses are shown as IPv4.
    pub local: (IpAddr, u16),
    /// The remote end.
    pub remote: (IpAddr, u16),
    /// Who made it.
    pub uid: u32,
    /// Its inode, by which the descriptors in `/proc` name it; 0 when no process holds it.
    pub inode: u32,
    /// Its mark; 0 where the kernel does not show it.
    pub mark: u32,
    /// Whether the kernel shows it: not to those without CAP_NET_ADMIN (`net/ipv4/inet_diag.c`).
    pub mark_shown: bool,
    /// The control group that it was created in; 0 where the kernel does not show it.
    pub cgroup: u64,
    /// The smoothed round-trip time of a TCP connection, in microseconds; 0 where the kernel knows none.
    pub rtt_us: u32,
    /// How many segments of a TCP connection have been sent again.
    pub sent_again: u32,
    identity: [u8; 48],
}

impl Listed {
    /// Waits for connections.
    pub fn listens(&self) -> bool {
        match self.transport {
            Transport::Tcp => self.state == LISTEN,
            Transport::Udp => self.remote.1 == 0 && self.local.1 != 0,
        }
    }

    /// Whether both are the same socket, seen at different times: the kernel gives each a number of its own.
    pub fn is(&self, other: &Listed) -> bool {
        self.identity == other.identity
    }

    /// Has a connection that data can flow over.
    pub fn established(&self) -> bool {
        self.transport == Transport::Tcp && self.state == ESTABLISHED
    }
}

/// The socket diagnosis interface of one network namespace.
#[derive(Debug)]
pub struct Sockets {
    socket: Socket,
}

impl Sockets {
    /// Opens it in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Sockets { socket: Socket::open(SockProtocol::NetlinkSockDiag)? })
    }

    /// All TCP and UDP sockets in every state but time-wait, IPv4 and IPv6.
    pub fn all(&mut self) -> Result<Vec<Listed>, NetlinkError> {
        let mut sockets = self.list(Transport::Tcp, CONNECTED | (1 << LISTEN), 0)?;
        sockets.extend(self.list(Transport::Udp, u32::MAX, 0)?);
        Ok(sockets)
    }

    /// All TCP connections, not only fully established ones, with their round-trip times.
    pub fn connections(&mut self) -> Result<Vec<Listed>, NetlinkError> {
        self.list(Transport::Tcp, CONNECTED, TCP_INFO)
    }

    /// The TCP socket with these two ends; `None` where there is none in this network namespace.
    pub fn connection(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Listed>, NetlinkError> {
        let ends = [local, remote].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        let family = if ends[0].is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let mut request = vec![family as u8, Transport::Tcp as u8, 0, 0];
        request.extend(u32::MAX.to_ne_bytes());
        for end in ends {
            request.extend(end.port().to_be_bytes());
        }
        for end in ends {
            let mut address = [0; 16];
            match end.ip() {
                IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => address = v6.octets(),
            }
            request.extend(address);
        }
        // Any interface, and whatever number the kernel has given it (`INET_DIAG_NOCOOKIE`).
        request.extend([0; 4]);
        request.extend([0xff; 8]);
        let found = self.socket.get(Message::new(BY_FAMILY, 0).raw(&request))?;
        Ok(found.and_then(|received| parse(&received.body, Transport::Tcp)))
    }

    fn list(&mut self, transport: Transport, states: u32, details: u8) -> Result<Vec<Listed>, NetlinkError> {
        let mut sockets = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut request = vec![family, transport as u8, details, 0];
            request.extend(states.to_ne_bytes());
            request.extend([0; 48]);
            let listed = match self.socket.dump(&Message::new(BY_FAMILY, 0).raw(&request)) {
                // IPv6 may be compiled out; a transport's module may be missing.
                Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::EAFNOSUPPORT) => continue,
                listed => listed?,
            };
            sockets.extend(listed.iter().filter_map(|received| parse(&received.body, transport)));
        }
        Ok(sockets)
    }

    /// Ends a connection as if by an administrator: its owner gets `ECONNABORTED`, its peer a reset. `false`: it had
    /// ended by itself.
    pub fn destroy(&mut self, listed: &Listed) -> Result<bool, NetlinkError> {
        let mut request = vec![listed.family, listed.transport as u8, 0, 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(listed.identity);
        match self.socket.request(vec![Message::new(DESTROY, 0).raw(&request)]) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::ENOENT => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn parse(body: &[u8], transport: Transport) -> Option<Listed> {
    let family = *body.first()?;
    let identity: [u8; 48] = body.get(4..52)?.try_into().ok()?;
    let port = |at: usize| u16::from_be_bytes([identity[at], identity[at + 1]]);
    let address = |at: usize| {
        if family == libc::AF_INET as u8 {
            let octets: [u8; 4] = identity[at..at + 4].try_into().expect("four bytes");
            IpAddr::from(octets)
        } else {
            let octets: [u8; 16] = identity[at..at + 16].try_into().expect("sixteen bytes");
            IpAddr::from(octets).to_canonical()
        }
    };
    let attributes = body.get(72..).unwrap_or_default();
    let info = |at: usize| {
        let known = find(attributes, 2).filter(|info| info.len() >= at + 4);
        known.map_or(0, |info| u32_at(info, at))
    };
    Some(Listed {
        transport,
        family,
        state: body[1],
        local: (address(4), port(0)),
        remote: (address(20), port(2)),
        uid: u32_at(body, 64),
        inode: u32_at(body, 68),
        mark: find(attributes, 15).map_or(0, |value| u32_at(value, 0)),
        mark_shown: find(attributes, 15).is_some(),
        cgroup: find(attributes, 21).and_then(|value| value.try_into().ok()).map_or(0, u64::from_ne_bytes),
        rtt_us: info(RTT_AT),
        sent_again: info(SENT_AGAIN_AT),
        identity,
    })
}
