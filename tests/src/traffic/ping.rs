//! ICMP echo: a kernel answers, no program.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketType, connect, ipproto, recv, send, socket};

use crate::client::Talk;
use crate::netns::Netns;

/// Echo requests to one address, from a raw socket inside a namespace.
#[derive(Debug)]
pub struct Ping {
    socket: OwnedFd,
    v6: bool,
    id: [u8; 2],
    sent: u16,
    timeout: Duration,
}

impl Ping {
    /// Opens the socket.
    pub fn to(from: &Netns, address: IpAddr, timeout: Duration) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let (family, protocol) =
            if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
        let socket = from.inside(|| -> io::Result<OwnedFd> {
            let socket = socket(family, SocketType::RAW, Some(protocol))?;
            connect(&socket, &SocketAddr::new(address, 0))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
            Ok(socket)
        })?;
        // Other sockets of the namespace see the same answers: the id tells them apart.
        use std::os::fd::AsRawFd;
        let [.., high, low] = socket.as_raw_fd().to_be_bytes();
        Ok(Ping { socket, v6, id: [high, low], sent: 0, timeout })
    }
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

impl Talk for Ping {
    fn talk(&mut self) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let (request, answer) = if self.v6 { (128, 129) } else { (8, 0) };
        let mut message = [0; 64];
        message[0] = request;
        message[4..6].copy_from_slice(&self.id);
        message[6..8].copy_from_slice(&self.sent.to_be_bytes());
        if !self.v6 {
            // For ICMPv6 the kernel does this itself (RFC 3542, section 3.1).
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        send(&self.socket, &message, rustix::net::SendFlags::empty())?;
        let begun = Instant::now();
        let mut buffer = [0; 2048];
        while begun.elapsed() < self.timeout {
            let (length, _) = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                // A call with a time-out is not begun again by itself, such as after the machine was frozen.
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            // Over IPv4 a raw socket also gets the network header.
            let header = if self.v6 { 0 } else { usize::from(buffer[0] & 0xf) * 4 };
            let Some(heard) = buffer[..length].get(header..header + 8) else { continue };
            if heard[0] == answer && heard[4..6] == self.id && heard[6..8] == self.sent.to_be_bytes() {
                return Ok(());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
