//! The other end of a flow, as a user writes it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::quantity::{QuantityError, as_text};

/// A peer: `db.internal:5432`, `10.0.0.7`, `10.0.0.0/8:443`, `[2001:db8::7]:443`, `any:8000-8100`.
///
/// Everything is written out: an empty text is an error, and "everything" is spelt `any`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Whose address.
    pub host: PeerHost,
    /// Which ports; `None` means all of them.
    pub ports: Option<Ports>,
}

/// The address part of a [`Peer`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerHost {
    /// Every address, IPv4 and IPv6.
    Any,
    /// One network in CIDR form; a single address has the full prefix length. Host bits are zero.
    Net(IpAddr, u8),
    /// A host name, resolved on the target host when the fault is prepared.
    Name(String),
}

/// An inclusive range of ports; one port has both ends equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The first port, at least 1.
    pub first: u16,
    /// The last port, at least `first`.
    pub last: u16,
}

const HELP: &str = "write an address, a network or a name, with or without a port: `10.0.0.7`, `10.0.0.0/8:443`, \
                    `db.internal:5432`, `[2001:db8::7]:443`, `any:8000-8100`";

impl PeerHost {
    /// One address.
    pub fn address(address: IpAddr) -> Self {
        PeerHost::Net(address, if address.is_ipv4() { 32 } else { 128 })
    }
}

/// The network address: all bits after the first `bits` are cleared.
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

impl FromStr for Ports {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ if text.is_empty() => Err(QuantityError::new(
                "a port is missing",
                "write one, as `443`, or a range, as `8000-8099`",
            )),
            _ => Err(QuantityError::new(format!("`{text}` is not a port"), "ports go from 1 to 65535")),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(QuantityError::new(
                format!("the port range `{text}` is reversed"),
                format!("write `{last}-{first}`"),
            ));
        }
        Ok(Ports { first, last })
    }
}

impl FromStr for PeerHost {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "any" {
            return Ok(PeerHost::Any);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let wrong = |what: String| QuantityError::new(what, HELP);
            let address: IpAddr =
                address.parse().map_err(|_| wrong(format!("`{address}` in `{text}` is not an address")))?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= most);
            let bits =
                bits.ok_or_else(|| wrong(format!("`{text}`: the prefix length goes from 0 to {most}")))?;
            if masked(address, bits) != address {
                return Err(QuantityError::new(
                    format!("`{text}` has host bits set"),
                    format!(
                        "did you mean the network `{}/{bits}` or the address `{address}`?",
                        masked(address, bits)
                    ),
                ));
            }
            return Ok(if bits == 0 { PeerHost::Net(address, 0) } else { PeerHost::Net(address, bits) });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(PeerHost::address(address));
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if name.len() > 253 || numeric || !name.split('.').all(label) {
            return Err(QuantityError::new(format!("`{text}` is neither an address nor a host name"), HELP));
        }
        Ok(PeerHost::Name(text.to_ascii_lowercase()))
    }
}

impl FromStr for Peer {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(QuantityError::new("an empty peer would match nothing", HELP));
        }
        let (host, ports) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| QuantityError::new(format!("`{text}` has no closing bracket"), HELP))?;
            match rest.strip_prefix(':') {
                Some(ports) => (host, Some(ports)),
                None if rest.is_empty() => (host, None),
                None => return Err(QuantityError::new(format!("`{text}` is not a peer"), HELP)),
            }
        } else if text.matches(':').count() > 1 {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, ports)| (host, Some(ports)))
        };
        Ok(Peer { host: host.parse()?, ports: ports.map(str::parse).transpose()? })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for PeerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerHost::Any => f.write_str("any"),
            PeerHost::Net(address, bits) if *bits == if address.is_ipv4() { 32 } else { 128 } => {
                write!(f, "{address}")
            }
            PeerHost::Net(address, bits) => write!(f, "{address}/{bits}"),
            PeerHost::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.ports) {
            (host, None) => write!(f, "{host}"),
            (host @ PeerHost::Net(IpAddr::V6(_), _), Some(ports)) => write!(f, "[{host}]:{ports}"),
            (host, Some(ports)) => write!(f, "{host}:{ports}"),
        }
    }
}

as_text!(Peer, "peer", "string", ["db.internal:5432", "10.0.0.0/8", "[2001:db8::7]:443", "any:8000-8100"]);
as_text!(Ports, "ports", ["string", "integer"], ["8080", "8000-8100"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_read_and_print() {
        for text in [
            "any",
            "any:80",
            "10.0.0.7",
            "10.0.0.7:443",
            "10.0.0.0/8",
            "10.0.0.0/8:8000-8100",
            "2001:db8::7",
            "[2001:db8::7]:443",
            "[2001:db8::/32]:1-2",
            "::1",
            "db.internal:5432",
            "db",
        ] {
            let peer: Peer = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(peer.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_peer_is_an_error_and_never_everything() {
        for text in [
            "",
            "*",
            ":80",
            "10.0.0.256",
            "10.0.0.1/33",
            "10.0.0.1/8",
            "db:0",
            "db:70000",
            "db:9-3",
            "db:",
            "[::1",
            "[::1]80",
            "a b",
            "-x",
            "1.2.3",
            "10.0.0.0/",
        ] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }
}
