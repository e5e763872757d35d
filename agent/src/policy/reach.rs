//! Where the probes of a controller may send requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::peer::{Peer, PeerHost, masked};
use squall_experiments::probe::LoadProbe;
use squall_experiments::quantity::Rate;

/// What the probes of a controller are bound to, whoever asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Probes {
    /// What they may reach: networks, addresses and ports; never names, which their owner may point anywhere.
    pub allow: Vec<Peer>,
    /// What they may not reach all the same. By default where clouds hand out a machine's own credentials.
    pub deny: Vec<Peer>,
    /// The highest rate of one load, both of its groups together.
    pub load: Option<Rate>,
}

/// Link-local addresses, and those outside of them, at which clouds tell a machine who it is and what it may: of AWS,
/// Google, Oracle and Alibaba, and the two ports of Azure's WireServer, which is a name server at another one.
const METADATA: [&str; 8] = [
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/32",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "100.100.100.200",
    "168.63.129.16:80",
    "168.63.129.16:32526",
];

/// See [`Probes::load`]: enough to see how a service does, and little against a service that does well.
const MODERATE: &str = "1000/s";

impl Default for Probes {
    fn default() -> Self {
        let deny = METADATA.iter().filter_map(|text| text.parse().ok()).collect();
        Probes { allow: vec![Peer { host: PeerHost::Any, ports: None }], deny, load: MODERATE.parse().ok() }
    }
}

impl Probes {
    /// Whether a load may be sent at its rate: with a control group, each request is sent twice.
    pub fn permits_load(&self, load: &LoadProbe) -> bool {
        let minute = Duration::from_secs(60);
        let groups = if load.control.is_some() { 2 } else { 1 };
        self.load.is_none_or(|most| load.rate.within(minute).saturating_mul(groups) <= most.within(minute))
    }

    /// Whether a request may go there. An IPv6 address that carries one of IPv4 is looked at as both; the address of
    /// nobody as this host's own, which is where it is connected to.
    pub fn permits(&self, to: SocketAddr) -> bool {
        let address = connected(to.ip());
        let carried: Vec<IpAddr> = carried(address).into_iter().map(|v4| connected(v4.into())).collect();
        let named = |peers: &[Peer], address| peers.iter().any(|peer| covers(peer, address, to.port()));
        let every = || std::iter::once(address).chain(carried.iter().copied());
        // Of several that it may carry nobody can say which one it is: none may be denied.
        let known = if carried.len() > 1 { 1 } else { 2 };
        every().take(known).all(|address| named(&self.allow, address))
            && !every().any(|address| named(&self.deny, address))
    }
}

/// The rate of a load in words, to each of its groups.
pub fn whole(load: &LoadProbe) -> String {
    let groups = if load.control.is_some() { " to each of two groups" } else { "" };
    format!("{}{groups}", load.rate)
}

/// Where a connection to an address goes: Linux takes the unspecified one for loopback (`net/ipv4/route.c` in
/// `ip_route_output_key_hash_rcu`, `net/ipv6/tcp_ipv6.c` in `tcp_v6_connect`).
fn connected(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
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
/// Several where its owner has chosen the length of the prefix (RFC 8215): one for each that RFC 6052 has in 2.2.
fn carried(address: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let octets = v6.octets();
    let of = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![of([12, 13, 14, 15])],
        // The octet in the middle is left out.
        [0x64, 0xff9b, 1, ..] => {
            [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]].map(of).to_vec()
        }
        [0x2002, ..] => vec![of([2, 3, 4, 5])],
        _ => Vec::new(),
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
            "[fd20:ce::254]:80",
            "[fd00:c1::a9fe:a9fe]:80",
            "168.63.129.16:80",
            "168.63.129.16:32526",
            "[64:ff9b:1::a9fe:a9fe]:80",
            "[64:ff9b:1:a9fe:a9:fe00::]:80",
            "[64:ff9b:1:a9:fe:a9fe::]:80",
            "[64:ff9b:1:0:a9:fea9:fe00:0]:80",
        ] {
            assert!(!usual.permits(to.parse().unwrap()), "{to}");
        }
        for to in [
            "127.0.0.1:8080",
            "0.0.0.0:8080",
            "[::1]:8080",
            "10.0.0.7:5432",
            "[2001:db8::1]:443",
            "[64:ff9b:1::a00:7]:80",
            "100.100.100.201:80",
            "168.63.129.16:53",
        ] {
            assert!(usual.permits(to.parse().unwrap()), "{to}");
        }
        // What the owner writes stands alone.
        assert!(probes(r#"{"deny": []}"#).permits("169.254.169.254:80".parse().unwrap()));
    }

    #[test]
    fn this_host_is_meant_by_the_address_of_nobody_too() {
        let others = probes(r#"{"deny": ["127.0.0.0/8", "::1"]}"#);
        let own = probes(r#"{"allow": ["127.0.0.0/8", "::1"]}"#);
        for to in ["0.0.0.0:80", "[::]:80", "127.0.0.1:80", "[::1]:80"] {
            assert!(!others.permits(to.parse().unwrap()), "{to}");
            assert!(own.permits(to.parse().unwrap()), "{to}");
        }
        for to in ["[::ffff:0.0.0.0]:80", "[::ffff:127.0.0.1]:80", "[64:ff9b::]:80", "[64:ff9b:1::]:80"] {
            assert!(!others.permits(to.parse().unwrap()), "{to}");
        }
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
        let load = |rate: &str| -> LoadProbe {
            serde_json::from_value(serde_json::json!({ "url": "http://a/", "rate": rate })).unwrap()
        };
        let twice = |rate: &str| LoadProbe { control: serde_json::from_str("{}").unwrap(), ..load(rate) };
        let slow = probes(r#"{"load": "50/s"}"#);
        assert!(slow.permits_load(&load("3000/m")) && !slow.permits_load(&load("51/s")));
        assert!(slow.permits_load(&twice("25/s")) && !slow.permits_load(&twice("26/s")));
        assert!(!Probes::default().permits_load(&load("1001/s")));
        assert!(probes(r#"{"load": null}"#).permits_load(&twice("20000/s")));
        assert!(!probes(r#"{"allow": []}"#).permits("10.1.0.1:8080".parse().unwrap()));
        assert!(serde_json::from_str::<Probes>(r#"{"alow": []}"#).is_err());
    }
}
