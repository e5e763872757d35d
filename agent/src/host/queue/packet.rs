//! What an engine reads in a packet: where it goes, which connection it is of, where its payload begins.
//!
//! Source: RFC 791 and RFC 8200. Any bytes may come: what cannot be read is of no connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As much of a packet as [`Headers::of`] looks at, ordinary extension headers included.
pub const HEAD: usize = 128;

/// What the headers of an IP packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Where the network header ends: extension headers count as part of it.
    pub end: usize,
    /// Source and destination port where the transport has them and this is the first fragment, as they stand.
    ports: u32,
}

impl Headers {
    /// Reads them; `None` where these bytes are no IP packet.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Headers::v4(bytes),
            6 => Headers::v6(bytes),
            _ => None,
        }
    }

    fn v4(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..20)?;
        let end = usize::from(header[0] & 0x0f) * 4;
        if end < 20 {
            return None;
        }
        let address =
            |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
        let first_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
        let protocol = header[9];
        let ports = if first_fragment { ports(protocol, bytes, end) } else { 0 };
        Some(Headers { source: address(12), destination: address(16), protocol, end, ports })
    }

    fn v6(bytes: &[u8]) -> Option<Self> {
        const EXTENSIONS: [u8; 3] = [0, 43, 60]; // hop-by-hop options, routing, destination options
        const FRAGMENT: u8 = 44;
        let header = bytes.get(..40)?;
        let address = |at: usize| {
            let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen bytes of forty");
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let (mut protocol, mut end) = (header[6], 40);
        let mut first_fragment = true;
        while let Some(extension) = bytes.get(end..end + 8) {
            if EXTENSIONS.contains(&protocol) {
                end += (usize::from(extension[1]) + 1) * 8;
            } else if protocol == FRAGMENT {
                first_fragment = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 == 0;
                end += 8;
            } else {
                break;
            }
            protocol = extension[0];
        }
        let ports = if first_fragment { ports(protocol, bytes, end) } else { 0 };
        Some(Headers { source: address(8), destination: address(24), protocol, end, ports })
    }

    /// A number that packets of one connection and direction share. Others may share it, rarely.
    pub fn connection(&self) -> u64 {
        let words = |address: IpAddr| match address {
            IpAddr::V4(v4) => [u64::from(u32::from(v4)), 0],
            IpAddr::V6(v6) => {
                let all = u128::from(v6);
                [(all >> 64) as u64, all as u64]
            }
        };
        let [a, b] = words(self.source);
        let [c, d] = words(self.destination);
        [a, b, c, d, u64::from(self.ports) << 8 | u64::from(self.protocol)].into_iter().fold(
            0,
            |hash, word| {
                // The finaliser of SplitMix64: every bit of the input reaches every bit of the sum.
                let mut mixed = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            },
        )
    }

    /// Whether it is for one host only, as far as an address can tell.
    pub fn is_unicast(&self) -> bool {
        match self.destination {
            IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_multicast(),
        }
    }
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite begin with their two ports.
fn ports(protocol: u8, bytes: &[u8], at: usize) -> u32 {
    const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
    let ports = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_be_bytes);
    if WITH_PORTS.contains(&protocol) { ports } else { 0 }
}

#[cfg(test)]
mod tests;
