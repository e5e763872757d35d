//! Where the probes of a controller may send requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use squall_experiments::peer::{Peer, PeerHost, masked};
use squall_experiments::quantity::Rate;

/// What the probes of a controller are bound to, whoever asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Probes {
    /// What they may reach: networks, addresses and ports; never names, which their owner may point anywhere.
    pub allow: Vec<Peer>,
    /// What they may not reach all the same. By default where clouds hand out a machine's own credentials.
    pub deny: Vec<Peer>,
    /// The highest rate of one load; none at all without it.
    pub load: Option<Rate>,
}

/// Link-local addresses, and those outside of them, at which clouds tell a machine who it is and what it may.
const METADATA: [&str; 4] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200"];

/// See [`Probes::load`]: enough to see how a service does, and little against a service that does well.
const MODERATE: &str = "1000/s";

impl Default for Probes {
    fn default() -> Self {
        let deny = METADATA.iter().filter_map(|text| text.parse().ok()).collect();
        Probes { allow: vec![Peer { host: PeerHost::Any, ports: None }], deny, load: MODERATE.parse().ok() }
    }
}

impl Probes {
    /// The first of the entries that says nothing about addresses.
    pub(super) fn named(&self) -> Option<&Peer> {
        self.allow.iter().chain(&self.deny).find(|peer| matches!(peer.host, PeerHost::Name(_)))
    }

    /// Whether a load may be sent at this rate.
    pub fn permits_load(&self, rate: Rate) -> bool {
        let minute = Duration::from_secs(60);
        self.load.is_none_or(|most| rate.within(minute) <= most.within(minute))
    }

    /// Whether a request may go there. An IPv6 address that carries one of IPv4 is looked at as both.
    pub fn permits(&self, to: SocketAddr) -> bool {
        let every = [Some(to.ip()), carried(to.ip()).map(IpAddr::V4)];
        every.into_iter().flatten().all(|address| {
            let named = |peers: &[Peer]| peers.iter().any(|peer| covers(peer, address, to.port()));
            named(&self.allow) && !named(&self.deny)
        })
    }
}

fn covers(peer: &Peer, address: IpAddr, port: u16) -> bool {
    let ports = peer.ports.is_none_or(|ports| (ports.first..=ports.last).contains(&port));
    ports
        && match &peer.host {
            PeerHost::Any => true,
            PeerHost::Net(net, bits) => {
                net.is_ipv4() == address.is_ipv4() && masked(address, *bits) == masked(*net, *bits)
            }
            PeerHost::Name(_) => false,
        }
}

/// The IPv4 address that packets to this one end at: mapped (RFC 4291), translated (RFC 6052), or tunnelled (RFC 3056).
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let octets = v6.octets();
    let at = |from: usize| {
        let bytes: [u8; 4] = octets.get(from..from + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(text: &str) -> Probes {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_machines_credentials_are_out_of_reach_by_whatever_address() {
        let usual = Probes::default();
        assert_eq!(usual.deny.len(), METADATA.len());
        for to in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[2002:a9fe:a9fe::1]:80",
            "169.254.170.2:80",
            "[fd00:ec2::254]:80",
            "[fe80::a9fe:a9fe]:80",
            "100.100.100.200:80",
        ] {
            assert!(!usual.permits(to.parse().unwrap()), "{to}");
        }
        for to in ["127.0.0.1:8080", "[::1]:8080", "10.0.0.7:5432", "[2001:db8::1]:443", "100.100.100.201:80"]
        {
            assert!(usual.permits(to.parse().unwrap()), "{to}");
        }
        // What the owner writes stands alone.
        assert!(probes(r#"{"deny": []}"#).permits("169.254.169.254:80".parse().unwrap()));
    }

    #[test]
    fn only_what_is_allowed_is_reached_and_nothing_of_it_that_is_denied() {
        let few =
            probes(r#"{"allow": ["10.0.0.0/8:8000-8100", "[2001:db8::/32]:443"], "deny": ["10.9.0.0/16"]}"#);
        for (to, may) in [
            ("10.1.0.1:8080", true),
            ("10.1.0.1:22", false),
            ("10.9.0.1:8080", false),
            ("11.0.0.1:8080", false),
            ("[::ffff:10.1.0.1]:8080", false),
            ("[2001:db8::7]:443", true),
            ("[2001:db9::7]:443", false),
        ] {
            assert_eq!(few.permits(to.parse().unwrap()), may, "{to}");
        }
        let slow = probes(r#"{"load": "50/s"}"#);
        assert!(slow.permits_load("3000/m".parse().unwrap()) && !slow.permits_load("51/s".parse().unwrap()));
        assert!(!Probes::default().permits_load("1001/s".parse().unwrap()));
        assert!(probes(r#"{"load": null}"#).permits_load("20000/s".parse().unwrap()));
        assert!(!probes(r#"{"allow": []}"#).permits("10.1.0.1:8080".parse().unwrap()));
        assert!(probes(r#"{"allow": ["db.internal:5432"]}"#).named().is_some());
        assert!(serde_json::from_str::<Probes>(r#"{"alow": []}"#).is_err());
    }
}
