//! Packets that the engine sends itself: what it has taken on its way out, and second copies.
//!
//! Source: raw(7), ipv6(7). A socket of protocol `IPPROTO_RAW` takes whole packets; the kernel fills in the IPv4 header's
//! length and checksum and changes nothing else.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    sendmsg, setsockopt, socket, sockopt,
};

use super::super::nft::Hook;
use super::fragment;
use super::packet::Headers;

/// What a raw socket may hold on its way to the device.
const BUFFER: usize = 16 << 20;
/// Interfaces and addresses that are remembered.
const KNOWN: usize = 64;
/// The loopback interface, which is always the first.
const LOOPBACK: u32 = 1;

/// A packet as it is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// From the network header on.
    pub bytes: &'a [u8],
    /// Its mark.
    pub mark: u32,
    /// The interface it was about to leave by, or came by; 0 for none.
    pub device: u32,
}

/// What became of an [`Outgoing`] packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has it.
    Yes,
    /// Not now: the device is not as fast as we are.
    Later,
    /// Never: why.
    No(Errno),
}

/// The raw sockets of an engine, for both families.
#[derive(Debug)]
pub struct Raw {
    hook: Hook,
    v4: Result<Socket, Errno>,
    v6: Result<Socket, Errno>,
    /// Addresses to which inbound copies were to be sent, and whether they are this host's.
    known: Vec<(IpAddr, bool)>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    mark: u32,
}

impl Socket {
    fn open(family: AddressFamily) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER).is_err() {
            // Smaller, then: a full buffer only delays.
            let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
        }
        setsockopt(&fd, sockopt::Mark, &0)?;
        Ok(Socket { fd, mark: 0 })
    }

    fn set_mark(&mut self, mark: u32) -> Result<(), Errno> {
        if self.mark != mark {
            setsockopt(&self.fd, sockopt::Mark, &mark)?;
            self.mark = mark;
        }
        Ok(())
    }
}

impl Raw {
    /// Opens the sockets, in the network namespace of the calling thread. A family that the host lacks is no failure.
    pub fn open(hook: Hook) -> Result<Self, Errno> {
        let v4 = Socket::open(AddressFamily::Inet);
        let v6 = Socket::open(AddressFamily::Inet6);
        if let (Err(errno), Err(_)) = (&v4, &v6) {
            return Err(*errno);
        }
        if let (Ok(v4), Hook::Output) = (&v4, hook) {
            setsockopt(&v4.fd, sockopt::Broadcast, &true)?;
        }
        Ok(Raw { hook, v4, v6, known: Vec::new() })
    }

    /// Whether a second copy of a packet can be sent to where the first one goes. Inbound, it can where that is an
    /// address of this host: any other would take the copy out again, to somebody else.
    pub fn can_copy(&mut self, headers: &Headers) -> bool {
        if self.hook == Hook::Output {
            return true;
        }
        let address = headers.destination;
        if !headers.is_unicast() {
            return false;
        }
        if let Some((_, local)) = self.known.iter().find(|(known, _)| *known == address) {
            return *local;
        }
        let local = is_local(address);
        if self.known.len() == KNOWN {
            self.known.remove(0);
        }
        self.known.push((address, local));
        local
    }

    /// Sends a packet. One that is longer than its way is sent in fragments.
    pub fn send(&mut self, packet: Outgoing<'_>) -> Sent {
        let Some(headers) = Headers::of(packet.bytes) else {
            return Sent::No(Errno::EINVAL);
        };
        match self.send_whole(&packet, &headers) {
            Err(Errno::EMSGSIZE) => self.send_fragments(packet, &headers),
            result => outcome(result),
        }
    }

    fn send_fragments(&mut self, packet: Outgoing<'_>, headers: &Headers) -> Sent {
        let fragments = fragment::split(packet.bytes, headers);
        if fragments.is_empty() {
            return Sent::No(Errno::EMSGSIZE);
        }
        for bytes in &fragments {
            match outcome(self.send_whole(&Outgoing { bytes, ..packet }, headers)) {
                Sent::Yes => {}
                // The fragments before this one are on their way and the rest would come twice: a lost datagram.
                Sent::Later => return Sent::No(Errno::EAGAIN),
                no => return no,
            }
        }
        Sent::Yes
    }

    fn send_whole(&mut self, packet: &Outgoing<'_>, headers: &Headers) -> Result<(), Errno> {
        // An address of this host is on no device but the loopback's, and a copy comes in by it.
        let outbound = self.hook == Hook::Output && packet.device != LOOPBACK;
        let device = if outbound { packet.device } else { 0 };
        match self.send_by(packet, headers, outbound, device) {
            // The interface or the address has gone meanwhile.
            Err(Errno::EINVAL | Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL) if outbound => {
                self.send_by(packet, headers, false, 0)
            }
            result => result,
        }
    }

    /// `pinned`: by the same interface and, for rules that route by it, from the same address as the packet itself.
    fn send_by(
        &mut self,
        packet: &Outgoing<'_>,
        headers: &Headers,
        pinned: bool,
        device: u32,
    ) -> Result<(), Errno> {
        let iov = [IoSlice::new(packet.bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        match (headers.source, headers.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let socket = self.v4.as_mut().map_err(|errno| *errno)?;
                socket.set_mark(packet.mark)?;
                let info = libc::in_pktinfo {
                    ipi_ifindex: device.cast_signed(),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let with = [ControlMessage::Ipv4PacketInfo(&info)];
                let with = if pinned { &with[..] } else { &[] };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                sendmsg(socket.fd.as_raw_fd(), &iov, with, flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let socket = self.v6.as_mut().map_err(|errno| *errno)?;
                socket.set_mark(packet.mark)?;
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: device,
                };
                let with = [ControlMessage::Ipv6PacketInfo(&info)];
                let with = if pinned { &with[..] } else { &[] };
                // Only heeded for addresses that are ambiguous without it.
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, packet.device));
                sendmsg(socket.fd.as_raw_fd(), &iov, with, flags, Some(&to))?;
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

fn outcome(result: Result<(), Errno>) -> Sent {
    match result {
        Ok(()) => Sent::Yes,
        Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => Sent::Later,
        Err(errno) => Sent::No(errno),
    }
}

/// Whether an address is this host's: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    match address {
        // A link-local address cannot be bound without its interface, and no router would take the copy further.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
        _ => UdpSocket::bind((address, 0)).is_ok(),
    }
}
